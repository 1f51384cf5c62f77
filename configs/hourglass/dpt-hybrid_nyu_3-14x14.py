"""Published: 280.1 to 197.5 GMACs at 480 x 640, 0.357 to 0.364 RMSE."""

_base_ = ['../_base_/dpt-hybrid_nyu.py']

custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=3, grid=(14, 14), k=1, temperature=1.0))
]
