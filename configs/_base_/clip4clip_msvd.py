"""MSVD: 1200 videos, 100 and 670, with about 40 captions each."""

_base_ = './clip4clip.py'

data = dict(type='MSVD', data_root='data/msvd')
train_dataloader = dict(dataset=dict(split='train', **data))
val_dataloader = dict(dataset=dict(split='val', **data))
test_dataloader = dict(dataset=dict(split='test', **data))
