"""Hugging Face's Swin v1 and v2 against a literal form, block by block and window by window, and all ways in."""

import re

import accelerate
import pytest
import torch
import transformers
from copies import run_copies_and_half
from models import randomize, snapshot
from torch.nn import functional as F
from transformers_swins import KINDS, SIZES, STAGES, build, config, inner, literal, normed

import fewtokens
from fewtokens.measure.macs import count_macs

WIDE = torch.randn(2, 3, 76, 52, generator=torch.Generator().manual_seed(4))
SHARED = fewtokens.SharedUpdate((2, 4), (3, 2))
# A model's own forward takes no images in which a stage is smaller than a window.
CASES = {
    'in a stage': (fewtokens.SharedUpdate(1, 2), 4, (64, 80)),
    'at its start': (fewtokens.SharedUpdate(2, (3, 2)), 4, (76, 52)),
    'to published settings': (fewtokens.Hourglass(5, 3), 4, (60, 100)),
    'in the last': (fewtokens.AvgPool(6, 2), 3, (100, 76)),
    'from the first block': (fewtokens.SharedUpdate(0, 4), 5, (84, 160)),
}


def run(model, images, **options):
    """Lists of what a model gives."""
    out = model(images, **options)
    return list(out.feature_maps) if hasattr(out, 'feature_maps') else [out.last_hidden_state]


@torch.no_grad()
@pytest.mark.parametrize('case', CASES)
@pytest.mark.parametrize('kind', KINDS)
def test_equals_the_literal_form(kind, case):
    reducer, window, size = CASES[case]
    model, images = build(kind, window_size=window), torch.randn(2, 3, *size)
    host, before = run(model, images), snapshot(model)
    stages, _ = (list(map(torch.cat, zip(*both))) for both in zip(*(literal(model, one, reducer) for one in images)))
    with fewtokens.attach(model, reducer) as attachment:
        given = run(model, images)
    assert attachment.passes == 1 and attachment.cluster_map.shape[0] == 2
    if len(given) == 1:
        maps = stages[-1] if kind == 'Donut' else normed(model.layernorm, stages[-1])
        expected = [maps.flatten(2).transpose(1, 2)]
    elif kind == 'v2 backbone':
        expected = stages
    else:
        norms = model.hidden_states_norms
        norms = norms.values() if hasattr(norms, 'values') else norms
        expected = [normed(norm, stage) for norm, stage in zip(norms, stages, strict=True)]
    for one, other in zip(given, expected, strict=True):
        torch.testing.assert_close(one, other, atol=3e-4, rtol=1e-3)
    ends = (2, 6, 8) if len(given) > 1 else (8,)
    assert [not torch.equal(*both) for both in zip(host, given)] == [reducer.stages()[0].after < end for end in ends]
    assert all(torch.equal(*both) for both in zip(run(model, images), host)) and snapshot(model) == before


@torch.no_grad()
@pytest.mark.parametrize('kind', ['v1', 'v2', 'Donut'])
def test_hidden_states_are_whole(kind):
    model, reducer = build(kind), fewtokens.SharedUpdate(3, 3)
    expected = run(model, WIDE)
    _, given = (list(map(torch.cat, zip(*both))) for both in zip(*(literal(model, one, reducer) for one in WIDE)))
    with fewtokens.attach(model, reducer):
        out = model(WIDE, output_hidden_states=True)
        assert torch.equal(out.last_hidden_state, run(model, WIDE)[0])
        listed = model(WIDE, output_hidden_states=True, return_dict=False)
        assert torch.equal(listed[0], out.last_hidden_state)
    for one, other in zip(out.reshaped_hidden_states[:3], given, strict=True):
        torch.testing.assert_close(one, other, atol=3e-4, rtol=1e-3)
    for one, other in zip(out.hidden_states[:3], given, strict=True):
        torch.testing.assert_close(one, other.flatten(2).transpose(1, 2), atol=3e-4, rtol=1e-3)
    assert torch.equal(run(model, WIDE)[0], expected[0])


