import copy
import pickle

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewtokens.ops import k_medoids, spectral_medoids
from fewtokens.video import SegmentClustering
from fewtokens.video.settings import parse_clustering

PUBLISHED = {'kmediods++': 'kmedoids'}
"""The published code's own spelling, as the golden cases have it."""

EVERY = [
    dict(clusters=5),
    dict(clusters=5, aggregate='mean'),
    dict(clusters=5, p=1.0),
    dict(clusters=5, metric='cosine'),
    dict(clusters=5, normalize=True),
    dict(clusters=5, exact=True),
    dict(clusters=5, algorithm='spectral'),
    dict(clusters=5, algorithm='spectral', graph='knn', knn=4, aggregate='mean'),
    dict(clusters=5, algorithm='spectral', window=(1, 1)),
    dict(clusters=5, algorithm='spectral', graph='looped_heat'),
    dict(clusters=5, algorithm='spectral', graph='heat_knn'),
    dict(clusters=5, algorithm='sparse_sampling'),
    dict(algorithm='pooling'),
    dict(segments=None, algorithm='temporal_shift'),
    dict(segments=None, algorithm='token_shift'),
    dict(segments=None, algorithm='token_shift_blocks'),
]


def make(segments=3, **options):
    return SegmentClustering(**dict(dict(segments=segments), **options)).eval()


def videos(batch=2, frames=6, patches=9, width=16, prefix=1):
    return torch.randn(batch, frames, prefix + patches, width)


@pytest.mark.parametrize('name', ['segment41', 'segment43', 'segment46', 'segment48'])
def test_published_outputs(golden, features, name):
    meta, stored = golden[name]
    batch, frames, width, side = meta['batch'], meta['frames'], meta['width'], round(meta['tokens'] ** 0.5)
    first = np.random.RandomState(meta['seed'] + 500).standard_normal((batch * frames, 1, width))
    patches = features(meta['seed'], (batch * frames, side, side, width))
    tokens = torch.cat((torch.from_numpy(first.astype(np.float32)), patches), dim=1).unflatten(0, (batch, frames))
    algorithm = PUBLISHED.get(meta['algorithm'], meta['algorithm'])
    clustering = make(
        meta['segments'], clusters=meta['clusters'], algorithm=algorithm, aggregate=meta['aggregate'] or 'medoid'
    )
    torch.testing.assert_close(clustering(tokens).flatten(0, 1), stored['out'])


@pytest.mark.parametrize('select, options', [(k_medoids, {}), (spectral_medoids, dict(algorithm='spectral'))])
def test_clusters_each_segments_patches(select, options):
    tokens = videos()
    out = make(clusters=5, **options)(tokens)
    mean = make(clusters=5, aggregate='mean', **options)(tokens)
    for video in range(2):
        for s in range(3):
            part = tokens[video, 2 * s : 2 * s + 2]
            patches = part[:, 1:].reshape(-1, 16)
            medoids, labels = (found[0] for found in select(patches[None], 5))
            assert torch.allclose(out[video, s, 0], part[:, 0].mean(dim=0))
            assert torch.equal(out[video, s, 1:], patches[medoids])
            means = torch.stack([patches[labels == k].mean(dim=0) for k in range(5)])
            assert torch.allclose(mean[video, s, 1:], means, atol=1e-6)


def test_window_counts_frames_and_patches():
    tokens = videos(1, 3, 12)
    positions = torch.cartesian_prod(torch.arange(3), torch.arange(3), torch.arange(4))
    expected = spectral_medoids(tokens[:, :, 1:].flatten(1, 2), 5, positions=positions, window=(1, 2, 2))[0][0]
    out = make(1, clusters=5, algorithm='spectral', window=(1, 2))(tokens, grid=(3, 4))
    assert torch.equal(out[0, 0, 1:], tokens[0, :, 1:].flatten(0, 1)[expected])


def test_pooling_averages_frames():
    tokens = videos()
    assert torch.allclose(make(algorithm='pooling')(tokens), tokens.unflatten(1, (3, 2)).mean(dim=2))


