"""The recipes for text-video retrieval: they build, their data sets take their settings, and they are the published."""

import csv
import re
from pathlib import Path

import pytest
import torch
from mmengine.registry import DATASETS, MODELS

from fewtokens.cli.config import choose_reducers, host_config
from fewtokens.openmmlab.config import load_config
from fewtokens.openmmlab.model import without_pretrained

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / 'configs/centerclip').glob('*.py'))
DATASET = {
    'MSR-VTT 1k-A': 'msrvtt-9k',
    'ActivityNet': 'activitynet',
    'MSVD': 'msvd',
    'LSMDC': 'lsmdc',
}
ALGORITHM = {'CLIP4Clip meanP (no clustering)': 'clip4clip', 'k-medoids': 'kmedoids', 'spectral': 'spectral'}


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


def test_published_results_are_the_tables():
    with open(ROOT / 'tests/data/centerclip.csv', newline='') as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        figure = row['value'] or f'{row["ms_per_video_published"]} ms'
        name = f'{ALGORITHM[row["method"]]}_{row["backbone"].lower().replace("/", "-")}_{DATASET[row["dataset"]]}'
        setting = (
            f'-{row["segments"]}x{row["clusters"]}' if row['segments'] and 'CLIP4Clip' not in row['method'] else ''
        )
        claimed = [path for path in CONFIGS if path.stem.startswith(name) and path.stem.endswith(setting)]
        assert any(figure in path.read_text().partition('\n')[0] for path in claimed), (row, claimed)
    assert len(rows) == 9
