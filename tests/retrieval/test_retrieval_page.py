import re

import pytest
import torch
from mmengine.registry import METRICS
from videos import moving_frames, write_video

from fewtokens.retrieval.retrieval_page import FOUND, TEXTS


@pytest.fixture
def samples(tmp_path):
    """Nine videos, the last not readable; text i is nearest to video 0, then 1, and so on."""
    videos = torch.eye(9)
    for i in range(8):
        write_video(tmp_path / f'{i}.mp4', moving_frames(3, seed=i))
    (tmp_path / '8.mp4').write_bytes(b'gone')
    text = torch.linspace(0.9, 0.1, 9)
    return [
        dict(
            video_id=f'v{i}',
            video_path=str(tmp_path / f'{i}.mp4'),
            texts=[f'<b>{i} {j}</b>' for j in range(4)],
            video_embedding=videos[i],
            text_embeddings=text.expand(4, -1),
        )
        for i in range(9)
    ]


def test_right_videos_are_framed_and_have_their_place(samples, tmp_path):
    page = METRICS.build(dict(type='RetrievalPage', out_dir=str(tmp_path / 'page')))
    page.process(None, samples[:5])
    page.process(None, samples[5:])
    assert page.evaluate(9) == {}
    text = (tmp_path / 'page/index.html').read_text()
    assert f'{TEXTS} of 36 texts, and the nearest of 9 videos' in text and '<b>' not in text and 'http' not in text
    for section in text.split('<section>')[1:]:
        owner = int(re.search(r'&lt;b&gt;(\d)', section)[1])
        captions = re.findall(
            r'<figure( class="right")?>.*?<figcaption>(\d+)\. (\d)\.mp4, ([\d.]+)(.*?)<', section, re.S
        )
        shown = [*range(FOUND)] + ([owner] if owner >= FOUND else [])
        assert [(int(rank) - 1, int(name)) for _, rank, name, _, _ in captions] == [(i, i) for i in shown]
        assert [bool(right) for right, *_ in captions] == [i == owner for i in shown]
        assert [float(score) for *_, score, _ in captions] == pytest.approx([0.9 - 0.1 * i for i in shown])
        assert [', cannot be read' in problem for *_, problem in captions] == [i == 8 for i in shown]
        assert section.count('<img') == len(shown) - (owner == 8)


def test_names_that_steer_terminals_are_escaped(samples, tmp_path):
    odd = tmp_path / '\x1b[31m\u202e4pm.\udcff\n.mp4'
    (tmp_path / '0.mp4').rename(odd)
    samples[0]['video_path'] = str(odd)
    page = METRICS.build(dict(type='RetrievalPage', out_dir=str(tmp_path / 'page')))
    page.process(None, samples[:1])
    page.evaluate(1)
    text = (tmp_path / 'page/index.html').read_text()
    assert text.count(r'1. \x1b[31m\u202e4pm.?\n.mp4, 0.900') == 4 and '\x1b' not in text and '\u202e' not in text
    assert 'cannot be read' not in text


def test_few_texts_are_all_shown(samples, tmp_path):
    page = METRICS.build(dict(type='RetrievalPage', out_dir=str(tmp_path)))
    page.process(None, samples[:2])
    page.evaluate(2)
    text = (tmp_path / 'index.html').read_text()
    assert text.count('<section>') == 8 and text.count('<img') == 16
