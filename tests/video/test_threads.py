"""One CLIP in several threads and tasks: what each gets is what it would get alone."""

import asyncio
import copy
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewtokens.openmmlab.registry import parse_plugin
from fewtokens.plugin import attach_plugin
from fewtokens.video import SegmentClustering, VideoEncoder

open_clip = pytest.importorskip('open_clip')

TEXT = dict(context_length=8, vocab_size=50, width=32, heads=2, layers=1)
VISION = dict(layers=4, width=64, head_width=16, patch_size=8, image_size=32)


def make_clip(**vision):
    return open_clip.CLIP(32, VISION | vision, TEXT).eval()


def make_timm():
    pytest.importorskip('timm')
    return open_clip.timm_model.TimmModel('test_vit', 32, 160, pool='token', proj='linear').eval()


def kmedoids(segments=3, clusters=10, **options):
    return SegmentClustering(segments, clusters, **options).eval()


def videos(batch=2, frames=6, size=32):
    return torch.randn(batch, frames, 3, size, size)


def blocks_of(encoder):
    return encoder.visual.trunk.blocks if hasattr(encoder.visual, 'trunk') else encoder.visual.transformer.resblocks


def during_a_pass(encoder, video, work):
    """Does `work` here while another thread's pass stands before the last block. Both results."""
    arrived, go_on, me = threading.Event(), threading.Event(), threading.current_thread()

    def wait(block, args):
        if threading.current_thread() is not me:
            arrived.set()
            assert go_on.wait(60)

    handle = blocks_of(encoder)[-1].register_forward_pre_hook(wait)
    with ThreadPoolExecutor(1) as pool:
        there = pool.submit(torch.no_grad()(encoder), video)
        try:
            assert arrived.wait(60)
            here = work()
        finally:
            go_on.set()
            handle.remove()
        return there.result(), here


@torch.no_grad()
@pytest.mark.parametrize(
    'tower, size',
    [(make_clip, 32), (lambda: make_clip(qk_norm=True), 32), (make_timm, 160)],
    ids=['open_clip', 'its own blocks', 'timm'],
)
def test_what_runs_during_a_pass_does_not_see_it(tower, size):
    clip = tower()
    encoder, other = VideoEncoder(clip, kmedoids(size_bias=True), after=2), VideoEncoder(clip, kmedoids(1, 5), after=1)
    plain, first, second = VideoEncoder(clip), videos(2, 6, size), videos(3, 4, size)
    images = plain.visual
    names = list(clip.state_dict())
    for work in (
        lambda: images(second[0]),
        lambda: plain(second),
        lambda: other(second),
        lambda: encoder(second),
        lambda: VideoEncoder(copy.deepcopy(clip), kmedoids(1, 5), after=1)(second),
    ):
        alone = encoder(first), work()
        for found, expected in zip(during_a_pass(encoder, first, work), alone):
            torch.testing.assert_close(found, expected)
    blocks = blocks_of(encoder)
    _, seen = during_a_pass(encoder, first, lambda: (blocks_of(encoder), list(clip.state_dict())))
    assert seen == (blocks, names)


@torch.no_grad()
def test_many_passes_in_many_threads():
    clip = make_clip()
    encoders = [VideoEncoder(clip), *(VideoEncoder(clip, kmedoids(n, 5), after=n) for n in (1, 2, 3))]
    batches = [videos(batch, frames) for batch, frames in ((1, 3), (2, 6), (3, 5))]
    masks = [torch.arange(len(video[0])) < torch.arange(1, len(video) + 1)[:, None] + 1 for video in batches]
    jobs = [(encoder, video, mask) for encoder in encoders for video, mask in zip(batches, masks)]
    alone = [encoder(video, mask) for encoder, video, mask in jobs]

    def work(index):
        with torch.no_grad():
            encoder, video, mask = jobs[index]
            return encoder(video, mask)

    order = torch.randperm(5 * len(jobs)).tolist()
    with ThreadPoolExecutor(6) as pool:
        for place, found in zip(order, pool.map(lambda place: work(place % len(jobs)), order)):
            torch.testing.assert_close(found, alone[place % len(jobs)])


