"""The kernels where there is no device: interpreted in processes of their own, compiled, and chosen."""

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch

from fewtokens.ops import (
    backend,
    cluster_tokens,
    k_medoids,
    match_pairs,
    merge_nearest,
    merge_pairs,
    merge_tokens,
    reconstruct_tokens,
    spectral_medoids,
)

pytest.importorskip('triton', reason='Triton is not installed here')
HERE = Path(__file__).parent


@pytest.mark.parametrize(
    'part, at_least',
    [
        ('merge', 72),
        ('cluster', 60),
        ('reconstruct or restore', 100),
        ('members', 72),
        ('nearest or pairs', 37),
        ('attend', 24),
        ('medoids', 45),
        ('', 8),
    ],
)
def test_interpreted(part, at_least):
    names = part or 'well or gradients or compiled or told'
    command = [sys.executable, '-m', 'pytest', 'interpreted_kernels.py', '-q', '-k', names, '-p', 'no:cacheprovider']
    environment = {**os.environ, 'TRITON_INTERPRET': '1'}
    result = subprocess.run(command, cwd=HERE, env=environment, capture_output=True, text=True)
    closing = result.stdout.strip().rpartition('\n')[2]
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
    assert int(closing.split(' passed')[0]) >= at_least


def launches(dtype, width, together):
    """(kernel, arguments) of every launch of the ops, recorded."""
    from kernels import recording

    from fewtokens.ops.triton import (
        attention,
        clustering,
        hourglass,
        matching,
        medoids,
        pairing,
        shared_update,
        spread,
        ward,
    )

    x, z = torch.zeros(2, 30, width, dtype=dtype), torch.zeros(2, 6, width, dtype=dtype)
    more = torch.zeros(2, 90, width, dtype=dtype)
    labels, sizes = torch.zeros(2, 30, dtype=torch.int64), torch.zeros(2, 30)
    grid, clusters = (5, 6), (2, 3)
    places = [
        (clustering, 'cluster_kernel'), (clustering, 'gram_kernel'), (shared_update, 'restore_kernel'),
        (hourglass, 'compare_kernel'), (hourglass, 'weigh_kernel'), (hourglass, 'apply_kernel'),
        (spread, 'norm_kernel'), (spread, 'activation_kernel'), (pairing, 'pair_kernel'),
        (attention, 'attention_kernel'),
        (medoids, 'medoid_kernel'),
    ]  # fmt: skip
    with recording(*places) as recorders, mock.patch.object(clustering, '_multiprocessors', lambda device: 132):
        shared_update.launch_lengthened(x, grid, clusters, 2, 3, sizes, together)
        hourglass.launch_clustering(x, grid, clusters, 5, 5, None, 50.0, together)
        shared_update.launch_lengthened(more, (9, 10), clusters, 2, 3, None, together)
        hourglass.launch_clustering(more, (9, 10), clusters, 5, 5, None, 50.0, together)
        nearest, weights = hourglass.launch_weights(x, z, 6, None, 50.0, False)
        hourglass.launch_product(z, nearest, weights)
        shared_update.launch_restore(x, z, z, labels)
        ward.launch_lengthened(x, 20, 8, sizes, together)
        if not together:
            matching.launch_merge(x, 5, 1, None, x[..., :16], together)
        heads = torch.zeros(2, 30, 3, 2, 64, dtype=torch.float16 if dtype == torch.float32 else dtype)
        attention.launch_attention(*heads.permute(2, 0, 3, 1, 4), sizes, 0.1)
        few, many = (torch.zeros(1, 1, count) for count in (30, 2352))
        for rows, k in ((few, 6), (many, 196)):
            medoids.launch(rows.expand(1, rows.shape[2], -1), rows[0], k, 100, 1e-6)
        weight = torch.zeros(4 * width, width, dtype=dtype)
        spread.launch_norm(x, sizes[..., None], weight[0], weight[1], 1e-6)
        spread.launch_activation(
            torch.zeros(2, 30, 4 * width, dtype=dtype), sizes[..., None], weight, weight[0], 'gelu'
        )
    different = {}
    for recorder in recorders:
        assert recorder.launches
        for launch in recorder.launches:
            step = launch.get('STEP')
            what = dict(all=['MEASURED'], measure=['MEASURED'], offer=['FIRST', 'WARD'], join=['FIRST']).get(step, [])
            key = recorder.kernel.__name__, *(launch.get(name) for name in ('STEP', 'BLOCK_N', *what))
            different[key] = recorder.kernel, launch
    return different.values()


