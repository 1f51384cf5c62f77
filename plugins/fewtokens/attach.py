"""Joins one reducer to one host."""

from torch import nn

from .attachment import refuse_data_parallel, refuse_sharded
from .hosts import FAMILIES, Host, find_hosts
from .hosts.refused import why_refused
from .reducers import Reducer
from .reduction import Reduction


def attach(model: nn.Module, reducer: Reducer) -> Reduction:
    """Puts a reducer into a model that has one known backbone. Nothing of it is changed but for calls.

    Args:
        model: a model or its backbone; one with several backbones is an error that lists them: pass the submodule.
        reducer: for instance `Hourglass(after=10, grid=28)`.

    Returns:
        the attachment; `remove()` it, or use it as a context manager.

    Raises:
        ValueError: no known backbone, several of them, settings that don't fit it, something attached already, or
            `nn.DataParallel` or a sharded model.
    """
    if not isinstance(reducer, Reducer):
        raise ValueError(f'reducer={reducer!r} must be a reducer, for instance fewtokens.Hourglass(after=10, grid=28)')
    refuse_data_parallel(model)
    refuse_sharded(model)
    return Reduction(only_host(model), reducer)


def supported(model: nn.Module) -> str:
    """Says what `attach` would find in the model, and which settings fit. Changes nothing."""
    hosts = find_hosts(model)
    if not hosts:
        return _nothing_found(model)
    lines = []
    for host in hosts:
        depth, grid, where = len(host.blocks), host.nominal_grid, host.path or type(host.backbone).__name__
        until = f"'backbone' or 'head' ({host.head.name})" if host.head else "'backbone'"
        lines += [
            f'{where}: {host.family}, {depth} blocks, {grid[0]} x {grid[1]} {host.grid_is}, '
            f'{host.num_prefix_tokens} prefix tokens, outputs after {_outputs(host)}',
            f'  after: 0 to {depth - 1}; grid: up to {grid}; until: {until} or a number of blocks',
        ]
        if host.relative_positions:
            lines.append('  relative positions: methods that keep a grid')
        if host.rotary_positions:
            lines.append("  rotary positions: a reduced token has the mean of its members'")
    return '\n'.join(lines)


def _outputs(host: Host) -> str:
    if host.taps is None:
        return 'any block that is asked for'
    return f'blocks {", ".join(str(tap + 1) for tap in host.taps)}'


def only_host(model: nn.Module) -> Host:
    """The one known backbone of a model; see `attach` for errors."""
    hosts = find_hosts(model)
    if not hosts:
        raise ValueError(_nothing_found(model))
    if len(hosts) > 1:
        found = ', '.join(f'{host.path!r} ({host.family})' for host in hosts)
        raise ValueError(
            f'{type(model).__name__} has {len(hosts)} backbones: {found}; attach to model.get_submodule(…)'
        )
    return hosts[0]


def _nothing_found(model: nn.Module) -> str:
    reason = why_refused(model)
    why = f': {reason}' if reason else f'; known are: {", ".join(family.family for family in FAMILIES)}'
    return f'{type(model).__name__} has no known backbone{why}'
