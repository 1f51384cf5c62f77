"""Fewer tokens for a video: segments of frames whose tokens are clustered, as CenterCLIP does it.

https://arxiv.org/abs/2205.00823
"""

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..ops import k_medoids, spectral_medoids
from ..ops.labels import sum_by_label
from ..ops.precision import in_float32
from .frames import group_segments, shift_channels

_SELECTING = ('kmedoids', 'spectral', 'sparse_sampling')
_SHIFTING = ('temporal_shift', 'token_shift', 'token_shift_blocks')
ALGORITHMS = ('kmedoids', 'spectral', 'pooling', 'sparse_sampling', *_SHIFTING)


class SegmentClustering(nn.Module):
    """Splits a video's frames into equal segments and keeps few of each segment's patch tokens.

    Prefix tokens (the class token) are averaged over a segment's frames. Which tokens are kept is decided without
    gradient; the kept values have one.

    Args:
        segments: into how many parts the frames are split, as evenly as possible. The shifts keep every frame: None.
        clusters: patch tokens kept of each segment; the poolings and shifts keep as many as a frame has: None.
        algorithm:
            'kmedoids', the default: medoids of the segment's tokens, in their order.
            'spectral': medoids of the tokens' spectral embedding.
            'pooling': each token averaged over the segment's frames.
            'sparse_sampling': tokens at equal steps; in training one drawn at random from each of K equal parts.
            'temporal_shift': the first eighth of a patch token's channels comes from the next frame, the second from
            the one before, zeros at the ends.
            'token_shift': the same for the class token alone.
            'token_shift_blocks': the same, and again in each later block of a `VideoEncoder` before its attention and
            before its MLP, up to the next step of a schedule. As CenterCLIP compares with, after=0.
        aggregate: 'medoid' keeps each cluster's medoid, 'mean' the mean of its members.
        size_bias: whether attention counts a kept token as often as its cluster has members, by adding the logarithm to
            its scores (ToMe's proportional attention, https://arxiv.org/abs/2210.09461, equation 1). A model that was
            trained without clustering needs it; CenterCLIP, which trains with it, does without.
        metric: of distances, see `fewtokens.ops.k_medoids`.
        p: the same.
        normalize: the same.
        exact: the same.
        graph: for 'spectral', see `fewtokens.ops.spectral_medoids`.
        sigma: the same.
        knn: the same. For 'heat_knn', as published, it is 5 for each of a segment's frames if None, and 5 more where a
            frame has 100 patches.
        window: for 'spectral', a token is linked only with those at most (frames, patches) away.
        cluster_embedding: adds a learned vector to each kept token, by its position among them. Starts at zero; for
            'positions', where pretrained weights are loaded for training, from CLIP's positions (see
            `start_from_positions`).
        frame_embedding: adds a learned vector to the tokens of each of at most so many frames, before clustering.
            Starts at zero.
        width: of a token; needed by the embeddings.

    Raises:
        ValueError: a setting is out of range.
    """

    def __init__(
        self,
        segments: int | None = None,
        clusters: int | None = None,
        algorithm: str = 'kmedoids',
        aggregate: str = 'medoid',
        size_bias: bool = False,
        metric: str = 'euclidean',
        p: float = 2.0,
        normalize: bool = False,
        graph: str = 'heat',
        sigma: float = 2.0,
        knn: int | None = None,
        window: tuple[int, int] | None = None,
        cluster_embedding: bool | str = False,
        frame_embedding: int = 0,
        width: int | None = None,
        exact: bool = False,
    ) -> None:
        super().__init__()
        self.segments, self.clusters, self.algorithm, self.aggregate = segments, clusters, algorithm, aggregate
        self.size_bias = size_bias
        self.metric, self.p, self.normalize, self.exact = metric, p, normalize, exact
        self.graph, self.sigma, self.knn, self.window = graph, sigma, knn, window
        self._check(cluster_embedding, frame_embedding, width)
        self.from_positions = cluster_embedding == 'positions'
        self.cluster_embedding = nn.Parameter(torch.zeros(clusters, width)) if cluster_embedding else None
        self.frame_embedding = nn.Parameter(torch.zeros(frame_embedding, width)) if frame_embedding else None

    def _check(self, cluster_embedding: bool | str, frame_embedding: int, width: int | None) -> None:
        if self.algorithm not in ALGORITHMS:
            raise ValueError(f'algorithm={self.algorithm!r} must be one of {", ".join(ALGORITHMS)}')
        if self.aggregate not in ('medoid', 'mean'):
            raise ValueError(f"aggregate={self.aggregate!r} must be 'medoid' or 'mean'")
        needed = dict(segments=self.algorithm not in _SHIFTING, clusters=self.algorithm in _SELECTING)
        for name in ('segments', 'clusters'):
            value = getattr(self, name)
            if (value is None and needed[name]) or (value is not None and not (isinstance(value, int) and value >= 1)):
                raise ValueError(f'{name}={value!r} must be a whole number of at least 1 for {self.algorithm}')
        if self.window is not None and self.algorithm != 'spectral':
            raise ValueError(f"window={self.window} is for algorithm='spectral', not {self.algorithm!r}")
        if cluster_embedding not in (False, True, 'positions'):
            raise ValueError(f"cluster_embedding={cluster_embedding!r} must be True, False or 'positions'")
        if (cluster_embedding or self.size_bias) and self.algorithm not in _SELECTING:
            wanted = 'cluster_embedding' if cluster_embedding else 'size_bias'
            raise ValueError(f'{self.algorithm} has no clusters: {wanted} is for {", ".join(_SELECTING)}')
        if (cluster_embedding or frame_embedding) and width is None:
            raise ValueError('width=None must be the width of a token when there are embeddings')

    def start_from_positions(self, visual: nn.Module) -> None:
        """Starts the cluster embedding from the positions of CLIP's first patches, as published.

        Args:
            visual: CLIP's visual tower.

        Raises:
            ValueError: there is no such embedding, or the tower has too few positions, or of another width.
        """
        positions = getattr(visual, 'positional_embedding', None)
        shape = None if positions is None else tuple(positions.shape)
        if self.cluster_embedding is None or positions is None or len(positions) <= len(self.cluster_embedding):
            raise ValueError(f'cluster_embedding of clusters={self.clusters} cannot start from positions {shape}')
        if positions.shape[1] != self.cluster_embedding.shape[1]:
            raise ValueError(f'width={self.cluster_embedding.shape[1]} is not that of the positions {shape}')
        # The first is the class token's.
        self.cluster_embedding.data.copy_(positions.detach()[1 : len(self.cluster_embedding) + 1])

    @property
    def selects(self) -> bool:
        """Whether few of the tokens are kept, which then stand on no grid."""
        return self.algorithm in _SELECTING

    @property
    def shifts_within(self) -> bool:
        """Whether blocks after it shift their tokens too."""
        return self.algorithm == 'token_shift_blocks'

    @property
    def needs_all_patches(self) -> bool:
        """Whether it relies on where in its frame a token is."""
        return self.algorithm in ('pooling', 'temporal_shift') or self.window is not None

    def extra_repr(self) -> str:
        return f'segments={self.segments}, clusters={self.clusters}, algorithm={self.algorithm!r}'

    def forward(
        self,
        tokens: Tensor,
        mask: Tensor | None = None,
        num_prefix_tokens: int = 1,
        grid: tuple[int, int] | None = None,
        sizes: Tensor | None = None,
        return_sizes: bool = False,
    ) -> Tensor | tuple[Tensor, Tensor]:
        """Reduces the tokens of a batch of videos. A video's result does not depend on the others or on padding.

        With a mask, each video's real frames are split into the segments: a video with fewer real frames than segments
        has a frame each in its first segments, and zeros in the rest (see `segment_mask`). A segment with fewer tokens
        than clusters keeps all of them, repeated as evenly as possible.

        Args:
            tokens: [B, T, P+L, C], prefix tokens first.
            mask: [B, T] bool, True where a frame is real; None if all are.
            num_prefix_tokens: P, 0 or more.
            grid: rows and columns of a frame's patches, L in all; needed by `window`.
            sizes: [B, T, P+L], how many tokens each stands for already; None for one.
            return_sizes: return how many each stands for afterwards, too.

        Returns:
            [B, S, P+K, C], and with `return_sizes` sizes [B, S, P+K], 1 where a segment is empty.

        Raises:
            ValueError: shapes don't fit, a video has no real frame, or, without a mask, there are fewer frames than
                segments or fewer tokens than clusters.
        """
        self._check_input(tokens, mask, num_prefix_tokens, grid)
        if self.frame_embedding is not None:
            tokens = tokens + self._frame_vectors(tokens, mask)
        # float16 can't tell 2049 from 2048, bfloat16 not 257 from 256.
        sizes = tokens.new_ones(tokens.shape[:3], dtype=torch.float32) if sizes is None else sizes.float()
        if self.algorithm in _SHIFTING:
            tokens = self._shift(tokens, mask, num_prefix_tokens)
        else:
            tokens, sizes = self._reduce_segments(tokens, sizes, mask, num_prefix_tokens, grid)
        return (tokens, sizes) if return_sizes else tokens

    def segment_mask(self, mask: Tensor) -> Tensor:
        """[B, S] bool, True where a segment has real frames, for a frame mask [B, T]."""
        if self.algorithm in _SHIFTING:
            return mask
        return torch.arange(self.segments, device=mask.device) < mask.sum(dim=1, keepdim=True)

    def _reduce_segments(
        self, tokens: Tensor, sizes: Tensor, mask: Tensor | None, prefix: int, grid: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor]:
        each = cast(int, self.segments)
        if mask is None and tokens.shape[1] % each == 0:
            tokens_of, sizes_of = (x.unflatten(1, (each, -1)).flatten(0, 1) for x in (tokens, sizes))
            kept, counts = self._reduce(tokens_of, sizes_of, prefix, grid)
            return kept.unflatten(0, (-1, each)), counts.unflatten(0, (-1, each))
        tokens_of, sizes_of = tokens.flatten(0, 1), sizes.flatten(0, 1)
        groups = group_segments(_mask_of(tokens, mask), each)
        reduced = [self._reduce(tokens_of[members], sizes_of[members], prefix, grid) for _, members in groups]
        places = torch.cat([place for place, _ in groups])
        kept, counts = (torch.cat(parts) for parts in zip(*reduced))
        segments = len(tokens) * each
        kept = kept.new_zeros(segments, *kept.shape[1:]).index_copy(0, places, kept)
        counts = counts.new_ones(segments, counts.shape[1]).index_copy(0, places, counts)
        return kept.unflatten(0, (-1, each)), counts.unflatten(0, (-1, each))

    def _reduce(
        self, tokens: Tensor, sizes: Tensor, num_prefix_tokens: int, grid: tuple[int, int] | None
    ) -> tuple[Tensor, Tensor]:
        """Segments of equal length: [G, F, P+L, C] and sizes [G, F, P+L] -> [G, P+K, C], [G, P+K]."""
        if self.algorithm == 'pooling':
            return _frame_means(tokens), sizes.sum(dim=1)
        prefix = _frame_means(tokens[:, :, :num_prefix_tokens])
        patches = tokens[:, :, num_prefix_tokens:].flatten(1, 2)
        patch_sizes = sizes[:, :, num_prefix_tokens:].flatten(1, 2)
        kept, kept_sizes = self._keep(patches, patch_sizes, tokens.shape[1], grid)
        if self.cluster_embedding is not None:
            kept = kept + self.cluster_embedding.to(kept.dtype)
        prefix_sizes = sizes[:, :, :num_prefix_tokens].sum(dim=1)
        return torch.cat((prefix, kept), dim=1), torch.cat((prefix_sizes, kept_sizes), dim=1)

    def _keep(self, patches: Tensor, sizes: Tensor, frames: int, grid: tuple[int, int] | None) -> tuple[Tensor, Tensor]:
        """Few of a segment's patch tokens: [G, N, C] and sizes [G, N] -> [G, K, C], [G, K]."""
        count, clusters = patches.shape[1], cast(int, self.clusters)
        if count <= clusters:
            places = _repeated(count, clusters, patches.device)
            return patches[:, places], (sizes / places.bincount())[:, places]
        if self.algorithm == 'sparse_sampling':
            parts = torch.arange(count, device=patches.device) * clusters // count
            kept = patches[:, self._sample(count, clusters).to(patches.device)]
            return kept, sum_by_label(sizes[:, :, None], parts.expand_as(sizes), clusters)[:, :, 0]
        medoids, labels = self.medoids(patches, frames, grid)
        kept_sizes = sum_by_label(sizes[:, :, None], labels, clusters)
        if self.aggregate == 'medoid':
            return patches.gather(1, medoids[:, :, None].expand(-1, -1, patches.shape[2])), kept_sizes[:, :, 0]
        return _member_means(patches, labels, clusters), kept_sizes[:, :, 0]

    def _sample(self, tokens: int, clusters: int) -> Tensor:
        """[K] int64: the middle of each of K equal parts, or in training a random place in it."""
        if not self.training:
            return torch.tensor([int(tokens / clusters * (i + 0.5)) for i in range(clusters)])
        # Token t is in part t * K // tokens.
        starts = -(-torch.arange(clusters + 1) * tokens // clusters)
        return starts[:-1] + (torch.rand(clusters, dtype=torch.float64) * starts.diff()).long()

    def medoids(self, patches: Tensor, frames: int, grid: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Clusters the patch tokens of segments, by 'kmedoids' or 'spectral'.

        Args:
            patches: [G, N, C], frame by frame; N is more than `clusters`.
            frames: of a segment.
            grid: rows and columns of a frame's patches; needed by `window`.

        Returns:
            medoids [G, K] int64, ascending places among the N, and labels [G, N] int64, places among the K.
        """
        if self.algorithm == 'kmedoids':
            return k_medoids(patches, self.clusters, self.metric, self.p, self.normalize, exact=self.exact)
        knn = self.knn
        if knn is None and self.graph == 'heat_knn':
            knn = 5 * frames + 5 * (patches.shape[1] // frames >= 100)
        near: dict[str, Any] = {}
        if self.window is not None:
            ahead, around = self.window
            positions = _positions(frames, cast(tuple[int, int], grid), patches)
            near = dict(positions=positions, window=(ahead, around, around))
        return spectral_medoids(patches, self.clusters, self.graph, self.sigma, knn, normalize=self.normalize, **near)

    def _shift(self, tokens: Tensor, mask: Tensor | None, num_prefix_tokens: int) -> Tensor:
        prefix, patches = tokens[:, :, :num_prefix_tokens], tokens[:, :, num_prefix_tokens:]
        mask = _mask_of(tokens, mask)
        if self.algorithm == 'temporal_shift':
            return torch.cat((prefix, shift_channels(patches, mask)), dim=2)
        return torch.cat((shift_channels(tokens[:, :, :1], mask), tokens[:, :, 1:]), dim=2)

    def _frame_vectors(self, tokens: Tensor, mask: Tensor | None) -> Tensor:
        """[B, T, 1, C]: the vector of each frame, counted among the real ones."""
        rank = (_mask_of(tokens, mask).cumsum(dim=1) - 1).clamp(min=0)
        return cast(Tensor, self.frame_embedding).to(tokens.dtype)[rank][:, :, None]

    def _check_input(self, tokens: Tensor, mask: Tensor | None, prefix: int, grid: tuple[int, int] | None) -> None:
        shape = tuple(tokens.shape)
        if tokens.ndim != 4 or 0 in shape[:2] or shape[2] <= prefix:
            raise ValueError(f'tokens have shape {shape}; [B, T, {prefix} + L, C] with B, T, L >= 1 is needed')
        if mask is not None and (mask.shape != tokens.shape[:2] or mask.dtype != torch.bool):
            raise ValueError(f'mask is {mask.dtype} {tuple(mask.shape)}; bool {shape[:2]} is needed')
        if mask is not None and not mask.any(dim=1).all():
            raise ValueError(f'video {int(mask.any(dim=1).int().argmin())} of the batch has no real frame')
        if self.algorithm.startswith('token_shift') and prefix == 0:
            raise ValueError(f'{self.algorithm} needs a class token; there is none: temporal_shift fits')
        if grid is not None and grid[0] * grid[1] != shape[2] - prefix:
            raise ValueError(f'a grid of {grid[0]} x {grid[1]} does not have {shape[2] - prefix} patches')
        if grid is None and self.window is not None:
            raise ValueError(f'window={self.window} needs the grid of the patches')
        if self.frame_embedding is not None and shape[1] > len(self.frame_embedding):
            raise ValueError(f'there are {shape[1]} frames, and frame_embedding={len(self.frame_embedding)}')
        if mask is None:
            self._check_counts(shape[1], shape[2] - prefix)

    def _check_counts(self, frames: int, patches: int) -> None:
        if self.segments is not None and self.segments > frames:
            raise ValueError(f'segments={self.segments} must be at most the number of frames, {frames}')
        if self.algorithm in _SHIFTING and self.segments not in (None, frames):
            raise ValueError(f'{self.algorithm} keeps every frame: segments={self.segments} must be {frames}')
        if self.segments is not None and self.clusters is not None and self.algorithm in _SELECTING:
            tokens = frames // self.segments * patches
            if self.clusters > tokens:
                raise ValueError(f"clusters={self.clusters} must be at most a segment's number of tokens, {tokens}")


def _mask_of(tokens: Tensor, mask: Tensor | None) -> Tensor:
    return tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask


def _repeated(count: int, places: int, device: torch.device) -> Tensor:
    """[places] int64: all of `count` tokens in order, each repeated as evenly as possible."""
    return torch.arange(places, device=device) * count // places


def _positions(frames: int, grid: tuple[int, int], patches: Tensor) -> Tensor:
    """[N, 3]: frame, row and column of a segment's tokens."""
    ranges = (torch.arange(size, device=patches.device) for size in (frames, *grid))
    return torch.cartesian_prod(*ranges)


@in_float32
def _frame_means(tokens: Tensor) -> Tensor:
    """[G, P, C]: the mean over the frames of tokens [G, F, P, C]."""
    return tokens.mean(dim=1)


@in_float32
def _member_means(values: Tensor, labels: Tensor, clusters: int) -> Tensor:
    """[G, K, D]: the mean of each cluster's members; a sum is beyond float16 from 65504 on."""
    return sum_by_label(values, labels, clusters) / sum_by_label(torch.ones_like(values[..., :1]), labels, clusters)
