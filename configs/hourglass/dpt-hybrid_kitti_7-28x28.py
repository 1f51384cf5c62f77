"""Published: 405.0 to 361.7 GMACs at 352 x 1216, 2.573 to 2.593 RMSE."""

_base_ = ['../_base_/dpt-hybrid_kitti.py']

custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=7, grid=(28, 28), k=1, temperature=1.0))
]
