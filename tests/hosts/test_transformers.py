"""Hugging Face's ViTs by every way in, against a walk block by block."""

import copy
import operator

import pytest
import torch
import transformers
from models import IMAGES, randomize, snapshot
from torch.nn import functional as F
from transformers_models import KINDS, WIDE, build, config, inputs, walk

import fewtokens
from fewtokens.levels import Level

REDUCERS = [
    fewtokens.Hourglass(2, 4, iters=3, k=7, temperature=20.0), fewtokens.AvgPool(2, (4, 5)),
    fewtokens.SharedUpdate((1, 3), ((6, 6), (3, 3)), spread=False), fewtokens.BipartiteMerge((1, 2, 4), 6),
    fewtokens.GradualUpdate((1, 3), 0.3, spread=False),
]  # fmt: skip


@pytest.fixture(params=REDUCERS, ids=lambda r: type(r).__name__)
def reducer(request):
    return request.param


@pytest.fixture
def restored(monkeypatch):
    """Counts how often tokens are made whole."""
    calls, restore = [], Level.restore
    monkeypatch.setattr(Level, 'restore', lambda level, tokens: calls.append(1) or restore(level, tokens))
    return calls


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_forward_and_hidden_states_equal_the_walk(kind, reducer):
    model, given = build(kind), inputs(kind)
    # transformers puts its own hooks on blocks when first asked for hidden states, and leaves them there.
    host, before = model(**given, output_hidden_states=True), snapshot(model)
    expected, states = walk(kind, model, reducer)
    with fewtokens.attach(model, reducer) as attachment:
        output = model(**given, output_hidden_states=True)
        torch.testing.assert_close(output.last_hidden_state, expected)
        assert len(output.hidden_states) == 7
        for one, other in zip(output.hidden_states, states, strict=True):
            torch.testing.assert_close(one, other)
        torch.testing.assert_close(model(**given).last_hidden_state, expected)
        assert not torch.allclose(expected, host.last_hidden_state, atol=1e-3)
        assert (attachment.passes, attachment.skipped) == (2, 0)
        assert attachment.cluster_map.shape == (2, 8, 12)
    assert snapshot(model) == before
    assert torch.equal(model(**given).last_hidden_state, host.last_hidden_state)


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_nothing_changes_where_nothing_is_reduced(kind):
    model = build(kind)
    host = model(**inputs(kind)).last_hidden_state
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 9)) as attachment:
        with pytest.warns(UserWarning, match='too few'):
            assert torch.equal(model(**inputs(kind)).last_hidden_state, host)
    assert (attachment.passes, attachment.skipped) == (0, 1)


