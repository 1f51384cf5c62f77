"""What tokens stand on."""

Grid = tuple[int, int]
"""Rows and columns of tokens or of clusters."""
