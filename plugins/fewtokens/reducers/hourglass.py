from dataclasses import dataclass

from torch import Tensor

from ..ops.hourglass import apply_weights, cluster_widely, reconstruction_weights
from .base import Grid, Reduced, Reducer, as_grid, check_after, check_at_least, check_choice, reduces


@dataclass(frozen=True)
class Hourglass(Reducer):
    """Soft clustering of neighbouring tokens, and reconstruction of each token from its nearest centers.

    "Expediting Large-Scale Vision Transformer for Dense Prediction without Fine-tuning" (NeurIPS 2022),
    https://arxiv.org/abs/2210.01035.

    Args:
        after: number of blocks before the clustering.
        grid: clusters over the image, or within each attention window for windowed hosts; an integer means a square.
        until: 'head' runs a head that works token by token on the centers too, 'backbone' restores at its end, 'auto'
            picks head where the head allows it.
        iters: clustering iterations.
        window: side, in centers, of the neighbourhood whose centers a token may join.
        k: how many centers a token is reconstructed from.
        temperature: of clustering and reconstruction, in squared token units.
        normalize: 'sum' as in the paper, 'l2' as in the published code.

    `iters`, `k` and `temperature` of None mean the host family's published default.
    """

    grid: Grid
    until: str = 'auto'
    iters: int | None = None
    window: int = 5
    k: int | None = None
    temperature: float | None = None
    normalize: str = 'sum'

    def __post_init__(self) -> None:
        object.__setattr__(self, 'grid', as_grid(self.grid))
        check_after(self.after)
        check_choice('until', self.until, ('auto', 'head', 'backbone'))
        check_choice('normalize', self.normalize, ('sum', 'l2'))
        check_at_least(0, iters=self.iters)
        check_at_least(1, window=self.window, k=self.k)
        if self.temperature is not None and not self.temperature > 0:
            raise ValueError(f'temperature={self.temperature!r} must be positive')

    def reduce(self, tokens: Tensor, grid: Grid | None, sizes: Tensor | None = None) -> Reduced | None:
        if not reduces(self.grid, grid):
            return None
        # The weights are of the centers before they are rounded: in half precision a distance to those is another one.
        centers, labels = cluster_widely(tokens, grid, self.grid, self.iters, self.window, self.temperature)
        weights = reconstruction_weights(tokens, centers, self.k, self.temperature, self.normalize)
        return Reduced(centers.to(tokens.dtype), labels, weights, self.grid)

    def restore(self, tokens: Tensor, record: tuple[Tensor, Tensor]) -> Tensor:
        return apply_weights(tokens, *record)