@torch.no_grad()
@pytest.mark.parametrize('kind', KINDS)
def test_blocks_know_how_far_members_lie_apart(kind):
    """Norm and activation as their formulas say, put on the walked model from outside."""
    model, state = build(kind), {}
    reducer = fewtokens.SharedUpdate(2, (4, 5))
    own = copy.deepcopy(model)
    names = {
        'ViT': 'layernorm_before layernorm_after', 'DeiT': 'layernorm_before layernorm_after',
        'IJepa': 'layernorm_before layernorm_after', 'ViTMSN': 'layernorm_before layernorm_after',
        'DPT': 'layernorm_before layernorm_after', 'CLIPVision': 'layer_norm1 layer_norm2',
        'SiglipVision': 'layer_norm1 layer_norm2', 'Siglip2Vision': 'layer_norm1 layer_norm2',
    }.get(KINDS[kind][0], 'norm1 norm2').split()  # fmt: skip
    linear, activation = dict(
        DPT=('intermediate.dense', 'intermediate.intermediate_act_fn'), DINOv3ViT=('mlp.up_proj', 'mlp.act_fn')
    ).get(KINDS[kind][0], ('mlp.fc1', 'mlp.activation_fn'))
    prefix, blocks = KINDS[kind][2], operator.attrgetter(KINDS[kind][3])

    def reduce(stage, tokens, *args):
        reduced = fewtokens.SharedUpdate.reduce(stage, tokens, *args)
        state['apart'] = F.pad(reduced.spreads, (prefix, 0))[..., None]
        return reduced

    def norm(module, args, output):
        share = state['apart'] / (args[0].var(-1, unbiased=False, keepdim=True) + state['apart'])
        state['share'] = share
        return module.bias + (output - module.bias) * ((1 - share) / (1 - share / 2)).sqrt()

    def act(block):
        gain = block.get_submodule(linear).weight.norm(dim=1) * getattr(block, names[1]).weight.square().mean().sqrt()

        def hook(module, args, output):
            apart = state['share'].sqrt() * gain
            return (module.forward(args[0] + apart) + module.forward(args[0] - apart)) / 2

        return hook

    for block in blocks(own)[2:]:
        getattr(block, names[0]).register_forward_hook(norm)
        if 'gate' not in kind:
            block.get_submodule(activation).register_forward_hook(act(block))
    stage = type('Stage', (), dict(stages=lambda s: [s], after=2, reduce=reduce, restores='update', size_bias=True))
    stage.grid, stage.iters, stage.window, stage.spread = reducer.grid, reducer.iters, reducer.window, True
    stage.restore = lambda s, *args: reducer.restore(*args)
    expected, _ = walk(kind, own, stage())
    with fewtokens.attach(model, reducer):
        torch.testing.assert_close(model(**inputs(kind)).last_hidden_state, expected)


@torch.no_grad()
def test_tokens_are_whole_where_they_are_asked_for_and_nowhere_else(restored):
    model = build('DINOv2')
    reducer = fewtokens.SharedUpdate(1, 4, spread=False)
    _, states = walk('DINOv2', model, reducer)
    with fewtokens.attach(model, reducer):
        model(WIDE, output_hidden_states=True)
        assert len(restored) == 5
        restored.clear()
        some = model(WIDE, output_hidden_states=[0, 3, -2]).hidden_states
        assert [each is None for each in some] == [False, True, True, False, True, False, True]
        for index in (0, 3, 5):
            torch.testing.assert_close(some[index], states[index])
        assert len(restored) == 3
        restored.clear()
        model(WIDE)
        assert len(restored) == 1
        model.config.output_hidden_states = True
        torch.testing.assert_close(model(WIDE).hidden_states[4], states[4])
        model.config.output_hidden_states = False


@torch.no_grad()
@pytest.mark.parametrize('layernorm', [True, False])
@pytest.mark.parametrize('kind', ['DINOv2', 'registers', 'DINOv3'])
def test_backbones_give_whole_maps(kind, layernorm, reducer, restored):
    stages = ['stem', 'stage2', 'stage5', 'stage6']
    model = build(kind, 'Backbone', out_features=stages, apply_layernorm=layernorm)
    expected, states = walk(kind, model, reducer)
    norm, prefix = model.get_submodule(KINDS[kind][4]), KINDS[kind][2]
    if not layernorm and kind != 'DINOv3':
        norm, expected = (lambda tokens: tokens), states[6]
    elif not layernorm:
        norm = lambda tokens: tokens  # noqa: E731  the last stage is normed all the same
    restored.clear()
    with fewtokens.attach(model, reducer):
        maps = model(WIDE).feature_maps
        assert len(restored) <= 4 * len(reducer.stages())
        for one, index in zip(maps, (0, 2, 5, 6), strict=True):
            tokens = expected if index == 6 else norm(states[index])
            torch.testing.assert_close(one, tokens[:, prefix:].transpose(1, 2).unflatten(2, (8, 12)))
        model.out_features = ['stage3']
        output = model(WIDE, output_hidden_states=True)
        torch.testing.assert_close(output.feature_maps[0], maps_of(norm(states[3]), prefix))
        for one, other in zip(output.hidden_states, states, strict=True):
            torch.testing.assert_close(one, other)


