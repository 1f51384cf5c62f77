"""Clusterings as settings say them: a config's dict or a plugin's text."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..literals import call_with, changed_options, read_call
from .segments import SegmentClustering

NAME = SegmentClustering.__name__
AFTER = 6
"""After how many blocks, where nothing is said: half of ViT-B."""
STAGED = ('segments', 'clusters', 'after')
"""The settings that a schedule has one of for each stage."""
SHORT_NAMES = {'size_bias=True': 'counted', "aggregate='mean'": 'means', 'normalize=True': 'normalised'}


@dataclass(frozen=True, kw_only=True)
class ClusteringSettings:
    """The settings of a `SegmentClustering`, which has their meaning, and after which block it works.

    For a schedule `after` is a sequence, and `segments` and `clusters` may be, as long.

    Raises:
        ValueError: a setting is out of range, or sequences aren't equally long.
    """

    segments: int | Sequence[int] | None = None
    clusters: int | Sequence[int] | None = None
    algorithm: str = 'kmedoids'
    aggregate: str = 'medoid'
    size_bias: bool = False
    metric: str = 'euclidean'
    p: float = 2.0
    normalize: bool = False
    graph: str = 'heat'
    sigma: float = 2.0
    knn: int | None = None
    window: tuple[int, int] | None = None
    cluster_embedding: bool | str = False
    frame_embedding: int = 0
    width: int | None = None
    exact: bool = False
    after: int | Sequence[int] = AFTER

    def __post_init__(self) -> None:
        for name in (*STAGED, 'window'):
            if isinstance(getattr(self, name), list):
                object.__setattr__(self, name, tuple(getattr(self, name)))
        staged = {name: getattr(self, name) for name in STAGED if isinstance(getattr(self, name), tuple)}
        after = self.after if isinstance(self.after, tuple) else ()
        if staged and not after:
            raise ValueError(f'{self} must have after as a sequence too: a number for each stage')
        if any(len(values) != len(after) for values in staged.values()):
            names = ', '.join(name for name in staged if name != 'after')
            raise ValueError(f'{self} must have as many of {names} as of after, {len(after)}')
        for stage in self.stages():
            stage.build()

    @classmethod
    def parse(cls, text: str) -> 'ClusteringSettings':
        """Reads "SegmentClustering(segments=6, clusters=49, after=6)".

        Raises:
            ValueError: the text isn't a literal call of SegmentClustering, or its options don't fit.
        """
        name, positional, options = read_call(text, f'{NAME}(segments=6, clusters=49, after=6)')
        if name != NAME:
            raise ValueError(f'there is no video plugin {name!r}; there is {NAME}')
        if positional:
            raise ValueError(f'plugin {text!r} must name its options, as in segments=6')
        return call_with(cls, options, NAME)

    @classmethod
    def of(cls, clustering: SegmentClustering, after: int) -> 'ClusteringSettings':
        """What a clustering was built with."""
        clusters, frames = clustering.cluster_embedding, clustering.frame_embedding
        learned: dict[str, Any] = dict(
            cluster_embedding='positions' if clustering.from_positions else clusters is not None,
            frame_embedding=0 if frames is None else len(frames),
            width=next((embedding.shape[1] for embedding in (clusters, frames) if embedding is not None), None),
        )
        plain = {field.name for field in dataclasses.fields(cls)} - {*learned, 'after'}
        return cls(**{name: getattr(clustering, name) for name in plain}, **learned, after=after)

    def stages(self) -> tuple['ClusteringSettings', ...]:
        """The settings of each stage, in order, each with integers."""
        if not isinstance(self.after, tuple):
            return (self,)
        staged = {name: getattr(self, name) for name in STAGED if isinstance(getattr(self, name), tuple)}
        return tuple(replace(self, **dict(zip(staged, values))) for values in zip(*staged.values()))

    @property
    def learns(self) -> bool:
        """Whether it has weights of its own."""
        return bool(self.cluster_embedding or self.frame_embedding)

    def build(self) -> SegmentClustering:
        """The clustering of a single stage."""
        return SegmentClustering(**{name: value for name, value in vars(self).items() if name != 'after'})

    def changed(self) -> dict[str, Any]:
        """The settings that aren't the default, and `after`."""
        return {**changed_options(self), 'after': self.after}

    def __str__(self) -> str:
        return f'{NAME}({", ".join(f"{name}={value!r}" for name, value in self.changed().items())})'

    __repr__ = __str__

    @property
    def label(self) -> str:
        """The settings in short, but for the algorithm."""
        numbers = ' x '.join(str(value) for value in (self.segments, self.clusters) if value is not None)
        others = [f'{name}={v!r}' for name, v in self.changed().items() if name not in (*STAGED, 'algorithm')]
        return ', '.join([*([numbers] if numbers else []), *(SHORT_NAMES.get(o, o) for o in others), str(self.after)])


