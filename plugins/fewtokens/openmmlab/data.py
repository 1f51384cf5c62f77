"""Finds out whether a data set can be read before a model runs on it."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS
from mmengine.utils import track_iter_progress

from ..video.decode import VideoError
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
    kind = DATASETS.get(dataset.type) if isinstance(dataset.get('type'), str) else None
    if hasattr(kind, 'check_files'):
        # Data sets of videos know their files, and where to get them.
        DATASETS.build({**dataset, 'pipeline': [], 'lazy_init': True}).check_files()
        return
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
    # Samples may share their files: a video has several captions.
    problems: dict[tuple[str, ...], str | None] = {}
    for index in track_iter_progress(range(len(dataset))):
        sample = dataset.get_data_info(index)
        paths = tuple(sample_paths(sample))
        if paths not in problems:
            problems[paths] = _missing(paths) or _problem(sample, load)
            if problems[paths] and skip:
                unreadable.append(paths[0])
        if problems[paths] is None:
            readable.append(index)
        elif not skip:
            print()
            raise ValueError(f'{problems[paths]}; --skip-unreadable leaves such samples out and counts them')
    print()
    if not readable:
        raise ValueError(f'none of the {len(dataset)} samples of the data set can be read')
    if unreadable:
        dataset.get_subset_(readable)
    return unreadable


def check_paths(dataset: BaseDataset) -> None:
    """Raises a ValueError that names a sample's file that is missing; nothing is read."""
    dataset.full_init()
    checked: set[str] = set()
    for index in range(len(dataset)):
        paths = [path for path in sample_paths(dataset.get_data_info(index)) if path not in checked]
        checked.update(paths)
        problem = _missing(paths)
        if problem:
            raise ValueError(f'{problem}; --skip-unreadable leaves such samples out and counts them')


def _missing(paths: Sequence[str]) -> str | None:
    return next((f'{path} is missing' for path in paths if '://' not in path and not Path(path).is_file()), None)


def _problem(sample: dict, load: Compose) -> str | None:
    try:
        load(dict(sample))
    except VideoError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001  decoders raise whatever they like at a damaged file
        return f'{sample_paths(sample)[0]} or its annotation cannot be read ({type(error).__name__}: {error})'
    return None


def sample_paths(sample: dict) -> Sequence[str]:
    """The files that a sample is loaded from."""
    return [sample[key] for key in ('img_path', 'video_path', 'seg_map_path') if isinstance(sample.get(key), str)]
