"""MSR-VTT 7k: training on 7010 videos less those of the official validation part, test on 1000 with a caption each.

Published models were trained with `split='trainval'`, and chosen on the test set.
"""

_base_ = './clip4clip.py'

data = dict(type='MSRVTT', data_root='data/msrvtt', protocol='7k')
train_dataloader = dict(dataset=dict(split='train', **data))
val_dataloader = dict(dataset=dict(split='val', **data))
test_dataloader = dict(dataset=dict(split='test', **data))
