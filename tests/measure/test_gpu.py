"""The benchmark of CUDA devices where there is none: on the CPU, with clocks and graphs of its own."""

import json

import pytest
import torch
from torch.overrides import TorchFunctionMode

from fewtokens.measure.gpu import attention, kernels, passes, run, timing
from fewtokens.report.gpu import draw_gain, format_rows


class OnTheCPU(TorchFunctionMode):
    """What is made on a CUDA device is made here."""

    def __torch_function__(self, function, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if kwargs.get('device') in ('cuda', torch.device('cuda')):
            kwargs['device'] = 'cpu'
        return function(*args, **kwargs)


@pytest.fixture
def small(monkeypatch):
    """Tiny models and shapes; a call takes a millisecond; a graph is the call itself."""
    monkeypatch.setattr(timing, '_once', lambda call, repeats: 1.0)
    for module in (kernels, passes, attention):
        monkeypatch.setattr(module, 'captured', lambda call: call)
    monkeypatch.setattr(passes, 'MODELS', {'ViT-B': dict(embed_dim=16, depth=4, num_heads=2)})
    monkeypatch.setattr(kernels, 'SHAPES', [kernels.Shape(1, 6, 3, 8)])
    monkeypatch.setattr(kernels, 'SEGMENTS', [kernels.Segments(2, 20, 3, 8)])
    monkeypatch.setattr(attention, 'SHAPES', [attention.Heads(1, 9, 2, 8)])
    monkeypatch.setattr(kernels, 'measure_ceilings', lambda results: dict(bytes_per_s=1e12, flops_per_s=1e15))
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)
    monkeypatch.setattr(torch, 'compile', lambda call, **options: call)
    with OnTheCPU():
        yield


def run_small(parts, seconds=1e9):
    written = []
    results = timing.Results(lambda rows: written.append(json.dumps(rows)), timing.Clock(seconds))
    setups = [passes.Setup('ViT-B', 128, 1, costs=True), passes.Setup('ViT-B', 64, 1)]
    run.run_parts(parts, results, setups)
    assert len(written) == len(results.rows)
    return results.rows


def test_passes_are_compared_with_the_host(small, tmp_path):
    rows = run_small(['passes'])
    assert not [row for row in rows if 'failure' in row]
    methods = ('Hourglass', 'SharedUpdate', 'GradualUpdate')
    names = ['host', *(name for method in methods for name in (method, f'{method}, PyTorch'))]
    assert [row['name'] for row in rows if row.get('mode') == 'graph'] == [*names, 'SharedUpdate, spread=False', 'free']
    assert all(row['speedup'] == 1 and row['tokens'] == 64 for row in rows if 'mode' in row)
    assert '0.0% beyond a free merge' in format_rows(rows)
    draw_gain(rows, 'a device', tmp_path / 'gain.png')
    assert (tmp_path / 'gain.png').stat().st_size > 1000


def test_other_sizes_are_passes_too(small):
    rows = run_small(['sizes'])
    assert {(row['part'], row['pixels'], row['tokens']) for row in rows if 'mode' in row} == {('passes', 64, 16)}


def test_ops_and_their_floors(small):
    rows = [row for row in run_small(['ops']) if 'form' in row]
    assert not [row for row in rows if 'failure' in row]
    assert {row['name'].split()[0] for row in rows} == {
        'merge', 'cluster', 'nearest,', 'pairs,', 'norm', 'activation', 'restore', 'weights', 'product',
        'k-medoids', 'medoids',
    }  # fmt: skip
    assert {row['form'] for row in rows} == {'kernels', 'kernels, graph', 'PyTorch', 'PyTorch, graph', 'published'}
    restore = next(row for row in rows if row['name'] == 'restore')
    waiting = [row['form'] for row in rows if row['name'] == 'medoids of distances']
    assert waiting == ['kernels', 'kernels, graph', 'PyTorch']  # no graph takes what waits
    assert restore['bytes'] == 2 * (36 + 9) * 8 * 2 + 36 * 8


def test_what_fails_is_a_row(small, monkeypatch):
    monkeypatch.setattr(passes.Free, 'reduce', lambda *args: 1 / 0)
    rows = run_small(['passes'])
    failures = [row for row in rows if 'failure' in row]
    assert [row['name'] for row in failures] == ['free', 'free']
    assert failures[0]['failure'].startswith('ZeroDivisionError')
    assert [row for row in rows if row.get('name') == 'SharedUpdate' and 'ms' in row]


def test_when_the_time_is_over_the_rest_says_so(small):
    assert {row['failure'] for row in run_small(['passes', 'ops'], seconds=-1)} == {'no time left'}


def test_compiled_passes_and_how_long_compiling_took(small):
    rows = run_small(['compiled'])
    assert not [row for row in rows if 'failure' in row]
    assert {row['mode'] for row in rows if 'mode' in row} == {'compile', 'compile + graph'}
    assert [row['name'] for row in rows if 'compiling_seconds' in row][:3] == ['host', 'Hourglass', 'SharedUpdate']


def test_attention_in_its_ways(small):
    rows = {row['name']: row for row in run_small(['attention']) if 'name' in row}
    assert 'failure' not in rows['mask'] and 'failure' not in rows['extra key channels']
