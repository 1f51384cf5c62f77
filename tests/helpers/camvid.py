"""A made-up data set in CamVid's layout."""

from pathlib import Path

import cv2
import numpy as np

COUNTS = dict(train=4, val=2, test=2)


def write_camvid(folder: Path, size: tuple[int, int] = (36, 48), suffix: str = '.png') -> None:
    """Pictures of noise, and labels of all classes and of none, in blocks."""
    random = np.random.default_rng(0)
    for split, count in COUNTS.items():
        pictures, labels = folder / split, folder / f'{split}annot'
        pictures.mkdir(parents=True, exist_ok=True)
        labels.mkdir(exist_ok=True)
        for number in range(count):
            blocks = random.permutation(12).astype(np.uint8).reshape(3, 4)
            cv2.imwrite(str(pictures / f'{number}{suffix}'), random.integers(0, 256, (*size, 3), np.uint8))
            drawn = cv2.resize(blocks, size[::-1], interpolation=cv2.INTER_NEAREST)
            cv2.imwrite(str(labels / f'{number}.png'), drawn)
