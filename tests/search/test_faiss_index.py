from pathlib import Path

import numpy as np
import pytest

from fewtokens.search.faiss_index import build_index, read_index, write_index


def test_faiss_says_that_the_disk_is_full(tmp_path):
    vectors = unit(np.random.default_rng(0).normal(size=(50, 32)))
    for flat_up_to in (50, 49):
        index = build_index(vectors, flat_up_to)
        with pytest.raises(OSError, match='No space left on device'):
            write_index(index, Path('/dev/full'))
        write_index(index, tmp_path / 'index.faiss')
        for found, expected in zip(read_index(tmp_path / 'index.faiss').search(vectors, 3), index.search(vectors, 3)):
            np.testing.assert_array_equal(found, expected)


def test_inverted_lists_find_what_the_flat_index_finds():
    """Texts keep to a region of their own, away from the videos, as CLIP's do."""
    random = np.random.default_rng(0)
    mixing, videos_at, texts_at = random.normal(size=(16, 32)) / 4, *random.normal(size=(2, 32))
    meaning = random.normal(size=(4000, 16))
    videos = unit(1.2 * videos_at + meaning @ mixing + 0.4 * random.normal(size=(4000, 32)))
    texts = unit(1.2 * texts_at + (meaning[:200] + 0.5 * random.normal(size=(200, 16))) @ mixing)
    flat, lists = build_index(videos), build_index(videos, flat_up_to=3999)
    assert type(flat).__name__ == 'IndexFlatIP' and type(lists).__name__ == 'IndexIVFFlat'
    scores, expected = flat.search(texts, 10)
    np.testing.assert_allclose(scores, -np.sort(-(texts @ videos.T), axis=1)[:, :10], atol=1e-5)
    _, found = lists.search(texts, 10)
    recall = np.mean([len(set(a) & set(b)) / 10 for a, b in zip(expected, found)])
    assert recall >= 0.95


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)
