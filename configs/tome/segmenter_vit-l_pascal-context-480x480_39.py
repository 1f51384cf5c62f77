"""Published: 338.7 to 172.4 GMACs, 58.07 to 54.25 mIoU, as 50 %: how many tokens fits the GMACs."""

_base_ = '../_base_/segmenter_vit-l_pascal-context-480x480.py'

custom_imports = dict(imports=['fewtokens.openmmlab'])
custom_hooks = [dict(type='FewTokensHook', sdpa=True, reducer=dict(type='ToMe', after=tuple(range(24)), tokens=39))]
