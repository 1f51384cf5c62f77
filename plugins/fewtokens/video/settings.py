"""Clusterings as settings say them: a config's dict or a plugin's text."""

from collections.abc import Sequence
from typing import Any

from ..literals import call_with, read_call
from .segments import SegmentClustering


def build_clustering(setting: Any, after: int | Sequence[int]) -> tuple[Any, Any]:
    """A segment clustering, or a schedule of them, and after which block.

    Args:
        setting: a config's dict, a plugin's text, which has its own `after`, or a list of either; None for none.

    Raises:
        ValueError: there is no such clustering, or there aren't as many of `after`.
    """
    if setting is None:
        return None, after
    if isinstance(setting, str):
        return parse_clustering(setting)
    if not isinstance(setting, dict):
        places = [after] * len(setting) if isinstance(after, int) else list(after)
        if len(places) != len(setting):
            raise ValueError(f'after={after} must have a number for each of {len(setting)} clusterings')
        return tuple(map(list, zip(*map(build_clustering, setting, places))))
    options = dict(setting)
    kind = options.pop('type', 'SegmentClustering')
    if kind != 'SegmentClustering':
        raise ValueError(f'there is no clustering {kind!r}; there is SegmentClustering')
    return call_with(SegmentClustering, options), after


def parse_clustering(text: str) -> tuple[SegmentClustering | list[SegmentClustering], int | tuple[int, ...]]:
    """Reads a plugin such as "SegmentClustering(segments=6, clusters=49, after=6)": the clustering, and after.

    A schedule has sequences: "SegmentClustering(segments=(6, 3), clusters=(49, 49), after=(4, 8))".

    Raises:
        ValueError: the text isn't a literal call of SegmentClustering, or its options don't fit.
    """
    name, positional, options = read_call(text, 'SegmentClustering(segments=6, clusters=49, after=6)')
    if name != 'SegmentClustering':
        raise ValueError(f'there is no video plugin {name!r}; there is SegmentClustering')
    if positional:
        raise ValueError(f'plugin {text!r} must name its options, as in segments=6')
    after = options.pop('after', 6)
    if isinstance(after, int):
        return call_with(SegmentClustering, options), after
    stages = {key: options.pop(key) for key in ('segments', 'clusters') if isinstance(options.get(key), (list, tuple))}
    if any(len(values) != len(after) for values in stages.values()):
        raise ValueError(f'plugin {text!r} must have as many of {", ".join(stages)} as of after, {len(after)}')
    return [
        call_with(SegmentClustering, options | {key: values[i] for key, values in stages.items()})
        for i in range(len(after))
    ], tuple(after)
