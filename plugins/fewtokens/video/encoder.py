"""CLIP's visual tower on videos, with fewer tokens after some of its blocks."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..current import Current
from ..hosts import Host
from .segments import SegmentClustering
from .steps import ClusteringStep
from .towers import find_tower

_SETTLING = threading.Lock()
"""A clustering and its place are written and read together. Not an encoder's own: that must be copied and pickled."""


class VideoEncoder(nn.Module):
    """Encodes videos with an open_clip model's visual tower: one vector of unit length each.

    Frames go through the tower's first blocks one by one; then each segment's tokens are clustered and go through the
    rest as an image's would. Frame or segment embeddings are averaged, which is CLIP4Clip's mean pooling,
    https://arxiv.org/abs/2104.08860. The model itself stays as it is: several encoders may share it, and threads may
    use them and the model at once. To compile, compile the tower's blocks: `for block in …: block.compile()`.

    Args:
        clip: an open_clip model or its visual tower, of the kind VisionTransformer (open_clip's or timm's).
        clustering: what is done to the tokens. A sequence does it in several places, each working on the segments of
            the one before. None: nothing.
        after: after how many blocks; for a sequence, as many numbers, ascending.
        temporal: a module ([B, S, D], mask [B, S]) -> [B, S, D] over the embeddings, such as `SeqTransf`.

    Raises:
        ValueError: a tower of another kind, or settings that don't fit it.
    """

    def __init__(
        self,
        clip: nn.Module,
        clustering: SegmentClustering | Sequence[SegmentClustering] | None = None,
        after: int | Sequence[int] = 6,
        temporal: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.clip = clip
        self.temporal = temporal
        # What `using` has it work with.
        self._used = Current()
        self.cluster_with(clustering, after)

    @property
    def visual(self) -> nn.Module:
        """The tower."""
        return getattr(self.clip, 'visual', self.clip)

    @property
    def clustering(self) -> SegmentClustering | nn.ModuleList | None:
        """What is done to the tokens."""
        return self._settings()[0]

    @property
    def after(self) -> int | Sequence[int]:
        """After how many blocks."""
        return self._settings()[1]

    @contextmanager
    def using(
        self, clustering: SegmentClustering | Sequence[SegmentClustering] | None, after: int | Sequence[int] = 6
    ) -> Iterator['VideoEncoder']:
        """Works with another clustering, or with none, for the length of a `with`: in this thread, or asyncio's task.

        Other threads work with what they did before, those that were started within the `with` too.
        """
        before = self._used.get()
        self._used.set(self._checked(clustering, after))
        try:
            yield self
        finally:
            self._used.set(before)

    def forward(self, video: Tensor, mask: Tensor | None = None) -> Tensor:
        """Encodes a batch of videos.

        Args:
            video: [B, T, 3, H, W], normalised as the tower wants it.
            mask: [B, T] bool, True where a frame is real; None if all are.

        Returns:
            [B, D], of unit length.

        Raises:
            ValueError: shapes don't fit the tower or the clustering (see `SegmentClustering.forward`).
        """
        embeddings, real = self.encode_frames(video, mask)
        if self.temporal is not None:
            embeddings = self.temporal(embeddings, real)
        return _mean_direction(embeddings, real)

    def encode_frames(self, video: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Embeds each frame, or each segment where there is a clustering: before temporal module and pooling.

        Returns:
            embeddings [B, S, D], not normalised, and mask [B, S] bool, True where a frame or segment is real.

        Raises:
            ValueError: see `forward`.
        """
        tower = find_tower(self.visual)
        _check_video(video, mask, tower.host)
        steps, previous = {}, None
        segments = mask
        places = self._places()
        counting = any(clustering.size_bias for _, clustering in places)
        for index, clustering in places:
            previous = steps[index] = ClusteringStep(clustering, len(video), segments, tower.host, counting, previous)
            segments = None if segments is None else clustering.segment_mask(segments)
        out = tower.with_steps(steps)(video.flatten(0, 1))
        if not all(step.done for step in steps.values()):
            raise ValueError('the visual tower cannot be used: a forward put in place of its own runs other blocks')
        embeddings = _pooled(out).unflatten(0, (len(video), -1))
        if segments is None:
            segments = torch.ones(embeddings.shape[:2], dtype=torch.bool, device=embeddings.device)
        return embeddings, segments

    def cluster_with(
        self, clustering: SegmentClustering | Sequence[SegmentClustering] | None, after: int | Sequence[int] = 6
    ) -> None:
        """Works with another clustering, or with none, from now on; settings as at the start.

        In all threads: passes that have begun end as they began.

        Raises:
            ValueError: settings don't fit the tower, or this is within a `using`, which would hide them.
        """
        if self._used.get() is not None:
            raise ValueError('the encoder is using() another clustering here: end that before it gets a new one')
        clustering, after = self._checked(clustering, after)
        with _SETTLING:
            # Its weights are the encoder's. `add_module` refuses a name that is a property.
            self._modules['clustering'] = clustering
            self._after = after

    def _checked(self, clustering: Any, after: Any) -> tuple[Any, Any]:
        depth = len(find_tower(self.visual).host.blocks)
        several = clustering is not None and not isinstance(clustering, SegmentClustering)
        if clustering is not None:
            places = list(after) if several else [after]
            if several and len(places) != len(clustering):
                raise ValueError(f'after={after} must have a number for each of {len(clustering)} clusterings')
            if not places or places != sorted(set(places)) or not 0 <= places[0] <= places[-1] < depth:
                raise ValueError(f'after={after} must be between 0 and {depth - 1}, ascending; blocks: {depth}')
        return nn.ModuleList(clustering) if several else clustering, after

    def _settings(self) -> tuple[Any, Any]:
        """The clustering and its place, as they are in this thread at one moment."""
        used = self._used.get()
        if used is not None:
            return used
        with _SETTLING:
            return self._modules['clustering'], self._after

    def _places(self) -> list[tuple[int, SegmentClustering]]:
        clustering, after = self._settings()
        if clustering is None:
            return []
        if isinstance(clustering, nn.ModuleList):
            return list(zip(after, clustering))
        return [(after, clustering)]


def _mean_direction(embeddings: Tensor, real: Tensor) -> Tensor:
    """Of a video's real embeddings, [B, S, D] and [B, S] bool: [B, D], of unit length."""
    # float16 has no room for the norm of large embeddings, nor for what keeps normalize from dividing by zero.
    wide = embeddings.to(torch.promote_types(embeddings.dtype, torch.float32))
    directions = torch.where(real[:, :, None], F.normalize(wide, dim=2), 0)
    mean = F.normalize(directions.sum(dim=1) / real.sum(dim=1, keepdim=True), dim=1)
    # The type that `encode_text(normalize=True)` has: CUDA's autocast widens what it normalises.
    return mean.to(F.normalize(embeddings[:, 0], dim=1).dtype)


def _pooled(out: Tensor | tuple[Tensor, ...]) -> Tensor:
    """What a tower returns, without tokens beside it: [B, D]."""
    pooled = out[0] if isinstance(out, tuple) else out
    pooled = pooled.squeeze(1) if pooled.ndim == 3 and pooled.shape[1] == 1 else pooled
    if pooled.ndim != 2:
        raise ValueError(f'the visual tower pools nothing: it returns {tuple(pooled.shape)}, not one vector an image')
    return pooled


def _check_video(video: Tensor, mask: Tensor | None, host: Host) -> None:
    shape = tuple(video.shape)
    if video.ndim != 5 or shape[2] != 3 or 0 in shape:
        raise ValueError(f'the video has shape {shape}; [B, T, 3, H, W] with B, T >= 1 is needed')
    if not video.is_floating_point():
        raise ValueError(f'the video is {video.dtype}; normalised floating-point frames are needed')
    if host.image_size is not None and shape[3:] != host.image_size:
        height, width = host.image_size
        raise ValueError(f'frames are {shape[3]} x {shape[4]}; the visual tower takes {height} x {width}')
    if mask is not None and (mask.shape != video.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(f'mask is {mask.dtype} {tuple(mask.shape)}; bool {shape[:2]} is needed')
    if mask is not None and not mask.any(dim=1).all():
        raise ValueError(f'video {int(mask.any(dim=1).int().argmin())} of the batch has no real frame')