@pytest.mark.skipif(os.environ.get('TRITON_INTERPRET') == '1', reason='TRITON_INTERPRET=1: nothing is compiled')
@pytest.mark.parametrize(
    'dtype, width, together, capability',
    [
        (torch.bfloat16, 1024, True, 90),
        (torch.float16, 1000, False, 90),
        (torch.float32, 768, True, 80),
    ],
    ids=str,
)
def test_compiled_for_devices_that_are_not_here(dtype, width, together, capability, tmp_path, monkeypatch):
    from kernels import compile_launch

    from fewtokens.ops.triton import clustering

    monkeypatch.setenv('TRITON_CACHE_DIR', str(tmp_path))
    largest = {80: 163, 90: 227}[capability] * 1024
    for kernel, launch in launches(dtype, width, together):
        compiled = compile_launch(kernel, launch, capability)
        # Programs that wait for each other have to find room at once.
        beside = clustering.PROGRAMS_EACH if launch.get('STEP') == 'all' else 1
        assert compiled.asm['cubin'] and beside * compiled.metadata.shared <= largest


def test_one_launch_does_all_steps_of_a_merge():
    steps = [launch['STEP'] for kernel, launch in launches(torch.bfloat16, 64, True) if 'STEP' in launch]
    assert steps == ['all'] * 5


@pytest.mark.parametrize(
    'grid, clusters, window, iters, gram',
    [
        ((40, 40), (20, 20), 3, 5, True),
        ((64, 64), (32, 32), 3, 1, True),
        ((40, 40), (28, 28), 5, 5, True),
        ((37, 53), (19, 30), 3, 5, True),
        ((40, 40), (20, 20), 3, 0, False),  # nothing to iterate
        ((40, 40), (20, 20), 1, 5, False),  # pooling reaches beyond the window
        ((40, 40), (20, 20), 5, 5, False),  # too many tokens in a window
        ((64, 64), (20, 20), 3, 5, False),
        ((4, 40), (8, 20), 3, 5, False),
    ],
)
def test_iterations_are_on_products_where_windows_are_small(grid, clusters, window, iters, gram):
    from fewtokens.ops.triton.clustering import make_plan

    assert make_plan(1, 1024, 2, grid, clusters, window, iters).gram == gram


OPS = [
    lambda x, **k: merge_tokens(x, (3, 4), (2, 2), **k),
    lambda x, **k: cluster_tokens(x, (3, 4), (2, 2), **k),
    lambda x, **k: reconstruct_tokens(x, x, x, 2, **k),
    lambda x, **k: merge_nearest(x, 5, **k),
    lambda x, **k: match_pairs(x, 5, **k),
    lambda x, **k: merge_pairs(x, 5, **k),
    lambda x, **k: k_medoids(x, 5, **k),
    lambda x, **k: spectral_medoids(x, 5, **k),
]


@pytest.mark.parametrize('op', OPS)
def test_a_backend_that_is_not_there_is_named(op, monkeypatch):
    monkeypatch.delenv('TRITON_INTERPRET', raising=False)
    x = torch.randn(1, 12, 4)
    with pytest.raises(ValueError, match="backend='triton' needs a CUDA device"):
        op(x, backend='triton')
    with pytest.raises(ValueError, match="backend='cuda' must be one of 'auto', 'torch', 'triton'"):
        op(x, backend='cuda')


def test_whether_a_device_is_capable_is_asked_while_compiling():
    @torch.compile(backend='eager', fullgraph=True)
    def ask(x):
        return x if backend._is_capable(torch.device('cuda', 0)) else x + 1

    assert ask(torch.zeros(1)).item() == (0 if backend._is_capable(torch.device('cuda', 0)) else 1)


def test_the_cpu_runs_pytorch_and_imports_no_kernel():
    code = """
import sys, torch
from fewtokens.ops import cluster_tokens, k_medoids, merge_nearest, merge_pairs, merge_tokens, reconstruct_tokens
x = torch.randn(1, 12, 4)
merge_tokens(x, (3, 4), (2, 2)); cluster_tokens(x, (3, 4), (2, 2)); reconstruct_tokens(x, x, x, 2)
merge_nearest(x, 5); merge_pairs(x, 5); k_medoids(x, 5)
assert not [name for name in sys.modules if name.startswith('fewtokens.ops.triton')]
"""
    environment = {**os.environ, 'TRITON_INTERPRET': '1'}
    result = subprocess.run([sys.executable, '-c', code], env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
