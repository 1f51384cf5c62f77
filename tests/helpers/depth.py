"""Made-up pictures with depth, in KITTI's and NYUv2's layouts."""

from pathlib import Path

import cv2
import numpy as np

DATE, DRIVE = '2011_09_26', '2011_09_26_drive_0002_sync'
MODULES = [f'fewtokens.openmmlab{part}' for part in ('', '.depth_data', '.depth_metric', '.depth_models')]
"""For a config's `custom_imports`."""
TINY = dict(
    model_type='dpt', image_size=64, patch_size=16, hidden_size=32, num_hidden_layers=4, num_attention_heads=4,
    intermediate_size=64, backbone_out_indices=[0, 1, 2, 3], neck_hidden_sizes=[8, 8, 8, 8], fusion_hidden_size=8,
)  # fmt: skip
"""The options of a DPT."""


def picture(path: Path, size: tuple[int, int], seed: int = 0) -> None:
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), cv2.resize(coarse, size[::-1]))


def depth(path: Path, size: tuple[int, int], scale: float, seed: int = 0, known: float = 1.0) -> np.ndarray:
    """Writes depths of 2 to 9 m, and returns them; a part of the pixels is unknown."""
    random = np.random.default_rng(seed)
    values = np.linspace(2, 9, size[0])[:, None] * np.linspace(1, 0.9, size[1])
    values = np.round(values * (random.random(size) < known) * scale).astype(np.uint16)
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), values)
    return values / scale


def raw(number: int) -> str:
    return f'{DATE}/{DRIVE}/image_02/data/{number:010}.png'


def truth(number: int) -> str:
    return f'{DRIVE}/proj_depth/groundtruth/image_02/{number:010}.png'


def write_kitti(folder: Path, numbers=(5, 69, 70), size: tuple[int, int] = (375, 1242)) -> None:
    """Frames, and depth maps for all but the last, some below `train`, some below `val`."""
    for place, number in enumerate(numbers):
        picture(folder / 'raw' / raw(number), size, number)
        if number != numbers[-1]:
            part = ('train', 'val')[place % 2]
            depth(folder / 'data_depth_annotated' / part / truth(number), size, 256, number, known=0.2)
    lines = [f'{DATE}/{DRIVE} {number:010} l' for number in numbers]
    (folder / 'eigen_test_files.txt').write_text('\n'.join(lines))


def write_nyu(folder: Path, size: tuple[int, int] = (480, 640), count: int = 2) -> None:
    for number in range(count):
        scene = folder / 'official_splits/test/bathroom'
        picture(scene / f'rgb_{number:05}.jpg', size, number)
        depth(scene / f'sync_depth_{number:05}.png', size, 1000, number)
