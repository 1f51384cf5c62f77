"""Kernels for CUDA devices, one file an op: imported where a call runs on them, and nowhere else.

Each computes what the PyTorch form of its op does, in float32, forward only, and waits for nothing.
"""
