"""Rows as text."""

from typing import Any


def format_table(rows: list[dict[str, Any]]) -> str:
    """A table of whatever the rows have: accuracy, MACs, time, speed-up over `host + sdpa`, memory."""
    headlines = list(rows[0].get('differences', ()))
    header = ['', *headlines, 'GMACs', 'MACs ratio', 'ms', 'p20-p80', 'speed-up', 'peak MiB']
    host = rows[0]['macs']
    lines = [header]
    for row in rows:
        accuracy = [f'{row["metrics"][name]:.2f}' for name in headlines]
        spread = '-' if row['ms'] is None else f'{row["ms_p20"]:.1f}-{row["ms_p80"]:.1f}'
        measured = [_number(row['ms'], '.1f'), spread, _number(row['speedup'], '.2f'), _number(row['peak_mib'], '.0f')]
        lines.append([row['name'], *accuracy, format_gmacs(row['macs']), f'{row["macs"] / host:.3f}', *measured])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return '\n'.join(
        ' | '.join(cell.ljust(w) if i == 0 else cell.rjust(w) for i, (cell, w) in enumerate(zip(line, widths)))
        for line in lines
    )


def format_gmacs(macs: int) -> str:
    """Two decimals, and of small models three digits that count."""
    return f'{macs / 1e9:.2f}' if macs >= 1e9 else f'{macs / 1e9:.3g}'


def _number(value: float | None, form: str) -> str:
    return '-' if value is None else format(value, form)
