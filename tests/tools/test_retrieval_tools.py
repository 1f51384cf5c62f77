"""The tools on captioned videos, as a user runs them; in this process, where nothing is said of processes."""

import json
import os
import pickle
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from clips import write_clip_checkpoint, write_clip_config, write_clips

from fewtokens.video import retrieval_metrics

TOOLS = Path(__file__).parents[2] / 'tools'
PLUGIN = 'SegmentClustering(segments=2, clusters=5, after=1)'
TWO_PROCESSES = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
NAMES = [f'{way}{name}' for way in ('', 'v2t/') for name in ('R@1', 'R@5', 'R@10', 'R@50', 'MedR', 'MeanR')]
KEEP_ALL = ['default_hooks.checkpoint.max_keep_ckpts=-1']
SAME_FRAMES = 'train_dataloader.dataset.pipeline.0.how=segment'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Videos, and a config and random weights of a tiny CLIP."""
    folder = tmp_path_factory.mktemp('clips')
    write_clips(folder / 'data')
    write_clip_checkpoint(write_clip_config(folder, folder / 'data'))
    return folder


def train(run, folder, work, *args, options=()):
    result = run('train.py', folder / 'tiny_clip.py', '--work-dir', work, *args, '--cfg-options', *options, *KEEP_ALL)
    assert result.returncode == 0, result.err
    return result


def weights(path):
    return torch.load(path, weights_only=False)['state_dict']


def metrics_of(work):
    (file,) = (file for file in work.rglob('*.json') if 'vis_data' not in file.parts)
    return {name: value for name, value in json.loads(file.read_text()).items() if name in NAMES}


def log_of(work):
    return ''.join(file.read_text() for file in work.rglob('*.log'))


def in_two_processes(tool, *args):
    command = [sys.executable, *TWO_PROCESSES, TOOLS / tool, *args, '--launcher', 'pytorch']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    return result


def test_a_resumed_training_ends_where_an_uninterrupted_one_does(run, folder, tmp_path):
    """Frames are drawn at random, by worker processes."""
    workers = ['train_dataloader.num_workers=2']
    result = train(run, folder, tmp_path / 'whole', options=workers)
    losses = [float(loss) for loss in re.findall(r' loss: ([\d.]+)', result.out)]
    assert len(losses) == 8 and losses[-1] < losses[0]
    recalls = [float(recall) for recall in re.findall(r'Epoch\(val\) .* R@1: ([\d.]+)', result.out)]
    best = 1 + recalls.index(max(recalls))
    assert [path.name for path in (tmp_path / 'whole').glob('best*')] == [f'best_R@1_epoch_{best}.pth']
    assert all(f' {name}: ' in result.out for name in NAMES)

    (tmp_path / 'half').mkdir()
    shutil.copy(tmp_path / 'whole/epoch_1.pth', tmp_path / 'half')
    (tmp_path / 'half/last_checkpoint').write_text(str(tmp_path / 'half/epoch_1.pth'))
    result = train(run, folder, tmp_path / 'half', '--resume', options=workers)
    assert 'resumed epoch: 1' in result.out and 'Epoch(train) [1]' not in result.out
    whole, half = (weights(tmp_path / name / 'epoch_2.pth') for name in ('whole', 'half'))
    assert whole.keys() == half.keys() and all(torch.equal(whole[name], half[name]) for name in whole)
    first = weights(tmp_path / 'whole/epoch_1.pth')
    assert not any(torch.equal(whole[name], first[name]) for name in whole if name.endswith('weight'))


@pytest.mark.slow
def test_two_processes_train_what_one_does(run, folder, tmp_path):
    """Half of the batch each: the loss is over both halves."""
    options = [SAME_FRAMES, 'train_cfg.max_epochs=1', f'load_from={folder / "tiny_clip.pth"}']
    train(run, folder, tmp_path / 'one', options=options)
    options.append('train_dataloader.batch_size=2')
    args = ['--work-dir', tmp_path / 'two', '--cfg-options', *options]
    result = in_two_processes('train.py', folder / 'tiny_clip.py', *args)
    assert 'Epoch(val) [1]' in result.stdout
    start, one, two = (
        weights(path) for path in (folder / 'tiny_clip.pth', tmp_path / 'one/epoch_1.pth', tmp_path / 'two/epoch_1.pth')
    )
    # Over all weights: Adam divides by the gradient's size, and where that is rounding, so is the step.
    names = [name for name in one if one[name].ndim == 2]
    apart = sum((one[name] - two[name]).abs().mean().item() for name in names)
    moved = sum((one[name] - start[name]).abs().mean().item() for name in names)
    assert apart < 1e-3 * moved


def test_mixed_precision_and_gradient_checkpointing(run, folder, tmp_path):
    plain = ['train_cfg.max_epochs=1', SAME_FRAMES]
    train(run, folder, tmp_path / 'plain', options=plain)
    train(run, folder, tmp_path / 'checkpointed', options=[*plain, 'model.gradient_checkpointing=True'])
    result = train(run, folder, tmp_path / 'amp', '--amp', '--plugin', PLUGIN, options=plain)
    assert '68 tokens became 12' in result.out and 'nan' not in result.out
    reference, checkpointed, amp = (
        weights(tmp_path / name / 'epoch_1.pth') for name in ('plain', 'checkpointed', 'amp')
    )
    assert all(value.dtype == torch.float32 for value in amp.values()) and amp.keys() == reference.keys()
    for name, value in reference.items():
        torch.testing.assert_close(checkpointed[name], value, atol=1e-5, rtol=1e-4)
    assert not all(torch.allclose(amp[name], reference[name], atol=1e-5) for name in amp)


def test_mixed_precision_in_a_test(run, folder, tmp_path, linear_dtypes):
    args = [folder / 'tiny_clip.py', folder / 'tiny_clip.pth', '--work-dir', tmp_path / 'run']
    result = run('test.py', *args, '--amp', '--out', tmp_path / 'out.pkl')
    assert result.returncode == 0 and linear_dtypes == {torch.bfloat16}, result.err
    (sample, *_) = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert sample['video_embedding'].dtype == sample['text_embeddings'].dtype == torch.float32


@pytest.mark.slow
def test_two_processes_and_an_odd_number_of_videos_give_the_same_metrics(run, folder, tmp_path):
    args = [folder / 'tiny_clip.py', folder / 'tiny_clip.pth', '--plugin', PLUGIN]
    args += ['--cfg-options', 'test_evaluator.dual_softmax=0.01', '--work-dir']
    one = run('test.py', *args, tmp_path / 'one')
    assert one.returncode == 0 and 'v2t/R@1' in one.out and 'dsl/R@1' in one.out, one.err
    assert '68 tokens became 12 after block 1 in 2 passes' in one.out
    two = in_two_processes('test.py', *args, tmp_path / 'two')
    assert '12 after block 1 in 1 passes' in two.stdout
    assert metrics_of(tmp_path / 'two') == pytest.approx(metrics_of(tmp_path / 'one'), rel=1e-6)
    assert len(metrics_of(tmp_path / 'one')) == len(NAMES)


def test_embeddings_and_a_page_of_what_texts_find(run, fails, folder, tmp_path):
    args = [folder / 'tiny_clip.py', folder / 'tiny_clip.pth', '--work-dir', tmp_path / 'run']
    fails('test.py', *args, '--out', tmp_path / 'out', message='must end with .pkl or .pickle')
    result = run('test.py', *args, '--out', tmp_path / 'out.pkl', '--show-dir', tmp_path / 'show')
    assert result.returncode == 0, result.err
    samples = pickle.loads((tmp_path / 'out.pkl').read_bytes())
    assert [len(sample['texts']) for sample in samples] == [3, 1, 2, 2, 2]
    videos = torch.stack([sample['video_embedding'] for sample in samples])
    texts = torch.cat([sample['text_embeddings'] for sample in samples])
    owners = [i for i, sample in enumerate(samples) for _ in sample['texts']]
    metrics = metrics_of(tmp_path / 'run')
    assert retrieval_metrics(texts @ videos.T, owners) == pytest.approx(metrics)

    page = (tmp_path / 'show/index.html').read_text()
    assert 'http' not in page and '10 of 10 texts, and the nearest of 5 videos' in page
    sections = page.split('<section>')[1:]
    places = [int(re.search(r'class="right">.*?<figcaption>(\d+)\.', part, re.DOTALL)[1]) for part in sections]
    assert 100 * places.count(1) / len(places) == pytest.approx(metrics['R@1'])
    for section, text in zip(sections, (text for sample in samples for text in sample['texts'])):
        assert f'“{text}”' in section and section.count('<img') == 5


def test_unreadable_videos_are_an_error_or_left_out_and_counted(run, fails, folder, tmp_path):
    shutil.copytree(folder / 'data', tmp_path / 'data')
    names = [line.partition(',')[0] for line in (tmp_path / 'data/test.csv').read_text().splitlines()[1:]]
    (tmp_path / 'data' / names[0]).write_bytes(b'no video')
    (tmp_path / 'data' / names[-1]).unlink()
    config, checkpoint = write_clip_config(tmp_path, tmp_path / 'data'), folder / 'tiny_clip.pth'
    fails('test.py', config, checkpoint, message=names[0])
    fails('tradeoff.py', config, checkpoint, '--out', tmp_path / 'report', message=names[0])
    assert not (tmp_path / 'report').exists()
    result = run('test.py', config, checkpoint, '--skip-unreadable', '--work-dir', tmp_path / 'skipped')
    assert result.returncode == 0 and '2 unreadable samples are left out' in result.out, result.err
    kept = [
        line
        for line in (tmp_path / 'data/test.csv').read_text().splitlines()
        if not line.startswith((names[0], names[-1]))
    ]
    (tmp_path / 'data/test.csv').write_text('\n'.join(kept))
    assert run('test.py', config, checkpoint, '--work-dir', tmp_path / 'less').returncode == 0
    assert metrics_of(tmp_path / 'skipped') == metrics_of(tmp_path / 'less')


def test_report(run, folder, tmp_path):
    spectral = PLUGIN.replace(')', ", algorithm='spectral')")
    args = [folder / 'tiny_clip.py', folder / 'tiny_clip.pth', '--plugin', PLUGIN, '--plugin', spectral]
    result = run('tradeoff.py', *args, '--rounds', 2, '--out', tmp_path / 'report')
    assert result.returncode == 0, result.err
    content = json.loads((tmp_path / 'report/tradeoff.json').read_text())
    rows = {row['name']: row for row in content['rows']}
    assert list(rows) == ['host', 'host + sdpa', PLUGIN, spectral]
    for row in rows.values():
        assert list(row['metrics'])[:2] == ['R@1', 'v2t/R@1'] and set(NAMES) == set(row['metrics']) and row['finite']
        assert row['ms'] > 0 and row['speedup'] > 0
    for name in ('R@1', 'v2t/R@1'):
        assert rows['host + sdpa']['intervals'][name] == [0, 0]
        low, high = rows[PLUGIN]['intervals'][name]
        assert low <= rows[PLUGIN]['differences'][name] <= high
    assert rows[PLUGIN]['macs'] < 0.6 * rows['host']['macs'] == 0.6 * rows['host + sdpa']['macs']
    page = (tmp_path / 'report/report.html').read_text()
    assert '5 held-out videos' in page and '4 videos of 4 frames' in page and 'held-out images' not in page
    assert 'v2t/R@1' in result.out and 'v2t/R@1' in page
    # What the texts find: four of them, three rows each (the fused host finds what the host does), of five videos.
    found = page.partition('What texts find')[2]
    assert found.count('<h3>') == 4 and found.count('right one: ') == 4 * 3 and found.count('<img') == 4 * 3 * 5
    assert found.count('class="right"') == 4 * 3
    alone = run('test.py', *args[:4], '--work-dir', tmp_path / 'test')
    assert alone.returncode == 0 and metrics_of(tmp_path / 'test') == pytest.approx(rows[PLUGIN]['metrics'])


def test_a_reducer_of_images_on_each_frame(run, folder, tmp_path):
    plugin = ['--plugin', 'SharedUpdate(after=1, grid=2)']
    result = run('test.py', folder / 'tiny_clip.py', folder / 'tiny_clip.pth', *plugin, '--work-dir', tmp_path / 'test')
    assert result.returncode == 0, result.err
    # Within this process, MMEngine's logger may be one that an earlier test began.
    assert '16 tokens became 4 after block 1' in result.out + result.err
    plugins = [*plugin, '--plugin', PLUGIN, '--rounds', 1, '--out', tmp_path / 'report']
    result = run('tradeoff.py', folder / 'tiny_clip.py', folder / 'tiny_clip.pth', *plugins)
    assert result.returncode == 0, result.err
    rows = {row['name']: row for row in json.loads((tmp_path / 'report/tradeoff.json').read_text())['rows']}
    assert rows[plugin[1]]['macs'] < rows['host']['macs']


def test_a_models_own_clustering_and_temporal_module(run, folder, tmp_path):
    """Trained with them, evaluated with them, and in a report a row beside the model without."""
    text = "SegmentClustering(segments=2, clusters=5, algorithm='spectral', after=1)"
    options = ['model.temporal.layers=1', 'model.after=1']
    options += [f'model.clustering.{option}' for option in ('segments=2', 'clusters=5', 'algorithm=spectral')]
    trained = train(run, folder, tmp_path / 'run', options=[*options, 'train_cfg.max_epochs=1'])
    # Modules without pretrained weights learn a thousand times as fast.
    assert re.search(r'encoder.temporal.positions:lr=1\.0\b', trained.out + log_of(tmp_path / 'run'))
    args = [folder / 'tiny_clip.py', tmp_path / 'run/epoch_1.pth', '--cfg-options', *options]
    tested = run('test.py', *args, '--work-dir', tmp_path / 'test')
    assert tested.returncode == 0 and '68 tokens became 12 after block 1' in tested.out, tested.err
    result = run('tradeoff.py', *args, '--rounds', 1, '--out', tmp_path / 'report', '--plugin', PLUGIN)
    assert result.returncode == 0, result.err
    rows = {row['name']: row for row in json.loads((tmp_path / 'report/tradeoff.json').read_text())['rows']}
    assert list(rows) == ['host', 'host + sdpa', text, PLUGIN]
    assert rows[text]['metrics'] == pytest.approx(metrics_of(tmp_path / 'test'))
    plain = run('test.py', *args[:3], options[0], '--work-dir', tmp_path / 'plain')
    assert plain.returncode == 0 and metrics_of(tmp_path / 'plain') == pytest.approx(rows['host']['metrics'])


@pytest.mark.filterwarnings('ignore:.*not numbers')
def test_report_says_where_embeddings_are_not_finite(run, folder, tmp_path):
    state = torch.load(folder / 'tiny_clip.pth')
    state['state_dict']['encoder.clip.visual.proj'].fill_(float('nan'))
    torch.save(state, tmp_path / 'broken.pth')
    result = run('tradeoff.py', folder / 'tiny_clip.py', tmp_path / 'broken.pth', '--rounds', 1, '--out', tmp_path)
    assert result.returncode == 0 and 'host: outputs were not finite' in result.out, result.err
    # Nothing but chance: five videos, all equal.
    assert '20.00' in result.out


def test_bad_input_is_one_line(run, fails, folder, tmp_path):
    config, checkpoint = folder / 'tiny_clip.py', folder / 'tiny_clip.pth'
    gone = ['--work-dir', tmp_path / 'run', '--cfg-options']
    fails('test.py', config, checkpoint, *gone, 'test_dataloader.dataset.ann_file=none.csv', message='none.csv')
    fails('train.py', config, *gone, 'train_dataloader.dataset.ann_file=none.csv', message='none.csv')
    fails('train.py', config, *gone, 'val_dataloader.dataset.ann_file=none.csv', message='none.csv')
    fails('train.py', config, *gone, 'train_dataloader.dataset.pairs=False', message='the data set wants pairs=True')
    fails('train.py', config, *gone, 'model.clip.pretrained=none.pt', message="'none.pt' is no file of weights")
    fails('tradeoff.py', config, checkpoint, '--half-resolution', '--out', tmp_path / 'r', message='is for images')
    fails('test.py', config, checkpoint, '--plugin', 'Hourglass(9, 2)', message='after=9 must be between')
    fails('test.py', config, checkpoint, '--plugin', PLUGIN.replace('after=1', 'after=9'), message='after=9')
    fails('test.py', config, checkpoint, *gone, 'model.clip.config.embed_dim=8', message='of another architecture')