def test_sparse_sampling_takes_one_token_of_each_part():
    tokens = videos()
    patches = tokens[:, :, 1:].reshape(2, 3, 18, 16)
    clustering = make(clusters=5, algorithm='sparse_sampling')
    middle = [int(18 / 5 * (i + 0.5)) for i in range(5)]
    assert torch.equal(clustering(tokens)[:, :, 1:], patches[:, :, middle])
    clustering.train()
    seen = set()
    for _ in range(60):
        drawn = clustering(tokens)[0, 0, 1:]
        places = [int((patches[0, 0] == token).all(dim=1).nonzero()) for token in drawn]
        assert [place * 5 // 18 for place in places] == list(range(5))
        seen |= set(places)
    assert len(seen) == 18


def test_shifts_move_channels_by_a_frame():
    tokens = videos(1, 4)
    expected = tokens.clone()
    expected[:, :3, 1:, :2] = tokens[:, 1:, 1:, :2]
    expected[:, 3, 1:, :2] = 0
    expected[:, 1:, 1:, 2:4] = tokens[:, :3, 1:, 2:4]
    expected[:, 0, 1:, 2:4] = 0
    assert torch.equal(make(None, algorithm='temporal_shift')(tokens), expected)
    expected[:, :, 0], expected[:, :, 1:] = tokens[:, :, 0], tokens[:, :, 1:]
    expected[:, :, 0, :4] = 0
    expected[:, :3, 0, :2], expected[:, 1:, 0, 2:4] = tokens[:, 1:, 0, :2], tokens[:, :3, 0, 2:4]
    assert torch.equal(make(4, algorithm='token_shift')(tokens), expected)
    assert torch.equal(make(None, algorithm='token_shift_blocks')(tokens), expected)


@pytest.mark.parametrize('patches, knn', [(9, 15), (49, 15), (100, 20), (196, 20)])
def test_published_neighbours_follow_the_number_of_frames(patches, knn):
    tokens = videos(1, 3, patches)
    given = make(1, clusters=4, algorithm='spectral', graph='heat_knn')(tokens)
    assert torch.equal(given, make(1, clusters=4, algorithm='spectral', graph='heat_knn', knn=knn)(tokens))


def test_exact_medoids_are_those_of_the_op():
    tokens = videos(2, 4, 49)
    medoids, _ = make(2, clusters=49, exact=True).medoids(tokens[:, :2, 1:].flatten(1, 2), 2)
    assert torch.equal(medoids, k_medoids(tokens[:, :2, 1:].flatten(1, 2), 49, exact=True)[0])


def test_cluster_embedding_starts_from_positions():
    visual = nn.Module()
    visual.positional_embedding = nn.Parameter(torch.randn(10, 16))
    clustering = make(clusters=5, cluster_embedding='positions', width=16)
    assert not clustering.cluster_embedding.any()
    clustering.start_from_positions(visual)
    assert torch.equal(clustering.cluster_embedding, visual.positional_embedding[1:6])
    assert clustering.cluster_embedding.requires_grad
    for wrong in (nn.Module(), make(clusters=5)):
        with pytest.raises(ValueError, match='clusters=5 cannot start from positions None'):
            clustering.start_from_positions(wrong)
    with pytest.raises(ValueError, match=r'clusters=10 cannot start from positions \(10, 16\)'):
        make(clusters=10, cluster_embedding='positions', width=16).start_from_positions(visual)
    with pytest.raises(ValueError, match=r'width=8 is not that of the positions \(10, 16\)'):
        make(clusters=5, cluster_embedding='positions', width=8).start_from_positions(visual)


@pytest.mark.parametrize('options', EVERY)
def test_a_video_does_not_depend_on_its_batch_or_on_padding(options):
    tokens = videos(3, 7)
    tokens[1, 5:] = float('nan')
    tokens[2, [0, 4]] = float('inf')
    mask = tokens.isfinite().all(dim=3).all(dim=2)
    clustering = make(**options)
    out, real = clustering(tokens, mask, grid=(3, 3)), clustering.segment_mask(mask)
    for video in range(3):
        alone = clustering(tokens[video : video + 1, mask[video]], grid=(3, 3))
        assert real[video].sum() == alone.shape[1]
        assert torch.equal(out[video][real[video]], alone[0])
    assert torch.equal(clustering(tokens[:1], grid=(3, 3)), clustering(tokens[:1], mask[:1], grid=(3, 3)))


@pytest.mark.parametrize('frames, lengths', [(7, [3, 2, 2]), (8, [3, 3, 2]), (12, [4, 4, 4]), (3, [1, 1, 1])])
def test_frames_are_split_evenly(frames, lengths):
    tokens = torch.arange(frames).float()[None, :, None, None].expand(1, frames, 5, 8)
    parts = torch.arange(frames).float().split(lengths)
    assert torch.allclose(make(algorithm='pooling')(tokens)[0, :, 0, 0], torch.stack([part.mean() for part in parts]))


@pytest.mark.parametrize('algorithm', ['kmedoids', 'spectral', 'sparse_sampling'])
def test_a_short_video_repeats_its_tokens_and_masks_segments(algorithm):
    tokens = videos(2, 6)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    clustering = make(clusters=12, algorithm=algorithm)
    out = clustering(tokens, mask)
    assert clustering.segment_mask(mask).tolist() == [[True] * 3, [True, True, False]]
    # Nine tokens on twelve places: all of them, in order, none more than twice.
    places = torch.arange(12) * 9 // 12
    assert torch.equal(out[1, :2, 1:], tokens[1, :2, 1:][:, places])
    assert torch.equal(out[1, 2], torch.zeros(13, 16))


@pytest.mark.parametrize('options', EVERY)
def test_values_have_gradients_and_padding_has_none(options):
    tokens = videos(2, 6).requires_grad_()
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    clustering = make(**options)
    out = clustering(tokens, mask, grid=(3, 3))
    out[clustering.segment_mask(mask)].square().sum().backward()
    assert tokens.grad[0].abs().sum() > 0 and tokens.grad.isfinite().all()
    assert tokens.grad[1, 4:].abs().max() == 0


@pytest.mark.parametrize('options', EVERY)
@pytest.mark.parametrize('dtype', [torch.bfloat16, torch.float64])
def test_types_and_strides_are_kept(options, dtype):
    tokens = videos().to(dtype)
    clustering = make(**options)
    out = clustering(tokens, grid=(3, 3))
    assert out.dtype == dtype
    assert torch.equal(clustering(tokens.transpose(0, 1).contiguous().transpose(0, 1), grid=(3, 3)), out)


@pytest.mark.parametrize('options', EVERY)
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('autocast', [False, True])
def test_half_precision_rounds_what_float32_gives(options, dtype, autocast):
    """A sum over the segments' two hundred tokens is beyond float16."""
    tokens = (videos(patches=100) * 100 + 900).to(dtype)
    tokens[:, :, 0] += 20000
    sizes = torch.randint(1, 400, tokens.shape[:3])
    clustering = make(**options)
    expected, counts = clustering(tokens.float(), grid=(10, 10), sizes=sizes.float(), return_sizes=True)
    with torch.autocast('cpu', dtype, enabled=autocast):
        for given in (sizes, sizes.to(torch.float16)):
            out, kept = clustering(tokens, grid=(10, 10), sizes=given, return_sizes=True)
            assert out.dtype == dtype and torch.equal(out, expected.to(dtype)) and expected.to(dtype).isfinite().all()
            torch.testing.assert_close(kept, counts)


@pytest.mark.parametrize('prefix', [0, 1, 5])
@pytest.mark.parametrize('options', EVERY[:-2])
def test_any_number_of_prefix_tokens(options, prefix):
    tokens = videos(prefix=prefix)
    out = make(**options)(tokens, num_prefix_tokens=prefix, grid=(3, 3))
    without = make(**options)(tokens[:, :, prefix:], num_prefix_tokens=0, grid=(3, 3))
    assert torch.equal(out[:, :, prefix:], without)


def test_embeddings_start_at_nothing_and_learn():
    tokens = videos(2, 5)
    mask = torch.tensor([[True] * 5, [False] + [True] * 4])
    clustering = make(clusters=5, cluster_embedding=True, frame_embedding=8, width=16)
    assert torch.equal(clustering(tokens, mask), make(clusters=5)(tokens, mask))
    torch.nn.init.normal_(clustering.cluster_embedding)
    torch.nn.init.normal_(clustering.frame_embedding)
    moved = tokens.clone()
    moved[0] += clustering.frame_embedding[:5, None]
    moved[1, 1:] += clustering.frame_embedding[:4, None]
    expected = make(clusters=5)(moved, mask)
    expected[:, :, 1:] += clustering.cluster_embedding
    out = clustering(tokens, mask)
    assert torch.allclose(out, expected)
    out.sum().backward()
    assert clustering.cluster_embedding.grad.abs().sum() > 0 and clustering.frame_embedding.grad[:5].abs().sum() > 0


def test_copies_and_pickles():
    tokens = videos()
    clustering = make(clusters=5, cluster_embedding=True, width=16)
    for other in (copy.deepcopy(clustering), pickle.loads(pickle.dumps(clustering))):
        assert torch.equal(other(tokens), clustering(tokens))


@pytest.mark.parametrize('options', [dict(clusters=4), dict(clusters=4, algorithm='spectral')])
@pytest.mark.parametrize(
    'tokens', [torch.zeros(2, 4, 5, 8), torch.full((2, 4, 5, 8), float('nan')), torch.ones(1, 4, 5, 8)]
)
def test_equal_and_not_finite_tokens_end_well(options, tokens):
    assert make(2, **options)(tokens).shape == (len(tokens), 2, 5, 8)


@pytest.mark.parametrize('options', EVERY)
def test_sizes_count_all_tokens(options):
    tokens, clustering = videos(2, 6), make(**options)
    out, sizes = clustering(tokens, grid=(3, 3), return_sizes=True)
    assert torch.equal(out, clustering(tokens, grid=(3, 3))) and sizes.shape == out.shape[:3]
    assert torch.allclose(sizes.sum(dim=(1, 2)), torch.tensor(6 * 10.0))
    if clustering.algorithm in ('kmedoids', 'spectral'):
        labels = clustering.medoids(tokens[:, :, 1:].unflatten(1, (3, 2)).flatten(0, 1).flatten(1, 2), 2, (3, 3))[1]
        members = torch.stack([row.bincount(minlength=5) for row in labels]).float()
        assert torch.equal(sizes.flatten(0, 1), F.pad(members, (1, 0), value=2.0))


@pytest.mark.parametrize('algorithm', ['kmedoids', 'spectral', 'sparse_sampling'])
def test_sizes_of_short_videos_and_of_tokens_that_stand_for_several(algorithm):
    tokens, clustering = videos(2, 6), make(clusters=12, algorithm=algorithm)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    given = torch.rand(2, 6, 10) + 1
    _, sizes = clustering(tokens, mask, sizes=given, return_sizes=True)
    assert torch.allclose(sizes[0].sum(), given[0].sum())
    # A frame whose nine tokens are on twelve places: those on two places count half on each.
    places = torch.arange(12) * 9 // 12
    assert torch.allclose(sizes[1, :2, 1:], (given[1, :2, 1:] / places.bincount())[:, places])
    assert torch.equal(sizes[1, 2], torch.ones(13))


@pytest.mark.parametrize(
    'options, message',
    [
        (dict(algorithm='kmeans'), "'kmeans' must be one of kmedoids"),
        (dict(aggregate='sum'), "'sum'"),
        (dict(segments=0), 'segments=0'),
        (dict(segments=None), 'segments=None'),
        (dict(clusters=None), 'clusters=None'),
        (dict(clusters=2.5), 'clusters=2.5'),
        (dict(window=(1, 1)), "window=.* is for algorithm='spectral'"),
        (dict(cluster_embedding=True), 'width=None'),
        (dict(algorithm='pooling', cluster_embedding=True, width=4), 'no clusters: cluster_embedding'),
        (dict(algorithm='pooling', size_bias=True), 'pooling has no clusters: size_bias is for kmedoids'),
    ],
)
def test_bad_settings_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        make(**dict(dict(clusters=5), **options))


@pytest.mark.parametrize(
    'options, inputs, message',
    [
        (dict(), dict(tokens=videos()[0]), r'\[B, T, 1 \+ L, C\]'),
        (dict(), dict(tokens=videos(frames=0)), 'T, L >= 1'),
        (dict(), dict(tokens=videos(patches=0)), 'T, L >= 1'),
        (dict(segments=7), dict(), 'segments=7 must be at most the number of frames, 6'),
        (dict(clusters=19), dict(), "clusters=19 must be at most a segment's number of tokens, 18"),
        (dict(algorithm='token_shift'), dict(), 'segments=3 must be 6'),
        (dict(algorithm='token_shift_blocks', segments=None), dict(num_prefix_tokens=0), 'token_shift_blocks needs'),
        (dict(algorithm='token_shift', segments=None), dict(num_prefix_tokens=0), 'class token'),
        (dict(algorithm='spectral', window=(1, 1)), dict(), 'needs the grid'),
        (dict(), dict(grid=(2, 3)), '2 x 3'),
        (dict(), dict(mask=torch.ones(2, 5, dtype=torch.bool)), 'mask'),
        (dict(), dict(mask=torch.ones(2, 6)), 'mask'),
        (dict(), dict(mask=torch.tensor([[True] * 6, [False] * 6])), 'video 1'),
        (dict(frame_embedding=4, width=16), dict(), 'frame_embedding=4'),
    ],
)
def test_bad_input_is_named(options, inputs, message):
    with pytest.raises(ValueError, match=message):
        make(**dict(dict(clusters=5), **options))(**dict(dict(tokens=videos()), **inputs))


def test_plugins_as_text():
    clustering, after = parse_clustering('SegmentClustering(segments=6, clusters=49, algorithm="spectral", after=3)')
    assert (clustering.segments, clustering.clusters, clustering.algorithm, after) == (6, 49, 'spectral', 3)
    assert parse_clustering('SegmentClustering(segments=6, clusters=49)')[1] == 6
    schedule, after = parse_clustering('SegmentClustering(segments=(6, 3), clusters=49, after=(4, 8))')
    assert [(stage.segments, stage.clusters) for stage in schedule] == [(6, 49), (3, 49)] and after == (4, 8)


@pytest.mark.parametrize(
    'text, message',
    [
        ('Hourglass(after=1, grid=2)', "'Hourglass'"),
        ('SegmentClustering(segments=open("f"), clusters=2)', 'literal'),
        ('SegmentClustering(6, 49)', 'name its options'),
        ('SegmentClustering(segments=6, cluster=49)', "no option 'cluster'"),
        ('SegmentClustering(segments=(6, 3, 2), clusters=49, after=(4, 8))', 'as many'),
    ],
)
def test_bad_plugins_are_named(text, message):
    with pytest.raises(ValueError, match=message):
        parse_clustering(text)
