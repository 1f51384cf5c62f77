import json
import time

import pytest
import torch
from models import beit, segmenter, swin, vit

import fewtokens
from fewtokens.measure.files import write_json, write_whole
from fewtokens.measure.macs import count_macs
from fewtokens.measure.memory import MIB, peak_mib
from fewtokens.measure.timing import time_interleaved
from fewtokens.measure.variants import FUSED, HALF, HOST, benchmark_rows, count_rows, make_variants
from fewtokens.report.table import format_gmacs, format_table


def test_macs_of_known_layers():
    assert count_macs(torch.nn.Linear(7, 5), torch.ones(3, 7)) == 3 * 7 * 5
    assert count_macs(torch.nn.Conv2d(2, 4, 3, padding=1), torch.ones(1, 2, 8, 8)) == 64 * 2 * 4 * 9


@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_macs_of_a_vit_with_its_attention(device):
    tokens, width = 65, 32
    block = tokens * (4 * width * width + 8 * width * width) + 2 * tokens * tokens * width
    expected = 6 * block + 64 * 3 * 8 * 8 * width
    assert count_macs(vit().to(device), torch.empty(1, 3, 64, 64, device=device)) == expected


@pytest.mark.parametrize('make', [vit, segmenter, beit], ids=['vit', 'segmenter', 'beit'])
def test_fused_attention_counts_the_same(make):
    model, images = make(), torch.randn(1, 3, 64, 64)
    expected = count_macs(model, images)
    with fewtokens.use_sdpa(model):
        assert count_macs(model, images) == expected


def test_fewer_tokens_count_less_and_the_same_on_meta():
    model, images = segmenter(), torch.randn(2, 3, 64, 64)
    host = count_macs(model, images)
    with fewtokens.attach(model, fewtokens.SharedUpdate(2, 4)):
        reduced = count_macs(model, images)
        assert reduced < 0.75 * host
        assert count_macs(model.to('meta'), images.to('meta')) == reduced


def test_speed_up_is_of_the_same_round():
    clock = []

    class Context:
        def __init__(self, seconds):
            self.seconds = seconds

        def __enter__(self):
            clock.append(self.seconds)

        def __exit__(self, *exc):
            time.sleep(0.01)

    rows = {name: (lambda s=s: Context(s)) for name, s in dict(slow=0.02, fast=0.005).items()}
    timings = time_interleaved(rows, lambda: time.sleep(clock[-1]), 'slow', rounds=4, warmup=1)
    assert clock == [0.02, 0.005] * 5
    assert timings['slow'].speedup == 1 and 2 < timings['fast'].speedup < 5
    assert 20 <= timings['slow'].ms < 40 and timings['slow'].ms_p20 <= timings['slow'].ms <= timings['slow'].ms_p80


def test_peak_memory_of_known_tensors():
    def call():
        a = torch.zeros(MIB)  # 4 MiB
        b = a + 1
        del a
        return (b + 1).sum()

    assert peak_mib(call, torch.device('cpu')) == pytest.approx(8, abs=0.01)


def test_rows_of_a_comparison():
    plugins = {'SharedUpdate(after=2, grid=4)': fewtokens.SharedUpdate(2, 4)}
    rows = benchmark_rows(segmenter(), make_variants(plugins, half=True), torch.randn(2, 3, 64, 64), rounds=2, warmup=1)
    assert [row['name'] for row in rows] == [HOST, FUSED, 'SharedUpdate(after=2, grid=4)', HALF]
    assert rows[0]['macs'] == rows[1]['macs'] > rows[2]['macs'] > rows[3]['macs']
    assert rows[1]['speedup'] == 1 and all(row['ms'] > 0 and row['peak_mib'] > 0 for row in rows)
    assert all(list(row)[:3] == ['name', 'macs', 'params'] and row['metrics'] == {} for row in rows)
    assert 'SharedUpdate(after=2, grid=4) |' in format_table(rows)


def test_counted_rows_are_null_where_nothing_was_measured():
    rows = count_rows(segmenter().to('meta'), make_variants({}), torch.empty(1, 3, 64, 64, device='meta'))
    assert rows[0]['ms'] is None and rows[0]['speedup'] is None and rows[0]['peak_mib'] is None


@pytest.mark.parametrize('dtype', ['bfloat16', 'float16'])
@pytest.mark.parametrize('package', ['mmdet', 'mmseg'])
def test_a_row_that_cannot_run_says_why_and_the_others_are_measured(package, dtype):
    """Swin's shifted windows have a mask in float32, which their step by step attention can't go on with."""
    dtype = getattr(torch, dtype)
    images = torch.randn(1, 3, 64, 64, dtype=dtype)
    variants = make_variants({'SharedUpdate(after=2, grid=2)': fewtokens.SharedUpdate(2, 2)})
    host, *others = rows = benchmark_rows(swin(package).to(dtype), variants, images, rounds=1, warmup=0)
    assert host['name'] == HOST and host['failure'].startswith(
        'RuntimeError: expected m1 and m2 to have the same dtype'
    )
    assert all(host[key] is None for key in ('macs', 'ms', 'ms_p20', 'ms_p80', 'speedup', 'speedup_p20', 'peak_mib'))
    assert all(row['ms'] > 0 and row['macs'] > 0 and row['failure'] is None for row in others)
    assert others[0]['speedup'] == 1
    header, first, second, third, reason = format_table(rows).splitlines()
    assert [cell.strip() for cell in first.split('|')] == [HOST, '-', '-', 'cannot run', '-', '-', '-']
    assert ' 1.000 |' in second and reason == f'host cannot run: {host["failure"]}'


def test_there_is_no_comparison_without_its_reference():
    message = r'host \+ sdpa, which all rows are compared with, cannot run in float64 on cpu: RuntimeError: '
    with pytest.raises(ValueError, match=message):
        benchmark_rows(segmenter(), make_variants({}), torch.randn(1, 3, 64, 64).double(), rounds=1, warmup=0)


def test_a_plugin_without_effect_is_an_error():
    variants = make_variants({'big': fewtokens.Hourglass(2, 9)})
    with pytest.raises(ValueError, match='big never takes effect: inputs of 64 x 64'), pytest.warns(UserWarning):
        count_rows(segmenter(), variants, torch.randn(1, 3, 64, 64))


@pytest.mark.parametrize('failure', [OSError(28, 'No space left on device'), KeyboardInterrupt()])
def test_an_old_file_survives_a_failed_write(tmp_path, failure):
    path = tmp_path / 'tradeoff.json'
    write_json(path, dict(rows=[1]))

    def write(temporary):
        temporary.write_text('half')
        raise failure

    with pytest.raises(type(failure)) as caught:
        write_whole(path, write)
    assert str(path) in str(caught.value) or not isinstance(failure, OSError)
    assert json.loads(path.read_text()) == dict(rows=[1]) and list(tmp_path.iterdir()) == [path]


def test_gmacs_of_small_and_large_models():
    assert [format_gmacs(macs) for macs in (660_123_000_000, 1_000_000_000, 4_201_000, 0)] == [
        '660.12',
        '1.00',
        '0.0042',
        '0',
    ]
