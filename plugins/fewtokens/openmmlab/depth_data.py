"""Pictures with depth maps: KITTI, NYUv2 and folders of pairs. Name this module in a config's `custom_imports`.

Depth maps are PNGs of 16 bits, 0 where the depth isn't known; mmseg's LoadDepthAnnotation reads them, and its
`depth_rescale_factor` makes metres of them.
"""

import warnings
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from mmcv.transforms import BaseTransform
from mmengine.dataset import BaseDataset
from mmengine.fileio import join_path, list_dir_or_file, list_from_file
from mmseg.datasets.transforms import PackSegInputs
from mmseg.registry import DATASETS, TRANSFORMS

PICTURES = ('.png', '.jpg', '.jpeg')
KB_CROP = 352, 1216
"""Height and width of what KITTI's depth benchmark is of: the middle of a frame's lower end."""


@DATASETS.register_module()
class DepthDataset(BaseDataset):
    """Pictures below one folder, and depth maps under the same names with .png at the end below another.

    Args:
        ann_file: a list of pairs, one a line: a picture, its depth map ('None' where there is none: the pair is left
            out), and whatever else, such as a focal length; both are relative to the folders in `data_prefix`. Without
            it, all pictures of the folder.
        data_prefix: `img_path` and `depth_map_path`.
        kwargs: of MMEngine's BaseDataset.
    """

    def __init__(self, ann_file: str = '', data_prefix: dict | None = None, **kwargs) -> None:
        prefix = dict(img_path='images', depth_map_path='depth') if data_prefix is None else data_prefix
        super().__init__(ann_file=ann_file, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Pairs of files; raises a ValueError where a line of the list is none."""
        pictures, depths = (self.data_prefix[name] for name in ('img_path', 'depth_map_path'))
        return [
            dict(img_path=join_path(pictures, name), depth_map_path=join_path(depths, depth), name=name, seg_fields=[])
            for name, depth in (self._listed() if self.ann_file else self._found())
        ]

    def depth_of(self, picture: str) -> str:
        """A picture's depth map; both relative to their folders."""
        return str(PurePosixPath(picture).with_suffix('.png'))

    def _found(self) -> Iterator[tuple[str, str]]:
        files = sorted(list_dir_or_file(self.data_prefix['img_path'], list_dir=False, recursive=True))
        yield from ((name, self.depth_of(name)) for name in files if self.is_picture(name))

    def is_picture(self, name: str) -> bool:
        return name.lower().endswith(PICTURES)

    def _listed(self) -> Iterator[tuple[str, str]]:
        for line in filter(None, map(str.split, list_from_file(self.ann_file))):
            pair = self.read_line(line)
            if pair is not None:
                # Some lists begin their paths with a slash.
                picture, depth = pair
                yield picture.lstrip('/'), depth.lstrip('/')

    def read_line(self, words: list[str]) -> tuple[str, str] | None:
        """A picture and its depth map; None where there is none."""
        if len(words) < 2:
            raise ValueError(
                f'{self.ann_file!r} has a line {" ".join(words)!r}: a picture and its depth map are needed'
            )
        return None if words[1] == 'None' else (words[0], words[1])


@DATASETS.register_module()
class KITTIDepthDataset(DepthDataset):
    """KITTI's raw frames with the depth maps of its depth benchmark, in the layouts of the two.

    Below `img_path` lie `2011_09_26/2011_09_26_drive_0002_sync/image_02/data/0000000069.png` and so on, below
    `depth_map_path` `2011_09_26_drive_0002_sync/proj_depth/groundtruth/image_02/0000000069.png`, there or in `train`
    and `val`, as they are published.

    Args:
        ann_file: the frames of a split. Lists of Eigen's split are found in three forms, and all are read: pairs, as
            for DepthDataset; pictures alone; or a drive, a frame's number and l or r. For the last two the depth maps
            are looked up, and frames that have none are left out with a warning: of Eigen's 697 test frames 652 have
            one.
        img_suffix: of pictures, for lists that don't say it.
        kwargs: as for DepthDataset.
    """

    def __init__(self, ann_file: str, data_prefix: dict | None = None, img_suffix: str = '.png', **kwargs) -> None:
        prefix = dict(img_path='raw', depth_map_path='data_depth_annotated') if data_prefix is None else data_prefix
        self.img_suffix = img_suffix
        super().__init__(ann_file=ann_file, data_prefix=prefix, **kwargs)

    def load_data_list(self) -> list[dict]:
        self._without = 0
        pairs = super().load_data_list()
        if self._without:
            total = self._without + len(pairs)
            text = f'{self._without} of the {total} frames in {self.ann_file!r} have no depth map and are left out'
            warnings.warn(text, stacklevel=2)
        return pairs

    def depth_of(self, picture: str) -> str:
        *_, drive, camera, _, frame = PurePosixPath(picture).parts
        return f'{drive}/proj_depth/groundtruth/{camera}/{PurePosixPath(frame).stem}.png'

    def read_line(self, words: list[str]) -> tuple[str, str] | None:
        if len(words) > 1 and words[1].endswith(('.png', 'None')):
            pair = super().read_line(words)
            return pair and (pair[0], self._place(pair[1]) or pair[1])
        picture = self._picture(words)
        depth = self._place(self.depth_of(picture))
        self._without += depth is None
        return (picture, depth) if depth else None

    def _picture(self, words: list[str]) -> str:
        if len(words) == 3 and words[1].isdigit() and words[2] in ('l', 'r'):
            drive, number, side = words
            return f'{drive}/image_0{2 + "lr".index(side)}/data/{int(number):010}{self.img_suffix}'
        if len(words) == 1 and len(PurePosixPath(words[0]).parts) >= 4:
            return words[0]
        raise ValueError(
            f'{self.ann_file!r} has a line {" ".join(words)!r}: a picture with its depth map, a picture alone, or '
            'drive, number and l or r are needed'
        )

    def _place(self, depth: str) -> str | None:
        root = Path(self.data_prefix['depth_map_path'])
        return next((f'{part}{depth}' for part in ('', 'train/', 'val/') if (root / f'{part}{depth}').is_file()), None)


@DATASETS.register_module()
class NYUDepthDataset(DepthDataset):
    """NYUv2 as it is commonly unpacked: in a folder a scene, `rgb_00045.jpg` and `sync_depth_00045.png`.

    The 654 test pictures are in `official_splits/test`. mmseg's NYUDataset is for a layout of its own.
    """

    def __init__(self, ann_file: str = '', data_prefix: dict | None = None, **kwargs) -> None:
        folder = 'official_splits/test'
        prefix = dict(img_path=folder, depth_map_path=folder) if data_prefix is None else data_prefix
        super().__init__(ann_file=ann_file, data_prefix=prefix, **kwargs)

    def is_picture(self, name: str) -> bool:
        return super().is_picture(name) and PurePosixPath(name).name.startswith('rgb_')

    def depth_of(self, picture: str) -> str:
        path = PurePosixPath(picture)
        return str(path.with_name(f'sync_depth_{path.stem.removeprefix("rgb_")}.png'))


@TRANSFORMS.register_module()
class KBCrop(BaseTransform):
    """Cuts out what KITTI's depth benchmark is of: 352 x 1216 pixels, the middle of the lower end.

    What is loaded already is cut with the picture: in training, load the depth before. In tests load it afterwards:
    predictions are put back into the whole frame, where benchmarks measure them, and the depth must be of that.
    """

    def transform(self, results: dict) -> dict:
        """Cuts `img` and what `seg_fields` names, and notes where, as `crop` (top, left, height, width)."""
        rows, columns = results['img'].shape[:2]
        height, width = KB_CROP
        top, left = rows - height, (columns - width) // 2
        if top < 0 or left < 0:
            raise ValueError(
                f'{results.get("img_path")!r} is {columns} x {rows} pixels: KBCrop needs {width} x {height} at least'
            )
        for name in ('img', *results.get('seg_fields', ())):
            results[name] = results[name][top : top + height, left : left + width]
        return {**results, 'img_shape': KB_CROP, 'crop': (top, left, height, width)}


@TRANSFORMS.register_module()
class PackDepthInputs(PackSegInputs):
    """mmseg's PackSegInputs with what evaluation must know of a depth map: its file, its picture's name, the crop."""

    meta_keys: tuple[str, ...]

    def __init__(self, meta_keys: tuple[str, ...] = ()) -> None:
        super().__init__()
        self.meta_keys = (*self.meta_keys, 'depth_map_path', 'name', 'crop', *meta_keys)