def maps_of(tokens, prefix):
    return tokens[:, prefix:].transpose(1, 2).unflatten(2, (8, 12))


@torch.no_grad()
def test_classifiers(reducer):
    for kind in ('ViT', 'DeiT', 'I-JEPA', 'MSN', 'DINOv2', 'registers'):
        model = build(kind, 'ForImageClassification')
        (host,) = fewtokens.hosts.find_hosts(model)
        inner, given = model.get_submodule(host.path), inputs(kind)
        tokens, _ = walk(kind, inner, reducer)
        pooled = dict(zip(('DINOv2', 'registers'), (1, 4)))
        if kind in pooled:
            features = torch.cat([tokens[:, 0], tokens[:, pooled[kind] :].mean(dim=1)], dim=1)
        else:
            features = tokens.mean(dim=1) if kind == 'I-JEPA' else tokens[:, 0]
        with fewtokens.attach(model, reducer):
            output = model(**given, output_hidden_states=True)
            torch.testing.assert_close(output.logits, model.classifier(features))
            assert len(output.hidden_states) == 7


@torch.no_grad()
@pytest.mark.parametrize('name', ['CLIP', 'Siglip', 'Siglip2'])
def test_towers_of_images_and_texts(name, reducer):
    kind = {'CLIP': 'CLIP', 'Siglip': 'SigLIP', 'Siglip2': 'SigLIP 2'}[name]
    sizes = dict(hidden_size=32, num_hidden_layers=6, num_attention_heads=4, intermediate_size=64)
    image = dict(num_patches=64, patch_size=8) if name == 'Siglip2' else dict(image_size=64, patch_size=8)
    text = dict(vocab_size=20, max_position_embeddings=8, eos_token_id=1)
    settings = dict(vision_config=sizes | image, text_config=sizes | text)
    model = randomize(getattr(transformers, f'{name}Model')(getattr(transformers, f'{name}Config')(**settings)))
    words = torch.tensor([[3, 4, 1]])
    expected, _ = walk(kind, model.vision_model, reducer)
    texts = model(input_ids=words, **inputs(kind)).text_embeds
    with fewtokens.attach(model, reducer) as attachment:
        assert attachment.host.path == 'vision_model'
        output = model(input_ids=words, **inputs(kind))
        torch.testing.assert_close(output.vision_model_output.last_hidden_state, expected)
        assert torch.equal(output.text_embeds, texts)
        pooled = model.get_image_features(**inputs(kind)).pooler_output
        assert pooled.shape == (2, 512 if name == 'CLIP' else 32)


DEPTH = dict(neck_hidden_sizes=[8, 8, 16, 16], fusion_hidden_size=8)


@torch.no_grad()
def test_depth_anything(reducer):
    stages = dict(out_features=['stage2', 'stage4', 'stage5', 'stage6'], reshape_hidden_states=False)
    settings = dict(backbone_config=config('Dinov2', **stages), patch_size=8, reassemble_hidden_size=32, **DEPTH)
    model = transformers.DepthAnythingForDepthEstimation(
        transformers.DepthAnythingConfig(head_hidden_size=8, **settings)
    )
    randomize(model).head.conv3.bias.data += 10  # above what depths are cut off at
    expected, states = walk('DINOv2', model.backbone, reducer)
    states = [*(model.backbone.layernorm(states[index]) for index in (2, 4, 5)), expected]
    host = model(WIDE).predicted_depth
    with fewtokens.attach(model, reducer) as attachment:
        assert attachment.host.path == 'backbone'
        given = model(WIDE).predicted_depth
        assert given.shape == host.shape and not torch.allclose(given, host)
        torch.testing.assert_close(given, model.head(model.neck(states, 8, 12), 8, 12))


