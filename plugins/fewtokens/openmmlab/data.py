"""Finds out whether a data set can be read before a model runs on it."""

from collections.abc import Sequence
from pathlib import Path

from mmengine.config import Config
from mmengine.dataset import BaseDataset, Compose
from mmengine.registry import DATASETS
from mmengine.utils import track_iter_progress
from torch.utils.data import DataLoader, Dataset

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


def check_samples(dataset: BaseDataset, skip: bool = False, workers: int = 0) -> list[str]:
    """Loads every sample's files once.

    Args:
        dataset: its loading transforms are used, so what is checked is what will be loaded.
        skip: drop unreadable samples from the data set in place, and return their paths; else the first is an error.
        workers: processes that load.

    Raises:
        ValueError: a file is missing or damaged.
    """
    dataset.full_init()
    # Samples may share their files: a video has several captions.
    groups: dict[tuple[str, ...], list[int]] = {}
    for index in range(len(dataset)):
        groups.setdefault(tuple(sample_paths(dataset.get_data_info(index))), []).append(index)
    problems = DataLoader(_Problems(dataset, [indices[0] for indices in groups.values()]), None, num_workers=workers)
    readable, unreadable = [], []
    for (paths, indices), problem in zip(groups.items(), track_iter_progress((problems, len(groups)))):
        if problem is None:
            readable += indices
        elif skip:
            unreadable.append(paths[0])
        else:
            print()
            raise ValueError(f'{problem}; --skip-unreadable leaves such samples out and counts them')
    print()
    if not readable:
        raise ValueError(f'none of the {len(dataset)} samples of the data set can be read')
    if unreadable:
        dataset.get_subset_(sorted(readable))
    return unreadable


class _Problems(Dataset):
    """What is wrong with each of some samples, or None."""

    def __init__(self, dataset: BaseDataset, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices
        self.load = Compose([t for t in dataset.pipeline.transforms if type(t).__name__.startswith('Load')])

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> str | None:
        sample = self.dataset.get_data_info(self.indices[place])
        return _missing(sample_paths(sample)) or _problem(sample, self.load)


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
