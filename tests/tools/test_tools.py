"""The tools as a user runs them."""

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

TOOLS = Path(__file__).parents[2] / 'tools'
PLUGIN = 'SharedUpdate(after=2, grid=4)'


def run(tool, *args, cwd=None):
    command = [sys.executable, str(TOOLS / tool), *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, cwd=cwd, env={**os.environ, 'OMP_NUM_THREADS': '1'})


def fails(tool, *args, message):
    result = run(tool, *args)
    assert result.returncode == 2 and 'Traceback' not in result.stderr, result.stderr
    assert message in result.stderr.splitlines()[-1]


def test_train_then_test_with_and_without_the_plugin(config_file, tmp_path):
    result = run('train.py', config_file, '--amp', '--work-dir', tmp_path / 'run', cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    checkpoint = tmp_path / 'run/iter_2.pth'
    # The weights of a phase before this one are not what it goes on from.
    resumed = ['train_cfg.max_iters=3', 'train_cfg.val_interval=3', 'load_from=earlier.pth']
    result = run('train.py', config_file, '--resume', '--work-dir', tmp_path / 'run', '--cfg-options', *resumed)
    assert result.returncode == 0 and (tmp_path / 'run/iter_3.pth').exists(), result.stderr
    assert 'resumed epoch: 0, iter: 2' in result.stdout
    plain = run('test.py', config_file, checkpoint, '--out', tmp_path / 'out', '--work-dir', tmp_path / 'plain')
    assert plain.returncode == 0 and 'mIoU' in plain.stdout, plain.stderr
    assert len(list((tmp_path / 'out').iterdir())) == 3
    # What each run says alike is in the log alone, which the terminal names.
    (log,) = (tmp_path / 'plain').rglob('*.log')
    assert log.name in plain.stdout and len(plain.stdout.splitlines()) < 30
    for text in ('System environment:', 'INFO - Config:', 'Hooks will be executed', 'prefix is not set'):
        assert text in log.read_text() and text not in plain.stdout
    args = ['--plugin', PLUGIN, '--sdpa', '--amp', '--show-dir', tmp_path / 'show', '--work-dir', tmp_path / 'reduced']
    reduced = run('test.py', config_file, checkpoint, *args)
    assert reduced.returncode == 0, reduced.stderr
    last = reduced.stdout.strip().splitlines()[-1]
    assert '64 tokens became 16 after block 2 in 3 passes; ' in last and '22% saved' in last
    assert len(list((tmp_path / 'show').rglob('*.png'))) == 3


TTA = """
flips = [[dict(type='RandomFlip', prob=0.0), dict(type='RandomFlip', prob=1.0)]]
pack = dict(type='PackSegInputs', meta_keys=('img_path', 'img_shape', 'ori_shape', 'flip', 'flip_direction'))
load = dict(type='LoadAnnotations', reduce_zero_label=True)
tta_model = dict(type='SegTTAModel')
tta_pipeline = [dict(type='LoadImageFromFile'), dict(type='TestTimeAug', transforms=[*flips, [load], [pack]])]
"""


@pytest.mark.parametrize('options', [[], ['--tta']])
def test_mixed_precision(run, config_file, checkpoint, tmp_path, linear_dtypes, options):
    config_file.write_text(config_file.read_text() + TTA)
    args = [config_file, checkpoint, *options, '--work-dir', tmp_path / 'run']
    result = run('test.py', *args, '--amp')
    assert result.returncode == 0 and linear_dtypes == {torch.bfloat16}, result.err
    linear_dtypes.clear()
    assert run('test.py', *args).returncode == 0 and linear_dtypes == {torch.float32}


def test_two_processes_and_an_odd_number_of_samples_give_the_same_metrics(config_file, checkpoint, tmp_path):
    """The plugin in both, under torchrun with gloo."""
    metrics = []
    for launcher, work in (
        ([], 'one'),
        (['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2'], 'two'),
    ):
        args = [TOOLS / 'test.py', config_file, checkpoint, '--plugin', PLUGIN, '--work-dir', tmp_path / work]
        args += ['--launcher', 'pytorch'] if launcher else []
        command = [sys.executable, *launcher, *map(str, args)]
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
        assert result.returncode == 0 and 'tokens became 16' in result.stdout + result.stderr, result.stderr
        (file,) = (file for file in (tmp_path / work).rglob('*.json') if 'vis_data' not in file.parts)
        metrics.append(json.loads(file.read_text()))
    names = ('aAcc', 'mIoU', 'mAcc')
    assert [metrics[0][name] for name in names] == pytest.approx([metrics[1][name] for name in names], rel=1e-6)


@pytest.fixture
def small(config_file, scenes, tmp_path):
    """The tiny config on a copy of its data in which all held-out images but the second are a quarter of their size."""
    import shutil

    shutil.copytree(scenes, tmp_path / 'data')
    for path in (tmp_path / 'data').glob('*/validation/*'):
        if path.stem != '00002':
            cv2.imwrite(str(path), cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[:32, :32])
    config_file.write_text(config_file.read_text().replace(str(scenes), str(tmp_path / 'data')))
    return config_file


def test_a_process_that_sees_small_images_alone_fails_nothing(small, checkpoint, tmp_path):
    """It is decided over all processes whether a plugin took effect, by the tool and by the hook."""
    args = [TOOLS / 'test.py', small, checkpoint, '--launcher', 'pytorch', '--work-dir', tmp_path / 'run', '--plugin']
    two = [sys.executable, '-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    for plugin, status, message in (
        ('AvgPool(after=2, grid=5)', 0, '64 tokens became 25 after block 2 in 1 passes'),
        ('AvgPool(after=2, grid=9)', 1, 'no input had enough tokens for it (4 went through unchanged)'),
    ):
        command = [*two, *map(str, args), plugin]
        result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
        assert result.returncode == status and message in result.stdout + result.stderr, result.stderr
        assert ('never took effect' in result.stdout + result.stderr) == (status == 1)


def test_a_plugin_that_never_takes_effect_is_an_error(run, fails, small, checkpoint, tmp_path):
    """Nothing that was made on the way is lost."""
    plugin = ['--plugin', 'AvgPool(after=2, grid=9)']
    fails('train.py', small, *plugin, '--work-dir', tmp_path / 'run', message='never took effect')
    assert (tmp_path / 'run/iter_2.pth').exists()
    folder, out = tmp_path / 'data/images/validation', tmp_path / 'out'
    fails('predict.py', small, checkpoint, folder, *plugin, '--out', out, message='never took effect')
    assert len(list(out.glob('*.jpg'))) == 3 and (out / 'index.html').exists()
    # One picture with enough tokens will do.
    result = run('predict.py', small, checkpoint, folder, '--plugin', 'AvgPool(after=2, grid=5)', '--out', out)
    assert result.returncode == 0, result.err


@pytest.mark.parametrize(
    'hooks, message',
    [
        ("[dict(type='FewTokensHook', reduser='AvgPool(2, 4)')]", "no option 'reduser'"),
        ("[dict(type='fewtokens.openmmlab.hook.FewTokensHook')]", 'needs a reducer'),
        ("[dict(type='FewTokenHook', reducer='AvgPool(2, 4)')]", "no hook 'FewTokenHook'"),
    ],
)
def test_a_plugin_line_that_would_not_be_at_work_is_an_error(fails, config_file, checkpoint, tmp_path, hooks, message):
    text = config_file.read_text().replace('custom_hooks = []', f'custom_hooks = {hooks}')
    config_file.write_text(text)
    fails('test.py', config_file, checkpoint, message=message)
    fails('train.py', config_file, message=message)
    fails('predict.py', config_file, checkpoint, tmp_path, message=message)
    fails('benchmark.py', config_file, message=message)
    fails('tradeoff.py', config_file, checkpoint, '--out', tmp_path / 'report', message=message)


def test_of_two_reducers_none_is_dropped(run, fails, config_file, checkpoint):
    lines = [dict(type='mmengine.FewTokensHook', reducer=text) for text in (PLUGIN, 'AvgPool(2, 4)')]
    text = config_file.read_text()
    config_file.write_text(text.replace('custom_hooks = []', f'custom_hooks = {lines!r}'))
    message = f'the config has 2 FewTokensHooks with a reducer, {PLUGIN} and AvgPool(2, 4)'
    fails('test.py', config_file, checkpoint, message=message)
    fails('train.py', config_file, message=message)
    result = run('benchmark.py', config_file, '--shape', 64, 64, '--macs-only')
    assert result.returncode == 0 and PLUGIN in result.out and 'AvgPool(2, 4)' in result.out, result.err
    two = ['--plugin', PLUGIN, '--plugin', 'AvgPool(2, 4)']
    config_file.write_text(text)
    fails('test.py', config_file, checkpoint, *two, message=f'--plugin {PLUGIN} and AvgPool(2, 4)')


def test_a_reducer_from_the_command_lines_options(run, config_file, checkpoint, tmp_path):
    line = dict(type='FewTokensHook', reducer='AvgPool(2, 4)')
    config_file.write_text(config_file.read_text().replace('custom_hooks = []', f'custom_hooks = [{line!r}]'))
    option = ['--cfg-options', f'custom_hooks.0.reducer={PLUGIN}', '--work-dir', tmp_path / 'run']
    result = run('test.py', config_file, checkpoint, *option)
    assert result.returncode == 0 and 'SharedUpdate(after=2, grid=(4, 4)' in result.out, result.err


def test_mmsegs_own_test_tool_with_the_plugin_line(config_file, checkpoint, tmp_path):
    import mmseg

    hook = dict(type='FewTokensHook', reducer=PLUGIN)
    config_file.write_text(config_file.read_text().replace('custom_hooks = []', f'custom_hooks = [{hook!r}]'))
    tool = Path(mmseg.__file__).parent / '.mim/tools/test.py'
    result = subprocess.run(
        [sys.executable, str(tool), str(config_file), str(checkpoint), '--work-dir', str(tmp_path / 'run')],
        capture_output=True, text=True,
    )  # fmt: skip
    assert result.returncode == 0 and 'passes with fewer tokens: 3' in result.stdout + result.stderr, result.stderr


def test_bad_input_is_one_line(config_file, checkpoint, tmp_path):
    fails('test.py', config_file, checkpoint, '--plugin', 'Hourglas(1, 2)', message="no reducer 'Hourglas'")
    fails('test.py', config_file, checkpoint, '--plugin', 'Hourglass(1, len("aa"))', message='literal')
    fails('test.py', config_file, checkpoint, '--plugin', 'Hourglass(9, 2)', message='between 0 and 3')
    fails('test.py', config_file, checkpoint, '--plugin', 'Hourglass(2, 9)', message='never took effect')
    fails('test.py', 'mmseg::segmenter/none.py', checkpoint, message='nearest')
    fails('test.py', config_file, tmp_path / 'none.pth', message='no checkpoint')
    fails('test.py', config_file, checkpoint, '--tta', message='tta_model')
    options = ['--cfg-options', f'test_dataloader.dataset.data_root={tmp_path / "nowhere"}']
    fails('test.py', config_file, checkpoint, *options, message='nowhere/images/validation')


@pytest.fixture
def damaged(config_file, scenes, tmp_path):
    """The tiny config on a copy of its data with a cut image and a missing annotation."""
    import shutil

    shutil.copytree(scenes, tmp_path / 'data')
    image = tmp_path / 'data/images/validation/00001.jpg'
    image.write_bytes(image.read_bytes()[:100])
    (tmp_path / 'data/annotations/validation/00002.png').unlink()
    config_file.write_text(config_file.read_text().replace(str(scenes), str(tmp_path / 'data')))
    return config_file


def test_damaged_samples_are_an_error_or_counted(damaged, checkpoint, tmp_path):
    fails('test.py', damaged, checkpoint, message='00001.jpg')
    result = run('test.py', damaged, checkpoint, '--skip-unreadable', '--work-dir', tmp_path / 'run')
    assert result.returncode == 0 and '2 unreadable samples are left out' in result.stdout, result.stderr


def test_report_on_damaged_samples(damaged, checkpoint, tmp_path):
    args = ['--rounds', 1, '--out', tmp_path / 'report']
    fails('tradeoff.py', damaged, checkpoint, *args, message='00001.jpg')
    assert not (tmp_path / 'report').exists()
    result = run('tradeoff.py', damaged, checkpoint, *args, '--skip-unreadable')
    assert result.returncode == 0, result.stderr
    assert '2 damaged samples were left out' in (tmp_path / 'report/report.html').read_text()


@pytest.mark.parametrize(
    'option, value, message',
    [
        ('--rounds', '0', '0 must be at least 1'),
        ('--batch', '-1', '-1 must be at least 1'),
        ('--threads', '0', '0 must be at least 1'),
        ('--rounds', 'many', "invalid number value: 'many'"),
        ('--device', 'cuda:77', "'cuda:77' cannot be used"),
        ('--device', 'gpu', "'gpu' cannot be used"),
    ],
)
def test_options_out_of_range_are_one_line(config_file, option, value, message):
    fails('benchmark.py', config_file, f'{option}={value}', message=message)


def test_benchmark(config_file, checkpoint, tmp_path):
    args = ['--shape', 64, 64, '--plugin', PLUGIN, '--rounds', 2, '--json', tmp_path / 'b.json', '--dtype', 'bfloat16']
    result = run('benchmark.py', config_file, *args)
    assert result.returncode == 0 and 'weights: random' in result.stdout, result.stderr
    content = json.loads((tmp_path / 'b.json').read_text())
    assert [row['name'] for row in content['rows']] == ['host', 'host + sdpa', PLUGIN]
    assert content['environment']['dtype'] == 'bfloat16' and content['rows'][2]['speedup'] > 0
    fails('benchmark.py', config_file, '--shape', 32, 16, '--plugin', PLUGIN, message='never takes effect')
    line = [dict(type='FewTokensHook', reducer=dict(type='AvgPool', after=1, grid=4))]
    config_file.write_text(config_file.read_text().replace('custom_hooks = []', f'custom_hooks = {line!r}'))
    counted = run('benchmark.py', config_file, '--shape', 64, 64, '--macs-only', '--checkpoint', checkpoint)
    assert counted.returncode == 0 and 'AvgPool(after=1, grid=4)' in counted.stdout, counted.stderr


def test_tradeoff(config_file, checkpoint, tmp_path):
    args = ['--plugin', PLUGIN, '--half-resolution', '--rounds', 2, '--out', tmp_path / 'report']
    result = run('tradeoff.py', config_file, checkpoint, *args)
    assert result.returncode == 0, result.stderr
    assert result.stdout.strip().endswith('report.html') and (tmp_path / 'report/report.html').exists()
    again = run('tradeoff.py', config_file, checkpoint, *args)
    assert f'{PLUGIN}: evaluated in an earlier run' in again.stderr


def test_what_is_compared_at_equal_cost_is_an_option(run, fails, config_file, checkpoint, tmp_path):
    args = ['--rounds', 1, '--out', tmp_path / 'report', '--equal-cost', 'host + sdpa']
    fails('tradeoff.py', config_file, 'none.pth', *args, 'Host', message="no row of 'Host' to compare at equal cost")
    result = run('tradeoff.py', config_file, checkpoint, *args, 'host')
    assert result.returncode == 0 and 'host + sdpa loses 0.00 points of mIoU, host 0.00, at 1.00' in result.out
    (compared,) = json.loads((tmp_path / 'report/tradeoff.json').read_text())['equal_cost']
    assert (compared['ours'], compared['theirs'], compared['macs_ratio']) == ('host + sdpa', 'host', 1)


def test_predict(config_file, checkpoint, tmp_path):
    folder = tmp_path / 'pictures'
    fails('predict.py', config_file, checkpoint, folder, message='no folder')
    folder.mkdir()
    fails('predict.py', config_file, checkpoint, folder, message='no pictures')
    cv2.imwrite(str(folder / 'a.png'), np.random.randint(0, 255, (64, 64, 3), np.uint8))
    (folder / 'b.jpg').write_bytes(b'no picture')
    fails('predict.py', config_file, checkpoint, folder, message='b.jpg')
    args = ['--plugin', PLUGIN, '--out', tmp_path / 'out', '--skip-unreadable']
    result = run('predict.py', config_file, checkpoint, folder, *args)
    assert result.returncode == 0 and '1 unreadable pictures left out: b.jpg' in result.stdout, result.stderr
    assert cv2.imread(str(tmp_path / 'out/a.png.jpg')).shape == (512, 5 * 512, 3)
    assert PLUGIN in (tmp_path / 'out/index.html').read_text()


def test_make_scenes_is_deterministic(tmp_path):
    for name in 'ab':
        result = run('make_scenes.py', tmp_path / name, '--training', 1, '--validation', 2, '--size', 64)
        assert result.returncode == 0, result.stderr
    files = sorted(file.relative_to(tmp_path / 'a') for file in (tmp_path / 'a').rglob('*.*'))
    assert len(files) == 6 and all(
        (tmp_path / 'a' / f).read_bytes() == (tmp_path / 'b' / f).read_bytes() for f in files
    )


def test_draw_training(run, fails, tmp_path):
    log = tmp_path / 'work/20260101/vis_data/scalars.json'
    log.parent.mkdir(parents=True)
    log.write_text('{"step": 10, "loss": 2.0, "lr": 0.1}\n{"step": 10, "mIoU": 40.0}\n')
    out = tmp_path / 'out/curve.log'
    assert run('draw_training.py', f'all={tmp_path / "work"}', '--metrics', 'mIoU', '--out', out).returncode == 0
    assert out.with_name('curve.log.csv').read_text() == 'phase,step,loss,lr,mIoU\nall,10,2,0.1,\nall,10,,,40\n'
    assert out.with_name('curve.log.png').read_bytes().startswith(b'\x89PNG')
    fails('draw_training.py', f'{tmp_path}', '--out', out, message='must be a name and a work folder')
    fails('draw_training.py', f'all={tmp_path / "out"}', '--out', out, message='is no work folder')


def test_benchmark_medoids(run, fails):
    result = run('benchmark_medoids.py', '--shape', 2, 20, 8, '--clusters', 5, '--rounds', 1)
    assert result.returncode == 0 and 'the medoids are the same' in result.out
    fails('benchmark_medoids.py', '--shape', 2, 20, 8, '--clusters', 21, message='number of tokens, 20')


def test_benchmark_video(run, fails, tmp_path):
    demo = Path(__file__).parents[2] / 'configs/demo'
    clip, out = demo / 'clip_clips.json', tmp_path / 'figures.json'
    plugins = [f'SegmentClustering(segments=2, clusters=9, size_bias={on}, after=3)' for on in (True, False)]
    options = [part for plugin in plugins for part in ('--plugin', plugin)]
    args = ['--clip', clip, *options, '--frames', 4, '--rounds', 1, '--warmup', 0, '--training', '--json', out]
    result = run('benchmark_video.py', *args)
    assert result.returncode == 0, result.err
    rows = json.loads(out.read_text())['rows']
    host, fused, counted, plain = (row['macs'] for row in rows)
    # Half of the frames' tokens in the blocks before, two segments of 10 tokens after.
    assert host == fused > counted == plain > host / 2
    assert rows[0]['training_peak_mib'] > rows[2]['training_peak_mib']
    fails('benchmark_video.py', '--clip', 'ViT-Z', message="open_clip has no model 'ViT-Z'")
    fails('benchmark_video.py', '--clip', str(tmp_path / 'no.json'), message='there is no model config')
    fails('benchmark.py', demo / 'clip_clips.py', message='benchmark-video measures those')
