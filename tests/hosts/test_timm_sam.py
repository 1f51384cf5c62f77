"""timm's VisionTransformerSAM, windowed and global blocks, against a literal form."""

from dataclasses import dataclass

import pytest
import spread
import timm
import torch
from copies import run_copies_and_half
from models import randomize, snapshot
from timm.models.vision_transformer_sam import VisionTransformerSAM
from torch.nn import functional as F

import fewtokens

REDUCERS = [
    fewtokens.Hourglass(1, 3, iters=3, k=7, temperature=20.0), fewtokens.SharedUpdate(2, (3, 2), spread=False),
    fewtokens.SharedUpdate(0, 3), fewtokens.AvgPool(3, (2, 3)), fewtokens.SharedUpdate(1, 3, size_bias=False),
]  # fmt: skip
SIZES = {'whole windows': (64, 96), 'padded': (72, 80), 'another size': (56, 104)}


KINDS = {
    'SAM': {},
    'norms of queries and keys, LayerScale': dict(qk_norm=True, init_values=0.5),
    'no relative positions': dict(use_rel_pos=False),
    'rotary positions': dict(use_rel_pos=False, use_rope=True, ref_feat_shape=((6, 6), (3, 3))),
    'no windows': dict(window_size=0, qk_norm=True),
    'rotary positions, no windows': dict(window_size=0, global_attn_indexes=range(6), use_rel_pos=False, use_rope=True),
}


def sam(**options):
    """Windows of 4 x 4 tokens; blocks 2 and 4 see the whole grid."""
    settings = dict(img_size=64, patch_size=8, embed_dim=32, depth=6, num_heads=4, num_classes=5, neck_chans=16)
    settings |= dict(window_size=4, global_attn_indexes=(2, 4), use_rel_pos=True)
    return with_positions(randomize(VisionTransformerSAM(**{**settings, **options})))


def with_positions(model):
    for name, parameter in model.named_parameters():
        if 'rel_pos' in name:
            parameter.data *= 5
    return model


@pytest.fixture(params=REDUCERS, ids=range(len(REDUCERS)))
def reducer(request):
    return request.param


def positions(table, real, padded, clusters):
    """[clusters, clusters, D]: entries of a table of relative positions, in the direction of one side."""
    table = table.T[None]
    if real != padded:
        table = F.interpolate(table, 2 * real - 1, mode='linear')
        table = torch.cat([table[..., :1]] * (padded - real) + [table] + [table[..., -1:]] * (padded - real), dim=-1)
    table = F.interpolate(table, 2 * clusters - 1, mode='linear')[0].T
    return torch.stack([torch.stack([table[q - k + clusters - 1] for k in range(clusters)]) for q in range(clusters)])


def attention(attn, x, grid, tables, log_sizes, rotary):
    """Of tokens on a grid [H*W, C]."""
    query, key, value = attn.qkv(x).unflatten(1, (3, attn.num_heads, -1)).permute(1, 2, 0, 3)
    query, key = attn.q_norm(query), attn.k_norm(key)
    logits = query @ key.transpose(1, 2) * attn.scale + log_sizes
    if attn.rope is not None:
        query, key = (timm.layers.apply_rot_embed_cat(each, rotary) for each in (query, key))
        logits = query @ key.transpose(1, 2) * attn.scale + log_sizes
    if attn.use_rel_pos:
        on_grid = query.unflatten(1, grid)
        for row in range(grid[0]):
            for column in range(grid[1]):
                one = on_grid[:, row, column]
                bias = (one @ tables[0][row].T)[:, :, None] + (one @ tables[1][column].T)[:, None]
                logits[:, row * grid[1] + column] += bias.flatten(1)
    return attn.proj((logits.softmax(-1) @ value).transpose(0, 1).flatten(1))


