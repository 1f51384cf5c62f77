"""The committed configs: they load, and save what was published."""

import ast
import csv
import re
from pathlib import Path

import pytest
import timm
import torch
from mmengine import registry
from mmengine.registry import MODELS, DefaultScope

import fewtokens
from docs.make_published_rows import counted_macs
from fewtokens.checkpoints.keys import convert_keys
from fewtokens.measure.variants import FUSED, HOST, Variant, count_rows
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import build_model
from fewtokens.openmmlab.registry import build_reducer

ROOT = Path(__file__).parents[2]
HOURGLASS = sorted((ROOT / 'configs/hourglass').glob('segmenter*.py'))
TOME = sorted((ROOT / 'configs/tome').glob('*.py'))
SWIN = sorted((ROOT / 'configs/hourglass').glob('*swin*.py'))
OURS = sorted(path for name in ('gradual_update', 'shared_update') for path in (ROOT / 'configs' / name).glob('*.py'))
DATASETS = {'ade20k': 'ADE20K', 'cityscapes': 'Cityscapes', 'pascal-context': 'PascalContext'}
with open(ROOT / 'tests/data/expedit.csv', newline='') as file:
    PUBLISHED = list(csv.DictReader(file))


def published_ratio(name, reducer):
    """MACs with Hourglass over MACs without, as published."""
    dataset = next(full for short, full in DATASETS.items() if short in name)
    rows = [row for row in PUBLISHED if row['dataset'] == dataset and 'Segmenter' in row['model']]
    grid = f'{reducer.grid[0]}x{reducer.grid[1]}'
    host = next(row for row in rows if row['method'] == 'none')
    ours = next(row for row in rows if row['after'] == str(reducer.after) and row['grid'] == grid)
    return float(ours['gflops_published']) / float(host['gflops_published']), host


def plugin_of(config):
    (hook,) = (hook for hook in config.custom_hooks if hook['type'] == 'FewTokensHook')
    return build_reducer(hook['reducer'])


def count(config, reducer):
    side = config.crop_size[0]
    model = build_model(config, device='meta')
    variants = [Variant(HOST, sdpa=False), Variant(FUSED), Variant('plugin', reducer)]
    return [row.macs for row in count_rows(model, variants, torch.empty(1, 3, side, side, device='meta'))]


def test_every_published_setting_has_a_config():
    assert len(HOURGLASS) == 9 and len(SWIN) == 15 and len(TOME) == 9


@pytest.mark.parametrize('path', TOME, ids=lambda path: path.stem)
def test_tome_saves_what_is_published(path):
    """The tables give percents; the tokens merged in a block are those that fit the GMACs saved."""
    config = load_config(path)
    text = ast.get_docstring(ast.parse(path.read_text()))
    before, after, percent = re.match(r'Published: ([\d.]+) to ([\d.]+) GMACs, .* as (\d+) %', text).groups()
    (row,) = [
        row
        for row in PUBLISHED
        if (row['method'], row['setting']) == ('ToMe', f'{percent}%') and same(row['gflops_published'], after)
    ]
    assert DATASETS[next(name for name in DATASETS if name in path.stem)] == row['dataset']
    reducer = plugin_of(config)
    assert reducer.after == tuple(range(24)) and path.stem.endswith(f'_{reducer.tokens}')
    host, _, merged = count(config, reducer)
    saved = float(before) - float(after)
    assert (host - merged) / 1e9 == pytest.approx(saved, rel=0.03)
    assert merged / host == pytest.approx(float(after) / float(before), rel=0.03)


@pytest.mark.parametrize('path', HOURGLASS + SWIN, ids=lambda path: path.stem)
def test_figures_are_those_of_a_published_row(path):
    text = ast.get_docstring(ast.parse(path.read_text()))
    before, after, whole, kept, metric = re.match(
        r'Published: ([\d.]+) to ([\d.]+) GMACs[^,]*, ([\d.]+) to ([\d.]+) ([\w ]+)', text
    ).groups()
    reducer = plugin_of(load_config(path))
    (row,) = [
        row
        for row in PUBLISHED
        if row['method'] == 'Hourglass'
        and (row['metric'], row['after']) == (metric, str(reducer.after))
        and row['grid'] == 'x'.join(map(str, reducer.grid))
        and same(row['gflops_published'], after)
        and same(row['value'], kept)
    ]
    (host,) = [other for other in PUBLISHED if other['method'] == 'none' and of_one_table(other, row)]
    assert same(host['gflops_published'], before) and same(host['value'], whole)


def same(published, stated):
    """A figure, rounded to as many digits as are stated."""
    return f'{float(published):.{len(stated.partition(".")[2])}f}' == stated


def of_one_table(row, other):
    return all(row[name] == other[name] for name in ('task', 'dataset', 'model'))


@pytest.mark.parametrize(
    'name, side, layers, classes',
    [('ade20k-640x640', 640, 2, 150), ('cityscapes-768x768', 768, 1, 19), ('pascal-context-480x480', 480, 2, 60)],
)
def test_the_authors_weights_fit(name, side, layers, classes):
    """Keys and shapes of Segmenter's released checkpoints, by their names and settings."""
    with torch.device('meta'):
        vit = timm.create_model('vit_large_patch16_384', img_size=side, num_classes=0).state_dict()
        shapes = dict(cls_emb=(1, classes, 1024), proj_patch=(1024, 1024), proj_classes=(1024, 1024))
        shapes |= {'proj_dec.weight': (1024, 1024), 'proj_dec.bias': (1024,)}
        for part in ('weight', 'bias'):
            shapes |= {f'decoder_norm.{part}': (1024,), f'mask_norm.{part}': (classes,)}
        weights = {f'encoder.{key}': value for key, value in vit.items()}
        weights |= {f'decoder.{key}': torch.empty(shape) for key, shape in shapes.items()}
    for layer in range(layers):
        own = f'blocks.{layer}.'
        weights |= {f'decoder.{key}': value for key, value in vit.items() if key.startswith(own)}
    config = load_config(ROOT / f'configs/_base_/segmenter_vit-l_{name}.py')
    build_model(config, device='meta').load_state_dict(convert_keys(weights))


