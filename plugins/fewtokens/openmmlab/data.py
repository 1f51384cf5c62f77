"""Finds out whether a data set can be read before a model runs on it."""

import io
import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config
from mmengine.dataset import BaseDataset
from mmengine.fileio import list_dir_or_file
from mmengine.registry import DATASETS
from torch.utils.data import DataLoader, Dataset

from ..measure.files import shown
from ..measure.progress import progress_bar
from .coco_annotations import check_annotations
from .loading import frames_of, loading_steps, name_files, sample_paths

HINT = '; --skip-unreadable leaves such samples out and counts them'


def check_test_data(config: Config) -> None:
    """Finds what is missing or impossible in a config's test set before a model is built.

    Raises:
        FileNotFoundError, ValueError: as `check_folders`, `check_annotations` and `check_not_empty` say.
    """
    check_folders(config.test_dataloader.dataset)
    check_annotations(config)
    check_not_empty(config.test_dataloader.dataset)


def check_folders(dataset: Config) -> None:
    """Raises a FileNotFoundError that names a folder or annotation file of a data set's config that isn't there."""
    for part in _innermost_settings(dataset):
        kind = _class_of(part)
        if hasattr(kind, 'check_files'):
            # Data sets of videos know their files, and where to get them.
            DATASETS.build({**part, 'pipeline': [], 'lazy_init': True}).check_files()
            continue
        root = Path(part.get('data_root') or '')
        names = [name for name in (part.get('data_prefix') or {}).values() if isinstance(name, str)]
        for name in [*names, part.get('ann_file') or '']:
            path = root / name
            if '://' not in str(path) and not path.exists():
                raise FileNotFoundError(f'the data set has no {str(path)!r}: set data_root, or make or fetch the data')


def check_not_empty(dataset: Config) -> None:
    """Raises a ValueError where a data set's config finds no sample, or can't read its annotation file.

    Pictures whose suffix differs from the data set's in upper and lower case alone are warned of: it leaves them out.
    """
    for part in _innermost_settings(dataset):
        kind = _class_of(part)
        if not isinstance(kind, type) or not issubclass(kind, BaseDataset) or hasattr(kind, 'check_files'):
            continue
        samples = DATASETS.build({**part, 'pipeline': [], 'lazy_init': True})
        samples.serialize_data = False  # which fails if there is nothing
        folder = samples.data_prefix.get('img_path') or samples.data_prefix.get('img') or samples.data_root or ''
        source = samples.ann_file or folder
        try:
            with redirect_stdout(io.StringIO()):  # COCO's interface tells how long it takes
                samples.full_init()
        except ImportError:  # of what its files are read with, which the runner will say
            continue
        except Exception as error:  # noqa: BLE001  each reader raises in ways of its own at a damaged file
            reason = f'{type(error).__name__}: {shown(error)}'
            raise ValueError(f'{source!r} cannot be read as {kind.__name__} reads it ({reason})') from error
        if hasattr(samples, 'img_suffix') and not Path(samples.ann_file or '').is_file():
            _check_suffixes(samples, folder)
        elif not len(samples):
            filters = f', or none that its filter_cfg {dict(samples.filter_cfg)} leaves' if samples.filter_cfg else ''
            raise ValueError(f'the data set has no samples in {source!r}{filters}')


def _innermost_settings(dataset: Config) -> Iterator[Config]:
    """The data sets' own configs, in wrappers that repeat, join or mix them."""
    inner = dataset.get('datasets') or ([dataset.dataset] if 'dataset' in dataset else [])
    for part in inner:
        yield from _innermost_settings(part)
    if not inner:
        yield dataset


def _class_of(dataset: Config) -> Any:
    kind = dataset.get('type')
    if not isinstance(kind, str):
        return kind
    with DATASETS.switch_scope_and_registry(None) as registry:
        return registry.get(kind)


