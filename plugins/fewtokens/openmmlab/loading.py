"""Loading a sample's files so that whatever is wrong with one of them is an error that names it."""

import io
from collections.abc import Iterator, Sequence
from typing import Any, cast

import numpy as np
from mmengine import fileio
from mmengine.dataset import BaseDataset, Compose
from PIL import Image

from ..measure.files import UnreadableError, shown

EXIF_ORIENTATION = 274
NARROW = ('1', 'L', 'P', 'LA', 'PA', 'RGB', 'RGBA')
"""Pillow's kinds of pictures whose values fit eight bits."""


def sample_paths(sample: dict) -> Sequence[str]:
    """The files that a sample is loaded from, those of all its frames if it is a video of mmdet's."""
    return [
        part[key]
        for part in frames_of(sample)
        for key in ('img_path', 'video_path', 'seg_map_path', 'depth_map_path')
        if isinstance(part.get(key), str)
    ]


def frames_of(sample: dict) -> Sequence[dict]:
    """What is loaded by itself: the frames of a video of mmdet's, or the sample."""
    return sample.get('images', [sample])


def loading_steps(dataset: BaseDataset, hint: str = '') -> Compose:
    """The loading transforms of a data set's pipeline alone, each as a `NamedLoading`."""
    return Compose([NamedLoading(step, dataset, hint) for step in _loading(dataset.pipeline.transforms)])


def name_files(dataset: BaseDataset, hint: str = '') -> None:
    """Puts a `NamedLoading` in the place of each loading transform of a data set's pipeline."""
    steps = dataset.pipeline.transforms
    dataset.pipeline.transforms = [NamedLoading(s, dataset, hint) if _is_loading(s) else s for s in steps]


def _loading(steps: Sequence[Any]) -> Iterator[Any]:
    for step in steps:
        if _is_loading(step):
            yield step
        elif getattr(step, 'subroutines', None):  # test-time augmentation: what is loaded is the same in each
            yield from _loading(step.subroutines[0].transforms)
        elif type(step).__name__ == 'TransformBroadcaster':  # what is done to each frame of a video
            yield from _loading(step.transforms.transforms)


def _is_loading(step: Any) -> bool:
    return type(step).__name__.startswith('Load')


class NamedLoading:
    """A loading transform that names the file where something is wrong.

    Beside what can't be read, labels of pixels that don't fit their picture or the classes are wrong, and pictures of
    another size than COCO's annotations say.

    Args:
        step: loads a sample's image, video or annotation.
        dataset: what the samples are of.
        hint: ends the messages.
    """

    def __init__(self, step: Any, dataset: BaseDataset, hint: str = '') -> None:
        self.step, self.hint = step, hint
        self.labels = LabelRange(dataset) if hasattr(dataset, 'reduce_zero_label') else None
        self.sized = hasattr(dataset, 'COCOAPI')
        self.mapped = getattr(step, 'with_seg', False)
        self.depth = type(step).__name__ == 'LoadDepthAnnotation'

    def __call__(self, sample: dict) -> dict | None:
        """Loads; raises a ValueError of one line."""
        try:
            loaded = self.step(sample)
        except UnreadableError as error:
            raise type(error)(f'{shown(error)}{self.hint}') from error
        except Exception as error:  # noqa: BLE001  decoders raise whatever they like at a damaged file
            problem = self._misfit(sample) or f'{self._named(sample)} cannot be read ({_reason(error)})'
            raise ValueError(f'{problem}{self.hint}') from error
        wrong = self._problem(loaded) if loaded else None
        if wrong:
            raise ValueError(f'{wrong}{self.hint}')
        return loaded

    def _named(self, sample: dict) -> str:
        if self.mapped and isinstance(sample.get('seg_map_path'), str):
            return shown(sample['seg_map_path'])
        if self.depth and isinstance(sample.get('depth_map_path'), str):
            return shown(sample['depth_map_path'])
        return shown(sample_paths(sample)[0]) + ' or its annotation' * ('Annotation' in type(self.step).__name__)

    def _misfit(self, sample: dict) -> str | None:
        """What is wrong with the size of labels that couldn't be loaded, as those of objects can't."""
        try:
            return _size_problem(sample, self._read_labels(sample)) if self.mapped else None
        except Exception:  # noqa: BLE001  the file is damaged
            return None

    def _problem(self, sample: dict) -> str | None:
        if self.sized and 'ori_shape' in sample and (sample['height'], sample['width']) != tuple(sample['ori_shape']):
            said = f'{sample["width"]} x {sample["height"]}'
            return f'{_picture_size(sample)}, the annotations say {said}{_turned(sample)}'
        if self.depth:
            return self._depth_problem(sample)
        if not self.mapped or 'gt_seg_map' not in sample:
            return None
        labels = sample['gt_seg_map']
        if labels.ndim != 2:
            return (
                f'{shown(sample["seg_map_path"])} has labels of shape {labels.shape}: '
                'they must be [height, width], one number a pixel'
            )
        problem = _size_problem(sample, labels)
        if problem or self.labels is None or self.labels.classes is None:
            return problem
        wrong = self.labels.wrong(labels)
        if not wrong.size and not self._is_wide(sample):
            return None
        found = self.labels.wrong_in_file(self._read_labels(sample), labels)
        return f'{shown(sample["seg_map_path"])} has {self.labels.describe(found)}' if found.size else None

    def _depth_problem(self, sample: dict) -> str | None:
        name, depth = shown(sample['depth_map_path']), sample['gt_depth_map']
        if depth.ndim != 2:
            return f'{name} has depths of shape {depth.shape}: they must be [height, width], one number a pixel'
        if 'ori_shape' in sample and depth.shape != tuple(sample['ori_shape'][:2]):
            size = f'{depth.shape[1]} x {depth.shape[0]} pixels'
            return f'{name} has depths of {size}, its picture {_picture_size(sample)}{_turned(sample)}'
        if self._is_narrow(sample['depth_map_path']):
            return f'{name} has 8 bits a pixel: a PNG of depths has 16'
        return None if (depth > 0).any() else f'{name} has no depth: all of it is 0'

    def _is_narrow(self, path: str) -> bool:
        try:
            with Image.open(io.BytesIO(fileio.get(path, backend_args=self.step.backend_args))) as picture:
                return picture.mode in NARROW
        except OSError:  # a format of another reader
            return False

    def _read_labels(self, sample: dict) -> np.ndarray:
        """Labels as they are in the file: mmseg keeps eight bits of each."""
        import mmcv  # which data sets of videos do without

        backend = self.step.imdecode_backend
        return mmcv.imfrombytes(self._bytes(sample), flag='unchanged', backend=backend).squeeze()

    def _is_wide(self, sample: dict) -> bool:
        try:
            with Image.open(io.BytesIO(self._bytes(sample))) as picture:
                return picture.mode not in NARROW
        except OSError:  # a format of another reader
            return True

    def _bytes(self, sample: dict) -> bytes:
        return fileio.get(sample['seg_map_path'], backend_args=self.step.backend_args)


