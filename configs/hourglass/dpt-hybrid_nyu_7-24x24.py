"""Published: 280.1 to 252.1 GMACs at 480 x 640, 0.357 to 0.360 RMSE."""

_base_ = ['../_base_/dpt-hybrid_nyu.py']

custom_hooks = [
    dict(type='FewTokensHook', sdpa=True, reducer=dict(type='Hourglass', after=7, grid=(24, 24), k=1, temperature=1.0))
]
