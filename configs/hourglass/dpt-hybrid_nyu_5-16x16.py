"""Published: 280.1 to 219.6 GMACs at 480 x 640, 0.357 to 0.362 RMSE."""

_base_ = ['../_base_/dpt-hybrid_nyu.py']

custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=5, grid=(16, 16), k=1, temperature=1.0))
]
