"""A real model on real photographs: a DINOv2 that somebody else trained, and what merging its tokens does to it."""