@pytest.mark.parametrize('checkpointed', [False, True])
def test_training_in_several_threads(checkpointed):
    """Gradients of weights that nobody else has."""
    clip = make_clip()
    clip.set_grad_checkpointing(checkpointed)
    encoders = [VideoEncoder(clip, kmedoids(n, 8, cluster_embedding=True, width=64), after=n) for n in (1, 2, 3)]
    batches = [videos(2, 6) for _ in encoders]

    def gradient(encoder, video):
        (out,) = torch.autograd.grad(encoder(video)[:, 0].sum(), encoder.clustering.cluster_embedding)
        return out

    alone = [gradient(*job) for job in zip(encoders, batches)]
    with ThreadPoolExecutor(3) as pool:
        for _ in range(4):
            for found, expected in zip(pool.map(gradient, encoders, batches), alone):
                torch.testing.assert_close(found, expected)


@torch.no_grad()
def test_a_failed_pass_is_no_harm_to_others():
    clip, video = make_clip(), videos()
    encoder, failing = VideoEncoder(clip, kmedoids(), after=2), VideoEncoder(clip, kmedoids(3, 40), after=2)

    def fail():
        with pytest.raises(ValueError, match='clusters=40'):
            failing(video)

    expected = encoder(video)
    torch.testing.assert_close(during_a_pass(encoder, video, fail)[0], expected)


@torch.no_grad()
def test_settings_that_change_during_a_pass_are_for_the_next():
    encoder, video = VideoEncoder(make_clip(), kmedoids(), after=2), videos()
    one, schedule = encoder(video), ([kmedoids(3, 9), kmedoids(2, 5)], [0, 1])
    found, _ = during_a_pass(encoder, video, lambda: encoder.cluster_with(*schedule))
    torch.testing.assert_close(found, one)
    assert encoder.after == [0, 1] and [stage.segments for stage in encoder.clustering] == [3, 2]
    two = encoder(video)
    found, _ = during_a_pass(encoder, video, lambda: encoder.cluster_with(None))
    torch.testing.assert_close(found, two)


@torch.no_grad()
def test_clustering_and_place_change_together():
    encoder, video = VideoEncoder(make_clip()), videos(1, 4)
    settings = [(kmedoids(2, 5), 1), ([kmedoids(4, 9), kmedoids(2, 3)], (0, 2)), (None, 3)]
    expected = []
    for setting in settings:
        encoder.cluster_with(*setting)
        expected.append(encoder(video))
    end = threading.Event()

    def change():
        while not end.is_set():
            for setting in settings:
                encoder.cluster_with(*setting)

    with ThreadPoolExecutor(1) as pool, ExitStack() as stack:
        pool.submit(change)
        stack.callback(end.set)
        for _ in range(40):
            out = encoder(video)
            assert any(torch.allclose(out, one, atol=1e-6) for one in expected)


@torch.no_grad()
def test_using_is_of_a_thread():
    encoder, video = VideoEncoder(make_clip(), kmedoids(), after=2), videos()
    settings = [(None, 0), (kmedoids(2, 5), 1), ([kmedoids(3, 9), kmedoids(1, 5)], [0, 3])]
    own, alone = encoder(video), []
    for setting in settings:
        with encoder.using(*setting):
            alone.append(encoder(video))
    all_in, all_done = threading.Barrier(len(settings) + 1), threading.Barrier(len(settings) + 1)

    def work(setting):
        with torch.no_grad():
            with encoder.using(*setting):
                all_in.wait(60)
                found = encoder(video)
                all_done.wait(60)
            return found, encoder(video)

    with ThreadPoolExecutor(len(settings)) as pool:
        jobs = [pool.submit(work, setting) for setting in settings]
        all_in.wait(60)
        assert encoder.after == 2 and torch.equal(encoder(video), own)
        all_done.wait(60)
        for job, expected in zip(jobs, alone):
            torch.testing.assert_close(job.result(), (expected, own))
    assert encoder.after == 2 and torch.equal(encoder(video), own)


@torch.no_grad()
def test_using_is_of_a_task():
    encoder, video = VideoEncoder(make_clip(), kmedoids(), after=2), videos()
    settings = [(None, 0), (kmedoids(2, 5), 1)]
    own, alone = encoder(video), []
    for setting in settings:
        with encoder.using(*setting):
            alone.append(encoder(video))

    async def work(setting, others):
        with encoder.using(*setting):
            await others.wait()
            inside = encoder(video), await asyncio.to_thread(torch.no_grad()(encoder), video)
            await others.wait()
        return *inside, encoder(video)

    async def both():
        # A barrier; asyncio's own came with Python 3.11.
        class Others:
            here, turn = 0, asyncio.Event()

            async def wait(self):
                self.here, turn = self.here + 1, self.turn
                if self.here % len(settings) == 0:
                    self.turn = asyncio.Event()
                    turn.set()
                await turn.wait()

        others = Others()
        return await asyncio.gather(*(work(setting, others) for setting in settings))

    for found, expected in zip(asyncio.run(both()), alone):
        torch.testing.assert_close(found, (expected, expected, own))
    assert torch.equal(encoder(video), own)


