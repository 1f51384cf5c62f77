"""Swin hosts against a literal form, block by block and window by window."""

import copy

import models
import pytest
import torch
from literal import merge, spread
from torch.nn import functional as F

import fewtokens
from fewtokens.measure.macs import count_macs
from fewtokens.ops import dense


def windows_of(size, window):
    """For every window, the rows and columns of the padded image that it spans."""
    padded = [-(-side // window) * window for side in size]
    return padded, [(r, c) for r in range(0, padded[0], window) for c in range(0, padded[1], window)]


def pad(image, padded):
    return F.pad(image, (0, 0, 0, padded[1] - image.shape[1], 0, padded[0] - image.shape[0]))


def literal_attention(module, image, window, log_sizes=None):
    """Attention of one image [H, W, C], window by window, a pair of tokens at a time."""
    msa, size, own = module.w_msa, image.shape[:2], module.window_size
    shift = window // 2 if module.shift_size else 0
    table = msa.relative_position_bias_table.T.reshape(1, -1, 2 * own - 1, 2 * own - 1)
    if window != own:
        table = F.interpolate(table, (2 * window - 1, 2 * window - 1), mode='bilinear', align_corners=False)
    table = table[0]
    offset = torch.arange(window)[:, None] - torch.arange(window) + window - 1
    bias = table[:, offset[:, None, :, None], offset[None, :, None, :]].flatten(3).flatten(1, 2)
    padded, places = windows_of(size, window)
    rolled = pad(image, padded).roll((-shift, -shift), (0, 1))
    wrapped = torch.zeros(padded)
    if shift:
        wrapped[-shift:] += 2
        wrapped[:, -shift:] += 1
    # Only the last row and column of windows hold both wrapped tokens and others.
    sizes = torch.zeros(padded) if log_sizes is None else log_sizes.roll((-shift, -shift), (0, 1))
    out = torch.zeros_like(rolled)
    for r, c in places:
        cut = (slice(r, r + window), slice(c, c + window))
        x, region = rolled[cut].flatten(0, 1), wrapped[cut].flatten()
        query, key, value = msa.qkv(x).unflatten(1, (3, msa.num_heads, -1)).permute(1, 2, 0, 3)
        logits = query @ key.transpose(1, 2) * msa.scale + bias + sizes[cut].flatten()
        logits = logits - 100 * (region[:, None] != region)
        out[cut] = msa.proj((logits.softmax(-1) @ value).transpose(0, 1).flatten(1)).unflatten(0, (window, window))
    return out.roll((shift, shift), (0, 1))[: size[0], : size[1]]


def literal_block(block, image, window, log_sizes=None, apart=None):
    with spread(block.norm1, block.norm2, *block.ffn.layers[0][:2], apart):
        image = image + literal_attention(block.attn, block.norm1(image), window, log_sizes)
        return block.ffn(block.norm2(image), identity=image)


def literal_stage(stage, image, first, reducer):
    """One image through a stage whose first block is number `first` of the backbone."""
    window, size = stage.blocks[0].attn.window_size, image.shape[:2]
    records = None
    for number, block in enumerate(stage.blocks, first):
        if number == reducer.after:
            few = reducer.grid[0]
            padded, places = windows_of(size, window)
            before = pad(image, padded)
            image = torch.zeros(padded[0] // window * few, padded[1] // window * few, image.shape[2])
            log_sizes, apart = torch.zeros(image.shape[:2]), None
            records = []
            for r, c in places:
                x = before[r : r + window, c : c + window].flatten(0, 1)[None]
                grids = (window, window), (few, few)
                if isinstance(reducer, fewtokens.Hourglass):
                    centers, labels = dense.cluster_tokens(x, *grids, 3, 5, 100.0)
                else:
                    centers, labels, sizes = merge(x, *grids)
                cut = (
                    slice(r // window * few, r // window * few + few),
                    slice(c // window * few, c // window * few + few),
                )
                image[cut] = centers[0].unflatten(0, (few, few))
                if isinstance(reducer, fewtokens.SharedUpdate):
                    log_sizes[cut] = sizes[0].log().unflatten(0, (few, few))
                    means, _, _ = dense.merge_tokens(x, *grids)
                    _, variances = dense.lengthen_means(x, labels, means, sizes)
                    apart = torch.zeros(image.shape[:2]) if apart is None else apart
                    apart[cut] = variances[0].unflatten(0, (few, few))
                records.append((r, c, cut, x, centers, labels))
        told = (window,) if records is None else (few, log_sizes, apart)
        image = literal_block(block, image, *told)
    if records is None:
        return image
    whole = torch.zeros(*padded, image.shape[2])
    for r, c, cut, x, centers, labels in records:
        z = image[cut].flatten(0, 1)[None]
        if isinstance(reducer, fewtokens.Hourglass):
            restored = dense.reconstruct_tokens(z, x, centers, 25, 100.0)
        else:
            restored = x + (z - centers)[:, labels[0]]
        whole[r : r + window, c : c + window] = restored[0].unflatten(0, (window, window))
    return whole[: size[0], : size[1]]


@torch.no_grad()
def literal(model, image, reducer):
    tokens, size = model.patch_embed(image[None])
    outputs, first = [], 0
    for number, stage in enumerate(model.stages):
        out = literal_stage(stage, tokens[0].unflatten(0, size), first, reducer).flatten(0, 1)[None]
        outputs.append(getattr(model, f'norm{number}')(out).unflatten(1, size).permute(0, 3, 1, 2))
        first += len(stage.blocks)
        if stage.downsample:
            tokens, size = stage.downsample(out, size)
    return outputs


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('cls', [fewtokens.Hourglass, fewtokens.SharedUpdate])
@pytest.mark.parametrize(
    'after, window, few, size',
    [
        (1, 4, 2, (64, 64)),
        (2, 4, 3, (76, 52)),
        (3, 4, 3, (60, 100)),
        (5, 6, 4, (100, 68)),
        (8, 3, 2, (200, 168)),
        (0, 7, 5, (20, 36)),
    ],
)
def test_equals_the_literal_form(package, cls, after, window, few, size):
    model = models.swin(package, window)
    images = torch.randn(2, 3, *size)
    reducer = cls(after, few, **(dict(temperature=100.0) if cls is fewtokens.Hourglass else {}))
    expected = [literal(model, image, reducer) for image in images]
    host = model(images)
    with fewtokens.attach(model, reducer) as attachment:
        outputs = model(images)
    for level, output in enumerate(outputs):
        wanted = torch.cat([one[level] for one in expected])
        assert torch.allclose(output, wanted, atol=2e-4, rtol=1e-3), (level, (output - wanted).abs().max())
    # Stages before the clustering are untouched, its own and all later ones are not.
    ends = (2, 6, 8, 10)
    changed = [not torch.equal(a, b) for a, b in zip(host, outputs)]
    assert changed == [after < end for end in ends]
    height, width = (-(-side // 4) for side in size)
    for _ in range(sum(after >= end for end in ends)):
        height, width = -(-height // 2), -(-width // 2)
    assert attachment.cluster_map.shape == (2, height, width)
    assert attachment.passes == 1 and f'{few}' in attachment.summary()


def test_map_labels_stay_within_their_window():
    model = models.swin()
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)) as attachment:
        model(torch.randn(1, 3, 72, 56))
    labels = attachment.cluster_map[0]
    # Second stage: 9 x 7 tokens, 3 x 2 windows of 4 become 9 x 6 tokens.
    assert labels.shape == (9, 7) and attachment.token_counts == (63, 54)
    rows, columns = labels // 6, labels % 6
    assert torch.equal(rows // 3, (torch.arange(9) // 4)[:, None].expand(9, 7))
    assert torch.equal(columns // 3, (torch.arange(7) // 4).expand(9, 7))


@pytest.mark.parametrize('after, first, last', [(2, 2, 5), (1, 1, 1), (4, 4, 5), (6, 6, 7)])
def test_clustering_ends_with_its_stage_and_at_a_boundary_takes_the_whole_next_one(after, first, last):
    model, tokens = models.swin(), []
    for block in (block for stage in model.stages for block in stage.blocks):
        block.ffn.register_forward_pre_hook(lambda module, args: tokens.append(args[0].shape[1]))
    with torch.no_grad():
        model(torch.randn(1, 3, 128, 128))
        host, tokens[:] = tokens.copy(), []
        with fewtokens.attach(model, fewtokens.SharedUpdate(after, 2)):
            model(torch.randn(1, 3, 128, 128))
    assert tokens == [count // 4 if first <= index <= last else count for index, count in enumerate(host)]


def test_stages_nest_in_one_stage_of_the_backbone_and_not_across():
    model, x = models.swin(), torch.randn(2, 3, 72, 56)
    with torch.no_grad():
        with fewtokens.attach(model, fewtokens.SharedUpdate((2, 4), (3, 2))) as attachment:
            nested = model(x)
        assert attachment.token_counts == (63, 24) and attachment.cluster_map.max() < 24
        with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)):
            single = model(x)
        with fewtokens.attach(model, fewtokens.SharedUpdate((2, 7), (3, 2))) as attachment:
            apart = model(x)
    assert torch.equal(single[1], apart[1]) and not torch.equal(single[1], nested[1])
    assert not torch.equal(single[2], apart[2])
    assert attachment.token_counts == (20, 8)


@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
@pytest.mark.parametrize('size', [(64, 64), (76, 52), (16, 40)])
def test_fused_attention_is_exact_and_costs_the_same(package, size):
    model = models.swin(package, 4)
    x = torch.randn(2, 3, *size)
    expected, macs = model(x), count_macs(model, x)
    with fewtokens.use_sdpa(model) as attachment:
        outputs = model(x)
        assert count_macs(model, x) == macs
    assert len(attachment.places) == 10
    assert all(torch.allclose(a, b, atol=1e-5, rtol=1e-4) for a, b in zip(outputs, expected))
    assert all(torch.equal(a, b) for a, b in zip(model(x), expected))


def test_leaves_no_trace_and_trains_with_checkpointing():
    model = models.swin(with_cp=True)
    before = copy.deepcopy(model.state_dict())
    x = torch.randn(2, 3, 72, 56)
    expected = model(x)
    grads = []
    for checkpointing in (True, False):
        for module in model.modules():
            if hasattr(module, 'with_cp'):
                module.with_cp = checkpointing
        model.train()
        attachment = fewtokens.attach(model, fewtokens.SharedUpdate((2, 4), (3, 2)))
        assert list(model.state_dict()) == list(before)
        sum(out.square().mean() for out in model(x)).backward()
        attachment.remove()
        grads.append({name: p.grad.clone() for name, p in model.named_parameters()})
        model.zero_grad()
    assert (
        grads[0].keys() == grads[1].keys() and 'stages.1.blocks.3.attn.w_msa.relative_position_bias_table' in grads[0]
    )
    assert all(torch.allclose(grads[0][name], grads[1][name], atol=1e-5) for name in grads[0])
    model.eval()
    assert all(torch.equal(a, b) for a, b in zip(model(x), expected))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any('forward' in module.__dict__ for module in model.modules())


def test_mixed_precision():
    model, x = models.swin(), torch.randn(2, 3, 72, 56)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)), torch.no_grad():
        full = model(x)
        with torch.autocast('cpu', torch.bfloat16):
            mixed = model(x)
    assert all(out.isfinite().all() for out in mixed)
    assert F.cosine_similarity(full[1].flatten(), mixed[1].float().flatten(), dim=0) > 0.99


@pytest.mark.parametrize(
    'reducer, message',
    [
        (fewtokens.Hourglass(2, 5), r'grid=\(5, 5\) must be at most \(4, 4\), tokens in an attention window'),
        (fewtokens.SharedUpdate((2, 3), (5, 2)), 'an attention window'),
        (fewtokens.Hourglass(10, 2), 'between 0 and 9'),
        (fewtokens.BipartiteMerge(2, 2), 'on no grid'),
    ],
)
def test_settings_that_do_not_fit(reducer, message):
    model = models.swin()
    with pytest.raises(ValueError, match=message):
        fewtokens.attach(model, reducer)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_supported_says_what_fits():
    text = fewtokens.supported(models.swin())
    assert 'SwinTransformer, 10 blocks, 4 x 4 tokens in an attention window' in text
    assert 'after: 0 to 9; grid: up to (4, 4)' in text