@dataclass
class Clusters:
    """Of one image, on the grid of all windows' clusters [H, W]."""

    size: tuple
    """Of the image in tokens, and `padded` to whole windows."""
    padded: tuple
    cell: tuple
    """Tokens of a window, and `few` clusters."""
    few: tuple
    tokens: torch.Tensor
    real: torch.Tensor
    """What part of a cluster's members is in the image."""
    sizes: torch.Tensor | None
    apart: torch.Tensor | None
    rotary: dict
    """Positions for blocks that attend within windows (True) and for others."""
    records: list

    def windows(self):
        for r in range(self.padded[0] // self.cell[0]):
            for c in range(self.padded[1] // self.cell[1]):
                yield [tuple(slice(n * side, n * side + side) for n, side in zip((r, c), sides))
                       for sides in (self.cell, self.few)]  # fmt: skip

    def restore(self, stage, image):
        whole = torch.zeros(*self.padded, image.shape[2])
        for own, cut, record in self.records:
            restored = stage.restore(image[cut].flatten(0, 1)[None], record)[0]
            whole[own] = restored.unflatten(0, self.cell)
        return whole[: self.size[0], : self.size[1]]


def means(values, labels, few):
    """Of a window's tokens [h, w, C], by cluster; a cluster of none has the mean of its place."""
    place = F.adaptive_avg_pool2d(values.permute(2, 0, 1), few).flatten(1).T
    flat = values.flatten(0, 1)
    return torch.stack([
        flat[labels == n].mean(0) if (labels == n).any() else place[n] for n in range(few[0] * few[1])
    ]).unflatten(0, few)  # fmt: skip


def cluster(stage, x, cell, rope_window, rope_global):
    """One image's tokens [H, W, C], window by window."""
    size, few = x.shape[:2], stage.grid
    counts = [-(-side // one) for side, one in zip(size, cell)]
    padded = tuple(count * one for count, one in zip(counts, cell))
    beyond = (0, 0, 0, padded[1] - size[1], 0, padded[0] - size[0])
    extent = [count * side for count, side in zip(counts, few)]
    made = Clusters(size, padded, cell, few, *[torch.zeros(*extent, *c) for c in [(x.shape[2],), (), (), ()]], {}, [])
    before, inside = F.pad(x, beyond), F.pad(torch.ones(*size, 1), beyond)
    made.rotary = {of: torch.zeros(*extent, 16) for of in (True, False)}
    for own, cut in made.windows():
        reduced = stage.reduce(before[own].flatten(0, 1)[None], cell)
        labels = reduced.labels[0]
        made.tokens[cut] = reduced.tokens[0].unflatten(0, few)
        made.real[cut] = means(inside[own], labels, few)[..., 0]
        if reduced.sizes is not None:
            made.sizes[cut] = reduced.sizes[0].unflatten(0, few)
        if reduced.spreads is not None:
            made.apart[cut] = reduced.spreads[0].unflatten(0, few)
        if rope_window is not None:
            made.rotary[True][cut] = means(rope_window.unflatten(0, cell), labels, few)
        if rope_global is not None:
            whole = means(F.pad(rope_global.unflatten(0, size), beyond)[own], labels, few)
            made.rotary[False][cut] = whole / made.real[cut][..., None].clamp_min(1e-9)
        made.records.append((own, cut, reduced.record))
    made.sizes = None if reduced.sizes is None else made.sizes
    made.apart = None if reduced.spreads is None else made.apart
    return made


def literal_block(block, image, of, size_bias):
    """One image of clusters [H, W, C] through a block."""
    extent, few, attn, out = image.shape[:2], of.few, block.attn, torch.zeros_like(image)
    counted = size_bias and of.sizes is not None
    share = None if of.apart is None else spread.shares(image, of.apart)
    normed = block.norm1(image) if share is None else spread.norm(block.norm1, image, share)
    tables, windowed = (attn.rel_pos_h, attn.rel_pos_w) if attn.use_rel_pos else (), bool(block.window_size)
    rotary = of.rotary[windowed]
    if windowed:
        normed = normed * (of.real > 0)[..., None]
        sides = [positions(table, cell, cell, n) for table, cell, n in zip(tables, of.cell, few)]
        for _, cut in of.windows():
            bias = of.sizes[cut].flatten().log() if counted else torch.zeros(())
            attended = attention(attn, normed[cut].flatten(0, 1), few, sides, bias, rotary[cut].flatten(0, 1))
            out[cut] = attended.unflatten(0, few)
    else:
        sides = [positions(*each) for each in zip(tables, of.size, of.padded, extent)]
        bias = ((of.sizes * of.real) if counted else (of.real > 0)).flatten().log()
        out = attention(attn, normed.flatten(0, 1), extent, sides, bias, rotary.flatten(0, 1)).unflatten(0, extent)
    image = image + block.ls1(out)
    return image + block.ls2(block.mlp(block.norm2(image)) if share is None else spread.mlp(block, image, share))


@torch.no_grad()
def literal(model, image, reducer):
    """The tokens after every block for one image, [H, W, C], whole."""
    (stage,) = reducer.with_defaults(dict(iters=5, k=20, temperature=100.0)).stages()
    x = model.patch_embed(image[None])
    x = (x + timm.layers.resample_abs_pos_embed_nhwc(model.pos_embed, x.shape[1:3]))[0]
    window = max(block.window_size for block in model.blocks)
    cell = (window, window) if window else tuple(x.shape[:2])
    ropes = [None if rope is None else rope.get_embed() for rope in (model.rope_window, model.rope_global)]
    ropes[0] = ropes[0] if window else None
    outputs, of = [], None
    for index, block in enumerate(model.blocks):
        if index == stage.after:
            of = cluster(stage, x, cell, *ropes)
            x = of.tokens
        x = block(x[None])[0] if of is None else literal_block(block, x, of, reducer.size_bias)
        outputs.append(x if of is None else of.restore(stage, x))
    return outputs


@torch.no_grad()
@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
@pytest.mark.parametrize('kind', KINDS)
def test_equals_the_literal_form(size, kind, reducer):
    if 'rotary' in kind and size == SIZES['another size']:
        size = SIZES['padded']  # timm's are of one size
    model = sam(**KINDS[kind], img_size=64 if size == SIZES['another size'] else size)
    images, before = torch.randn(2, 3, *size), snapshot(model)
    expected = [torch.stack(both) for both in zip(*(literal(model, image, reducer) for image in images))]
    host = model(images)
    with fewtokens.attach(model, reducer) as attachment:
        final, given = model.forward_intermediates(images)
        for one, other in zip(given, expected, strict=True):
            torch.testing.assert_close(one, other.permute(0, 3, 1, 2), rtol=1e-3, atol=3e-4)
        torch.testing.assert_close(final, model.neck(given[-1]))
        torch.testing.assert_close(model.forward_features(images), final)
        logits = model(images)
        assert logits.shape == host.shape and not torch.allclose(logits, host, atol=1e-4)
        (alone,) = model.forward_intermediates(images, indices=[4], intermediates_only=True, stop_early=True)
        torch.testing.assert_close(alone, given[4])
        assert attachment.passes == 4 and attachment.cluster_map.shape == (2, size[0] // 8, size[1] // 8)
    assert snapshot(model) == before and torch.equal(model(images), host)


@torch.no_grad()
def test_stages_nest(reducer):
    """Windows of fewer tokens are reduced again, with what part of them is in the image."""
    model, images = sam(img_size=(72, 80)), torch.randn(2, 3, 72, 80)
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), (3, 2))) as attachment:
        given = model.forward_intermediates(images, intermediates_only=True)
        assert attachment.token_counts == (90, 36) and attachment.cluster_map.max() < 36
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)):
        once = model.forward_intermediates(images, intermediates_only=True)
    assert [torch.allclose(a, b, atol=1e-4) for a, b in zip(given, once)] == [True] * 3 + [False] * 3