@torch.no_grad()
def test_a_plugin_counts_every_pass_with_its_own_tokens():
    encoder = VideoEncoder(make_clip())
    text = 'SegmentClustering(segments=2, clusters=5, after=1)'
    batches = [videos(1, frames) for frames in (2, 4, 6, 7)]
    with attach_plugin(nn.Sequential(encoder), parse_plugin(text)) as attachment:
        alone = [encoder(video) for video in batches]
        seen = set()

        def work(place):
            with torch.no_grad():
                found = encoder(batches[place])
            seen.add((attachment.summary().splitlines()[-1], attachment.token_counts[1]))
            return found

        with ThreadPoolExecutor(4) as pool:
            for place, found in enumerate(pool.map(work, [0, 1, 2, 3] * 25)):
                torch.testing.assert_close(found, alone[place % 4])
        assert attachment.passes == 104
        assert seen <= {(f'  a video of {n} frames: {17 * n} tokens became 12', 12) for n in (2, 4, 6, 7)}
        found, _ = during_a_pass(encoder, batches[3], lambda: encoder(batches[0]))
        torch.testing.assert_close(found, alone[3])
        assert attachment.input_shape[1] == 7 and attachment.token_counts == (7 * 17, 12) and attachment.passes == 106


@torch.no_grad()
def test_a_pass_without_the_plugins_clustering_does_not_count():
    encoder = VideoEncoder(make_clip())
    with attach_plugin(encoder, parse_plugin('SegmentClustering(segments=2, clusters=5, after=1)')) as attachment:
        encoder(videos(1, 4))
        with encoder.using(None):
            encoder(videos(1, 6))
        with pytest.raises(ValueError, match='segments=2'):
            encoder(videos(1, 1))
        assert attachment.passes == 1 and attachment.token_counts == (4 * 17, 12)


def test_settings_are_not_changed_where_using_hides_them():
    encoder = VideoEncoder(make_clip(), kmedoids(), after=2)
    with encoder.using(None):
        with pytest.raises(ValueError, match=r'using\(\) another clustering'):
            encoder.cluster_with(kmedoids(1, 5), 1)
        with pytest.raises(ValueError, match=r'using\(\) another clustering'):
            attach_plugin(encoder, parse_plugin('SegmentClustering(segments=2, clusters=5, after=1)'))
    assert encoder.after == 2 and encoder.clustering.segments == 3


def with_another_forward(clip):
    """A forward of the user's own, as a method: each frame upside down."""
    visual, forward = clip.visual, type(clip.visual).forward
    visual.forward = (lambda self, x: forward(self, x.flip(2))).__get__(visual)
    return clip


@torch.no_grad()
def test_a_forward_of_the_users_own():
    clip, video = make_clip(), videos()
    expected = VideoEncoder(clip, kmedoids(), after=2)(video.flip(3))
    torch.testing.assert_close(VideoEncoder(with_another_forward(clip), kmedoids(), after=2)(video), expected)
    clip = make_clip()
    clip.visual.forward = clip.visual.forward.__func__.__get__(make_clip().visual)
    plain = clip.encode_image(video[0], normalize=True).mean(dim=0)
    torch.testing.assert_close(VideoEncoder(clip)(video)[0], F.normalize(plain, dim=0))
    with pytest.raises(ValueError, match='a forward put in place of its own runs other blocks'):
        VideoEncoder(clip, kmedoids(), after=2)(video)


@torch.no_grad()
def test_hooks_on_the_tower_see_each_pass():
    clip, seen = make_clip(), []
    for module in (clip.visual, clip.visual.transformer, clip.visual.transformer.resblocks[3]):
        module.register_forward_hook(lambda module, args, out: seen.append(type(module).__name__))
    VideoEncoder(clip, kmedoids(), after=2)(videos())
    assert seen == ['ResidualAttentionBlock', 'Transformer', 'VisionTransformer']
