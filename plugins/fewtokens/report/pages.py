"""Pages that are complete in themselves: filled templates, with every picture inside."""

import base64
import os
from pathlib import Path
from typing import Any
from urllib.parse import quote

import cv2
import jinja2
import numpy as np

from ..measure.files import shown

HEIGHT = 132
"""Pixels of a video's frame, a little more than pages show."""


def render_page(template: Path, **content: Any) -> str:
    """A template filled, which goes on from `base.html` here, where all pages have their style.

    Its filters: `shown` for names of files, `as_link` for links to them.
    """
    pages = jinja2.Environment(
        loader=jinja2.FileSystemLoader([template.parent, Path(__file__).parent]),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters |= dict(shown=shown, as_link=lambda name: quote(os.fsencode(name)))
    return pages.get_template(template.name).render(**content)


def as_data_url(content: bytes, kind: str) -> str:
    """A picture's file in a page; kind is 'jpeg' or 'png'."""
    return f'data:image/{kind};base64,{base64.b64encode(content).decode()}'


def frame_as_data_url(frame: np.ndarray) -> str:
    """A video's frame [H, W, 3] uint8, made small, as a JPEG in a page."""
    width = max(1, round(HEIGHT * frame.shape[1] / frame.shape[0]))
    small = cv2.resize(frame, (width, HEIGHT), interpolation=cv2.INTER_AREA)[..., ::-1]
    jpeg = cv2.imencode('.jpg', small, [cv2.IMWRITE_JPEG_QUALITY, 80])[1].tobytes()
    return as_data_url(jpeg, 'jpeg')
