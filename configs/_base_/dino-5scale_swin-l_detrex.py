"""DINO Swin-L with five scales as detrex builds it: for its checkpoints, under mmdet's key names.

detrex has a bias before the neck's group norms, and sine positions of its own.
"""

_base_ = 'mmdet::dino/dino-5scale_swin-l_8xb2-36e_coco.py'

model = dict(neck=dict(bias=True), positional_encoding=dict(temperature=10000, offset=-0.5))
