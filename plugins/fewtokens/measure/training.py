"""What a training step takes."""

from torch import Tensor, nn

from .macs import forward
from .memory import peak_mib
from .rows import Row, TrainingRow
from .variants import Variant


def training_rows(rows: list[Row], model: nn.Module, variants: list[Variant], inputs: Tensor) -> list[TrainingRow]:
    """The variants' rows with `training_peak_mib`: MiB of a whole step at its peak, forward and backward.

    Beside what is kept for backward, the gradients of the weights are in it. Rows that can't run have None. The model
    must be in training mode; its gradients are gone afterwards.
    """

    def step() -> None:
        forward(model, inputs).sum().backward()

    found = []
    for row, variant in zip(rows, variants):
        peak = None
        if row.failure is None:
            model.zero_grad(set_to_none=True)
            with variant.applied(model):
                peak = peak_mib(step, inputs.device)
        found.append(TrainingRow(**vars(row), training_peak_mib=peak))
    model.zero_grad(set_to_none=True)
    return found
