"""Published: 620 GMACs, 55.8 to 55.5 mIoU."""

_base_ = 'mmseg::mask2former/mask2former_swin-l-in22k-384x384-pre_8xb2-160k_ade20k-640x640.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=8, grid=(8, 8)))]
