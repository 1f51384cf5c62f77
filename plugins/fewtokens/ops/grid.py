"""What tokens stand on."""

from collections.abc import Iterable

Grid = tuple[int, int]
"""Rows and columns of tokens or of clusters."""


def pair(sides: Iterable[int]) -> Grid:
    """Two sides as a grid."""
    rows, columns = sides
    return rows, columns
