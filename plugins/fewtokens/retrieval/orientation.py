"""Pictures as players show them: turned and mirrored as the file says. As ffmpeg's autorotate does it."""

import math
from fractions import Fraction
from typing import Any

import numpy as np

Matrix = tuple[int, int, int, int]
"""(a, b, c, d): what lies x to the right and y down in the file is shown at a x + c y to the right, b x + d y down."""
IDENTITY = (1, 0, 0, 1)


def display_matrix(frame: Any) -> Matrix:
    """What a PyAV frame's side data say, in any unit; the identity where they don't."""
    for data in frame.side_data:
        if data.type.name == 'DISPLAYMATRIX':
            a, b, _, c, d = np.frombuffer(data, np.int32)[:5].tolist()
            return a, b, c, d
    return IDENTITY


def is_upright(matrix: Matrix) -> bool:
    """Whether pictures are shown as they lie in the file."""
    return _degrees(matrix) is None or (_degrees(matrix) == 0 and matrix[3] > 0)


def upright(frame: Any, matrix: Matrix) -> np.ndarray:
    """A PyAV frame in rgb24 as it is shown, [H, W, 3] uint8.

    Turned by right angles, it may be mirrored too, and H and W may change places. Turned by another angle, it keeps its
    size, and its corners become black.
    """
    degrees = _degrees(matrix)
    if degrees is not None and degrees % 90:
        return _rotated(frame, degrees).to_ndarray()
    picture = frame.to_ndarray()
    if is_upright(matrix):
        return picture
    right, _, _, down = matrix
    if degrees in (90, 270):
        picture = picture.swapaxes(0, 1)
        _, down, right, _ = matrix
    return picture[:: -1 if down < 0 else 1, :: -1 if right < 0 else 1]


def _degrees(matrix: Matrix) -> int | None:
    """Clockwise, 0 to 359; None where ffmpeg leaves pictures as they are: at 1, or made flat by the matrix."""
    a, b, c, d = matrix
    across, along = math.hypot(a, c), math.hypot(b, d)
    if not across or not along:
        return None
    degrees = round(math.degrees(math.atan2(b / along, a / across))) % 360
    return None if degrees == 1 else degrees


def _rotated(frame: Any, degrees: int) -> Any:
    import av

    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1))
    graph.link_nodes(source, graph.add('rotate', f'{degrees}*PI/180'), graph.add('buffersink')).configure()
    graph.vpush(frame)
    return graph.vpull()
