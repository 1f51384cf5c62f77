import copy
import pickle
from dataclasses import dataclass

import pytest
import torch
from torch.nn import functional as F

import fewtokens
from fewtokens.hosts import FAMILIES, Host
from fewtokens.video import SegmentClustering, SeqTransf, VideoEncoder

open_clip = pytest.importorskip('open_clip')

TEXT = dict(context_length=8, vocab_size=50, width=32, heads=2, layers=1)
VISION = dict(layers=4, width=64, head_width=16, patch_size=8, image_size=32)
TOWERS = {
    'class token': dict(),
    'average': dict(pool_type='avg'),
    'norm after pooling': dict(pool_type='avg', final_ln_after_pool=True),
    'tokens beside it': dict(output_tokens=True),
    'attention pooling': dict(attentional_pool=True, attn_pooler_heads=4, attn_pooler_queries=5, output_tokens=True),
    'contrastive pooling': dict(attentional_pool='parallel', width=32, attn_pooler_heads=4, attn_pooler_queries=5),
    'custom blocks': dict(qk_norm=True, ls_init_value=0.1),
    'no first norm': dict(no_ln_pre=True, pos_embed_type='sin_cos_2d'),
}


def make_clip(**vision):
    return open_clip.CLIP(32, VISION | vision, TEXT).eval()


def make_timm(name='test_vit', pool='token'):
    pytest.importorskip('timm')
    return open_clip.timm_model.TimmModel(name, 32, 160, pool=pool, proj='none' if pool == 'map' else 'linear').eval()


def videos(batch=2, frames=6, size=32):
    return torch.randn(batch, frames, 3, size, size)


def kmedoids(segments=3, clusters=10, **options):
    return SegmentClustering(segments, clusters, **options).eval()


def mean_pooled(embeddings):
    return F.normalize(F.normalize(embeddings, dim=-1).mean(dim=1), dim=-1)


def by_hand(visual, video, places):
    """open_clip's tower, step by step, with clusterings: {after: clustering}."""
    batch = len(video)
    x = visual._embeds(video.flatten(0, 1))
    for index, block in enumerate(visual.transformer.resblocks):
        if index in places:
            x = places[index](x.unflatten(0, (batch, -1)), grid=(4, 4) if x.shape[1] == 17 else None).flatten(0, 1)
        x = block(x)
    pooled, _ = visual._pool(x)
    pooled = pooled.squeeze(1) if pooled.ndim == 3 else pooled
    return (pooled @ visual.proj).unflatten(0, (batch, -1))


@pytest.mark.parametrize('name', TOWERS)
def test_every_tower_with_and_without_clustering(name):
    visual = make_clip(**TOWERS[name]).visual
    video = videos()
    plain = by_hand(visual, video, {})
    encoder = VideoEncoder(visual)
    embeddings, real = encoder.encode_frames(video)
    assert torch.allclose(embeddings, plain, atol=1e-5) and real.shape == (2, 6) and real.all()
    assert torch.allclose(encoder(video), mean_pooled(plain), atol=1e-5)
    clustering = kmedoids()
    encoder = VideoEncoder(visual, clustering, after=2)
    expected = by_hand(visual, video, {2: clustering})
    embeddings, real = encoder.encode_frames(video)
    assert torch.allclose(embeddings, expected, atol=1e-5) and real.shape == (2, 3)
    assert torch.allclose(encoder(video), mean_pooled(expected), atol=1e-5)
    assert not torch.allclose(encoder(video), mean_pooled(plain), atol=1e-3)


@pytest.mark.parametrize(
    'stages, after',
    [
        ([kmedoids(3, 10), kmedoids(1, 8)], [1, 3]),
        ([SegmentClustering(algorithm='temporal_shift'), kmedoids(3, 10, algorithm='spectral', window=(1, 1))], (0, 2)),
        ([SegmentClustering(3, algorithm='pooling')], [0]),
    ],
)
def test_a_schedule_works_on_earlier_segments(stages, after):
    clip, video = make_clip(), videos()
    encoder = VideoEncoder(clip, stages, after)
    expected = by_hand(clip.visual, video, dict(zip(after, stages)))
    assert torch.allclose(encoder.encode_frames(video)[0], expected, atol=1e-5)


