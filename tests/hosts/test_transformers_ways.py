"""What comes with Hugging Face's models: kinds of attention, accelerate, checkpointing, pipelines, trainers."""

import copy
import inspect
import pickle
import re

import accelerate
import numpy as np
import pytest
import torch
import transformers
from models import IMAGES, snapshot
from PIL import Image
from transformers_models import KINDS, WIDE, build, config, inputs, walk

import fewtokens

SHARED = fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3)))
SOME = ['ViT', 'DINOv2', 'DINOv3', 'CLIP', 'SigLIP', 'DPT']


def output(model, kind):
    return model(**inputs(kind)).last_hidden_state


@torch.no_grad()
@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != 'DPT'])
def test_plain_attention_does_as_fused(kind):
    model = build(kind)
    assert model.config._attn_implementation == 'sdpa'
    with fewtokens.attach(model, SHARED):
        fused = output(model, kind)
        model.set_attn_implementation('eager')
        torch.testing.assert_close(output(model, kind), fused, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('kind, other', [('DINOv2', 'flash_attention_2'), ('CLIP', 'flex_attention'), ('DPT', 'eager')])
def test_attention_that_takes_no_bias_is_refused(kind, other):
    model = build(kind)
    fits = "'sdpa'" if kind == 'DPT' else "'sdpa' or 'eager'"
    with fewtokens.attach(model, fewtokens.SharedUpdate(0, 4)):
        expected = output(model, kind)
        model.config._attn_implementation = other
        with pytest.raises(ValueError, match=rf'attn_implementation={other!r} of .* {fits} does, or size_bias=False'):
            output(model, kind)
        model.config._attn_implementation = 'sdpa'
        assert torch.equal(output(model, kind), expected)
    if other == 'eager':
        uncounted = fewtokens.SharedUpdate(2, 4, size_bias=False)
        with fewtokens.attach(model, uncounted):
            expected = output(model, kind)
            model.set_attn_implementation('eager')
            torch.testing.assert_close(output(model, kind), expected, rtol=1e-4, atol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize('kind', SOME)
def test_attention_weights_are_refused(kind):
    model = build(kind)
    model.set_attn_implementation('eager')
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4, size_bias=False)):
        expected = output(model, kind)
        for ask in (dict(output_attentions=True), {}):
            model.config.output_attentions = not ask
            with pytest.raises(ValueError, match='output_attentions=True asks for attention between all tokens'):
                model(**inputs(kind), **ask)
            model.config.output_attentions = False
            assert torch.equal(output(model, kind), expected)
    assert len(model(**inputs(kind), output_attentions=True).attentions) == 6


@torch.no_grad()
def test_masks_are_refused():
    model = build('ViT')
    mask = torch.ones(2, 97)
    mask[:, 50:] = 0
    with fewtokens.attach(model, SHARED):
        with pytest.raises(ValueError, match='attention_mask is for all tokens, and there are fewer: leave it out'):
            model(**inputs('ViT'), attention_mask=mask)
        assert output(model, 'ViT').shape == (2, 97, 32)


@torch.no_grad()
def test_masked_patches_are_tokens_like_others():
    model = build('DINOv2', use_mask_token=True)
    masked = torch.arange(96).expand(2, -1) % 3 == 0
    given = inputs('DINOv2') | dict(bool_masked_pos=masked)
    expected, _ = walk('DINOv2', model, fewtokens.AvgPool(2, 4), given)
    with fewtokens.attach(model, fewtokens.AvgPool(2, 4)):
        torch.testing.assert_close(model(**given).last_hidden_state, expected)


@torch.no_grad()
@pytest.mark.parametrize('kind', SOME)
def test_copies_and_half_precision(kind):
    model = build(kind)
    with fewtokens.attach(model, SHARED):
        expected = output(model, kind)
        for copied in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
            (other,) = fewtokens.attached(copied)
            assert torch.equal(output(copied, kind), expected)
            other.remove()
        with torch.autocast('cpu', torch.bfloat16):
            mixed = output(model, kind).float()
        half = copy.deepcopy(model).bfloat16()
        given = {name: value.bfloat16() if name == 'pixel_values' else value for name, value in inputs(kind).items()}
        half = half(**given).last_hidden_state
    assert half.dtype == torch.bfloat16
    scale = (expected - expected.mean()).abs().mean()
    assert (mixed - expected).abs().mean() < scale and (half.float() - expected).abs().mean() < scale


