import pytest
import torch
from models import segmenter, swin

import fewtokens
from fewtokens.measure.variants import FUSED, HALF, HOST, benchmark_rows, count_rows, make_variants
from fewtokens.report.table import format_table


def test_rows_of_a_comparison():
    plugins = {'SharedUpdate(after=2, grid=4)': fewtokens.SharedUpdate(2, 4)}
    rows = benchmark_rows(segmenter(), make_variants(plugins, half=True), torch.randn(2, 3, 64, 64), rounds=2, warmup=1)
    assert [row.name for row in rows] == [HOST, FUSED, 'SharedUpdate(after=2, grid=4)', HALF]
    assert rows[0].macs == rows[1].macs > rows[2].macs > rows[3].macs
    assert rows[1].speedup == 1 and all(row.ms > 0 and row.peak_mib > 0 for row in rows)
    assert all(list(row.as_json())[:3] == ['name', 'macs', 'params'] and row.metrics == {} for row in rows)
    assert [(row.kind, row.label) for row in rows] == [(HOST, ''), (FUSED, ''), ('SharedUpdate', '2, 4'), (HALF, '')]
    assert 'SharedUpdate(after=2, grid=4) |' in format_table(rows)


def test_compiled_rows_are_compiled_once(monkeypatch):
    calls = []

    def backend(graph, inputs):
        calls.append(graph)
        return graph

    compile_ = torch.nn.Module.compile
    monkeypatch.setattr(torch.nn.Module, 'compile', lambda self, **k: compile_(self, backend=backend, **k))
    model = segmenter()
    variants = make_variants({'SharedUpdate(after=2, grid=4)': fewtokens.SharedUpdate(2, 4)}, compiled=True)
    rows = benchmark_rows(model, variants, torch.randn(1, 3, 64, 64), rounds=3, warmup=0)
    assert len(calls) == 2
    names = [FUSED, 'SharedUpdate(after=2, grid=4)']
    assert [row.name for row in rows] == [HOST, *names, *(f'{name} + compile' for name in names)]
    assert [row.macs for row in rows[1:3]] == [row.macs for row in rows[3:]]
    assert all(row.ms > 0 and row.speedup > 0 for row in rows) and rows[4].peak_mib is None
    assert model._compiled_call_impl is None


def test_operations_are_counted_of_another_model_if_told():
    model = segmenter()
    small = torch.ao.quantization.quantize_dynamic(model, {torch.nn.Linear}, torch.qint8)
    plugins = {'plugin': fewtokens.SharedUpdate(2, 4)}
    rows = benchmark_rows(small, make_variants(plugins), torch.randn(1, 3, 64, 64), 1, 0, counted=model)
    expected = count_rows(model, make_variants(plugins), torch.randn(1, 3, 64, 64))
    assert [(row.macs, row.params, row.failure) for row in rows] == [(row.macs, row.params, None) for row in expected]


def test_counted_rows_are_null_where_nothing_was_measured():
    rows = count_rows(segmenter().to('meta'), make_variants({}), torch.empty(1, 3, 64, 64, device='meta'))
    assert rows[0].ms is None and rows[0].speedup is None and rows[0].peak_mib is None


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_a_row_that_cannot_run_says_why_and_the_others_are_measured(package, dtype):
    """Swin's shifted windows have a mask in float32, which their step by step attention can't go on with."""
    dtype = getattr(torch, dtype)
    images = torch.randn(1, 3, 64, 64, dtype=dtype)
    variants = make_variants({'SharedUpdate(after=2, grid=2)': fewtokens.SharedUpdate(2, 2)})
    host, *others = rows = benchmark_rows(swin(package).to(dtype), variants, images, rounds=1, warmup=0)
    assert host.name == HOST and host.failure.startswith('RuntimeError: expected m1 and m2 to have the same dtype')
    assert all(
        getattr(host, key) is None for key in ('macs', 'ms', 'ms_p20', 'ms_p80', 'speedup', 'speedup_p20', 'peak_mib')
    )
    assert all(row.ms > 0 and row.macs > 0 and row.failure is None for row in others)
    assert others[0].speedup == 1
    header, first, second, third, reason = format_table(rows).splitlines()
    assert [cell.strip() for cell in first.split('|')] == [HOST, '-', '-', 'cannot run', '-', '-', '-']
    assert ' 1.000 |' in second and reason == f'host cannot run: {host.failure}'


def test_there_is_no_comparison_without_its_reference():
    message = r'host \+ sdpa, which all rows are compared with, cannot run in float64 on cpu: RuntimeError: '
    with pytest.raises(ValueError, match=message):
        benchmark_rows(segmenter(), make_variants({}), torch.randn(1, 3, 64, 64).double(), rounds=1, warmup=0)


def test_a_plugin_without_effect_is_an_error():
    variants = make_variants({'big': fewtokens.Hourglass(2, 9)})
    with pytest.raises(ValueError, match='big never takes effect: inputs of 64 x 64'), pytest.warns(UserWarning):
        count_rows(segmenter(), variants, torch.randn(1, 3, 64, 64))