@torch.no_grad()
@pytest.mark.parametrize('size', [(64, 96), (80, 112)], ids=['whole windows', 'padded'])
def test_equal_tokens_are_worth_their_number(size):
    """Where a cluster's tokens are the same and positions play no part nothing is lost, beside padding neither."""
    model = sam(img_size=size, use_rel_pos=False)
    model.pos_embed.zero_()
    images = torch.randn(2, 3, size[0] // 16, size[1] // 16).repeat_interleave(16, 2).repeat_interleave(16, 3)
    host = model(images)
    with fewtokens.attach(model, fewtokens.SharedUpdate(0, 2)) as attachment:
        torch.testing.assert_close(model(images), host, rtol=1e-3, atol=1e-4)
    assert attachment.passes == 1


@torch.no_grad()
def test_feature_extractors_get_whole_maps(reducer):
    options = dict(img_size=64, patch_size=8, embed_dim=48, depth=6, window_size=4, global_attn_indexes=(2, 4))
    extractor, x = timm.create_model('samvit_base_patch16', features_only=True, **options), torch.randn(2, 3, 64, 64)
    randomize(extractor)
    host = [f.shape for f in extractor(x)]
    with fewtokens.attach(extractor, reducer) as attachment:
        assert [f.shape for f in extractor(x)] == host and attachment.passes == 1


@torch.no_grad()
def test_nothing_changes_where_nothing_is_reduced():
    model, x = sam(), torch.randn(2, 3, 64, 64)
    host = model(x)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)) as attachment:
        with pytest.warns(UserWarning, match='too few'):
            assert torch.equal(model(x), host)
    assert (attachment.passes, attachment.skipped) == (0, 1)