@torch.no_grad()
def test_maskformer_gives_every_blocks_output_whole_where_it_is_asked_to():
    model, reducer = build('MaskFormer backbone'), fewtokens.SharedUpdate(3, 3, spread=False)
    host = model(WIDE, output_hidden_states=True).hidden_states
    with fewtokens.attach(model, reducer):
        states = model(WIDE, output_hidden_states=True).hidden_states
        assert torch.equal(model(WIDE).feature_maps[1], model(WIDE, output_hidden_states=True).feature_maps[1])
    flat, own = ([one for stage in each[1:] for one in stage] for each in (states, host))
    # What goes into a block and what comes out of it, of two and of four blocks.
    assert [torch.equal(*both) for both in zip(flat, own)] == [True] * 7 + [False] * 9
    assert [one.shape for one in flat] == [one.shape for one in own]
    with fewtokens.attach(model.model, reducer):
        assert torch.equal(model.model(WIDE, None, True).hidden_states[2][3], states[2][3])
        model.model.config.output_hidden_states = True
        assert torch.equal(model.model(WIDE, output_hidden_states=None).hidden_states[2][3], states[2][3])


@torch.no_grad()
@pytest.mark.parametrize('kind', ['v1', 'v2 backbone', 'Donut', 'MaskFormer backbone'])
def test_fused_attention_is_exact_and_costs_the_same(kind):
    model = build(kind)
    if kind == 'v1':
        assert fewtokens.use_sdpa(model).places == []  # it is fused as transformers builds it
        model.set_attn_implementation('eager')
    expected, macs = run(model, WIDE), count_macs(model, WIDE)
    with fewtokens.attach(model, SHARED):
        reduced = run(model, WIDE)
    with fewtokens.use_sdpa(model) as attachment:
        for one, other in zip(run(model, WIDE), expected, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        assert count_macs(model, WIDE) == macs
        with fewtokens.attach(model, SHARED):
            for one, other in zip(run(model, WIDE), reduced, strict=True):
                torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-4)
        with pytest.raises(ValueError, match='output_attentions=True asks for what fused attention never makes'):
            model(WIDE, output_attentions=True)
    assert len(attachment.places) == 8
    assert all(torch.equal(*both) for both in zip(run(model, WIDE), expected))


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_attention_weights_are_refused(kind):
    model = build(kind)
    with fewtokens.attach(model, fewtokens.SharedUpdate(0, 3)):
        with pytest.raises(ValueError, match='output_attentions=True asks for attention between all tokens'):
            model(WIDE, output_attentions=True)
        model.set_attn_implementation('eager')
        inner(model).config.output_attentions = True
        with pytest.raises(ValueError, match='output_attentions=True asks for attention between all tokens'):
            model(WIDE)
        inner(model).config.output_attentions = False
        inner(model).config._attn_implementation = 'paged'
        with pytest.raises(ValueError, match="attn_implementation='paged' knows no windows of fewer tokens"):
            model(WIDE)


@torch.no_grad()
@pytest.mark.parametrize('kind', ['v1', 'v2', 'Donut'])
def test_nothing_changes_where_nothing_is_reduced(kind):
    model = build(kind)
    host = run(model, WIDE)[0]
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)) as attachment:
        with pytest.warns(UserWarning, match='too few'):
            assert torch.equal(run(model, WIDE)[0], host)
    assert (attachment.passes, attachment.skipped) == (0, 1)


@torch.no_grad()
@pytest.mark.parametrize('kind', ['v1', 'Donut'])
def test_images_that_the_model_cannot_take_raise_as_they_do(kind):
    model, small = build(kind), torch.randn(1, 3, 44, 44)
    with fewtokens.attach(model, fewtokens.SharedUpdate(6, 3)):
        for _ in range(2):
            with pytest.raises(RuntimeError, match='size of tensor'):
                run(model, small)


@torch.no_grad()
@pytest.mark.parametrize('cls, name', [(transformers.SwinConfig, 'swin'), (transformers.Swinv2Config, 'swinv2')])
def test_automatic_classes(cls, name):
    sizes = cls(**SIZES, drop_path_rate=0.0, num_labels=3)
    classify = randomize(transformers.AutoModelForImageClassification.from_config(sizes))
    host = classify(WIDE).logits
    with fewtokens.attach(classify, SHARED) as attachment:
        assert attachment.host.path == name and not torch.equal(classify(WIDE).logits, host)
    model = randomize(transformers.AutoModel.from_config(sizes))
    with fewtokens.attach(model, SHARED):
        assert model(WIDE).pooler_output.shape == (2, 32)
    for names in (['stage2'], ['stem', 'stage1', 'stage3']):
        backbone = randomize(transformers.AutoBackbone.from_config(cls(**SIZES, out_features=names)))
        host = backbone(WIDE).feature_maps
        with fewtokens.attach(backbone, fewtokens.SharedUpdate(2, 3)):
            maps = backbone(WIDE).feature_maps
        assert [one.shape for one in maps] == [one.shape for one in host]
        assert [torch.equal(*both) for both in zip(maps, host)] == [name in ('stem', 'stage1') for name in names]


