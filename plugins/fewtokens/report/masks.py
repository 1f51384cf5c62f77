"""Masks over photographs, of several models side by side."""

import colorsys
from collections.abc import Sequence

import cv2
import numpy as np

from ..measure.segment_anything import match

HEIGHT = 384
"""Pixels of a photograph in a row of them."""
TWIN = 0.5
"""Masks that overlap as much have one colour in all pictures of a row."""


def draw_row(photograph: np.ndarray, masks: Sequence[np.ndarray]) -> np.ndarray:
    """A photograph [H, W, 3] uint8, and beside it once more with each model's masks [M, H, W], the full model's first.

    A mask has the colour of the full model's that it is most similar to; one without such is grey.
    """
    scale = HEIGHT / photograph.shape[0]
    size = max(1, round(photograph.shape[1] * scale)), HEIGHT
    small = cv2.resize(photograph, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC)
    drawn = [small]
    for each in masks:
        numbers, found = match(each, masks[0])
        colours = [_colour(number) if overlap >= TWIN else (128,) * 3 for number, overlap in zip(numbers, found)]
        drawn.append(paint_masks(small, each, colours))
    return np.concatenate(drawn, axis=1)


def paint_masks(picture: np.ndarray, masks: np.ndarray, colours: Sequence[tuple[int, int, int]]) -> np.ndarray:
    """Masks [M, ...] of any size over a picture [H, W, 3] uint8, small ones above large ones, with their borders."""
    painted = picture.copy()
    for number in np.argsort([-mask.sum() for mask in masks]):
        mask = cv2.resize(masks[number].astype(np.uint8), picture.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        inside = mask > 0
        colour = np.array(colours[number])
        painted[inside] = (0.4 * picture[inside] + 0.6 * colour).astype(np.uint8)
        contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
        cv2.drawContours(painted, contours, -1, (255, 255, 255), 1)
    return painted


def _colour(number: int) -> tuple[int, int, int]:
    """Hues that are far apart for numbers that are near."""
    red, green, blue = colorsys.hsv_to_rgb(number * 0.618 % 1, 0.8, 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)
