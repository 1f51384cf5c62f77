"""The rows of a comparison: what is measured of a variant, and what a report adds."""

from dataclasses import dataclass, field, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Row:
    """What is measured of one variant, for one image or video each. What was not measured is None.

    Attributes:
        name: the variant's, a plugin's by its text.
        kind: its method, such as 'Hourglass'; rows of one kind belong together.
        label: its settings in short; empty for the hosts.
        failure: why it can't run.
        metrics: in percent, the headline first.
    """

    name: str
    kind: str
    label: str = ''
    macs: int | None = None
    params: int
    ms: float | None = None
    ms_p20: float | None = None
    ms_p80: float | None = None
    speedup: float | None = None
    speedup_p20: float | None = None
    speedup_p80: float | None = None
    peak_mib: float | None = None
    failure: str | None = None
    metrics: dict[str, float] = field(default_factory=dict)

    @property
    def short_name(self) -> str:
        return f'{self.kind} {self.label}' if self.label else self.kind

    def as_json(self) -> dict[str, Any]:
        """What tools write of a row. The name says what kind and label do."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ('kind', 'label')}


@dataclass(frozen=True, kw_only=True)
class ReportRow(Row):
    """A row of the trade-off report.

    Attributes:
        differences: points of each headline metric more than the host has.
        intervals: their 95 % intervals; None where there is none.
        finite: whether every output was.
    """

    differences: dict[str, float]
    intervals: dict[str, tuple[float, float] | None]
    finite: bool


@dataclass(frozen=True, kw_only=True)
class TrainingRow(Row):
    """A row with what a training step takes at its peak; None where it can't run."""

    training_peak_mib: float | None
