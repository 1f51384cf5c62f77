"""Hugging Face's SAM encoders, windowed and global blocks, against a literal form."""

import copy
from importlib import import_module

import pytest
import torch
from copies import run_copies_and_half
from models import randomize, snapshot
from sam_models import SETTINGS, sam, with_positions
from sam_walk import AsTimm, walk
from torch import nn

import fewtokens
from fewtokens.hosts import decomposed_positions

REDUCERS = [
    fewtokens.Hourglass(1, 3, iters=3, k=7, temperature=20.0), fewtokens.SharedUpdate(2, (3, 2), spread=False),
    fewtokens.SharedUpdate(0, 3), fewtokens.AvgPool(3, (2, 3)), fewtokens.SharedUpdate(1, 3, size_bias=False),
]  # fmt: skip
SIZES = {'whole windows': (64, 96), 'padded': (72, 80)}
# The class, and its configuration's.
ENCODERS = {
    'SAM': ('sam.modeling_sam.SamVisionEncoder', 'SamVisionConfig'),
    'SAM-HQ': ('sam_hq.modeling_sam_hq.SamHQVisionEncoder', 'SamHQVisionConfig'),
    'GOT-OCR2': ('got_ocr2.modeling_got_ocr2.GotOcr2VisionEncoder', 'GotOcr2VisionConfig'),
    'DeepSeek-OCR2': (
        'deepseek_ocr2.modeling_deepseek_ocr2.DeepseekOcr2SamVisionEncoder', 'DeepseekOcr2SamVisionConfig',
    ),
    'Unlimited-OCR': (
        'unlimited_ocr.modeling_unlimited_ocr.UnlimitedOcrSamVisionEncoder', 'UnlimitedOcrSamVisionConfig',
    ),
    'SLANeXt': ('slanext.modeling_slanext.SLANeXtVisionEncoder', 'SLANeXtVisionConfig'),
    'PP-FormulaNet': ('pp_formulanet.modeling_pp_formulanet.PPFormulaNetVisionModel', 'PPFormulaNetVisionConfig'),
}  # fmt: skip


