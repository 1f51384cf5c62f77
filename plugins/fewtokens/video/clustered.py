"""A segment clustering as a plugin: put on a model's video encoder and taken off, as `attach` does with reducers."""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..attachment import Attachment, attached
from ..current import Current
from .encoder import VideoEncoder
from .segments import SegmentClustering
from .settings import ClusteringSettings, build_calls, join_stages

# Not an attachment's own: it is copied and pickled with its model.
_COUNTING = threading.Lock()


@dataclass(frozen=True)
class VideoPlugin:
    """A clustering, or a schedule of several, by its settings. Its text is its name."""

    calls: tuple[ClusteringSettings, ...]
    """One after the other: more than one where no single call says what each stage of a schedule is."""

    @classmethod
    def parse(cls, text: str) -> 'VideoPlugin':
        """Reads "SegmentClustering(segments=6, clusters=49, after=6)"; raises what `ClusteringSettings.parse` does."""
        return cls((ClusteringSettings.parse(text),))

    @classmethod
    def read(cls, saved: str | Sequence[str]) -> 'VideoPlugin':
        """From what `save` gave; raises what `ClusteringSettings.parse` does."""
        return cls(tuple(map(ClusteringSettings.parse, [saved] if isinstance(saved, str) else saved)))

    def save(self) -> str | list[str]:
        """In JSON's types: the text of its call, or those of several."""
        texts = list(map(str, self.calls))
        return texts[0] if len(texts) == 1 else texts

    @classmethod
    def of(cls, encoder: VideoEncoder) -> 'VideoPlugin':
        """What an encoder was built with."""
        places = [encoder.after] if isinstance(encoder.after, int) else encoder.after
        return cls(join_stages(list(map(ClusteringSettings.of, _stages(encoder.clustering), places))))

    @property
    def after(self) -> int | tuple[int, ...]:
        """After which block, of a schedule after which blocks."""
        return build_calls(self.calls)[1]

    @property
    def clustering(self) -> SegmentClustering | list[SegmentClustering]:
        """The clustering, or a schedule's list of them, made anew."""
        return build_calls(self.calls)[0]

    @property
    def kind(self) -> str:
        return ', then '.join(dict.fromkeys(call.algorithm for call in self.calls))

    @property
    def label(self) -> str:
        return ', then '.join(call.label for call in self.calls)

    def __str__(self) -> str:
        return ', then '.join(map(str, self.calls))

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
        if any(call.learns for call in self.calls):
            raise ValueError(f'{self} has embeddings to learn: it belongs into the model, as its clustering')
        return Clustered(encoder, self, self.clustering)


class Clustered(Attachment):
    """A clustering at work in a video encoder, in any number of threads.

    Attributes:
        clustering: what is at work; a plugin's is made anew for each attachment.
        passes: forward passes of the encoder that have ended.
        skipped: none, every video has fewer tokens afterwards.
        input_shape: of the last of these passes, its batch of videos; None before the first.
        token_counts: of its videos, before the first clustering and after the last.
    """

    def __init__(self, encoder: VideoEncoder, reducer: VideoPlugin, clustering: Any) -> None:
        super().__init__()
        self.encoder, self.reducer, self.clustering = encoder, reducer, clustering
        self.passes = self.skipped = 0
        self._last: tuple[tuple[int, ...] | None, tuple[int, int]] = None, (0, 0)
        # A pass's tokens of a video, as far as it has come: before the first clustering, after the last.
        self._before, self._after = Current(), Current()
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
        if shape is not None:
            lines.append(f'  a video of {shape[1]} frames: {before} tokens became {after}')
        return '\n'.join(lines)

    def _begin(self, encoder: nn.Module, args: tuple) -> None:
        self._before.set(None)
        self._after.set(None)

    def _see_first(self, clustering: nn.Module, args: tuple) -> None:
        self._before.set(args[0].shape[1] * args[0].shape[2])

    def _see_last(self, clustering: nn.Module, args: tuple, out: Tensor | tuple[Tensor, Tensor]) -> None:
        tokens = out[0] if isinstance(out, tuple) else out
        self._after.set(tokens.shape[1] * tokens.shape[2])

    def _end(self, encoder: nn.Module, args: tuple, out: Tensor) -> None:
        counts = self._before.get(), self._after.get()
        if None not in counts:  # `using` may have it work with another
            with _COUNTING:
                self.passes += 1
                self._last = tuple(args[0].shape), counts


def own_clustering(model: nn.Module) -> Clustered | None:
    """Watches the clustering that a model's video encoder was built with; None where it has none."""
    encoders = [encoder for encoder in find_encoders(model) if encoder.clustering]
    return Clustered(encoders[0], VideoPlugin.of(encoders[0]), encoders[0].clustering) if encoders else None


def find_encoder(model: nn.Module) -> VideoEncoder:
    """The video encoder in a model, wrappers or not.

    Raises:
        ValueError: there is none, or there are several.
    """
    found = find_encoders(model)
    if len(found) != 1:
        raise ValueError(f'{type(model).__name__} has {len(found)} video encoders; SegmentClustering needs one')
    return found[0]


def find_encoders(model: nn.Module) -> list[VideoEncoder]:
    """Every video encoder in a model."""
    return [module for module in model.modules() if isinstance(module, VideoEncoder)]


def _stages(clustering: Any) -> list[SegmentClustering]:
    if clustering is None:
        return []
    return [clustering] if isinstance(clustering, SegmentClustering) else list(clustering)