def test_checkpointing_trains_as_without():
    gradients = []
    for checkpointing in (False, True):
        model, x = sam(img_size=(72, 80)), torch.randn(2, 3, 72, 80, generator=torch.Generator().manual_seed(2))
        model.train()
        model.set_grad_checkpointing(checkpointing)
        with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), (3, 2))):
            model(x).square().mean().backward()
            features = model.forward_intermediates(x, indices=[2, 4], intermediates_only=True)
            sum(f.square().mean() for f in features).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name in ('blocks.3.attn.rel_pos_w', 'blocks.4.attn.rel_pos_h'):
        assert gradients[0][name].abs().sum() > 0
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize('kind', ['SAM', 'rotary positions'])
def test_copies_and_mixed_precision(kind):
    model, x = sam(img_size=(72, 80), **KINDS[kind]), torch.randn(2, 3, 72, 80)
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), (3, 2))):
        expected, mixed, half = run_copies_and_half(model, x)
    for one in (mixed, half):
        assert F.cosine_similarity(one.flatten(), expected.flatten(), dim=0) > 0.95


@torch.no_grad()
def test_compiled_without_a_break():
    torch._dynamo.reset()
    model, x = sam(img_size=(72, 80), depth=3), torch.randn(2, 3, 72, 80)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(x), model(x))
    torch._dynamo.reset()


@pytest.mark.parametrize(
    'options, reducer, message',
    [
        ({}, fewtokens.Hourglass(2, 5), r'grid=\(5, 5\) must be at most \(4, 4\), tokens in an attention window'),
        (
            dict(window_size=0), fewtokens.SharedUpdate(2, 9),
            r'grid=\(9, 9\) must be at most \(8, 8\), tokens at its nominal',
        ),
        ({}, fewtokens.BipartiteMerge(2, 2), 'on no grid'),
    ],
)  # fmt: skip
def test_settings_that_do_not_fit(options, reducer, message):
    with pytest.raises(ValueError, match=message):
        fewtokens.attach(sam(**options), reducer)


def test_supported_says_what_fits():
    text = fewtokens.supported(sam())
    assert 'timm VisionTransformerSAM, 6 blocks, 4 x 4 tokens in an attention window, 0 prefix tokens' in text
    assert 'outputs after any block that is asked for' in text
