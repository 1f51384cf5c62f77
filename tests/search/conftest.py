import pytest

import fewtokens.openmmlab  # noqa: F401  before any other OpenMMLab package
from fewtokens.search.index import VideoIndex


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'videos'
    (folder / 'more').mkdir(parents=True)
    for name, content in {'a.mp4': 'a', 'b.MKV': 'b', 'more/c.mp4': 'c', 'd.webm': 'd', 'e.avi': 'e'}.items():
        (folder / name).write_text(content)
    (folder / 'notes.txt').write_text('no video')
    (folder / '.hidden.mp4').write_text('h')
    return folder


@pytest.fixture
def index(tmp_path):
    return VideoIndex(tmp_path / 'index')