def dense(kind):
    """A tiny model for dense prediction with a Swin as its backbone, and the place of the backbone."""
    swin = transformers.SwinConfig(**{**SIZES, 'depths': (2, 2, 2, 2), 'num_heads': (1, 1, 2, 2)})
    swin.out_features = [*STAGES, 'stage4']
    if kind == 'UperNet':
        made = transformers.UperNetConfig(backbone_config=swin, hidden_size=16, num_labels=3, use_auxiliary_head=False)
        return transformers.UperNetForSemanticSegmentation(made), 'backbone.swin'
    small = dict(hidden_dim=32, num_attention_heads=2, encoder_feedforward_dim=16, dim_feedforward=16)
    if kind == 'Mask2Former':
        made = transformers.Mask2FormerConfig(
            backbone_config=swin, feature_size=32, mask_feature_size=32, encoder_layers=1, decoder_layers=2,
            num_queries=5, **small
        )  # fmt: skip
        return transformers.Mask2FormerModel(made), 'pixel_level_module.encoder.swin'
    if kind == 'OneFormer':
        made = transformers.OneFormerConfig(
            backbone_config=swin, is_training=False, conv_dim=32, mask_dim=32, encoder_layers=1, decoder_layers=2,
            num_queries=5, query_dec_layers=1, use_task_norm=False, task_seq_len=7, **small
        )  # fmt: skip
        return transformers.OneFormerModel(made), 'pixel_level_module.encoder.swin'
    decoder = transformers.DetrConfig(
        d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2, decoder_attention_heads=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, num_queries=5,
    )  # fmt: skip
    made = transformers.MaskFormerConfig(
        backbone_config=swin, decoder_config=decoder, fpn_feature_size=32, mask_feature_size=32
    )
    return transformers.MaskFormerModel(made), 'pixel_level_module.encoder'


@torch.no_grad()
@pytest.mark.parametrize('kind', ['Mask2Former', 'MaskFormer', 'OneFormer', 'UperNet'])
def test_models_for_dense_prediction(kind):
    model, path = dense(kind)
    randomize(model)
    images = torch.randn(1, 3, 128, 160)
    given = dict(task_inputs=torch.zeros(1, 7)) if kind == 'OneFormer' else {}
    backbone = model.get_submodule(path.removesuffix('.swin'))
    maps = []
    backbone.register_forward_hook(lambda module, args, output: maps.append(output.feature_maps))
    host = model(images, **given)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)) as attachment:
        out = model(images, **given)
        assert attachment.host.path == path and attachment.passes == 1
    assert [torch.equal(*both) for both in zip(*maps)] == [True, False, False, False]
    both = [pair for pair in zip(out.to_tuple(), host.to_tuple()) if isinstance(pair[0], torch.Tensor)]
    assert all(one.shape == other.shape for one, other in both)
    assert any(not torch.equal(one, other) for one, other in both)
    with fewtokens.attach(backbone, fewtokens.SharedUpdate(2, 3)):
        assert torch.equal(backbone(images).feature_maps[1], maps[1][1])


@pytest.mark.parametrize('kind', ['v1', 'v2', 'Donut', 'MaskFormer'])
def test_checkpointing_trains_as_without(kind):
    gradients = []
    for checkpointing in (False, True):
        model = build(kind).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        with fewtokens.attach(model, SHARED):
            run(model, WIDE)[0].square().mean().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
    positions = [name for name in gradients[0] if 'bias_table' in name or 'bias_mlp.0.weight' in name]
    assert len(positions) == 8 and all(gradients[0][name].abs().sum() > 0 for name in positions)
    assert gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize('cls', [transformers.SwinForImageClassification, transformers.Swinv2ForImageClassification])