class LabelRange:
    """Which labels a data set of mmseg can have."""

    def __init__(self, dataset: BaseDataset) -> None:
        names = dataset.metainfo.get('classes')
        self.classes = None if names is None else len(names)
        self.first = int(dataset.reduce_zero_label)
        self.in_file = cast(int, len(dataset.label_map or ()) or self.classes)
        # mmseg's own mapping ignores pixels as 255, whatever the setting.
        self.ignored = sorted({255, dataset.ignore_index})

    def wrong(self, labels: np.ndarray) -> np.ndarray:
        """The values among labels [H, W], as they were loaded, that are neither a class nor ignored."""
        values = np.flatnonzero(np.bincount(labels.ravel())) if labels.dtype == np.uint8 else np.unique(labels)
        return values[((values < 0) | (values >= cast(int, self.classes))) & ~np.isin(values, self.ignored)]

    def wrong_in_file(self, raw: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """The same as the file has them, with those that eight bits can't hold."""
        raw = raw.astype(np.float64)
        cut = (raw < 0) | (raw > 255) | (raw != np.floor(raw))
        return np.unique(raw[cut | np.isin(labels, self.wrong(labels))])

    def describe(self, found: np.ndarray) -> str:
        values = ', '.join(f'{value:.9g}' for value in found[:5]) + (', …' if len(found) > 5 else '')
        ignored = ' or '.join(map(str, [0] * self.first + self.ignored))
        return (
            f'the label {values}: {self.classes} classes have the labels {self.first} to '
            f'{self.first + self.in_file - 1}, and {ignored} where a pixel is ignored'
        )


def _size_problem(sample: dict, labels: np.ndarray) -> str | None:
    if 'ori_shape' not in sample or labels.shape[:2] == tuple(sample['ori_shape'][:2]):
        return None
    size = f'{labels.shape[1]} x {labels.shape[0]} pixels'
    label = shown(sample['seg_map_path'])
    return f'{label} has labels of {size}, its picture {_picture_size(sample)}{_turned(sample)}'


def _picture_size(sample: dict) -> str:
    height, width = sample['ori_shape'][:2]
    return f'{shown(sample["img_path"])} is {width} x {height} pixels'


def _turned(sample: dict) -> str:
    """What to do about a picture whose file stores another size than it is loaded with."""
    try:
        with Image.open(sample['img_path']) as picture:
            orientation, stored = picture.getexif().get(EXIF_ORIENTATION, 1), picture.size
    except OSError:  # it isn't on this machine, or in a format of another reader
        return ''
    if orientation <= 4 or stored != tuple(sample['ori_shape'][:2]):
        return ''
    return '; it is turned as its EXIF orientation says: turn the annotation too, or take that out of the picture'


def _reason(error: Exception) -> str:
    return f'{type(error).__name__}: {shown(str(error).strip())}'