def test_unclustered_is_the_mean_of_the_models_own_embeddings():
    clip, video = make_clip(), videos()
    expected = clip.encode_image(video.flatten(0, 1), normalize=True).unflatten(0, (2, 6)).mean(dim=1)
    assert torch.allclose(VideoEncoder(clip)(video), F.normalize(expected, dim=1), atol=1e-6)


def test_blocks_that_take_the_sequence_first():
    clip, video = make_clip(), videos()
    encoder = VideoEncoder(clip, kmedoids(), after=2)
    expected = encoder(video)
    turned = open_clip.transformer.Transformer(64, 4, 4, batch_first=False).eval()
    turned.load_state_dict(clip.visual.transformer.state_dict())
    clip.visual.transformer = turned
    assert torch.allclose(encoder(video), expected, atol=1e-5)


def equal_patches(visual, video):
    """A video whose 16 patches are of three kinds, 9, 4 and 3 of them, and a tower that sees no difference of place."""
    positions = visual.positional_embedding if hasattr(visual, 'positional_embedding') else visual.trunk.pos_embed[0]
    with torch.no_grad():
        positions[-16:] = positions[-1]
    patches = F.unfold(video.flatten(0, 1), 8, stride=8)
    kinds = torch.tensor([0] * 9 + [1] * 4 + [2] * 3)
    return F.fold(patches[:, :, kinds], (32, 32), 8, stride=8).unflatten(0, video.shape[:2])


def small_eva():
    eva = pytest.importorskip('timm.models.eva')
    visual = make_timm()
    options = dict(img_size=32, patch_size=8, embed_dim=32, depth=4, num_heads=2, num_classes=32, global_pool='token')
    visual.trunk, visual.head = eva.Eva(**options, num_reg_tokens=3).eval(), torch.nn.Identity()
    return visual


def sequence_first():
    visual = make_clip().visual
    visual.transformer = open_clip.transformer.Transformer(64, 4, 4, batch_first=False).eval()
    return visual


COUNTING = {
    'open_clip': lambda: make_clip().visual,
    'custom blocks': lambda: make_clip(**TOWERS['custom blocks']).visual,
    'sequence first': sequence_first,
    'timm Eva': small_eva,
}


@pytest.mark.parametrize(
    'name, mode',
    # open_clip does not checkpoint its custom blocks.
    [(name, mode) for name in COUNTING for mode in ('eval', 'train') + ('checkpointing',) * (name != 'custom blocks')],
)
def test_size_bias_is_exact_for_equal_tokens(name, mode):
    visual = COUNTING[name]()
    video = equal_patches(visual, videos(2, 1)).expand(-1, 4, -1, -1, -1)
    visual.train(mode != 'eval')
    if mode == 'checkpointing':
        visual.set_grad_checkpointing(True)
    plain = VideoEncoder(visual)(video)
    for algorithm in ('kmedoids', 'spectral'):
        counted = kmedoids(2, 3, size_bias=True, algorithm=algorithm)
        assert torch.allclose(VideoEncoder(visual, counted, after=1)(video), plain, atol=1e-5)
    assert not torch.allclose(VideoEncoder(visual, kmedoids(2, 3), after=1)(video), plain, atol=1e-3)
    schedule = [kmedoids(4, 6, size_bias=True), kmedoids(2, 3, size_bias=True)]
    assert torch.allclose(VideoEncoder(visual, schedule, after=(1, 2))(video), plain, atol=1e-5)


def shifted_by_hand(x, blocks, after, frames, norm, prefix=1):
    """Every block's two parts, with the class token shifted before each."""
    shift = SegmentClustering(algorithm='token_shift')

    def shifted(x):
        return shift(x.unflatten(0, (-1, frames)), num_prefix_tokens=prefix).flatten(0, 1)

    for index, block in enumerate(blocks):
        x = shifted(x) if index >= after else x
        x = x + attend(block, x)
        x = shifted(x) if index >= after else x
        x = x + block.mlp(getattr(block, norm)(x))
    return x


def attend(block, x):
    normed = block.ln_1(x) if hasattr(block, 'ln_1') else block.norm1(x)
    return block.attention(normed) if hasattr(block, 'ln_1') else block.attn(normed)


