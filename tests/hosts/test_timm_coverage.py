"""Every model of timm's whose class is a known host: attached, by every way in, shrunk to a few narrow blocks."""

import copy
import inspect
import warnings

import pytest
import timm
import torch
from models import randomize
from timm.models._features import FeatureGetterNet, FeatureListNet

import fewtokens

TINY = dict(depth=3, embed_dim=32, num_heads=4, img_size=64, patch_size=8)
STAGES = dict(depths=(1, 2, 1, 1), embed_dim=8, num_heads=(1, 2, 2, 4), img_size=64)
# Their stems say how wide they are: on the meta device, for shapes alone.
STEMS = dict(depth=3, img_size=128)
# By timm's files: what makes its models small.
FILES = {
    'vision_transformer': TINY, 'vision_transformer_hybrid': STEMS, 'deit': TINY, 'vitamin': STEMS, 'eva': TINY,
    'beit': TINY, 'vision_transformer_relpos': TINY,
    'vision_transformer_sam': TINY | dict(img_size=128, global_attn_indexes=(1,)),
    'swin_transformer': STAGES, 'swin_transformer_v2': STAGES,
}  # fmt: skip
UNSUPPORTED: dict[str, str] = {}
"""By name, why it is refused: a part of the message."""
REFUSED = {'hiera': 'the order of its mask units', 'swin_transformer_v2_cr': 'norm the sum of all branches'}
"""By file, why all of its models are."""


def small(name, file):
    settings = FILES[file]
    if name.endswith('sapiens2'):
        settings = settings | dict(num_kv_heads=(4, 2, 4))
    with warnings.catch_warnings(), torch.device('meta' if settings is STEMS else 'cpu'):
        warnings.simplefilter('ignore')
        model = timm.create_model(name, num_classes=5, **settings)
        images = torch.randn(1, 3, settings['img_size'], settings['img_size'])
    if settings is STEMS:
        # They take most of the time, and have nothing to do with tokens: once is enough.
        features = model.patch_embed.backbone(images)
        model.patch_embed.backbone.forward = lambda x: features
    return (model.eval() if settings is STEMS else randomize(model)), images


def extractor(model):
    """timm's own of features, which takes the model apart: of a copy."""
    if hasattr(model, 'layers'):
        return FeatureListNet(copy.deepcopy(model), (0, 1, 2), output_fmt='NHWC', flatten_sequential=True)
    return FeatureGetterNet(copy.deepcopy(model), (0, 1))


def ways(model, images):
    """What comes out of a model by every way in, as lists of tensors."""
    features = model.forward_features(images)
    yield 'forward', [model(images)]
    yield 'forward_features', [features]
    yield 'forward_head', [model.forward_head(features)]
    last, between = model.forward_intermediates(images)
    yield 'forward_intermediates', [*between, last]
    options = dict(norm=True, intermediates_only=True, stop_early=True)
    yield 'forward_intermediates of one', model.forward_intermediates(images, indices=[-1], **options)
    if 'return_prefix_tokens' in inspect.signature(model.forward_intermediates).parameters and model.num_prefix_tokens:
        pairs = model.forward_intermediates(images, return_prefix_tokens=True, intermediates_only=True)
        yield 'prefix tokens', [tokens for pair in pairs for tokens in pair]
    if hasattr(model, 'get_intermediate_layers'):
        yield 'get_intermediate_layers', list(model.get_intermediate_layers(images, n=2))


@torch.no_grad()
def check(name, file):
    model, images = small(name, file)
    host, features = dict(ways(model, images)), extractor(model)
    host['features_only'] = features(images)
    (found,) = fewtokens.hosts.find_hosts(model)
    few = tuple(max(1, min(3, side // 2)) for side in found.nominal_grid)
    reducer = fewtokens.SharedUpdate(1, few)
    with fewtokens.attach(model, reducer) as attachment, fewtokens.attach(features, reducer) as apart:
        given = dict(ways(model, images)) | dict(features_only=features(images))
        assert attachment.passes >= 4 and attachment.skipped == 0 and apart.passes == 1
    for way, outputs in host.items():
        assert [one.shape for one in given[way]] == [one.shape for one in outputs], way
    if images.is_meta:
        return
    assert all(one.isfinite().all() for outputs in given.values() for one in outputs)
    # Block by block or stage by stage: before the reduction it is the host, from it on it isn't.
    for way in ('forward_intermediates', 'features_only'):
        same = [torch.equal(*both) for both in zip(given[way], host[way])]
        assert same == [True] + [False] * (len(same) - 1), (way, same)
    with (
        fewtokens.attach(model, fewtokens.SharedUpdate(1, found.nominal_grid)) as attachment,
        warnings.catch_warnings(),
    ):
        warnings.simplefilter('ignore')
        assert torch.equal(model(images), host['forward'][0]) and (attachment.passes, attachment.skipped) == (0, 1)


@pytest.fixture(scope='module')
def counts(request):
    """Prints at the end how many of how many names are supported."""
    counted = {}
    yield counted
    with request.config.pluginmanager.getplugin('capturemanager').global_and_fixture_disabled():
        works, names = (sum(each) for each in zip(*counted.values()))
        print(f'\ntimm {timm.__version__}: {works} of {names} names in {len(counted)} files are supported')


@pytest.mark.parametrize('file', FILES)
def test_every_name(file, counts):
    names, refused, wrong = timm.list_models(module=file), {}, {}
    for name in names:
        try:
            check(name, file)
        except Exception as error:
            known = name in UNSUPPORTED and UNSUPPORTED[name] in str(error)
            (refused if known else wrong)[name] = f'{type(error).__name__}: {error}'
    counts[file] = len(names) - len(refused) - len(wrong), len(names)
    assert not wrong, '\n'.join(f'{name}: {message}' for name, message in wrong.items())
    assert set(refused) == set(UNSUPPORTED) & set(names)


@pytest.mark.parametrize('file', REFUSED)
def test_whole_files_are_refused_with_the_reason(file):
    names = timm.list_models(module=file)
    assert names
    for name in names:
        with torch.device('meta'):
            model = timm.create_model(name, depths=(1, 1, 1, 1)) if file != 'hiera' else timm.create_model(name)
        with pytest.raises(ValueError, match=f'has no known backbone: .*{REFUSED[file]}'):
            fewtokens.attach(model, fewtokens.SharedUpdate(1, 3))
        assert REFUSED[file] in fewtokens.supported(model)
