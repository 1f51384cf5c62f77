from dataclasses import dataclass
from typing import TypeGuard

from torch import Tensor

from ..ops.hourglass import apply_weights, cluster_widely, reconstruction_weights
from ..ops.temperature import fitting_temperature
from .base import Grid, Reduced, Reducer, as_grid, check_after, check_at_least, check_choice, check_until

FLATTEST, STEEPEST = 50, 1000
"""How many times the fitting temperature makes weights as good as equal, and what part of it leaves one alone."""


@dataclass(frozen=True)
class Hourglass(Reducer):
    """Soft clustering of neighbouring tokens, and reconstruction of each token from its nearest centers.

    "Expediting Large-Scale Vision Transformer for Dense Prediction without Fine-tuning" (NeurIPS 2022),
    https://arxiv.org/abs/2210.01035.

    Args:
        after: number of blocks before the clustering.
        grid: clusters over the image, or within each attention window for windowed hosts; an integer means a square. It
            may have more rows or columns than there are of tokens, as long as it has fewer clusters than they are.
        until: 'head' runs a head that works token by token on the centers too, 'backbone' restores at its end, 'auto'
            picks head where the head allows it; a number of blocks restores after that many.
        iters: clustering iterations.
        window: side, in centers, of the neighbourhood whose centers a token may join.
        k: how many centers a token is reconstructed from.
        temperature: of clustering and reconstruction, in squared token units. None: it follows the data, a quarter of
            the median squared distance of a token to the nearest center that it may join. The published 50 and 100 fit
            the models that they were published for, and with other models' tokens may make all centers alike.
        normalize: 'sum' as in the paper, 'l2' as in the published code.

    `iters` and `k` of None mean the host family's published default.
    """

    grid: int | Grid
    until: str | int = 'auto'
    iters: int | None = None
    window: int = 5
    k: int | None = None
    temperature: float | None = None
    normalize: str = 'sum'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'grid', as_grid(self.grid))
        check_after(self.after)
        check_until(self.until, self.after, ('auto', 'head', 'backbone'))
        check_choice('normalize', self.normalize, ('sum', 'l2'))
        check_at_least(0, iters=self.iters)
        check_at_least(1, window=self.window, k=self.k)
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f'temperature={self.temperature!r} must be positive')

    def reduce(self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None) -> Reduced | None:
        if not self._reduces(grid):
            return None
        # The weights are of the centers before they are rounded: in half precision a distance to those is another one.
        temperature = self.temperature
        if temperature is None:
            temperature = self._fitting(tokens, grid)
        assert self.iters is not None and self.k is not None  # the host's defaults by now
        centers, labels = cluster_widely(tokens, grid, self._grid, self.iters, self.window, temperature)
        weights = reconstruction_weights(tokens, centers, self.k, temperature, self.normalize)
        return Reduced(centers.to(tokens.dtype), labels, weights, self._grid)

    def _reduces(self, grid: Grid | None) -> TypeGuard[Grid]:
        return grid is not None and self._grid[0] * self._grid[1] < grid[0] * grid[1]

    def _fitting(self, tokens: Tensor, grid: Grid) -> Tensor:
        # Reconstruction shares it, and wants it lower than clustering alone would.
        return fitting_temperature(tokens, grid, self._grid, self.window) / 2

    def misfit(self, tokens: Tensor, grid: Grid | None) -> str | None:
        if self.temperature is None or not self._reduces(grid):
            return None
        fitting = self._fitting(tokens, grid).median().item()
        ratio = self.temperature / fitting
        if FLATTEST >= ratio >= 1 / STEEPEST:
            return None
        effect = 'all weights alike, and so all centers' if ratio > 1 else 'all weights but one 0'
        return f'temperature={self.temperature:g} makes {effect}: {fitting:.2g} would fit these tokens, as None does'

    def restore(self, tokens: Tensor, record: tuple[Tensor, Tensor]) -> Tensor:
        return apply_weights(tokens, *record)