@pytest.mark.parametrize('path', HOURGLASS + TOME + OURS, ids=lambda path: path.stem)
def test_segmenters_are_built_and_tested_as_published(path):
    """By Expedit's configs, for the weights that Segmenter's authors released."""
    name = next(short for short in DATASETS if short in path.stem)
    side, stride, layers, classes, scale = {
        'ade20k': (640, 640, 2, 150, (2560, 640)),
        'cityscapes': (768, 512, 1, 19, (2048, 1024)),
        'pascal-context': (480, 320, 2, 60, (4160, 520)),
    }[name]
    config = load_config(path)
    head, test = config.model.decode_head, config.model.test_cfg
    assert (head.num_layers, head.num_classes) == (layers, classes)
    assert (test.mode, test.crop_size, test.stride) == ('slide', (side, side), (stride, stride))
    for loader in (config.val_dataloader, config.test_dataloader):
        (resize,) = [step for step in loader.dataset.pipeline if step['type'] == 'Resize']
        assert resize['scale'] == scale and resize['keep_ratio']
    (resize,) = [step for step in config.train_dataloader.dataset.pipeline if step['type'] == 'RandomResize']
    assert resize['scale'] == scale


@pytest.mark.parametrize('year, short, first, rounds', [(2019, 480, 'person', 4), (2021, 360, 'airplane', 5)])
def test_videos_are_built_and_tested_as_published(year, short, first, rounds):
    config = load_config(ROOT / f'configs/hourglass/mask2former-vis_swin-l_youtubevis-{year}_14-8x8.py')
    for split, of in (('train', 'train'), ('val', 'valid'), ('test', 'valid')):
        dataset = registry.DATASETS.build({**config[f'{split}_dataloader'].dataset, 'lazy_init': True})
        assert dataset.ann_file == f'data/youtube_vis_{year}/annotations/youtube_vis_{year}_{of}.json'
        assert len(dataset.metainfo['classes']) == 40 and dataset.metainfo['classes'][0] == first
    _, resize, _ = config.test_dataloader.dataset.pipeline[0].transforms
    assert resize == dict(type='Resize', scale=(1333, short), keep_ratio=True)
    model = build_model(config, device='meta')
    assert (model.track_head.num_queries, model.backbone.num_features) == (200, [192, 384, 768, 1536])
    assert plugin_of(config).iters == rounds and config.test_evaluator.format_only


@pytest.mark.parametrize('path', HOURGLASS, ids=lambda path: path.stem)
def test_published_macs(path):
    config = load_config(path)
    reducer = plugin_of(config)
    ratio, host = published_ratio(path.stem, reducer)
    macs = count(config, reducer)
    assert macs[0] == macs[1]
    assert counted_macs()[path.stem] == [round(figure / 1e9, 2) for figure in (macs[0], macs[2])]
    assert macs[2] / macs[0] <= 1.03 * ratio
    assert macs[0] / 1e9 == pytest.approx(float(host['gflops_published']), rel=0.05)


@pytest.mark.parametrize('path', SWIN, ids=lambda path: path.stem)
def test_swin_settings_are_the_published_ones(path):
    config = load_config(path)
    reducer = plugin_of(config)
    rows = [row for row in PUBLISHED if row['model'].split()[0].lower() == re.split('[-_]', path.stem)[0]]
    published = {(row['after'], row['grid'], row['gflops_published']) for row in rows}
    docstring = path.read_text().partition(' GMACs')[0].split()[-1]
    assert (str(reducer.after), f'{reducer.grid[0]}x{reducer.grid[1]}', docstring) in published
    with DefaultScope.overwrite_default_scope(config.default_scope):
        backbone = MODELS.build(config.model.backbone).to('meta')
    variants = [Variant(HOST, sdpa=False), Variant(FUSED), Variant('plugin', reducer)]
    macs = [row.macs for row in count_rows(backbone, variants, torch.empty(1, 3, 768, 1152, device='meta'))]
    # 18 blocks in the third stage, after 4 in the first two, hold 0.73 of the backbone's MACs; no window is padded.
    clustered = (22 - reducer.after) / 18 * (1 - reducer.grid[0] ** 2 / 144)
    assert macs[0] == macs[1] and macs[2] / macs[0] == pytest.approx(1 - 0.73 * clustered, abs=0.01)


@pytest.mark.parametrize('path', OURS, ids=lambda path: path.stem)
def test_our_own_methods_cost_less(path):
    config = load_config(path)
    macs = count(config, plugin_of(config))
    assert isinstance(plugin_of(config), (fewtokens.GradualUpdate, fewtokens.SharedUpdate)) and macs[2] < 0.55 * macs[0]


@pytest.mark.parametrize('phase', ['128x128', '256x256'])
def test_demo_configs_build(phase):
    config = load_config(ROOT / f'configs/demo/segmenter_scenes-{phase}.py')
    model = build_model(config, ROOT / 'configs/demo/segmenter_scenes.pth')
    assert len(model.backbone.layers) == 12 and sum(p.numel() for p in model.parameters()) < 3e6