def encoder(kind='SAM', size=(72, 80), attention=None, **options):
    """Windows of 4 x 4 tokens; blocks 2 and 4 see the whole grid."""
    name, config = ENCODERS[kind]
    folder, cls = name.rsplit('.', 1)
    module = import_module(f'transformers.models.{folder}')
    config = getattr(import_module(module.__name__.replace('modeling', 'configuration')), config)
    config = config(**{**SETTINGS, 'image_size': max(size), **options})
    if attention is not None:
        config._attn_implementation = attention
    model = with_positions(randomize(getattr(module, cls)(config)))
    if size[0] != size[1]:
        # Configurations know squares alone: the positions of a larger one are cut.
        model.patch_embed.image_size = size
        model.pos_embed = nn.Parameter(model.pos_embed[:, : size[0] // 8, : size[1] // 8].clone())
    return model


@torch.no_grad()
def literal(model, images, reducer):
    """What comes into the first block and out of each, [B, H, W, C], whole."""
    model = copy.deepcopy(model)
    x = model.patch_embed(images) + model.pos_embed
    window = max(block.window_size for block in model.layers)
    cell = (window, window) if window else tuple(x.shape[1:3])
    blocks = [AsTimm(block) for block in model.layers]
    outputs = [walk(blocks, image, cell, (None, None), reducer) for image in x]
    return [x, *(torch.stack(each) for each in zip(*outputs, strict=True))]


@pytest.fixture(params=REDUCERS, ids=range(len(REDUCERS)))
def reducer(request):
    return request.param


@torch.no_grad()
@pytest.mark.parametrize('attention', ['sdpa', 'eager'])
@pytest.mark.parametrize('options', [{}, dict(use_rel_pos=False), dict(window_size=0)], ids=['', 'no positions', 'one'])
@pytest.mark.parametrize('size', SIZES.values(), ids=SIZES)
def test_equals_the_literal_form(size, options, attention, reducer):
    model, images = encoder(size=size, attention=attention, **options), torch.randn(2, 3, *size)
    host = model(images, output_hidden_states=True)
    expected, before = literal(model, images, reducer), snapshot(model)
    with fewtokens.attach(model, reducer) as attachment:
        given = model(images, output_hidden_states=True)
        for one, other in zip(given.hidden_states, expected, strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=3e-4)
        torch.testing.assert_close(given.last_hidden_state, model.neck(given.hidden_states[-1]))
        alone = model(images).last_hidden_state
        torch.testing.assert_close(alone, given.last_hidden_state)
        assert not torch.allclose(alone, host.last_hidden_state, atol=1e-4)
        assert attachment.passes == 2 and attachment.cluster_map.shape == (2, size[0] // 8, size[1] // 8)
    assert snapshot(model) == before and torch.equal(model(images).last_hidden_state, host.last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize('kind', ENCODERS)
def test_encoders_of_the_same_blocks(kind):
    options = dict(post_conv_in_channels=16) if kind == 'PP-FormulaNet' else {}
    model, images, reducer = encoder(kind, **options), torch.randn(2, 3, 72, 80), fewtokens.SharedUpdate(1, 3)
    expected = literal(model, images, reducer)
    with fewtokens.attach(model, reducer) as attachment:
        given = model(images, output_hidden_states=True)
        # Some give the neck's output in the place of the last block's.
        for one, other in zip(given.hidden_states[:-1], expected[:-1], strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=3e-4)
        final = model.neck(expected[-1])
        final = model.proj(final) if hasattr(model, 'proj') else final
        torch.testing.assert_close(model(images).last_hidden_state, final, rtol=1e-3, atol=1e-3)
        assert attachment.host.family == 'transformers SAM' and attachment.passes == 2
        if kind == 'SAM-HQ':
            # Its mask decoder is given these.
            for one, index in zip(model(images).intermediate_embeddings, (2, 4), strict=True):
                torch.testing.assert_close(one, expected[index + 1], rtol=1e-3, atol=3e-4)


@torch.no_grad()
def test_nothing_changes_where_nothing_is_reduced():
    model, images = encoder(), torch.randn(2, 3, 72, 80)
    host = model(images).last_hidden_state
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)) as attachment:
        with pytest.warns(UserWarning, match='too few'):
            assert torch.equal(model(images).last_hidden_state, host)
    assert (attachment.passes, attachment.skipped) == (0, 1)


@torch.no_grad()
@pytest.mark.parametrize('part', [1, 100, 1500])
@pytest.mark.parametrize('biased', [False, True])
def test_attention_in_parts_is_that_of_the_whole(part, biased, monkeypatch):
    """Of many small grids, and of one that is cut by rows, against logits written out."""
    monkeypatch.setattr(decomposed_positions, 'PART', part)
    for batch, grid in ((3, (3, 4)), (1, (7, 5))):
        query, key, value = torch.randn(3, batch, 2, grid[0] * grid[1], 8)
        tables = torch.randn(2 * grid[0] - 1, 8), torch.randn(2 * grid[1] + 3, 8)
        bias = torch.randn(batch, grid[0] * grid[1]) if biased else None
        logits = query @ key.transpose(2, 3) * 0.3
        across = nn.functional.interpolate(tables[1].T[None], 2 * grid[1] - 1, mode='linear')[0].T
        for q in range(grid[0] * grid[1]):
            for k in range(grid[0] * grid[1]):
                down, right = q // grid[1] - k // grid[1], q % grid[1] - k % grid[1]
                logits[:, :, q, k] += query[:, :, q] @ (tables[0][down + grid[0] - 1] + across[right + grid[1] - 1])
        logits = logits if bias is None else logits + bias[:, None, None]
        given = (query, key, value, grid, tables, bias, 0.0, 0.3)
        torch.testing.assert_close(decomposed_positions.attend(*given), logits.softmax(-1) @ value)
        with torch.enable_grad():
            torch.testing.assert_close(decomposed_positions.attend(*given), logits.softmax(-1) @ value)


@torch.no_grad()
@pytest.mark.parametrize('options', [{}, dict(use_rel_pos=False)], ids=['', 'no positions'])
def test_fused_attention_where_it_is_missing(options):
    model, images = encoder(attention='eager', **options), torch.randn(2, 3, 72, 80)
    host = model(images).last_hidden_state
    with fewtokens.use_sdpa(model) as fused:
        torch.testing.assert_close(model(images).last_hidden_state, host, rtol=1e-4, atol=1e-4)
        assert fused.summary() == 'fused attention in 6 places, layers.0.attn to layers.5.attn'
        reducer = fewtokens.SharedUpdate(1, 3)
        with fewtokens.attach(model, reducer):
            states = model(images, output_hidden_states=True).hidden_states
    torch.testing.assert_close(states[-1], literal(model, images, reducer)[-1], rtol=1e-3, atol=3e-4)
    with fewtokens.use_sdpa(encoder(attention='sdpa')) as fused:
        assert fused.places == []


@torch.no_grad()
@pytest.mark.parametrize('name', ['Sam', 'SamHQ'])
def test_masks_from_prompts(name):
    model, images = sam(name), torch.randn(2, 3, 72, 72)
    points = torch.tensor([[[[10.0, 20.0]], [[40.0, 50.0]]]] * 2)
    host = model(images, input_points=points)
    reducer = fewtokens.SharedUpdate(1, 3)
    expected = model.vision_encoder.neck(literal(model.vision_encoder, images, reducer)[-1])
    with fewtokens.attach(model, reducer) as attachment:
        assert attachment.host.path == 'vision_encoder'
        given = model(images, input_points=points, output_hidden_states=True)
        embedded = model.get_image_embeddings(images)
        embedded, inner = embedded if name == 'SamHQ' else (embedded, None)
        torch.testing.assert_close(embedded, expected, rtol=1e-3, atol=1e-3)
        more = {} if inner is None else dict(intermediate_embeddings=inner)
        decoded = model(image_embeddings=embedded, input_points=points, **more)
        torch.testing.assert_close(given.pred_masks, decoded.pred_masks)
        assert given.pred_masks.shape == host.pred_masks.shape
        assert not torch.allclose(given.pred_masks, host.pred_masks, atol=1e-4)
        assert len(given.vision_hidden_states) == 7
        with pytest.raises(ValueError, match='output_attentions=True asks for attention between all tokens'):
            model(images, input_points=points, output_attentions=True)
        assert torch.equal(model(images, input_points=points).pred_masks, given.pred_masks)
    assert torch.equal(model(images, input_points=points).pred_masks, host.pred_masks)


@torch.no_grad()
def test_copies_and_half_precision():
    model, images = encoder(), torch.randn(2, 3, 72, 80)
    wrapped = Last(model)
    with fewtokens.attach(wrapped, fewtokens.SharedUpdate((1, 3), (3, 2))):
        expected, mixed, half = run_copies_and_half(wrapped, images)
    for one in (mixed, half):
        assert nn.functional.cosine_similarity(one.flatten(), expected.flatten(), dim=0) > 0.95


class Last(nn.Module):
    """An encoder's last output alone."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def forward(self, images):
        return self.inner(images).last_hidden_state


@pytest.mark.parametrize('reentrant', [False, True], ids=['', 'reentrant'])
def test_checkpointing_trains_as_without(reentrant):
    gradients = []
    for checkpointing in (False, True):
        model, images = encoder().train(), torch.randn(2, 3, 72, 80, generator=torch.Generator().manual_seed(2))
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=reentrant))
        with fewtokens.attach(model, fewtokens.SharedUpdate((1, 3), (3, 2))):
            result = model(images, output_hidden_states=True)
            (result.last_hidden_state.square().sum() + result.hidden_states[3].square().sum()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    for name in ('layers.3.attn.rel_pos_w', 'layers.4.attn.rel_pos_h'):
        assert gradients[0][name].abs().sum() > 0
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-2)


@torch.no_grad()
def test_compiled_without_a_break():
    torch._dynamo.reset()
    model, images = encoder(num_hidden_layers=3), torch.randn(2, 3, 72, 80)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        expected = model(images).last_hidden_state
        torch.testing.assert_close(compiled(images).last_hidden_state, expected, rtol=1e-4, atol=1e-4)
    torch._dynamo.reset()


@torch.no_grad()
def test_exported():
    model, images = encoder(num_hidden_layers=3), torch.randn(2, 3, 72, 80)
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 3)):
        exported = torch.export.export(Last(model), (images,), strict=False).module()
        torch.testing.assert_close(exported(images), model(images).last_hidden_state, rtol=1e-4, atol=1e-4)


def test_settings_that_do_not_fit():
    with pytest.raises(ValueError, match=r'grid=\(5, 5\) must be at most \(4, 4\), tokens in an attention window'):
        fewtokens.attach(encoder(), fewtokens.Hourglass(2, 5))
    with pytest.raises(ValueError, match='on no grid'):
        fewtokens.attach(encoder(), fewtokens.BipartiteMerge(2, 2))


def test_another_version_of_the_library_is_refused():
    model = encoder()
    del model.patch_embed
    with pytest.raises(ValueError, match='builds SamVisionEncoder differently .* transformers 5.24 fits'):
        fewtokens.attach(model, fewtokens.SharedUpdate(1, 3))
