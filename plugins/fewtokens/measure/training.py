"""What a training step takes."""

from typing import Any

from torch import Tensor, nn

from .macs import forward
from .memory import peak_mib
from .variants import Variant


def add_training_peaks(rows: list[dict[str, Any]], model: nn.Module, variants: list[Variant], inputs: Tensor) -> None:
    """Adds `training_peak_mib` to the variants' rows: MiB of a whole step at its peak, forward and backward.

    Beside what is kept for backward, the gradients of the weights are in it. Rows that can't run get None. The model
    must be in training mode; its gradients are gone afterwards.
    """

    def step() -> None:
        forward(model, inputs).sum().backward()

    for row, variant in zip(rows, variants):
        row['training_peak_mib'] = None
        if row['failure']:
            continue
        model.zero_grad(set_to_none=True)
        with variant.applied(model):
            row['training_peak_mib'] = peak_mib(step, inputs.device)
    model.zero_grad(set_to_none=True)
