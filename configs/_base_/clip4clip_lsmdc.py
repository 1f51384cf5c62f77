"""LSMDC: clips of films, tested on 1000 of them."""

_base_ = './clip4clip.py'

data = dict(type='LSMDC', data_root='data/lsmdc')
train_dataloader = dict(dataset=dict(split='train', **data))
val_dataloader = dict(dataset=dict(split='val', **data))
test_dataloader = dict(dataset=dict(split='test', **data))
