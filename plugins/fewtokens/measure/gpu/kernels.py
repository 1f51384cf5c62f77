"""The ops alone: kernels, PyTorch's forms, and the published dense algorithms, beside what the device could do."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest import mock

import torch
from torch import Tensor

from ...ops import cluster_tokens, dense, k_medoids, merge_pairs, merge_tokens
from ...ops.hourglass import apply_weights, cluster_widely, reconstruction_weights
from ...ops.medoids import choose_medoids
from ...ops.shared_update import merge_lengthened, restore_updated
from ...ops.spread import LayerNorm, activate_members, norm_members
from ...ops.ward import merge_nearest_lengthened
from .timing import Call, Results, captured, in_pytorch, time_calls


@dataclass(frozen=True)
class Shape:
    batch: int
    side: int
    clusters: int
    width: int
    dtype: str = 'bfloat16'


@dataclass(frozen=True)
class Segments:
    """Of videos, whose tokens are clustered by k-medoids."""

    batch: int
    tokens: int
    clusters: int
    width: int
    dtype: str = 'float32'


SHAPES = [Shape(1, 40, 20, 1024), Shape(1, 64, 32, 1024), Shape(8, 64, 32, 1024), Shape(1, 40, 28, 1024)]
SEGMENTS = [Segments(24, 392, 49, 768)]


@dataclass(frozen=True)
class Op:
    """A call of an op in its three forms, and the least that it must move and compute."""

    name: str
    call: Call
    published: Call | None
    bytes: int
    flops: int
    waits: bool = False
    """Whether PyTorch's form reads values back, so that no graph can capture it."""


def measure_ceilings(results: Results) -> dict[str, float]:
    """Bytes a second of a large copy, operations a second of a large product."""
    source = torch.randn(2**28, device='cuda')
    target = torch.empty_like(source)
    a, b = (torch.randn(8192, 8192, device='cuda', dtype=torch.bfloat16) for _ in range(2))
    calls = {'copy': lambda: target.copy_(source), 'product': lambda: a @ b}
    for call in calls.values():
        call()
    ms = {name: timing['ms'] for name, timing in time_calls(calls, 'copy', rounds=5).items()}
    found = dict(bytes_per_s=2 * 4 * 2**28 / ms['copy'] * 1e3, flops_per_s=2 * 8192**3 / ms['product'] * 1e3)
    results.add(part='ceilings', **found)
    return found


def _distances(x: Tensor, centers: Tensor) -> Tensor:
    """Without a tensor of tokens by centers by channels, as the published code does it."""
    return torch.cdist(x, centers).square()


