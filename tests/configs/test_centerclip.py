"""The recipes for text-video retrieval: they build, their data sets take their settings, and they are the published."""

import ast
import csv
import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS, MODELS

from docs.make_published_rows import counted_macs
from fewtokens.cli.config import choose_reducers, host_config
from fewtokens.measure.macs import count_macs
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import without_pretrained

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs/centerclip').glob('*.py'))
DATASET = {'MSR-VTT 1k-A (9k)': 'msrvtt-9k', 'ActivityNet': 'activitynet', 'MSVD': 'msvd', 'LSMDC': 'lsmdc'}
ALGORITHM = {'none': 'clip4clip', 'k-medoids': 'kmedoids', 'spectral': 'spectral'}
CHECKPOINTS = {
    'kmedoids_vit-b-32_lsmdc_6-6x49': ('04', '21.9', '21.1'),
    'kmedoids_vit-b-32_lsmdc_6-4x49': ('09', '21.7', '21.4'),
    'spectral_vit-b-32_lsmdc_6-6x49': ('22', '21.6', '20.6'),
    'spectral_vit-b-32_lsmdc_6-4x49': ('23', '21.4', '19.5'),
    'kmedoids_vit-b-32_msrvtt-7k_6-6x49': ('62', '44.1', '41.9'),
    'kmedoids_vit-b-32_msrvtt-7k_6-4x49': ('63', '44.2', '43.2'),
    'kmedoids_vit-b-32_msrvtt-7k_7-4x49': ('80', '43.9', '42.6'),
    'kmedoids_vit-b-32_msvd_6-4x49': ('22', '47.5', '61.4'),
}
"""R@1 of texts to videos and of videos to texts that the authors list for checkpoints, not in their tables."""


def config_of(row):
    name = f'{ALGORITHM[row["method"]]}_{row["backbone"].lower().replace("/", "-")}_{DATASET[row["dataset"]]}'
    return name if row['method'] == 'none' else f'{name}_{row["after"]}-{row["segments"]}x{row["clusters"]}'


with open(ROOT / 'tests/data/centerclip.csv', newline='') as file:
    PUBLISHED = {config_of(row): row for row in csv.DictReader(file)}


def test_every_data_set_has_recipes():
    found = {path.stem.split('_')[2] for path in CONFIGS}
    assert found == {'msrvtt-9k', 'msrvtt-7k', 'msrvtt-full', 'msvd', 'lsmdc', 'activitynet', 'didemo'}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_model_is_what_the_name_says(path):
    config = load_config(path)
    assert config.model.clip.pretrained == 'openai' and config.model.clip.quick_gelu
    with torch.device('meta'):
        encoder = MODELS.build(without_pretrained(config.model)).encoder
    algorithm, backbone, _, *setting = path.stem.split('_')
    assert encoder.visual.conv1.kernel_size == {'vit-b-32': (32, 32), 'vit-b-16': (16, 16)}[backbone]
    if algorithm == 'clip4clip':
        assert encoder.clustering is None and not setting
        return
    clustering, (after, *numbers) = encoder.clustering, re.split('[-x]', *setting)
    assert (encoder.after, clustering.segments, clustering.clusters) == (int(after), *map(int, numbers))
    assert clustering.algorithm == algorithm and config.frames % clustering.segments == 0


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_data_sets_take_their_settings(path):
    config = load_config(path)
    splits = {}
    for part in ('train', 'val', 'test'):
        dataset = DATASETS.build(dict(config[f'{part}_dataloader'].dataset, lazy_init=True))
        load, _ = dataset.pipeline.transforms
        assert load.frames == config.frames and dataset.pairs == (part == 'train')
        splits[part] = dataset.split
    # The epoch is chosen on other videos than the test's.
    assert splits == dict(train='train', val='val', test='test')


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_training_is_as_published(path):
    """CenterCLIP's scripts; for DiDeMo, which they leave out, CLIP4Clip's."""
    config, dataset = load_config(path), path.stem.split('_')[2]
    long = dict(activitynet=(60, 77, 8, 1e-5), didemo=(64, 64, 5, 1e-7))
    frames, words, epochs, rate = long.get(dataset, (12, 32, 5, 5e-6))
    assert (config.frames, config.model.max_words, config.train_cfg.max_epochs) == (frames, words, epochs)
    assert config.optim_wrapper.optimizer.lr == rate and 8 * config.train_dataloader.batch_size == 128
    warmup, cosine = config.param_scheduler
    assert warmup.end == cosine.begin == pytest.approx(0.1 * epochs) and cosine.end == epochs


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_tools_compare_a_recipe_with_a_plugin(path):
    config = load_config(path)
    text = 'SegmentClustering(segments=3, clusters=10, after=4)'
    reducers = choose_reducers(config, [text])
    assert len(reducers) == 1 + (not path.stem.startswith('clip4clip')) and reducers[text].after == 4
    assert host_config(config).model.get('clustering') is None


@pytest.mark.parametrize('name', PUBLISHED)
def test_costs_are_those_of_the_page(name):
    config = load_config(ROOT / f'configs/centerclip/{name}.py')
    with torch.device('meta'):
        encoder = MODELS.build(without_pretrained(config.model)).encoder
    encoder.eval()
    macs = count_macs(encoder, torch.empty(1, config.frames, 3, 224, 224, device='meta'))
    assert counted_macs()[name] == [round(macs / 1e9, 2)]


def test_every_published_row_has_a_config():
    assert len(PUBLISHED) == 27 and set(PUBLISHED) <= {path.stem for path in CONFIGS}


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_figures_are_those_of_the_published_row(path):
    """And a config without a row gives none."""
    text, row, checkpoint = ast.get_docstring(ast.parse(path.read_text())), None, None
    figures = ['t2v_r1', 'v2t_r1', 'ms_per_video']
    if row := PUBLISHED.get(path.stem):
        host = PUBLISHED.get('_'.join(['clip4clip', *path.stem.split('_')[1:3]]))
        stated = f'Published: text to video R@1 {row["t2v_r1"]}, video to text {row["v2t_r1"]}, '
        stated += f'{row["ms_per_video"]} ms a video'
        if row['method'] != 'none' and host:
            stated += f'; unclustered {", ".join(host[figure] for figure in figures)}'
        assert text.partition('\n')[0] == f'{stated}.'
        text = text.partition('\n')[2]
    if checkpoint := CHECKPOINTS.get(path.stem):
        number, texts, videos = checkpoint
        assert re.search(rf"[Tt]he authors' checkpoint {number}\b", text)
        assert (texts in text and videos in text) or (row['t2v_r1'], row['v2t_r1']) == (texts, videos)
    else:
        assert "authors' checkpoint " not in text and not re.search(r'\d\d\.\d', text)