@pytest.mark.parametrize('after', [0, 2])
@pytest.mark.parametrize('mode', ['eval', 'train', 'checkpointing'])
def test_token_shift_in_every_block(after, mode):
    visual, video = make_clip().visual, videos(2, 4)
    plain, blocks = visual(video.flatten(0, 1)), list(visual.transformer.resblocks)
    visual.train(mode != 'eval')
    if mode == 'checkpointing':
        visual.set_grad_checkpointing(True)
    encoder = VideoEncoder(visual, SegmentClustering(algorithm='token_shift_blocks'), after)
    x = shifted_by_hand(visual._embeds(video.flatten(0, 1)), blocks, after, 4, 'ln_2')
    expected = (visual._pool(x)[0] @ visual.proj).unflatten(0, (2, 4))
    embeddings = encoder.encode_frames(video)[0]
    torch.testing.assert_close(embeddings, expected, atol=1e-5, rtol=1e-5)
    weights = list(visual.parameters())
    ours = torch.autograd.grad(embeddings.square().sum(), weights, allow_unused=True)
    theirs = torch.autograd.grad(expected.square().sum(), weights, allow_unused=True)
    for given, wanted in zip(ours, theirs):
        assert (given is None) == (wanted is None)
        assert given is None or torch.allclose(given, wanted, atol=1e-3, rtol=1e-3)
    visual.eval()
    assert list(visual.transformer.resblocks) == blocks and torch.equal(visual(video.flatten(0, 1)), plain)
    once = VideoEncoder(visual, SegmentClustering(algorithm='token_shift'), after)
    assert not torch.allclose(once.encode_frames(video)[0], embeddings, atol=1e-3)


def test_token_shift_in_every_block_of_a_timm_tower():
    visual, video = make_timm(), videos(2, 3, 160)
    trunk = visual.trunk
    encoder = VideoEncoder(visual, SegmentClustering(algorithm='token_shift_blocks'), 1)
    x = trunk.norm_pre(trunk._pos_embed(trunk.patch_embed(video.flatten(0, 1))))
    x = trunk.norm(shifted_by_hand(x, trunk.blocks, 1, 3, 'norm2', trunk.num_prefix_tokens))
    expected = visual.head(trunk.forward_head(x)).unflatten(0, (2, 3))
    torch.testing.assert_close(encoder.encode_frames(video)[0], expected, atol=1e-5, rtol=1e-5)


def test_token_shift_in_every_block_of_short_videos_and_before_a_clustering():
    shift, few = SegmentClustering(algorithm='token_shift_blocks'), kmedoids(2, 3)
    encoder, video = VideoEncoder(make_clip(), [shift, few], (0, 2)), videos(2, 6)
    mask = torch.tensor([[True] * 6, [True] * 4 + [False] * 2])
    padded = encoder(video, mask)
    assert torch.allclose(padded[1], encoder(video[1:, :4])[0], atol=1e-5)
    # After the clustering nothing is shifted.
    blocks = encoder.visual.transformer.resblocks
    x = shifted_by_hand(encoder.visual._embeds(video[0]), blocks[:2], 0, 6, 'ln_2')
    x = few(x.unflatten(0, (1, 6))).flatten(0, 1)
    for block in blocks[2:]:
        x = block(x)
    expected = (encoder.visual._pool(x)[0] @ encoder.visual.proj)[None]
    assert torch.allclose(padded[:1], mean_pooled(expected), atol=1e-5)


def test_token_shift_in_blocks_of_unknown_parts():
    visual = make_clip(qk_norm=True, ls_init_value=0.1).visual
    encoder = VideoEncoder(visual, SegmentClustering(algorithm='token_shift_blocks'), 0)
    with pytest.raises(ValueError, match='token_shift_blocks does not know where .* has its MLP'):
        encoder(videos())