@pytest.mark.parametrize('reentrant', [False, True], ids=['', 'reentrant'])
@pytest.mark.parametrize('kind', SOME)
def test_checkpointing_trains_as_without(kind, reentrant):
    """Layers checkpoint themselves, inside the calls that are replaced."""
    gradients, runs = [], []
    for checkpointing in (False, True):
        model = build(kind).train()
        if checkpointing:
            model.gradient_checkpointing_enable(gradient_checkpointing_kwargs=dict(use_reentrant=reentrant))
        count = []
        last = model.get_submodule(KINDS[kind][3])[4]
        last.get_submodule(
            'layernorm_after'
            if hasattr(last, 'layernorm_after')
            else 'norm2'
            if hasattr(last, 'norm2')
            else 'layer_norm2'
        ).register_forward_hook(lambda *args, count=count: count.append(1))
        with fewtokens.attach(model, SHARED):
            for _ in range(2):
                model.zero_grad()
                torch.manual_seed(7)  # DINOv3 moves its coordinates in training
                result = model(**inputs(kind), output_hidden_states=True)
                (result.last_hidden_state.square().sum() + result.hidden_states[3].square().sum()).backward()
        gradients.append({name: p.grad for name, p in model.named_parameters() if p.grad is not None})
        runs.append(len(count))
    assert runs == [2, 4] and gradients[0].keys() == gradients[1].keys()
    for name, expected in gradients[0].items():
        torch.testing.assert_close(gradients[1][name], expected, rtol=1e-3, atol=1e-3)


def test_reentrant_checkpointing_around_blocks_is_refused():
    model = build('DINOv2').train()
    with fewtokens.attach(model, SHARED):
        x = model.embeddings(WIDE)
        with pytest.raises(RuntimeError, match='use_reentrant=False'):
            for block in model.encoder.layer:
                x = torch.utils.checkpoint.checkpoint(block, x, use_reentrant=True)


@torch.no_grad()
@pytest.mark.parametrize(
    'kind, more', [('ViT', {}), ('DINOv2', dict(output_hidden_states=True)), ('DINOv3', {}), ('DPT', {})]
)
def test_compiled_without_a_break(kind, more):
    torch._dynamo.reset()
    model, given = build(kind, num_hidden_layers=3), inputs(kind)
    with fewtokens.attach(model, fewtokens.SharedUpdate((1, 2), ((6, 6), (3, 3)))):
        expected = model(**given, **more)
        compiled = torch.compile(model, backend='eager', fullgraph=True)(**given, **more)
        torch.testing.assert_close(compiled.last_hidden_state, expected.last_hidden_state)
        for one, other in zip(compiled.hidden_states or (), expected.hidden_states or (), strict=True):
            torch.testing.assert_close(one, other)
    torch._dynamo.reset()


@torch.no_grad()
@pytest.mark.parametrize('first', ['accelerate', 'fewtokens'])
@pytest.mark.parametrize('kind', SOME)
def test_models_spread_over_devices(kind, first):
    model = build(kind)
    _, _, _, blocks, _ = KINDS[kind]
    with fewtokens.attach(model, SHARED):
        expected = output(model, kind)
    where = {name: 'cpu' for name, _ in model.named_children() if not blocks.startswith(name)}
    where |= {f'{blocks}.{index}': 'cpu' for index in range(6)}
    attachment = None
    if first == 'fewtokens':
        attachment = fewtokens.attach(model, SHARED)
    accelerate.dispatch_model(model, where, main_device='cpu', force_hooks=True)
    assert hasattr(model.get_submodule(blocks)[3], '_hf_hook')
    before = snapshot(model)
    attachment = attachment or fewtokens.attach(model, SHARED)
    assert torch.equal(output(model, kind), expected)
    attachment.remove()
    assert not torch.equal(output(model, kind), expected)
    assert first == 'fewtokens' or snapshot(model) == before


@torch.no_grad()
def test_offloaded_weights_are_not_read_outside_their_layers():
    model = build('DINOv2')
    unspread = fewtokens.SharedUpdate(2, 4, spread=False)
    with fewtokens.attach(model, unspread):
        expected = output(model, 'DINOv2')
    accelerate.cpu_offload(model, torch.device('cpu'))
    with fewtokens.attach(model, unspread):
        assert torch.equal(output(model, 'DINOv2'), expected)
    with fewtokens.attach(model, SHARED), pytest.raises(ValueError, match='weights are offloaded.*spread=False'):
        output(model, 'DINOv2')


@torch.no_grad()
def test_blocks_walked_by_hand_and_hooks_of_others_see_whole_tokens():
    model, seen = build('DINOv2'), {}
    reducer = fewtokens.SharedUpdate(1, 4, spread=False)
    expected, states = walk('DINOv2', model, reducer)
    with fewtokens.attach(model, reducer):
        x = model.embeddings(WIDE)
        for index, block in enumerate(model.encoder.layer):
            x = block(x, None)
            torch.testing.assert_close(x, states[index + 1])
        torch.testing.assert_close(model.layernorm(x), expected)
        model.encoder.layer[3].register_forward_hook(lambda module, args, output: seen.update(output=output))
        model.encoder.layer[5].register_forward_pre_hook(lambda module, args: seen.update(input=args[0]))
        torch.testing.assert_close(output(model, 'DINOv2'), expected)
    torch.testing.assert_close(seen['output'], states[4])
    torch.testing.assert_close(seen['input'], states[5])


