"""Finds out whether a data set can be read before a model runs on it."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.utils import track_iter_progress

from .coco_annotations import check_annotations


def check_test_data(config: Config) -> None:
    """Finds what is missing or impossible in a config's test set before a model is built.

    Raises:
        FileNotFoundError, ValueError: as `check_folders` and `check_annotations` say.
    """
    check_folders(config.test_dataloader.dataset)
    check_annotations(config)


def check_folders(dataset: Config) -> None:
    """Raises a FileNotFoundError that names a folder or annotation file of a data set's config that isn't there."""
    while 'dataset' in dataset:
        dataset = dataset.dataset
    root = Path(dataset.get('data_root') or '')
    parts = [part for part in (dataset.get('data_prefix') or {}).values() if isinstance(part, str)]
    for part in [*parts, dataset.get('ann_file') or '']:
        path = root / part
        if '://' not in str(path) and not path.exists():
            raise FileNotFoundError(f'the data set has no {str(path)!r}: set data_root, or make or fetch the data')


def check_samples(dataset: BaseDataset, skip: bool = False) -> list[str]:
    """Loads every sample's files once.

    Args:
        dataset: its loading transforms are used, so what is checked is what will be loaded.
        skip: drop unreadable samples from the data set in place, and return their paths; else the first is an error.

    Raises:
        ValueError: a file is missing or damaged.
    """
    dataset.full_init()
    load = Compose([t for t in dataset.pipeline.transforms if type(t).__name__.startswith('Load')])
    readable, unreadable = [], []
    for index in track_iter_progress(range(len(dataset))):
        sample = dataset.get_data_info(index)
        problem = _problem(sample, load)
        if problem is None:
            readable.append(index)
        elif skip:
            unreadable.append(sample_paths(sample)[0])
        else:
            print()
            raise ValueError(f'{problem}; --skip-unreadable leaves such samples out and counts them')
    print()
    if not readable:
        raise ValueError(f'none of the {len(dataset)} samples of the data set can be read')
    if unreadable:
        dataset.get_subset_(readable)
    return unreadable


def _problem(sample: dict, load: Compose) -> str | None:
    for path in sample_paths(sample):
        if '://' not in path and not Path(path).is_file():
            return f'{path} is missing'
    try:
        load(dict(sample))
    except Exception as error:  # noqa: BLE001  decoders raise whatever they like at a damaged file
        return f'{sample_paths(sample)[0]} or its annotation cannot be read ({type(error).__name__}: {error})'
    return None


def sample_paths(sample: dict) -> Sequence[str]:
    """The files that a sample is loaded from."""
    return [sample[key] for key in ('img_path', 'video_path', 'seg_map_path') if isinstance(sample.get(key), str)]