def test_size_bias_in_one_step_of_a_schedule():
    visual = make_clip().visual
    video = equal_patches(visual, videos(2, 1)).expand(-1, 4, -1, -1, -1)
    shift, few = SegmentClustering(algorithm='token_shift'), kmedoids(4, 3, size_bias=True)
    plain = VideoEncoder(visual, shift, 0)(video)
    assert torch.allclose(VideoEncoder(visual, [shift, few], (0, 1))(video), plain, atol=1e-5)
    # In the last block alone, counted by the step before: as if the clustering came there.
    late = VideoEncoder(visual, [kmedoids(4, 16), kmedoids(2, 3, size_bias=True)], (2, 3))
    assert torch.allclose(late(video), VideoEncoder(visual)(video), atol=1e-5)


def test_size_bias_in_short_videos_and_in_low_precision():
    encoder, video = VideoEncoder(make_clip(), kmedoids(3, 10, size_bias=True), after=2), videos(2, 6)
    mask = torch.tensor([[True] * 6, [True] * 2 + [False] * 4])
    padded = encoder(video, mask)
    assert torch.allclose(padded[1], encoder(video[1:, :2], mask[1:, :2])[0], atol=1e-5)
    with torch.autocast('cpu', torch.bfloat16):
        assert F.cosine_similarity(encoder(video, mask).float(), padded).min() > 0.9
    assert F.cosine_similarity(encoder.bfloat16()(video.bfloat16(), mask).float(), padded).min() > 0.9


@pytest.mark.parametrize(
    'name, pool', [('test_vit', 'token'), ('test_vit', 'map'), ('test_vit', 'avg'), ('test_vit2', 'avg')]
)
def test_timm_towers(name, pool):
    visual, video = make_timm(name, pool), videos(2, 4, 160)
    trunk, clustering = visual.trunk, kmedoids(2, 20)
    prefix = trunk.num_prefix_tokens
    blocks = trunk.blocks
    plain = visual(video.flatten(0, 1)).unflatten(0, (2, 4))
    encoder = VideoEncoder(visual, clustering, after=2)
    embeddings = encoder.encode_frames(video)[0]
    assert trunk.blocks is blocks
    x = trunk._pos_embed(trunk.patch_embed(video.flatten(0, 1)))
    x = trunk.blocks[:2](trunk.norm_pre(x))
    x = clustering(x.unflatten(0, (2, 4)), num_prefix_tokens=prefix).flatten(0, 1)
    x = trunk.norm(trunk.blocks[2:](x))
    expected = visual.head(trunk.forward_head(x)).unflatten(0, (2, 2))
    assert torch.allclose(embeddings, expected, atol=1e-5)
    with encoder.using(None):
        assert torch.allclose(encoder.encode_frames(video)[0], plain, atol=1e-5)


def test_timm_registers_are_prefix_tokens_and_eva_without_rotary_positions_works():
    eva = pytest.importorskip('timm.models.eva')
    visual = make_timm()
    options = dict(img_size=32, patch_size=8, embed_dim=32, depth=3, num_heads=2, num_classes=32)
    visual.trunk = eva.Eva(**options, num_reg_tokens=3).eval()
    visual.head = torch.nn.Identity()
    encoder = VideoEncoder(visual, kmedoids(2, 20), after=1)
    seen = []
    visual.trunk.blocks[2].register_forward_hook(lambda module, args, output: seen.append(output.shape))
    assert encoder(videos(2, 4)).shape == (2, 32) and seen == [(4, 4 + 20, 32)]
    visual.trunk = eva.Eva(**options, use_rot_pos_emb=True)
    with pytest.raises(ValueError, match="timm's Eva cannot be used: its rotary"):
        VideoEncoder(visual)


def test_a_timm_model_without_open_clip_around_it():
    vit = pytest.importorskip('timm').create_model('test_vit', num_classes=32, dynamic_img_size=True).eval()
    video, clustering = videos(2, 4, 96), kmedoids(2, 20, algorithm='spectral', window=(1, 2))
    x = vit.norm_pre(vit._pos_embed(vit.patch_embed(video.flatten(0, 1))))
    x = vit.blocks[:1](x)
    # Not the grid of the size that it was built for, 10 x 10.
    x = clustering(x.unflatten(0, (2, 4)), num_prefix_tokens=vit.num_prefix_tokens, grid=(6, 6)).flatten(0, 1)
    expected = vit.forward_head(vit.norm(vit.blocks[1:](x))).unflatten(0, (2, 2))
    embeddings = VideoEncoder(vit, clustering, after=1).encode_frames(video)[0]
    assert torch.allclose(embeddings, expected, atol=1e-5)