def test_a_trainer_trains_an_attached_model(cls, tmp_path):
    model = randomize(cls(config(cls, num_labels=2)))
    data = [dict(pixel_values=image, labels=index % 2) for index, image in enumerate(WIDE)]
    settings = dict(per_device_train_batch_size=2, max_steps=2, use_cpu=True, report_to=[], save_strategy='no')
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with fewtokens.attach(model, SHARED) as attachment:
        arguments = transformers.TrainingArguments(tmp_path, gradient_checkpointing=True, **settings)
        transformers.Trainer(model, arguments, train_dataset=data).train()
        assert attachment.passes == 2
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


class First(torch.nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return run(self.model, x)[0]


@torch.no_grad()
@pytest.mark.parametrize('kind', ['v1', 'v2', 'MaskFormer'])
def test_copies_and_mixed_precision(kind):
    model = First(build(kind))
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3)):
        expected, mixed, half = run_copies_and_half(model, WIDE)
    for one in (mixed, half):
        assert F.cosine_similarity(one.flatten(), expected.flatten(), dim=0) > 0.95


@torch.no_grad()
@pytest.mark.parametrize(
    'kind, reducer, more',
    [('v1', fewtokens.SharedUpdate(1, 3), dict(output_hidden_states=True)), ('v2', fewtokens.AvgPool(0, 3), {})],
)
def test_compiled_without_a_break(kind, reducer, more):
    torch._dynamo.reset()
    model = build(kind, depths=(2,), num_heads=(1,))
    model(WIDE, **more)  # its hooks of outputs are placed under a lock
    with fewtokens.attach(model, reducer):
        compiled = torch.compile(model, backend='eager', fullgraph=True)
        torch.testing.assert_close(compiled(WIDE, **more).last_hidden_state, model(WIDE, **more).last_hidden_state)
    torch._dynamo.reset()


@torch.no_grad()
@pytest.mark.parametrize('kind, reducer', [('v1', fewtokens.SharedUpdate(1, 3)), ('v2', fewtokens.AvgPool(0, 3))])
def test_export(kind, reducer):
    model = build(kind, depths=(2,), num_heads=(1,))
    given = dict(pixel_values=WIDE)
    expected = run(model, WIDE)[0]
    with fewtokens.attach(model, reducer):
        program = torch.export.export(model, (), given, strict=False).module()
        torch.testing.assert_close(program(**given).last_hidden_state, run(model, WIDE)[0])
    assert torch.equal(run(model, WIDE)[0], expected)


@torch.no_grad()
@pytest.mark.parametrize('first', ['accelerate', 'fewtokens'])
@pytest.mark.parametrize('kind', ['v1', 'v2'])
def test_models_spread_over_devices(kind, first):
    model = build(kind)
    with fewtokens.attach(model, SHARED):
        expected = run(model, WIDE)[0]
    where = {name: 'cpu' for name, _ in model.named_children() if name != 'encoder'}
    where |= {f'encoder.layers.{index}': 'cpu' for index in range(3)}
    attachment = fewtokens.attach(model, SHARED) if first == 'fewtokens' else None
    accelerate.dispatch_model(model, where, main_device='cpu', force_hooks=True)
    attachment = attachment or fewtokens.attach(model, SHARED)
    assert torch.equal(run(model, WIDE)[0], expected)
    attachment.remove()
    assert not torch.equal(run(model, WIDE)[0], expected)


@torch.no_grad()
@pytest.mark.parametrize('kind', ['v1', 'v2', 'Donut'])
def test_offloaded_weights_are_not_read_outside_their_layers(kind):
    model = build(kind)
    accelerate.cpu_offload(model, torch.device('cpu'))
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 3, spread=False)):
        with pytest.raises(ValueError, match='relative positions are offloaded.*device_map'):
            model(WIDE)


def test_models_of_other_versions_are_refused():
    model = build('v1')
    block = model.encoder.layers[0].blocks[0]
    block.attention.relative_position_bias = None
    text = f'transformers {transformers.__version__} builds SwinModel differently'
    with pytest.raises(ValueError, match=f'{re.escape(text)} .*: transformers 5.24 fits'):
        fewtokens.attach(model, SHARED)


def test_supported_says_what_fits():
    text = fewtokens.supported(build('v2'))
    assert 'transformers Swin and Swin v2, 8 blocks, 4 x 4 tokens in an attention window' in text
    assert 'outputs after blocks 2, 6, 8' in text
    assert 'outputs after any block that is asked for' in fewtokens.supported(build('MaskFormer backbone'))