def _layer_norm(weight: Tensor, value: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(value, weight.shape, weight, weight, 1e-6)


def _published(op: Callable, *args: Any) -> Call:
    def run() -> Any:
        with mock.patch.object(dense, 'squared_distances', _distances):
            return op(*args)

    return run


def ops_of(shape: Shape) -> Iterator[Op]:
    b, n, m, c = shape.batch, shape.side**2, shape.clusters**2, shape.width
    grid, clusters = (shape.side,) * 2, (shape.clusters,) * 2
    dtype = getattr(torch, shape.dtype)
    x = torch.randn(b, n, c, device='cuda').to(dtype)
    wide, size = x.float(), x.element_size()
    pair = 2 * c  # operations to compare a token with a center, or to add it up
    yield Op(
        'merge 5 iterations, window 3',
        partial(merge_lengthened, x, grid, clusters, 5, 3),
        _published(dense.merge_tokens, wide, grid, clusters, 5, 3),
        b * (n * c * size + m * c * size + n * 8 + m * 8),
        b * n * 9 * pair * 11,
    )
    yield Op(
        'cluster 5 iterations, window 5',
        partial(cluster_widely, x, grid, clusters, 5, 5, 50.0),
        _published(dense.cluster_tokens, wide, grid, clusters, 5, 5, 50.0),
        b * (n * c * size + m * c * 4 + n * 8),
        b * n * 25 * pair * 11,
    )
    few, away = n * 77 // 100, n // 8
    yield Op(
        'nearest, 0.77 left in 2 rounds',
        partial(merge_nearest_lengthened, x, few),
        None,
        b * (n * c * size + few * c * size + n * 8 + few * 8),
        b * (n**2 + (n - away) ** 2) // 4 * pair,
    )
    yield Op(
        'pairs, an eighth away',
        partial(merge_pairs, x, away),
        None,
        b * (n * c * size + (n - away) * c * size + n * 8 + (n - away) * 4),
        b * n**2 // 4 * pair,
    )
    means, labels, _ = merge_tokens(x, grid, clusters, 1, 3, backend='torch')
    z = torch.randn_like(means)
    weight, linear = torch.randn(c, device='cuda').to(dtype), torch.randn(4 * c, c, device='cuda').to(dtype)
    layer_norm, apart = LayerNorm(weight, weight, 1e-6), torch.rand(b, m, 1, device='cuda')
    yield Op(
        'norm of members',
        partial(norm_members, means, apart, partial(_layer_norm, weight), weight, layer_norm),
        None,
        b * m * (2 * c * size + 8),
        b * m * c * 10,
    )
    hidden = torch.randn(b, m, 4 * c, device='cuda').to(dtype)
    yield Op(
        'activation of members',
        partial(activate_members, hidden, apart, torch.nn.functional.gelu, linear, weight, 'gelu'),
        None,
        b * m * (2 * 4 * c * size + 4) + 4 * c * c * size,
        b * m * 4 * c * 20 + 4 * c * c * 2,
    )
    yield Op(
        'restore',
        partial(restore_updated, x, z, means, labels),
        None,
        b * (2 * n * c * size + 2 * m * c * size + n * 8),
        b * n * c * 2,
    )
    centers = cluster_tokens(wide, grid, clusters, 1, 5, backend='torch')[0]
    k = min(20, m)
    yield Op(
        'weights of reconstruction',
        partial(reconstruction_weights, x, centers, k, 50.0, 'sum'),
        None,
        b * (n * c * size + m * c * 4 + n * k * 12),
        b * n * m * pair,
    )
    nearest, weights = reconstruction_weights(x, centers, k, 50.0, 'sum', 'torch')
    yield Op(
        'product of reconstruction',
        partial(apply_weights, z, nearest, weights),
        _published(dense.reconstruct_tokens, z.float(), wide, centers, k, 50.0),
        b * (m * c * size + n * c * size + n * k * 12),
        b * n * k * 2 * c,
    )


def medoids_of(shape: Segments) -> Iterator[Op]:
    b, n, k, c = shape.batch, shape.tokens, shape.clusters, shape.width
    x = torch.randn(b, n, c, device='cuda').to(getattr(torch, shape.dtype))
    # What any such algorithm does: compare half of all pairs by 2 * c operations, or read distances and assign points.
    yield Op(
        'k-medoids',
        partial(k_medoids, x, k),
        None,
        b * (n * c * x.element_size() + n * 8 + k * 8),
        b * n * n * c,
        waits=True,
    )
    distances, norms = torch.cdist(x, x), x.norm(dim=2)
    yield Op(
        'medoids of distances',
        partial(choose_medoids, distances, norms, k),
        None,
        b * (n * n * 4 + n * 4 + n * 8 + k * 8),
        b * 2 * n * k,
        waits=True,
    )


@torch.no_grad()
def measure_ops(shapes: list[Shape | Segments], results: Results) -> None:
    ceilings = dict(bytes_per_s=float('nan'), flops_per_s=float('nan'))
    with results.soft(part='ceilings'):
        ceilings = measure_ceilings(results)
    for shape in shapes:
        about = dict(part='ops', **vars(shape))
        with results.soft(**about):
            for op in ops_of(shape) if isinstance(shape, Shape) else medoids_of(shape):
                if results.clock.is_over:
                    results.add(**about, name=op.name, failure='no time left')
                    continue
                with results.soft(**about, name=op.name):
                    _measure_op(op, about, results, ceilings)
        torch.cuda.empty_cache()


def _measure_op(op: Op, about: dict[str, Any], results: Results, ceilings: dict[str, float]) -> None:
    calls = {'kernels': op.call, 'PyTorch': in_pytorch(op.call), 'published': op.published}
    forms = {}
    for form, call in calls.items():
        if call is None:
            continue
        with results.soft(**about, name=op.name, form=form):
            call()
            forms[form] = call
            # The published ones make their tables anew, and wait for them.
            if form != 'published' and not (form == 'PyTorch' and op.waits):
                forms[f'{form}, graph'] = captured(call)
    floor = max(op.bytes / ceilings['bytes_per_s'], op.flops / ceilings['flops_per_s'])
    for form, timing in time_calls(forms, 'PyTorch', milliseconds=2).items():
        seconds = timing['ms'] / 1e3
        results.add(
            **about, name=op.name, form=form, **timing, bytes=op.bytes, flops=op.flops, floor_us=floor * 1e6,
            bandwidth_share=op.bytes / seconds / ceilings['bytes_per_s'],
        )  # fmt: skip


@torch.no_grad()
def measure_settings(results: Results) -> None:
    """The merge with all steps in one launch, of as many programs as told, and with a launch for each step."""
    from ...ops.triton import clustering, shared_update

    for shape in (Shape(1, 40, 20, 1024), Shape(8, 64, 32, 1024)):
        x = torch.randn(shape.batch, shape.side**2, shape.width, device='cuda').bfloat16()
        merge = partial(shared_update.launch_lengthened, x, (shape.side,) * 2, (shape.clusters,) * 2, 5, 3, None)
        calls = {}
        about = dict(part='settings', **vars(shape))
        before = clustering.PROGRAMS_EACH, clustering.WARPS, clustering.STAGES
        for programs, warps, stages in ((2, 4, 2), (1, 4, 2), (1, 8, 2), (0, 4, 2), (0, 4, 3), (0, 8, 2)):
            name = f'{programs or "separate"} programs, {warps} warps, {stages} stages'
            with results.soft(**about, name=name):
                clustering.PROGRAMS_EACH, clustering.WARPS, clustering.STAGES = max(programs, 1), warps, stages
                calls[name] = captured(partial(merge, together=programs > 0))
        clustering.PROGRAMS_EACH, clustering.WARPS, clustering.STAGES = before
        with results.soft(**about):
            for name, timing in time_calls(calls, next(iter(calls)), milliseconds=2).items():
                results.add(**about, name=name, **timing)


@torch.no_grad()
def measure_steps(results: Results) -> None:
    """How long each kernel of an op takes, in the order of their launches."""
    from ...ops.triton import shared_update

    for shape in (Shape(1, 40, 20, 1024), Shape(8, 64, 32, 1024)):
        about = dict(part='steps', **vars(shape))
        x = torch.randn(shape.batch, shape.side**2, shape.width, device='cuda').bfloat16()
        grids = (shape.side,) * 2, (shape.clusters,) * 2
        calls = {'merge': partial(shared_update.launch_lengthened, x, *grids, 1, 3, None, together=False)}
        for op in ops_of(shape):
            calls[op.name] = op.call
        for name, call in calls.items():
            with results.soft(**about, name=name):
                results.add(**about, name=name, kernels=_kernel_times(call))


def _kernel_times(call: Call) -> list[tuple[str, float]]:
    """Name and microseconds of each kernel."""
    from torch.profiler import ProfilerActivity, profile

    for _ in range(3):
        call()
    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CUDA]) as profiler:
        call()
        torch.cuda.synchronize()
    events = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    events.sort(key=lambda event: event.time_range.start)
    return [(event.name[:60], event.time_range.elapsed_us()) for event in events]
