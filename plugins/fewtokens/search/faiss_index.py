"""FAISS indexes of unit vectors: exact while that is quick, inverted lists above."""

import math
from pathlib import Path
from typing import Any

import numpy as np

FLAT_UP_TO = 200_000
"""Vectors that are searched one by one: at 512 numbers each 20 ms on a core, less than encoding the query takes."""


def build_index(embeddings: np.ndarray, flat_up_to: int = FLAT_UP_TO) -> Any:
    """An inner-product index of embeddings [n, D] float32.

    Above `flat_up_to` vectors: 4 sqrt(n) inverted lists, of which a search looks through a quarter. That is more than
    usual: texts lie farther from the videos than these from each other, and their true neighbours are spread wider.

    Raises:
        ImportError: faiss is not installed.
    """
    faiss = _faiss()
    n, dimensions = embeddings.shape
    index = faiss.IndexFlatIP(dimensions)
    if n > flat_up_to:
        lists = int(4 * math.sqrt(n))
        index = faiss.IndexIVFFlat(index, dimensions, lists, faiss.METRIC_INNER_PRODUCT)
        index.cp.max_points_per_centroid = 64
        index.nprobe = max(1, lists // 4)
        index.train(embeddings)
    index.add(embeddings)
    return index


def write_index(index: Any, path: Path) -> None:
    """Writes an index; raises an OSError, as Python's own files do, where the disk is full."""
    faiss = _faiss()
    with path.open('wb') as file:
        faiss.write_index(index, faiss.PyCallbackIOWriter(file.write))


def read_index(path: Path) -> Any:
    """Reads an index; raises a RuntimeError, FAISS's own, where the file is none."""
    return _faiss().read_index(str(path))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError('a video index needs faiss: pip install "fewtokens[video]"') from error
    return faiss