def join_stages(stages: Sequence[ClusteringSettings]) -> tuple[ClusteringSettings, ...]:
    """Stages as one call, if they differ in no other settings than numbers; else as they are."""
    first = stages[0]
    alike = all(replace(stage, **{name: getattr(first, name) for name in STAGED}) == first for stage in stages)
    if len(stages) == 1 or not alike:
        return tuple(stages)
    numbers: dict[str, Any] = {name: tuple(getattr(stage, name) for stage in stages) for name in STAGED}
    return (replace(first, **{name: values for name, values in numbers.items() if set(values) != {None}}),)


def read_clustering(setting: Any, after: int | Sequence[int] = AFTER) -> tuple[ClusteringSettings, ...]:
    """The calls, one after the other, that a setting of a model means.

    Args:
        setting: a config's dict, a plugin's text or settings, which have their own `after`, or a list of these.
        after: of dicts; a number for each, or one for all.

    Raises:
        ValueError: there is no such clustering, or there aren't as many of `after`.
    """
    if isinstance(setting, str):
        return (ClusteringSettings.parse(setting),)
    if isinstance(setting, ClusteringSettings):
        return (setting,)
    if not isinstance(setting, dict):
        places = [after] * len(setting) if isinstance(after, int) else list(after)
        if len(places) != len(setting):
            raise ValueError(f'after={after} must have a number for each of {len(setting)} clusterings')
        calls = tuple(call for each, place in zip(setting, places) for call in read_clustering(each, place))
        return join_stages(calls) if all(isinstance(each, dict) for each in setting) else calls
    options = dict(setting)
    kind = options.pop('type', NAME)
    if kind != NAME:
        raise ValueError(f'there is no clustering {kind!r}; there is {NAME}')
    if 'after' in options:
        raise ValueError(f"{NAME} has no option 'after' within a model: the model's own after says where it works")
    return (call_with(ClusteringSettings, dict(options, after=after), NAME),)


def build_calls(calls: Sequence[ClusteringSettings]) -> tuple[Any, Any]:
    """What `VideoEncoder` takes: a clustering, or a list of a schedule's, and after which block."""
    if len(calls) == 1 and isinstance(calls[0].after, int):
        return calls[0].build(), calls[0].after
    stages = [stage for call in calls for stage in call.stages()]
    return [stage.build() for stage in stages], tuple(stage.after for stage in stages)


def build_clustering(setting: Any, after: int | Sequence[int]) -> tuple[Any, Any]:
    """As `build_calls`, of a model's setting: a list has a list made of it, None is for none.

    Raises:
        ValueError: see `read_clustering`.
    """
    if setting is None:
        return None, after
    clustering, places = build_calls(read_clustering(setting, after))
    if isinstance(setting, (str, dict, ClusteringSettings)):
        return clustering, places
    return (clustering, list(places)) if isinstance(clustering, list) else ([clustering], [places])


def parse_clustering(text: str) -> tuple[SegmentClustering | list[SegmentClustering], int | tuple[int, ...]]:
    """Reads a plugin such as "SegmentClustering(segments=6, clusters=49, after=6)": the clustering, and after.

    A schedule has sequences: "SegmentClustering(segments=(6, 3), clusters=(49, 49), after=(4, 8))".

    Raises:
        ValueError: see `ClusteringSettings.parse`.
    """
    return build_calls([ClusteringSettings.parse(text)])
