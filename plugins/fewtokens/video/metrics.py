"""Retrieval metrics: recall and rank in both directions, ties counted fairly."""

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

RECALLS = (1, 5, 10, 50)

Rows = Callable[[slice], Tensor]
"""Gives some rows of a similarity matrix."""


@dataclass(frozen=True)
class Ranks:
    """Of each query: how many candidates are better than the right one, and how many others are equal to it."""

    better: Tensor
    """[queries] int64."""
    equal: Tensor
    """[queries] int64."""

    def recall(self, k: int) -> Tensor:
        """How likely each query's right candidate is among the first k, equals being in random order: [queries]."""
        return ((k - self.better).double() / (self.equal + 1)).clamp(0, 1)

    def rank(self) -> Tensor:
        """Each query's expected rank, from 1 on: [queries]."""
        return 1 + self.better + self.equal.double() / 2

    def metrics(self, prefix: str = '') -> dict[str, float]:
        """Recalls in percent, median and mean rank."""
        recalls = {f'{prefix}R@{k}': 100 * self.recall(k).mean().item() for k in RECALLS}
        ranks = self.rank()
        return recalls | {f'{prefix}MedR': ranks.quantile(0.5).item(), f'{prefix}MeanR': ranks.mean().item()}


def retrieval_metrics(
    similarity: Tensor, video_of_text: Tensor | Sequence[int] | None = None, dual_softmax: float | None = None
) -> dict[str, float]:
    """Recall at 1, 5, 10 and 50 in percent, median and mean rank: text to video, and video to text as `v2t/…`.

    Each text is a query of its own. For the other direction a video's texts count as one, as similar as their best
    (CLIP4Clip's multi-sentence protocol). Equal similarities stand in random order: metrics are expected values, and a
    similarity that tells nothing scores chance. The median is that of the expected ranks.

    Args:
        similarity: [texts, videos]. What is not a number counts as less than anything else, with a warning.
        video_of_text: [texts], the index of each text's video; where left out, text i belongs to video i.
        dual_softmax: temperature. Adds `dsl/…`: each similarity times its softmax over the queries (CAMoE, arXiv
            2109.04290). It looks at all queries at once, which no search does.

    Raises:
        ValueError: the shapes don't fit, or an index is out of range.
    """
    if similarity.ndim != 2 or not similarity.numel():
        raise ValueError(f'similarity must be [texts, videos] with one of each at least, got {tuple(similarity.shape)}')
    owners = _owners(video_of_text, *similarity.shape)
    transposed = similarity.T
    ranks = rank_both_directions(
        lambda s: similarity[s], lambda s: transposed[s], owners, len(transposed), dual_softmax
    )
    return metrics_of(ranks)


def rank_videos(rows: Rows, owners: Tensor, chunk: int = 1024) -> Ranks:
    """Ranks of the right video for each text.

    Args:
        rows: gives rows of similarity to every video, [n, videos], for a slice of the texts.
        owners: [texts], the index of each text's video.
    """
    counts = [_count(_numbers(rows(part)), owners[part]) for part in _parts(len(owners), chunk)]
    return Ranks(*map(torch.cat, zip(*counts)))


def rank_texts(rows: Rows, owners: Tensor, videos: int, chunk: int = 1024) -> Ranks:
    """Ranks of the right group of texts for each video that has texts: a group is as similar as its best.

    Args:
        rows: gives rows of similarity to every text, [n, texts], for a slice of the videos.
        owners: [texts], the index of each text's video.
    """
    asked = torch.zeros(videos, dtype=torch.bool).index_fill_(0, owners, True)
    group = asked.cumsum(0) - 1
    counts = []
    for part in _parts(videos, chunk):
        texts = _numbers(rows(part))
        best = texts.new_full((len(texts), int(asked.sum())), -torch.inf)
        best.scatter_reduce_(1, group[owners].to(texts.device).expand_as(texts), texts, 'amax')
        counts.append(_count(best[asked[part].to(texts.device)], group[part][asked[part]]))
    return Ranks(*map(torch.cat, zip(*counts)))


def rank_both_directions(
    texts: Rows, videos: Rows, owners: Tensor, n_videos: int, dual_softmax: float | None, chunk: int = 1024
) -> dict[str, Ranks]:
    """Ranks by the prefix of their metrics' names."""
    _warn_of_nan(videos, n_videos, chunk)

    def directions(texts: Rows, videos: Rows, prefix: str) -> dict[str, Ranks]:
        back = rank_texts(videos, owners, n_videos, chunk)
        return {prefix: rank_videos(texts, owners, chunk), f'{prefix}v2t/': back}

    ranks = directions(texts, videos, '')
    if dual_softmax is not None:
        # A row's candidates are weighed by softmax over the queries: the other matrix's rows.
        over_texts = _log_sums(videos, n_videos, dual_softmax, chunk)
        over_videos = _log_sums(texts, len(owners), dual_softmax, chunk)
        ranks |= directions(
            lambda part: _weigh(texts(part), over_texts, dual_softmax),
            lambda part: _weigh(videos(part), over_videos, dual_softmax),
            'dsl/',
        )
    return ranks


def metrics_of(ranks: dict[str, Ranks]) -> dict[str, float]:
    return {name: value for prefix, found in ranks.items() for name, value in found.metrics(prefix).items()}


def _weigh(rows: Tensor, log_sums: Tensor, temperature: float) -> Tensor:
    return rows * (rows / temperature - log_sums).exp()


def _log_sums(rows: Rows, count: int, temperature: float, chunk: int) -> Tensor:
    return torch.cat([(rows(part) / temperature).logsumexp(1) for part in _parts(count, chunk)])


def _count(rows: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """How many entries of each row are more than the right one, and how many others are equal to it."""
    own = rows.gather(1, right.to(rows.device)[:, None])
    return (rows > own).sum(1).cpu(), ((rows == own).sum(1) - 1).cpu()


def _numbers(rows: Tensor) -> Tensor:
    """Rows whose NaN are less than anything else."""
    return rows.nan_to_num(-torch.inf, torch.inf, -torch.inf)


def _warn_of_nan(rows: Rows, count: int, chunk: int) -> None:
    broken = sum(int(rows(part).isnan().sum()) for part in _parts(count, chunk))
    if broken:
        warnings.warn(f'{broken} similarities are not numbers: they count as less than any other', stacklevel=3)


def _parts(count: int, chunk: int) -> Iterator[slice]:
    return (slice(start, min(start + chunk, count)) for start in range(0, count, chunk))


def _owners(video_of_text: Tensor | Sequence[int] | None, texts: int, videos: int) -> Tensor:
    if video_of_text is None:
        if texts != videos:
            raise ValueError(f'{texts} texts and {videos} videos: video_of_text must say which belong together')
        return torch.arange(texts)
    owners = torch.as_tensor(video_of_text).cpu().long()
    if owners.shape != (texts,):
        raise ValueError(f'video_of_text must have one index for each of {texts} texts, got {tuple(owners.shape)}')
    if owners.min() < 0 or owners.max() >= videos:
        raise ValueError(
            f'video_of_text must lie in 0 to {videos - 1}, got {owners.min().item()} to {owners.max().item()}'
        )
    return owners
