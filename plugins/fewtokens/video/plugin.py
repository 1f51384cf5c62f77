"""A segment clustering by its text: `--plugin "SegmentClustering(segments=6, clusters=49, after=6)"`."""

import ast
import inspect
from typing import Any

from .segments import SegmentClustering


def parse_clustering(text: str) -> dict[str, Any]:
    """Reads a clustering written like its Python call, with `after` among its options. Nothing is evaluated.

    Returns:
        `dict(clustering=dict(type='SegmentClustering', …), after=…)`, options of `ClipRetrieval`.

    Raises:
        ValueError: another name, an option that it doesn't have or a value out of range, or no literal call.
    """
    example = '"SegmentClustering(segments=6, clusters=49, after=6)"'
    try:
        call = ast.parse(text.strip(), mode='eval').body
        if not isinstance(call, ast.Call) or call.args or any(keyword.arg is None for keyword in call.keywords):
            raise ValueError('no call with named options')
        name = ast.unparse(call.func)
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in call.keywords}
    except (SyntaxError, ValueError) as error:
        raise ValueError(f'plugin {text!r} must be a call with named literal values, such as {example}') from error
    if name != 'SegmentClustering':
        raise ValueError(f'there is no clustering of videos {name!r}; there is SegmentClustering, such as {example}')
    after = options.pop('after', 6)
    known = inspect.signature(SegmentClustering).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise ValueError(f'SegmentClustering has no option {unknown[0]!r}; its options are after, {", ".join(known)}')
    SegmentClustering(**options)
    return dict(clustering=dict(type='SegmentClustering', **options), after=after)
