"""MSR-VTT 1k-A: training on 9000 videos less those of the official validation part, test on 1000 with a caption each.

Published models were trained with `split='trainval'`, and chosen on the test set.
"""

_base_ = './clip4clip.py'

data = dict(type='MSRVTT', data_root='data/msrvtt', protocol='1k-A')
train_dataloader = dict(dataset=dict(split='train', **data))
val_dataloader = dict(dataset=dict(split='val', **data))
test_dataloader = dict(dataset=dict(split='test', **data))
