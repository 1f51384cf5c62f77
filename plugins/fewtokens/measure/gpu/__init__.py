"""What is fast on a CUDA device: passes of timm's hosts, the ops, attention with a bias.

Needs torch, triton and timm.
"""
