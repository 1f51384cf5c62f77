"""Real clips decoded, encoded, clustered, and the tokens that are kept drawn."""

import json
import os
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import open_clip
import pytest
import torch
from disk import room_for
from videos import REAL, moving_frames, write_video

from fewtokens.retrieval.medoid_picture import INK, MARK, Medoids, draw_medoids, find_medoids
from fewtokens.retrieval.model import ClipPreprocessor
from fewtokens.retrieval.transforms import LoadFrames
from fewtokens.video import SegmentClustering, VideoEncoder
from fewtokens.video.clip_models import build_clip

TOOL = Path(__file__).parents[2] / 'tools/draw_medoids.py'
CLIP = dict(
    embed_dim=64,
    vision_cfg=dict(image_size=224, patch_size=32, layers=4, width=384),
    text_cfg=dict(context_length=12, vocab_size=100, width=16, heads=2, layers=1),
)


@pytest.fixture(scope='module')
def visual():
    """A small ViT with random weights: early blocks still tell patches that look alike from those that don't."""
    torch.manual_seed(0)
    return build_clip(config=CLIP).visual.eval()


@pytest.fixture(scope='module', params=REAL, ids=lambda path: path.stem)
def frames(request):
    return LoadFrames(frames=8, rate=None)(dict(video_path=str(request.param)))['frames']


def normalised(frames):
    return ClipPreprocessor()(dict(inputs=[torch.from_numpy(frames).permute(0, 3, 1, 2)]))['inputs'][0]


@torch.no_grad()
@pytest.mark.parametrize('algorithm', ['kmedoids', 'spectral'])
def test_real_clips(visual, frames, algorithm):
    clustering = SegmentClustering(segments=4, clusters=20, algorithm=algorithm)
    encoder = VideoEncoder(visual, clustering, after=2)
    seen = []
    with clustering.register_forward_hook(lambda module, args, out: seen.append((args[0], out))):
        embedding = encoder(normalised(frames)[None])
        medoids = find_medoids(encoder, normalised(frames))
    assert embedding.shape == (1, 64) and embedding.norm().item() == pytest.approx(1)
    assert medoids.segments == [[0, 1], [2, 3], [4, 5], [6, 7]] and medoids.kept.shape == (8, 7, 7)
    tokens, out = seen[0][0][0, :, 1:], seen[0][1][0, :, 1:]
    for members, kept in zip(medoids.segments, out):
        assert torch.equal(tokens[members][torch.from_numpy(medoids.kept[members]).flatten(1)], kept)
    # Each token is nearer to the one that stands for it than to the nearest of as many at equal steps.
    parts, steps = tokens.unflatten(0, (4, 2)).flatten(1, 2), torch.arange(20) * 98 // 20
    if algorithm == 'kmedoids':
        nearest = [torch.cdist(parts, chosen).amin(2).mean().item() for chosen in (out, parts[:, steps])]
        assert nearest[0] < 0.95 * nearest[1]


def test_spans_of_unequal_length(visual):
    frames = np.stack([cv2.resize(frame, (224, 224)) for frame in moving_frames(5)])
    encoder = VideoEncoder(visual, SegmentClustering(segments=2, clusters=10), after=1)
    medoids = find_medoids(encoder, normalised(frames))
    assert medoids.segments == [[0, 1, 2], [3, 4]]
    assert [medoids.kept[members].sum() for members in medoids.segments] == [10, 10]


@pytest.mark.parametrize(
    ('clustering', 'message'),
    [
        (None, 'None has no medoids'),
        (SegmentClustering(segments=2, clusters=5, algorithm='sparse_sampling'), 'sparse_sampling.* has no medoids'),
        (SegmentClustering(segments=2, clusters=49), 'segments of 1 frames have 49 tokens, all of which'),
    ],
)
def test_nothing_to_draw(visual, clustering, message):
    with pytest.raises(ValueError, match=message):
        find_medoids(VideoEncoder(visual, clustering, after=1), torch.zeros(2, 3, 224, 224))


def test_picture():
    colour = (200, 120, 41)
    frames = np.full((3, 40, 40, 3), colour, np.uint8)
    kept = np.zeros((3, 2, 2), bool)
    kept[0, 0, 1] = kept[2, 1, 0] = True
    picture = draw_medoids(frames, Medoids([[0, 1], [2]], kept), [0, 0.5, 1], 't')
    assert picture.dtype == np.uint8 and picture.shape[2] == 3
    bright, dark = (picture == colour).all(2), (picture.max(2) < 100) & (picture.min(2) > INK[0])
    assert bright.sum() == 2 * 18 * 18 and dark.sum() >= 10 * 20 * 20
    assert (picture == MARK).all(2).sum() == 2 * (20 * 20 - 18 * 18)
    rows, columns = bright.nonzero()
    first = rows < rows.min() + 18
    assert columns[first].min() > columns[~first].max(), 'right above in the first frame, left below in the third'


def run(monkeypatch, capsys, *args):
    monkeypatch.setattr(sys, 'argv', ['draw_medoids.py', *map(str, args)])
    try:
        runpy.run_path(str(TOOL), run_name='__main__')
    except SystemExit as end:
        assert end.code == 2
    return capsys.readouterr()


def test_tool(tmp_path, monkeypatch, capsys):
    (tmp_path / 'small-clip.json').write_text(json.dumps(CLIP))
    open_clip.add_model_config(tmp_path / 'small-clip.json')
    small = ['--clip', 'small-clip']
    out = tmp_path / 'pictures/bikes.png'
    plugin = 'SegmentClustering(segments=2, clusters=9, after=1)'
    assert plugin in run(monkeypatch, capsys, REAL[1], *small, '--plugin', plugin, '--frames', 4, '--out', out).out
    assert cv2.imread(str(out)).shape[0] > 2 * 224 and list(out.parent.iterdir()) == [out]
    picture = out.read_bytes()
    with room_for(len(picture) // 2):
        result = run(monkeypatch, capsys, REAL[1], *small, '--plugin', plugin, '--frames', 4, '--out', out)
    assert result.err.splitlines()[-1] == f"error: [Errno 27] File too large: '{out}'"
    assert out.read_bytes() == picture and list(out.parent.iterdir()) == [out]
    odd = os.fsencode(tmp_path) + b'/\x1b[2J\xff\n.mp4'
    os.symlink(REAL[1], odd)
    out = tmp_path / 'a\x1b[2J.png'
    result = run(monkeypatch, capsys, os.fsdecode(odd), *small, '--plugin', plugin, '--frames', 4, '--out', out)
    assert result.out == f'{tmp_path}/a\\x1b[2J.png: {plugin}\n' and out.is_file()
    (tmp_path / 'empty.mp4').touch()
    clip = write_video(tmp_path / 'clip.mp4', moving_frames(4))
    for args, message in (
        ([tmp_path / 'empty.mp4'], 'empty.mp4: the file is empty'),
        ([clip, '--out', 'a.gif'], "--out 'a.gif' must end with .png or .jpg"),
        ([clip, '--clip', 'none'], "open_clip has no model 'none'"),
        ([clip, '--plugin', 'SegmentClustering(segments=2)'], 'clusters=None must be'),
        ([clip, *small, '--pretrained', 'none'], "'none' is no file of weights, nor a tag of small-clip"),
        ([clip, *small], 'after=6 must be between 0 and 3'),
    ):
        assert message in run(monkeypatch, capsys, *args).err.splitlines()[-1]
