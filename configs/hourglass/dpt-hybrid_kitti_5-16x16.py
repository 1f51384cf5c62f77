"""Published: 405.0 to 306.8 GMACs at 352 x 1216, 2.573 to 2.660 RMSE."""

_base_ = ['../_base_/dpt-hybrid_kitti.py']

custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=5, grid=(16, 16), k=1, temperature=1.0))
]