def _check_suffixes(samples: BaseDataset, folder: str) -> None:
    """Where mmseg lists a folder, which it does by the suffix as it is written."""
    suffix = samples.img_suffix
    files = list_dir_or_file(folder, list_dir=False, recursive=True, backend_args=samples.backend_args)
    others = sorted(file for file in files if not file.endswith(suffix))
    if not len(samples):
        kinds = Counter(Path(file).suffix or Path(file).name for file in others)
        found = ', '.join(f'{count} {shown(kind)}' for kind, count in kinds.most_common(5)) or 'nothing'
        raise ValueError(f'no pictures in {folder!r}: they end in {suffix!r}, the img_suffix; there is {found}')
    left_out = [file for file in others if file.lower().endswith(suffix.lower())]
    if left_out:
        text = f'such as {left_out[0]!r}: pictures end in {suffix!r}, the img_suffix'
        warnings.warn(f'{len(left_out)} files in {folder!r} are left out, {text}', stacklevel=3)


def check_training(dataset: Any, skip: bool = False, workers: int = 0) -> list[str]:
    """Finds what would end a training without telling which file it was.

    Nothing is read at once, unless to skip what can't be: a training set is large. While it is loaded, what is wrong
    with a sample is an error that names the file.

    Args:
        dataset: a data set, or a wrapper of some, whose samples are never skipped.
        skip, workers: as in `check_samples`.

    Returns:
        the paths of the samples that are left out.

    Raises:
        ValueError: a file is missing, or no sample can be read.
    """
    if isinstance(dataset, BaseDataset):
        skipped: list[str] = []
        if skip:
            skipped = check_samples(dataset, skip, workers)
        else:
            check_paths(dataset)
        name_files(dataset, HINT)
        return skipped
    for part in getattr(dataset, 'datasets', None) or [getattr(dataset, 'dataset', None)]:
        if part is not None:
            check_training(part)
    return []


def check_samples(dataset: BaseDataset, skip: bool = False, workers: int = 0) -> list[str]:
    """Loads every sample's files once.

    Args:
        dataset: its loading transforms are used, so what is checked is what will be loaded.
        skip: drop unreadable samples from the data set in place, and return their paths; else the first is an error.
        workers: processes that load.

    Raises:
        ValueError: a file is missing or damaged, or labels fit neither picture nor classes.
    """
    dataset.full_init()
    # Samples may share their files: a video has several captions.
    groups: dict[tuple[str, ...], list[int]] = {}
    for index in range(len(dataset)):
        groups.setdefault(tuple(sample_paths(dataset.get_data_info(index))), []).append(index)
    # With a generator of its own: a training's random numbers stay what they are.
    problems = DataLoader(
        _Problems(dataset, [indices[0] for indices in groups.values()]),
        batch_size=None, num_workers=workers, generator=torch.Generator(),
    )  # fmt: skip
    readable, unreadable = [], []
    with progress_bar(len(groups), 'checking samples') as bar:
        for (paths, indices), problem in zip(groups.items(), problems):
            if problem is None:
                readable += indices
            elif skip:
                unreadable.append(paths[0])
            else:
                raise ValueError(problem + HINT)
            bar.update()
    if not readable:
        raise ValueError(f'none of the {len(dataset)} samples of the data set can be read')
    if unreadable:
        dataset.get_subset_(sorted(readable))
    return unreadable


class _Problems(Dataset):
    """What is wrong with each of some samples, or None."""

    def __init__(self, dataset: BaseDataset, indices: list[int]) -> None:
        self.dataset, self.indices = dataset, indices
        self.load = loading_steps(dataset)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, place: int) -> str | None:
        sample = self.dataset.get_data_info(self.indices[place])
        problem = _missing(sample_paths(sample))
        if problem:
            return problem
        try:
            for frame in frames_of(sample):
                self.load(frame)
        except ValueError as error:
            return str(error)
        return None


def check_paths(dataset: BaseDataset) -> None:
    """Raises a ValueError that names a sample's file that is missing; nothing is read."""
    dataset.full_init()
    checked: set[str] = set()
    for index in range(len(dataset)):
        paths = [path for path in sample_paths(dataset.get_data_info(index)) if path not in checked]
        checked.update(paths)
        problem = _missing(paths)
        if problem:
            raise ValueError(problem + HINT)


def _missing(paths: Sequence[str]) -> str | None:
    return next((f'{shown(path)} is missing' for path in paths if '://' not in path and not Path(path).is_file()), None)