class Tower(torch.nn.Module):
    """Tokens in a tuple, and a mask of keys under a name of their own."""

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.mix = torch.nn.Linear(16, 32)

        def forward(self, state, keys=None):
            (x,) = state
            key, value = self.mix(x).chunk(2, dim=-1)
            logits = key @ key.transpose(1, 2) + (0 if keys is None else keys[:, None])
            return (x + logits.softmax(dim=2) @ value,)

    def __init__(self):
        super().__init__()
        self.stem = torch.nn.Conv2d(3, 16, 8, 8)
        self.inner = torch.nn.ModuleDict(dict(layers=torch.nn.ModuleList([self.Block() for _ in range(3)])))

    def forward(self, images):
        state = (self.stem(images).flatten(2).transpose(1, 2),)
        for block in self.inner['layers']:
            state = block(state)
        return state[0].mean(dim=1)


@pytest.fixture
def own_family():
    @fewtokens.register_host
    @dataclass(frozen=True)
    class Own(Host):
        family = 'Tower of a test'

        @classmethod
        def find(cls, path, module, parent):
            if not isinstance(module, Tower):
                return None
            blocks = list(module.inner['layers'])
            return cls(path, module, module.stem, blocks, taps=(), nominal_grid=(4, 4), image_size=(32, 32))

        def grid(self, args, kwargs, output):
            return tuple(output.shape[2:])

        def tokens(self, value):
            return value[0]

        def with_tokens(self, value, tokens, layout):
            return (tokens,)

        def call(self, index, forward, value, args, kwargs, context):
            return forward(value, keys=context.key_bias(value[0]))

    yield
    FAMILIES.remove(Own)


def test_a_registered_family_is_a_tower(own_family):
    tower, video, clustering = Tower(), videos(2, 4), kmedoids(2, 9, size_bias=True)
    x = tower.stem(video.flatten(0, 1)).flatten(2).transpose(1, 2)
    blocks = tower.inner['layers']
    x, sizes = clustering(blocks[0]((x,))[0].unflatten(0, (2, 4)), num_prefix_tokens=0, return_sizes=True)
    state = (x.flatten(0, 1),)
    for block in blocks[1:]:
        state = block(state, sizes.flatten(0, 1).log())
    expected = state[0].mean(dim=1).unflatten(0, (2, 2))
    encoder = VideoEncoder(tower, clustering, after=1)
    assert torch.allclose(encoder.encode_frames(video)[0], expected, atol=1e-6)
    with pytest.raises(ValueError, match='frames are 40 x 40; the visual tower takes 32 x 32'):
        encoder(videos(1, 4, 40))


def test_encoders_share_a_clip_that_stays_as_it_is():
    clip, video = make_clip(), videos()
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    modules, images = dict(clip.named_modules()), clip.encode_image(video[0])
    few, many = VideoEncoder(clip, kmedoids(2, 5), after=1), VideoEncoder(clip, kmedoids(3, 12), after=3)
    first = few(video)
    assert many.encode_frames(video)[0].shape[1] == 3 and torch.equal(few(video), first)
    assert torch.equal(clip.encode_image(video[0]), images)
    assert dict(clip.named_modules()) == modules
    assert list(clip.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in clip.state_dict().items())
    assert [name.removeprefix('clip.') for name in few.state_dict()] == list(before)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in modules.values())


def test_a_failed_pass_leaves_the_clip_as_it_is():
    clip = make_clip()
    blocks = clip.visual.transformer.resblocks
    with pytest.raises(ValueError, match='clusters=40'):
        VideoEncoder(clip, kmedoids(3, 40), after=2)(videos())
    assert clip.visual.transformer.resblocks is blocks


