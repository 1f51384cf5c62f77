import runpy
from pathlib import Path

from models import vit

import fewtokens


def test_benchmark_families(monkeypatch, fails):
    fails('benchmark_families.py', '--only', 'ResNet', message='--only ResNet is in no name of: timm VisionTransformer')
    tool = runpy.run_path(str(Path(__file__).parents[2] / 'tools/benchmark_families.py'))
    reducers = fewtokens.SharedUpdate(1, 3), fewtokens.GradualUpdate(1, 0.5)
    monkeypatch.setitem(tool['SAMPLES'], 'tiny', tool['Sample'](vit, reducers, 64))
    host, *rows = tool['measure']('tiny', rounds=2, warmup=0)
    assert host['name'] == 'host + sdpa' and host['speedup'] == 1 and host['family'] == 'mmseg VisionTransformer'
    assert [row['macs'] < host['macs'] and row['ms'] > 0 for row in rows] == [True, True]
    line = tool['format_rows']([host, *rows]).splitlines()[-1]
    part, speed, kept = map(float, line.strip('| ').split(' | ')[-3:])
    assert part == round(rows[1]['macs'] / host['macs'], 3) and abs(part * speed - kept) < 0.02
