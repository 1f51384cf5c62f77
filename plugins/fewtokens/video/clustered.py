"""A segment clustering as a plugin: put on a model's video encoder and taken off, as `attach` does with reducers."""

import copy
import threading
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..attachment import Attachment, attached
from .encoder import VideoEncoder
from .segments import SegmentClustering
from .settings import parse_clustering


class _Pass(threading.local):
    """Token counts of this thread's pass, as far as it has come."""

    before: int | None = None
    after: int | None = None


# Not an attachment's own: it is copied and pickled with its model.
_PASS, _COUNTING = _Pass(), threading.Lock()


@dataclass(frozen=True)
class VideoPlugin:
    """A clustering, or a schedule of them, and after which block. Its text is its name."""

    text: str
    clustering: SegmentClustering | list[SegmentClustering]
    after: int | tuple[int, ...]

    @classmethod
    def parse(cls, text: str) -> 'VideoPlugin':
        """Reads "SegmentClustering(segments=6, clusters=49, after=6)"; raises what `parse_clustering` does."""
        return cls(text, *parse_clustering(text))

    @classmethod
    def of(cls, encoder: VideoEncoder) -> 'VideoPlugin':
        """What an encoder was built with."""
        stages = _stages(encoder.clustering)
        text = ', then '.join(f'{type(stage).__name__}({stage.extra_repr()})' for stage in stages)
        return cls(f'{text} after {encoder.after}', encoder.clustering, encoder.after)

    def __str__(self) -> str:
        return self.text

    __repr__ = __str__

    def attach_to(self, model: nn.Module) -> 'Clustered':
        """Makes a model's video encoder work with this clustering instead of its own, until the attachment is removed.

        Raises:
            ValueError: the model has no video encoder, or one that has a plugin already; the clustering has weights of
                its own, or doesn't fit the tower.
        """
        encoder = find_encoder(model)
        if any(isinstance(other, Clustered) for other in attached(model)):
            raise ValueError(f'{type(model).__name__} has a clustering attached already: remove() it first')
        if any(list(stage.parameters()) for stage in _stages(self.clustering)):
            raise ValueError(f'{self} has embeddings to learn: it belongs into the model, as its clustering')
        # A copy: one plugin may be on several models, and each counts its own passes.
        return Clustered(encoder, self, copy.deepcopy(self.clustering))


class Clustered(Attachment):
    """A clustering at work in a video encoder, in any number of threads.

    Attributes:
        passes: forward passes of the encoder that have ended.
        skipped: none, every video has fewer tokens afterwards.
        input_shape: of the last of these passes, its batch of videos; None before the first.
        token_counts: of its videos, before the first clustering and after the last.
    """

    def __init__(self, encoder: VideoEncoder, reducer: VideoPlugin, clustering: Any) -> None:
        super().__init__()
        self.encoder, self.reducer = encoder, reducer
        self.passes = self.skipped = 0
        self._last: tuple[tuple[int, ...] | None, tuple[int, int]] = None, (0, 0)
        self._kept = encoder.clustering, encoder.after
        encoder.cluster_with(clustering, reducer.after)
        stages = _stages(encoder.clustering)
        self._handles = [
            encoder.register_forward_pre_hook(self._begin),
            stages[0].register_forward_pre_hook(self._see_first),
            stages[-1].register_forward_hook(self._see_last),
            encoder.register_forward_hook(self._end),
        ]

    @property
    def input_shape(self) -> tuple[int, ...] | None:
        return self._last[0]

    @property
    def token_counts(self) -> tuple[int, int]:
        return self._last[1]

    def remove(self) -> None:
        if self._handles:
            self.encoder.cluster_with(*self._kept)
        super().remove()

    def summary(self) -> str:
        with _COUNTING:
            passes, (shape, (before, after)) = self.passes, self._last
        lines = [f'{self.reducer}', f'  passes with fewer tokens: {passes}']
        if passes:
            lines.append(f'  a video of {shape[1]} frames: {before} tokens became {after}')
        return '\n'.join(lines)

    def _begin(self, encoder: nn.Module, args: tuple) -> None:
        _PASS.before = _PASS.after = None

    def _see_first(self, clustering: nn.Module, args: tuple) -> None:
        _PASS.before = args[0].shape[1] * args[0].shape[2]

    def _see_last(self, clustering: nn.Module, args: tuple, out: Tensor | tuple[Tensor, Tensor]) -> None:
        tokens = out[0] if isinstance(out, tuple) else out
        _PASS.after = tokens.shape[1] * tokens.shape[2]

    def _end(self, encoder: nn.Module, args: tuple, out: Tensor) -> None:
        counts = _PASS.before, _PASS.after
        if None not in counts:  # `using` may have it work with another
            with _COUNTING:
                self.passes += 1
                self._last = tuple(args[0].shape), counts


def own_clustering(model: nn.Module) -> Clustered | None:
    """Watches the clustering that a model's video encoder was built with; None where it has none."""
    encoders = [module for module in model.modules() if isinstance(module, VideoEncoder) and module.clustering]
    return Clustered(encoders[0], VideoPlugin.of(encoders[0]), encoders[0].clustering) if encoders else None


def find_encoder(model: nn.Module) -> VideoEncoder:
    """The video encoder in a model, wrappers or not.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = [module for module in model.modules() if isinstance(module, VideoEncoder)]
    if len(found) != 1:
        raise ValueError(f'{type(model).__name__} has {len(found)} video encoders; SegmentClustering needs one')
    return found[0]


def _stages(clustering: Any) -> list[SegmentClustering]:
    if clustering is None:
        return []
    return [clustering] if isinstance(clustering, SegmentClustering) else list(clustering)