def test_a_video_does_not_depend_on_padding():
    clip = make_clip()
    video = videos(3, 7)
    mask = torch.ones(3, 7, dtype=torch.bool)
    mask[1, 5:], mask[2, 2:] = False, False
    padded = torch.where(mask[:, :, None, None, None], video, 1e3)
    for clustering in (None, kmedoids(), kmedoids(algorithm='spectral', aggregate='mean')):
        encoder = VideoEncoder(clip, clustering, after=2, temporal=SeqTransf(32, layers=1, heads=2).eval())
        out = encoder(padded, mask)
        assert torch.allclose(out.norm(dim=1), torch.ones(3))
        for i in range(3):
            alone = encoder(video[i : i + 1, mask[i]], mask[i : i + 1, mask[i]])
            assert torch.allclose(out[i], alone[0], atol=1e-5)


def gradients(encoder, *batches):
    encoder.zero_grad()
    torch.manual_seed(3)
    outs = [encoder(video) for video in batches]
    sum((out * torch.arange(32)).sum() for out in outs).backward()
    return {name: p.grad.clone() for name, p in encoder.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    'clustering',
    [
        kmedoids(cluster_embedding=True, width=64),
        SegmentClustering(3, 10, 'sparse_sampling'),
        SegmentClustering(algorithm='temporal_shift'),
    ],
)
def test_checkpointing_keeps_gradients(clustering):
    encoder = VideoEncoder(make_clip(), clustering, after=2).train()
    batches = videos(2, 6), videos(1, 9)
    plain = gradients(encoder, *batches)
    encoder.clip.set_grad_checkpointing(True)
    checkpointed = gradients(encoder, *batches)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-4) for name in plain)


def test_checkpointed_passes_of_several_encoders_before_one_backward():
    clip, video = make_clip(), videos()
    few, many = VideoEncoder(clip, kmedoids(2, 5), after=1), VideoEncoder(clip, kmedoids(3, 12), after=3)

    def backward():
        clip.zero_grad()
        (few(video) * many(video) * clip.encode_image(video[:, 0])).sum().backward()
        return clip.visual.conv1.weight.grad.clone()

    plain = backward()
    clip.set_grad_checkpointing(True)
    assert torch.allclose(backward(), plain, atol=1e-5)


def test_checkpointed_timm_tower():
    encoder, video = VideoEncoder(make_timm(), kmedoids(2, 20), after=2), videos(1, 4, 160)
    plain = gradients(encoder, video)
    encoder.visual.set_grad_checkpointing(True)
    checkpointed = gradients(encoder, video)
    assert plain.keys() == checkpointed.keys()
    assert all(torch.allclose(plain[name], checkpointed[name], atol=1e-4) for name in plain)


def test_patch_dropout():
    encoder = VideoEncoder(make_clip(patch_dropout=0.5), kmedoids(3, 16), after=2)
    encoder.train()
    encoder(videos()).sum().backward()
    assert encoder.visual.conv1.weight.grad.isfinite().all()
    for clustering in (SegmentClustering(3, algorithm='pooling'), kmedoids(algorithm='spectral', window=(1, 1))):
        with encoder.using(clustering, 2), pytest.raises(ValueError, match='patch_dropout=0'):
            encoder(videos())
    encoder.eval()
    with encoder.using(SegmentClustering(3, algorithm='pooling'), 2):
        encoder(videos())


def test_autocast():
    encoder = VideoEncoder(make_clip(), kmedoids(), after=2)
    video = videos()
    with torch.autocast('cpu', torch.bfloat16):
        out = encoder(video)
    assert torch.nn.functional.cosine_similarity(out.float(), encoder(video)).min() > 0.9


@torch.no_grad()
@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
@pytest.mark.parametrize('scale', [1.0, 1e4, 0.0])
def test_half_precision_averages_in_float32(dtype, scale):
    """Embeddings whose norm is beyond float16, or zero."""
    video = videos(2, 200)
    embeddings = scale * torch.randn(2, 200, 64) + scale
    mask = torch.arange(200) < torch.tensor([[150], [200]])
    encoder = VideoEncoder(make_clip())
    encoder.encode_frames = lambda video, mask: (embeddings.to(dtype), mask)
    out = encoder(video, mask)
    embeddings = embeddings.to(dtype).float()
    encoder.encode_frames = lambda video, mask: (embeddings, mask)
    assert out.dtype == dtype and torch.equal(out, encoder(video, mask).to(dtype))
    assert torch.allclose(out.float().norm(dim=1), torch.tensor(float(scale > 0)), atol=1e-2)


