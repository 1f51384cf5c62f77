"""What merging tokens saves of the real model, and how far what it sees moves."""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional as F

from fewtokens.measure.macs import count_macs
from fewtokens.measure.progress import progress_bar
from fewtokens.measure.rows import Row
from fewtokens.measure.variants import FUSED, Variant, benchmark_rows
from fewtokens.openmmlab.registry import parse_plugin

from .dinov2 import NATIVE, SaliencyModel, as_input

COSINE, DIFFERENCE, IOU = 'cosine', 'map difference', 'map IoU'
"""Metrics in percent: of patch features with the full model's, a mean over tokens; of the decoder's maps the mean
absolute difference, and the overlap of where they are above one half, over all photographs."""
# About 1.5, 2 and 3 times fewer MACs of the backbone: the block to begin after, and the side of the grid of clusters
# where the tokens' has 37.
PLACES = ((6, 20), (3, 24), (2, 18))
METHODS = ('Hourglass', 'SharedUpdate')
SHARES = (0.55, 0.35, 0.18)
"""Of tokens that `GradualUpdate` keeps, for the same."""


@dataclass(frozen=True)
class View:
    """What a variant sees in one photograph.

    Attributes:
        features: patch features as a map [h, w, C].
        map: where it draws the eye, [H, W], from 0 to 1.
        clusters: [h, w], which of the merged tokens each was in; None of the full model.
        cosine, difference: to the full model's view, as in the metrics.
    """

    features: np.ndarray
    map: np.ndarray
    clusters: np.ndarray | None
    cosine: float
    difference: float


def default_plugins(size: int) -> list[str]:
    """Each method at each of `PLACES`, for images with sides of `size` pixels."""
    scale = size / NATIVE
    on_grids = [f'{method}(after={after}, grid={round(grid * scale)})' for method in METHODS for after, grid in PLACES]
    return [*(f'GradualUpdate(after=(0, 3, 6, 9), keep={share})' for share in SHARES), *on_grids]


def make_rows(plugins: Sequence[str]) -> list[Variant]:
    """The full model, whose attention timm fuses itself, and a row a plugin."""
    return [Variant(FUSED), *(Variant(text, parse_plugin(text)) for text in plugins)]


@torch.no_grad()
def view_all(
    model: SaliencyModel, variants: Sequence[Variant], photographs: Mapping[str, np.ndarray]
) -> Iterator[tuple[str, list[View]]]:
    """Each photograph's name with what the variants see in it, the full model first."""
    with progress_bar(len(photographs), 'looking at photographs') as bar:
        for name, photograph in photographs.items():
            views: list[View] = []
            for variant in variants:
                views.append(view(model, variant, photograph, views[0] if views else None))
            yield name, views
            bar.update()


@torch.no_grad()
def view(model: SaliencyModel, variant: Variant, photograph: np.ndarray, full: View | None) -> View:
    """What a variant sees in a photograph; the full model's view is None where this is it."""
    image = as_input(photograph)
    with variant.applied(model.backbone) as reduction:
        tokens = model.features(image)
        clusters = None if reduction is None else reduction.cluster_map
    size = photograph.shape[:2]
    seen = model.decode(tokens, size)[0, 0].numpy()
    features = tokens[0].unflatten(0, model.backbone.patch_embed.dynamic_feat_size(size)).numpy()
    clusters = None if clusters is None else clusters[0].numpy()
    if full is None:
        return View(features, seen, clusters, cosine=100.0, difference=0.0)
    cosine = F.cosine_similarity(torch.from_numpy(features), torch.from_numpy(full.features), dim=-1)
    return View(features, seen, clusters, 100 * cosine.mean().item(), 100 * float(np.abs(seen - full.map).mean()))


class Agreement:
    """How well each of some rows agrees with the first, gathered photograph by photograph."""

    def __init__(self, count: int) -> None:
        self._cosines: list[list[float]] = [[] for _ in range(count)]
        self._differences: list[list[float]] = [[] for _ in range(count)]
        self._overlaps = np.zeros((count, 2))

    def add(self, views: Sequence[View]) -> None:
        full = views[0].map > 0.5
        for number, view in enumerate(views):
            self._cosines[number].append(view.cosine)
            self._differences[number].append(view.difference)
            own = view.map > 0.5
            self._overlaps[number] += (own & full).sum(), (own | full).sum()

    def metrics(self, number: int) -> dict[str, float]:
        """Of one row, in percent."""
        common, either = self._overlaps[number]
        return {
            COSINE: float(np.mean(self._cosines[number])),
            DIFFERENCE: float(np.mean(self._differences[number])),
            IOU: 100.0 if either == 0 else float(100 * common / either),
        }


def measure_rows(model: SaliencyModel, variants: Sequence[Variant], photograph: np.ndarray, rounds: int) -> list[Row]:
    """MACs, time and memory of the backbone alone: the decoder sees all tokens whatever becomes of them before.

    Raises:
        ValueError: a plugin doesn't fit the model, or has no effect at this size.
    """
    return benchmark_rows(model.backbone, list(variants), as_input(photograph), rounds, warmup=1)


def decoder_share(model: SaliencyModel, size: int) -> float:
    """Of the full model's MACs, what its decoder takes."""
    empty, images = copy.deepcopy(model).to('meta'), torch.empty(1, 3, size, size, device='meta')
    return 1 - count_macs(empty.backbone, images) / count_macs(empty, images)
