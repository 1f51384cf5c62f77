"""MSR-VTT's official parts: 6513 videos, 497 and 2990, the last two with 20 captions each."""

_base_ = './clip4clip.py'

data = dict(type='MSRVTT', data_root='data/msrvtt', protocol='full')
train_dataloader = dict(dataset=dict(split='train', **data))
val_dataloader = dict(dataset=dict(split='val', **data))
test_dataloader = dict(dataset=dict(split='test', **data))