def test_tuples_are_given_where_they_are_asked_for():
    model = build('DINOv2')
    with fewtokens.attach(model, SHARED), torch.no_grad():
        tokens, pooled, states = model(WIDE, output_hidden_states=True, return_dict=False)
        assert torch.equal(tokens, output(model, 'DINOv2')) and len(states) == 7 and pooled.shape == (2, 32)


def test_pipelines_of_an_attached_model():
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8))
    processor = transformers.ViTImageProcessor(size=dict(height=64, width=64))
    model = build('DINOv2', 'ForImageClassification')
    classify = transformers.pipeline('image-classification', model, image_processor=processor, device='cpu')
    host = classify(picture)
    with fewtokens.attach(model, SHARED) as attachment:
        assert classify(picture) != host and attachment.passes == 1
    assert classify(picture) == host


def test_a_trainer_sees_which_columns_the_model_takes(tmp_path):
    model = build('DINOv2', 'ForImageClassification')
    data = [dict(pixel_values=image, labels=index % 2) for index, image in enumerate(IMAGES)]
    settings = dict(per_device_train_batch_size=2, max_steps=2, use_cpu=True, report_to=[], save_strategy='no')
    signature = inspect.signature(model.dinov2.forward)
    before = copy.deepcopy(model.state_dict())
    with fewtokens.attach(model, SHARED) as attachment:
        assert inspect.signature(model.dinov2.forward) == signature
        arguments = transformers.TrainingArguments(tmp_path, **settings)
        transformers.Trainer(model, arguments, train_dataset=data).train()
        assert attachment.passes == 2
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_an_autoencoder_that_shuffles_its_tokens_is_no_host():
    """Their places in the sequence say nothing of where they are, even where none are masked."""
    model = transformers.ViTMAEModel(config('ViTMAE', mask_ratio=0.0))
    with pytest.raises(ValueError, match='no known backbone: it shuffles its tokens'):
        fewtokens.attach(model, SHARED)


def test_models_of_other_versions_are_refused():
    model = build('ViT')
    model.encoder = torch.nn.Module()
    model.encoder.layer = model.layers
    del model.layers
    text = f'transformers {transformers.__version__} builds ViTModel differently'
    with pytest.raises(ValueError, match=f'{re.escape(text)} .*: transformers 5.24 fits'):
        fewtokens.attach(model, SHARED)


@torch.no_grad()
def test_patches_that_stand_on_no_grid_are_refused():
    model = build('SigLIP 2')
    patches, mask = torch.randn(2, 70, 192), torch.ones(2, 70, dtype=torch.int64)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)) as attachment:
        with pytest.raises(ValueError, match='70 patches came of an image of 7 x 9.*max_num_patches=63 fits'):
            model(patches, (torch.arange(70) < 63).long().expand(2, -1), torch.tensor([[7, 9], [7, 9]]))
        with pytest.raises(ValueError, match='images of 7 x 10 and 10 x 7 patches stand on different grids'):
            model(patches, mask, torch.tensor([[7, 10], [10, 7]]))
        model(patches, mask, torch.tensor([[7, 10], [7, 10]]))
        assert attachment.token_counts == (70, 16)


def test_supported_says_what_is_found():
    text = fewtokens.supported(build('DINOv2', 'ForImageClassification'))
    assert 'dinov2: transformers ViT, 6 blocks, 8 x 8 tokens at its nominal input size, 1 prefix tokens' in text
    text = fewtokens.supported(build('DINOv3'))
    assert 'transformers DINOv3 ViT, 6 blocks' in text and 'rotary positions' in text and '5 prefix tokens' in text
    assert '8 x 8 tokens' in fewtokens.supported(build('SigLIP 2'))


@torch.no_grad()
@pytest.mark.parametrize('strict', [False, True], ids=['', 'strict'])
def test_export(strict):
    """transformers gives its layers a mask that hides nothing while it is exported."""
    model = build('DINOv2', num_hidden_layers=3)
    images = dict(pixel_values=torch.randn(2, 3, 64, 96))
    with fewtokens.attach(model, fewtokens.SharedUpdate(1, 4)):
        program = torch.export.export(model, (), images, strict=strict).module()
        torch.testing.assert_close(program(**images).last_hidden_state, model(**images).last_hidden_state)
        with pytest.raises(Exception, match='attention_mask is for all tokens'):
            torch.export.export(model, (), images | dict(attention_mask=torch.ones(2, 97)), strict=False)
    torch._dynamo.reset()