def dpt(cls, **options):
    settings = dict(backbone_out_indices=[1, 2, 4, 5], is_hybrid=False, **{**DEPTH, 'fusion_hidden_size': 32})
    return randomize(getattr(transformers, cls)(config('DPT', **{**settings, **options})))


@torch.no_grad()
@pytest.mark.parametrize('cls', ['DPTForDepthEstimation', 'DPTForSemanticSegmentation'])
def test_dense_prediction_by_dpt(cls, reducer):
    model = dpt(cls)
    _, states = walk('DPT', model.dpt, reducer, dict(pixel_values=IMAGES))
    with fewtokens.attach(model, reducer):
        given = model(IMAGES)[0]
        torch.testing.assert_close(given, model.head(model.neck([states[index + 1] for index in (1, 2, 4, 5)])))


@torch.no_grad()
def test_dpt_on_features_of_another_backbone():
    stem = transformers.BitConfig(
        embedding_size=16, hidden_sizes=[16, 16, 32, 32], depths=[1, 1, 1], num_groups=4, global_padding='same',
        embedding_dynamic_padding=True, out_features=['stage1', 'stage2', 'stage3'],
    )  # fmt: skip
    model = dpt(
        'DPTForDepthEstimation', is_hybrid=True, backbone_config=stem, backbone_featmap_shape=[1, 32, 8, 8],
        patch_size=16, image_size=128, neck_hidden_sizes=[16] * 4, neck_ignore_stages=[0, 1], readout_type='project',
    )  # fmt: skip
    images = torch.randn(1, 3, 128, 128)
    host = model(images).predicted_depth
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, (4, 5))) as attachment:
        given = model(images).predicted_depth
        assert given.shape == host.shape and not torch.allclose(given, host)
        assert attachment.token_counts == (64, 20) and attachment.host.nominal_grid == (8, 8)
    assert torch.equal(model(images).predicted_depth, host)


@torch.no_grad()
@pytest.mark.parametrize('name', ['Eomt', 'EomtDinov3'])
def test_queries_join_whole_tokens(name, reducer, restored, monkeypatch):
    settings = dict(num_hidden_layers=7, num_blocks=2, num_queries=5, num_register_tokens=3, num_upscale_blocks=1)
    kind = 'DINOv3ViT' if name == 'EomtDinov3' else name
    model = randomize(getattr(transformers, f'{name}ForUniversalSegmentation')(config(name, **settings)))
    model.attn_mask_probs.zero_()  # else what queries see depends on the masks so far
    own = copy.deepcopy(model)
    own.first = own.layers[:-2]
    monkeypatch.setitem(KINDS, name, (kind, {}, 4, 'first', None))
    tokens, states = walk(name, own, reducer, dict(pixel_values=IMAGES))
    x = torch.cat([model.query.weight.expand(2, -1, -1), tokens], dim=1)
    rope = dict(position_embeddings=model.rope_embeddings(IMAGES)) if name == 'EomtDinov3' else {}
    for block in model.layers[-2:]:
        x = block(x, attention_mask=None, **rope)
    masks, classes = model.predict(model.layernorm(x))
    with fewtokens.attach(model, reducer) as attachment:
        restored.clear()
        output = model(IMAGES)
        # Copies of copies are made in one step.
        assert len(restored) == (1 if reducer.restores == 'copy' else len(reducer.stages()))
        torch.testing.assert_close(output.masks_queries_logits, masks)
        torch.testing.assert_close(output.class_queries_logits, classes)
        for one, other in zip(model(IMAGES, output_hidden_states=True).hidden_states[:6], states, strict=True):
            torch.testing.assert_close(one, other)
        model.attn_mask_probs.fill_(1)
        assert model(IMAGES).masks_queries_logits.shape == masks.shape and attachment.passes == 3
    with pytest.raises(ValueError, match='after=5 must be between 0 and 4: there are 5 blocks'):
        fewtokens.attach(model, fewtokens.SharedUpdate(5, 4))