def test_using_another_clustering_for_a_while():
    clip, video = make_clip(), videos()
    encoder = VideoEncoder(clip, kmedoids(), after=2)
    own = encoder(video)
    with encoder.using(None) as same:
        assert same is encoder and encoder.clustering is None
        assert torch.equal(encoder(video), VideoEncoder(clip)(video))
    with pytest.raises(RuntimeError), encoder.using([kmedoids(2, 5), kmedoids(1, 5)], [1, 2]):
        assert encoder.encode_frames(video)[0].shape[1] == 1
        raise RuntimeError
    assert encoder.clustering.segments == 3 and encoder.after == 2
    assert torch.equal(encoder(video), own)
    with pytest.raises(ValueError, match='after=4'), encoder.using(kmedoids(), 4):
        pass
    assert torch.equal(encoder(video), own)


def test_copies_and_pickles_are_independent():
    encoder, video = VideoEncoder(make_clip(), kmedoids(), after=2, temporal=SeqTransf(32)).eval(), videos()
    expected = encoder(video)
    for other in (copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))):
        assert torch.equal(other(video), expected)
        torch.nn.init.zeros_(other.visual.proj)
        assert torch.equal(encoder(video), expected)


def test_compiled_blocks_take_part():
    encoder, video = VideoEncoder(make_clip(), kmedoids(), after=2), videos(1, 3)
    expected = encoder(video)
    for block in encoder.visual.transformer.resblocks:
        block.compile(backend='eager')
    assert torch.allclose(encoder(video), expected, atol=1e-5)


@pytest.mark.parametrize(
    'make, message',
    [
        (lambda: open_clip.CLIP(32, dict(layers=(1, 1, 1, 1), width=16, image_size=32), TEXT), 'ModifiedResNet.*conv'),
        (lambda: make_timm('test_resnet', 'avg'), 'ResNet.*no known blocks'),
        (lambda: torch.nn.Linear(2, 2), 'Linear.*no known blocks'),
    ],
)
def test_other_towers_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        VideoEncoder(make())


def test_naflex_is_refused():
    naflex = pytest.importorskip('timm.models.naflexvit')
    visual = make_timm()
    visual.trunk = naflex.NaFlexVit(naflex.NaFlexVitCfg(embed_dim=32, depth=1, num_heads=2))
    with pytest.raises(ValueError, match='NaFlexVit.*length'):
        VideoEncoder(visual)


def test_a_tower_that_pools_nothing_is_refused():
    with pytest.raises(ValueError, match='pools nothing'):
        VideoEncoder(make_clip(pool_type='none'))(videos())


@pytest.mark.parametrize(
    'clustering, after, message',
    [
        (kmedoids(), 4, 'after=4 must be between 0 and 3'),
        (kmedoids(), -1, 'after=-1'),
        ([kmedoids(), kmedoids()], [2], 'a number for each of 2'),
        ([kmedoids(), kmedoids()], [2, 1], 'ascending'),
    ],
)
def test_bad_settings_are_named(clustering, after, message):
    with pytest.raises(ValueError, match=message):
        VideoEncoder(make_clip(), clustering, after)


@pytest.mark.parametrize(
    'clustering, video, mask, message',
    [
        (None, videos()[0], None, r'\[B, T, 3, H, W\]'),
        (None, videos(2, 0), None, 'T >= 1'),
        (None, videos(0), None, 'B, T >= 1'),
        (None, videos()[:, :, :2], None, 'shape'),
        (None, videos().byte(), None, 'uint8'),
        (None, videos(size=40), None, '40 x 40; the visual tower takes 32 x 32'),
        (None, videos(), torch.ones(2, 5, dtype=torch.bool), 'mask'),
        (None, videos(), torch.zeros(2, 6, dtype=torch.bool), 'no real frame'),
        (kmedoids(7), videos(), None, 'segments=7'),
        (kmedoids(3, 33), videos(), None, 'clusters=33'),
    ],
)
def test_bad_input_is_named(clustering, video, mask, message):
    with pytest.raises(ValueError, match=message):
        VideoEncoder(make_clip(), clustering, after=2)(video, mask)
