"""Rows as text."""

from collections.abc import Sequence

from ..measure.rows import Row


def format_table(rows: Sequence[Row]) -> str:
    """A table of whatever the rows have: accuracy, MACs, time, speed-up over `host + sdpa`, memory.

    Rows that can't run say why below it.
    """
    headlines = list(getattr(rows[0], 'differences', ()))
    header = ['', *headlines, 'GMACs', 'MACs ratio', 'ms', 'p20-p80', 'speed-up', 'peak MiB']
    # The fused host computes as much as the host, which may be unable to run.
    host = next((row.macs for row in rows if row.macs), None)
    lines = [header]
    for row in rows:
        accuracy = [format_metric(name, row.metrics[name]) for name in headlines]
        computed = ['-', '-']
        if row.macs is not None and host is not None:
            computed = [format_gmacs(row.macs), f'{row.macs / host:.3f}']
        spread = '-' if row.ms is None else f'{row.ms_p20:.1f}-{row.ms_p80:.1f}'
        time = 'cannot run' if row.failure else _number(row.ms, '.1f')
        measured = [time, spread, _number(row.speedup, '.2f'), _number(row.peak_mib, '.0f')]
        lines.append([row.name, *accuracy, *computed, *measured])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    table = [
        ' | '.join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        for line in lines
    ]
    return '\n'.join(table + [f'{row.name} cannot run: {row.failure}' for row in rows if row.failure])


def format_metric(name: str, value: float, sign: str = '') -> str:
    """Two decimals of a percentage; an error in metres, of which smaller parts count, has three."""
    return format(value, f'{sign}.{3 if name == "RMSE" else 2}f')


def format_gmacs(macs: int) -> str:
    """Two decimals, and of small models three digits that count."""
    return f'{macs / 1e9:.2f}' if macs >= 1e9 else f'{macs / 1e9:.3g}'


def _number(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)
