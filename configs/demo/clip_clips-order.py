"""The small CLIP on clips and their reverses, which mean pooling over frames can't tell apart.

python tools/make_clips.py data/order --kind order --test 200
python tools/test.py configs/demo/clip_clips-order.py configs/demo/clip_clips.pth
"""

_base_ = ['./clip_clips.py']

import sys  # noqa: E402

sys.path.insert(0, '{{ fileDirname }}/../..')  # where demo is
custom_imports = dict(imports=['fewtokens.openmmlab', 'fewtokens.retrieval', 'demo.scenes.direction'])
_order = dict(dataset=dict(data_root='data/order'))
train_dataloader = _order
val_dataloader = _order
test_dataloader = _order
val_evaluator = [dict(type='DirectionMetric'), dict(type='RetrievalMetric')]
test_evaluator = val_evaluator
