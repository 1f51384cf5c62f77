"""Searching as a user does it: tiny CLIP models with random weights on tiny video files."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from disk import room_for
from videos import moving_frames, write_video

from fewtokens.retrieval.decode import open_video
from fewtokens.search.index_files import read_manifest
from fewtokens.search.indexing import encode_videos, find_videos
from fewtokens.search.model import build, from_config, make_loader, read_saved, saved
from fewtokens.video.clustered import VideoPlugin

TOOL = Path(__file__).parents[2] / 'tools/search_videos.py'
PLUGIN = 'SegmentClustering(segments=2, clusters=3, after=1)'
CLIP = dict(
    embed_dim=16,
    vision_cfg=dict(image_size=32, layers=3, width=32, head_width=16, patch_size=8),
    text_cfg=dict(context_length=77, vocab_size=49408, width=16, heads=2, layers=1),
)
CONFIG = """
custom_imports = dict(imports=['fewtokens.openmmlab', 'fewtokens.video.openmmlab'])
default_scope = 'mmengine'
model = dict(type='ClipRetrieval', clip=dict(config={config!r}))
pipeline = [dict(type='LoadFrames', frames=4, rate=5.0, size=32), dict(type='PackClip')]
test_dataloader = dict(dataset=dict(pipeline=pipeline))
"""


@pytest.fixture(scope='module')
def main():
    spec = importlib.util.spec_from_file_location('search_videos', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def main(*args):
        arguments, sys.argv = sys.argv, [str(TOOL), *map(str, args)]
        try:
            module.main()
        finally:
            sys.argv = arguments

    return main


@pytest.fixture
def folder(tmp_path):
    folder = tmp_path / 'videos'
    (folder / 'more').mkdir(parents=True)
    for seed, name in enumerate(['a.mp4', 'b.mp4', 'c.mov', 'more/d.mp4', 'e.mkv']):
        write_video(folder / name, moving_frames(10 + 4 * seed, seed=seed))
    return folder


@pytest.fixture
def model(tmp_path):
    """A config and a checkpoint of its model, and weights of the same architecture as open_clip saves them."""
    (tmp_path / 'clip.json').write_text(json.dumps(CLIP))
    (tmp_path / 'tiny.py').write_text(CONFIG.format(config=str(tmp_path / 'clip.json')))
    clip = open_clip.CLIP(**CLIP)
    state = {f'encoder.clip.{name}': value for name, value in clip.state_dict().items()}
    torch.save(dict(state_dict=state), tmp_path / 'tiny.pth')
    return ['--config', tmp_path / 'tiny.py', '--checkpoint', tmp_path / 'tiny.pth', '--workers', '0']


def rows(text):
    return [(float(score), name) for score, name in re.findall(r'^ *\d+ \| +(-?[\d.]+) \| (.*)$', text, re.MULTILINE)]


def test_index_then_find(main, folder, model, tmp_path, capsys):
    where = ['--index', tmp_path / 'index']
    main('index', folder, *model, *where)
    assert 'index: 5 videos; 5 new, 0 changed, 0 removed' in capsys.readouterr().out
    page = tmp_path / 'found.html'
    main('find', 'a bar <walks> to the right', *where, '--top', 3, '--html', page)
    found = rows(capsys.readouterr().out)
    # By hand: the same model on the same frames, without an index.
    whole, described = build(read_manifest(tmp_path / 'index').model)
    files = find_videos(folder)
    expected = []
    with torch.no_grad():
        text = whole.encode_text(['a bar <walks> to the right'])[0]
    encode_videos(folder, files, whole.encode_video, make_loader(described), expected.extend, batch=1, workers=0)
    scores = sorted(((float(text @ torch.from_numpy(one.embedding)), one.file.name) for one in expected), reverse=True)
    assert [name for _, name in found] == [str(folder / name) for _, name in scores[:3]]
    assert [score for score, _ in found] == pytest.approx([score for score, _ in scores[:3]], abs=6e-4)
    html = page.read_text()
    assert html.count('<li>') == 3 and html.count('data:image/jpeg;base64,') == 18
    assert 'a bar &lt;walks&gt; to the right' in html and f'{scores[0][0]:.3f}' in html and scores[2][1] in html
    assert not re.search(r'(src|href)="(?!data:|file:)', html)


def test_a_second_run_needs_no_model_and_encodes_what_is_new(main, folder, model, tmp_path, capsys):
    where = ['--index', tmp_path / 'index']
    main('index', folder, *model, *where, '--plugin', PLUGIN)
    before = read_manifest(tmp_path / 'index')
    assert before.model['model']['clustering'] == PLUGIN
    (folder / 'a.mp4').unlink()
    write_video(folder / 'f.mp4', moving_frames(5, seed=9))
    # As older versions wrote it: whatever text was given.
    manifest = tmp_path / 'index/manifest.json'
    manifest.write_text(manifest.read_text().replace(PLUGIN, 'SegmentClustering(after=1, clusters=3, segments=2)'))
    # The index keeps the architecture and where the weights are.
    for name in ('tiny.py', 'clip.json'):
        (tmp_path / name).unlink()
    main('index', folder, *where, '--workers', 0)
    assert 'index: 5 videos; 1 new, 0 changed, 1 removed' in capsys.readouterr().out
    (tmp_path / 'tiny.pth').rename(tmp_path / 'moved.pth')
    with pytest.raises(FileNotFoundError, match='no checkpoint .*tiny.pth'):
        main('find', 'a bar', *where)
    main('find', 'a bar', *where, '--checkpoint', tmp_path / 'moved.pth')
    assert len(rows(capsys.readouterr().out)) == 5


def test_another_model_is_refused(main, folder, model, tmp_path):
    where = ['--index', tmp_path / 'index']
    main('index', folder, *model, *where)
    with pytest.raises(ValueError, match=re.escape(f'another model: model.clustering is {PLUGIN}, was not set')):
        main('index', folder, *where, '--plugin', PLUGIN)
    with pytest.raises(ValueError, match='another model: loading.frames is 3, was 4'):
        option = 'test_dataloader.dataset.pipeline.0.frames=3'
        main('index', folder, *model, *where, '--cfg-options', option)
    checkpoint = torch.load(tmp_path / 'tiny.pth')
    next(iter(checkpoint['state_dict'].values())).add_(1e-3)
    torch.save(checkpoint, tmp_path / 'other.pth')
    for command in (['index', folder], ['find', 'a bar']):
        with pytest.raises(ValueError, match='another model: weights is [0-9a-f]{64}, was [0-9a-f]{64}. Use'):
            main(*command, *where, '--checkpoint', tmp_path / 'other.pth')


def test_the_tokenizer_beside_a_config_is_found_from_any_folder(monkeypatch, tmp_path):
    demo = Path(__file__).parents[2] / 'configs/demo'
    setting = from_config(str(demo / 'clip_clips.py'), str(demo / 'clip_clips.pth'))
    monkeypatch.chdir(tmp_path)
    model, described = build(setting)
    assert model.tokenize.vocab_size == model.clip.token_embedding.num_embeddings
    assert described['loading'] == dict(frames=12, how='segment', rate=None, size=64)


def test_a_plugin_line_of_the_config_is_at_work_in_the_index(tmp_path):
    path, plugin = tmp_path / 'mine.py', 'SegmentClustering(segments=2, clusters=5, after=1)'
    demo = Path(__file__).parents[2] / 'configs/demo'
    for line, message in ((dict(reducer=plugin), None), (dict(reduser=plugin), "no option 'reduser'")):
        hooks = [dict(type='FewTokensHook', **line)]
        path.write_text(f"_base_ = '{demo}/clip_clips.py'\ncustom_hooks = {hooks!r}\n")
        if message is None:
            setting = from_config(str(path), str(demo / 'clip_clips.pth'))
            assert setting['model']['clustering'] == VideoPlugin.parse(plugin)
            assert saved(setting)['model']['clustering'] == plugin and read_saved(saved(setting)) == setting
        else:
            with pytest.raises(ValueError, match=message):
                from_config(str(path), str(demo / 'clip_clips.pth'))


def test_models_of_open_clip(main, folder, tmp_path, capsys):
    """A small architecture that open_clip knows by name, weights from a file."""
    (tmp_path / 'tiny-clip.json').write_text(json.dumps(CLIP))
    open_clip.add_model_config(tmp_path / 'tiny-clip.json')
    torch.save(open_clip.create_model('tiny-clip', load_weights=False).state_dict(), tmp_path / 'weights.pt')
    where = ['--index', tmp_path / 'index']
    main('index', folder, '--clip', 'tiny-clip', '--pretrained', tmp_path / 'weights.pt', '--workers', 0, *where)
    (tmp_path / 'weights.pt').rename(tmp_path / 'moved.pt')
    with pytest.raises(ValueError, match='weights.pt'):
        main('find', 'a bar', *where)
    main('find', 'a bar', *where, '--checkpoint', tmp_path / 'moved.pt', '--top', 2)
    assert len(rows(capsys.readouterr().out)) == 2
    torch.save(dict(a=torch.zeros(1)), tmp_path / 'wrong.pt')
    for name, weights, message in (
        ('tiny-clip', tmp_path / 'wrong.pt', 'wrong.pt.* does not fit tiny-clip'),
        ('tiny-clip', 'none', "'none' is no file of weights"),
        ('none', 'none', "no model 'none'"),
    ):
        with pytest.raises(ValueError, match=message):
            main('index', folder, '--clip', name, '--pretrained', weights, '--index', tmp_path / 'new')
    assert not (tmp_path / 'new').exists()


def test_unreadable_videos(main, folder, model, tmp_path, capsys):
    where = ['--index', tmp_path / 'index', '--workers', 1]
    (folder / 'cut.mp4').write_bytes((folder / 'a.mp4').read_bytes()[:300])
    (folder / 'empty.webm').write_bytes(b'')
    with pytest.raises(ValueError, match=r'cut.mp4: .*; --skip-unreadable leaves such videos out and counts them'):
        main('index', folder, *model, *where)
    main('index', folder, *model, *where, '--skip-unreadable')
    out = capsys.readouterr().out
    assert '5 videos; 5 new' in out and '2 unreadable videos left out:' in out
    assert re.search(r'cut.mp4: .*\n.*empty.webm: the file is empty', out)
    main('index', folder, *where, '--skip-unreadable')
    assert '2 unreadable videos left out:' in capsys.readouterr().out


def test_a_video_that_takes_too_long_is_unreadable(main, folder, model, tmp_path, capsys, monkeypatch):
    def hangs_at_b(path, decoder):
        return time.sleep(1000) if path.endswith('b.mp4') else open_video(path, decoder)

    monkeypatch.setattr('fewtokens.retrieval.transforms.open_video', hangs_at_b)
    where = ['--index', tmp_path / 'index', '--workers', 1, '--time-limit', 1]
    late = rf'{folder}/b.mp4: was not decoded within 1 s \(--time-limit\)'
    with pytest.raises(ValueError, match=f'{late}; --skip-unreadable leaves such videos out and counts them'):
        main('index', folder, *model, *where)
    main('index', folder, *model, *where, '--skip-unreadable')
    out = capsys.readouterr().out
    assert '4 videos; 4 new' in out and re.search(f'1 unreadable videos left out:\n  {late}', out)


ODD = '\x1b]0;title\x07\x1b[2J\n\u202e\x9b\udcff.mp4'
ESCAPED = r'\x1b]0;title\x07\x1b[2J\n\u202e\x9b?.mp4'


def clean(text):
    return text.isprintable() or all(letter.isprintable() or letter == '\n' for letter in text)


def test_names_that_steer_terminals_are_escaped(run, folder, model, tmp_path):
    """In lists, in messages and on the page."""
    folder = folder.rename(tmp_path / 'videos \x1b[1m')
    (folder / 'a.mp4').rename(folder / ODD)
    index = tmp_path / 'index\x1b[1m'
    where = ['--index', index]
    result = run('search_videos.py', 'index', folder, *model, *where)
    assert result.returncode == 0 and clean(result.out) and r'index\x1b[1m: 5 videos; 5 new' in result.out, result.err
    page = tmp_path / 'found\x1b[1m.html'
    result = run('search_videos.py', 'find', 'a bar \x1b[1m', *where, '--html', page)
    assert clean(result.out) and len(rows(result.out)) == 5 and r'found\x1b[1m.html' in result.out
    assert rf'{tmp_path}/videos \x1b[1m/{ESCAPED}' in [name for _, name in rows(result.out)]
    html = page.read_text()
    assert clean(html) and html.count('data:image/jpeg;base64,') == 30 and f'>{ESCAPED}</a>' in html
    assert rf'videos in {tmp_path}/videos \x1b[1m.' in html and r'“a bar \x1b[1m”' in html
    (folder / ODD).write_bytes(b'')
    result = run('search_videos.py', 'index', folder, *where, '--workers', 1)
    assert result.returncode == 2 and clean(result.err.splitlines()[-1])
    assert result.err.splitlines()[-1].endswith(f'{ESCAPED}: the file is empty; --skip-unreadable leaves such videos '
                                                'out and counts them')  # fmt: skip
    result = run('search_videos.py', 'index', folder, *where, '--workers', 1, '--skip-unreadable')
    assert clean(result.out) and f'{ESCAPED}: the file is empty' in result.out
    (folder / ODD).unlink()
    result = run('search_videos.py', 'find', 'a bar', *where, '--html', page)
    assert result.returncode == 0 and clean(page.read_text())
    for file in index.rglob('index.faiss'):
        file.write_bytes(b'damaged')
    result = run('search_videos.py', 'find', 'a bar', *where)
    assert result.returncode == 2 and r'index\x1b[1m/generation-2/index.faiss is damaged' in result.err


def test_letters_that_a_terminal_lacks(folder, model, tmp_path):
    (folder / 'a.mp4').rename(folder / 'été 猫.mp4')
    environment = {**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONIOENCODING': 'ascii'}
    for args in (['index', folder, *model], ['find', 'a bar', '--html', tmp_path / 'found.html']):
        command = [*map(str, (sys.executable, TOOL, *args, '--index', tmp_path / 'index'))]
        result = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert result.returncode == 0, result.stderr
    assert r'\xe9t\xe9 \u732b.mp4' in result.stdout and 'été 猫.mp4' in (tmp_path / 'found.html').read_text()


def test_a_full_disk_leaves_the_old_page(run, folder, model, tmp_path):
    where, page = ['--index', tmp_path / 'index'], tmp_path / 'found.html'
    run('search_videos.py', 'index', folder, *model, *where)
    page.write_text('old')
    with room_for(5000):
        result = run('search_videos.py', 'find', 'a bar', *where, '--html', page)
    assert result.returncode == 2 and result.err.splitlines()[-1] == f"error: [Errno 27] File too large: '{page}'"
    assert page.read_text() == 'old' and not list(tmp_path.glob('.found*'))


def test_two_processes_make_the_same_index(main, folder, model, tmp_path):
    """torchrun with gloo, the plugin in both."""
    common = ['index', folder, *model, '--plugin', PLUGIN, '--batch', 2, '--launcher']
    main(*common, 'none', '--index', tmp_path / 'one')
    launcher = ['-m', 'torch.distributed.run', '--standalone', '--nproc-per-node', '2']
    command = [sys.executable, *launcher, TOOL, *common, 'pytorch', '--index', tmp_path / 'two']
    environment = {**os.environ, 'OMP_NUM_THREADS': '1'}
    result = subprocess.run([*map(str, command)], capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('5 videos; 5 new, 0 changed, 0 removed') == 1
    assert 'encoding videos: 3 of 3' in result.stderr, 'the first process has encoded its share alone'
    one, two = (read_manifest(tmp_path / name) for name in ('one', 'two'))
    assert one == two and len(one.files) == 5
    parts = [np.load(tmp_path / name / 'generation-1/embeddings.npy') for name in ('one', 'two')]
    np.testing.assert_allclose(*parts, atol=1e-6)


def test_bad_input(main, folder, model, tmp_path, capsys):
    where = ['--index', tmp_path / 'index']
    with pytest.raises(FileNotFoundError, match="no folder '.*none'"):
        main('index', tmp_path / 'none', *model, *where)
    (tmp_path / 'empty').mkdir()
    with pytest.raises(FileNotFoundError, match='no videos'):
        main('index', tmp_path / 'empty', *model, *where)
    with pytest.raises(FileNotFoundError, match='no video index'):
        main('find', 'a bar', *where)
    with pytest.raises(ValueError, match='query is empty'):
        main('find', ' ', *where)
    for options, message in (
        (['--clip', 'ViT-B-32'], '--clip and --pretrained go together'),
        (['--pretrained', 'openai'], '--clip and --pretrained go together'),
        (['--clip', 'a', '--pretrained', 'b', '--checkpoint', 'c'], '--checkpoint goes with --config'),
        (['--checkpoint', 'c'], '--checkpoint goes with --config'),
        (['--cfg-options', 'a=1'], '--cfg-options are for --config'),
        ([*model, '--clip', 'ViT-B-32'], 'exclude each other'),
        (model[:2], 'names no pretrained weights'),
        ([*model, '--plugin', 'SegmentClustering(2)'], 'must name its options'),
        ([*model, '--plugin', 'Hourglass(after=1, grid=2)'], "no video plugin 'Hourglass'"),
        ([*model, '--plugin', 'SegmentClustering(segment=2)'], "no option 'segment'"),
        ([*model, '--plugin', 'SegmentClustering(segments=2, clusters=3, after=3)'], 'after=3 must be between 0 and 2'),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            main('index', folder, *options, *where)
    assert not (tmp_path / 'index').exists()
    main('index', folder, *model, *where)
    for file in (tmp_path / 'index').rglob('index.faiss'):
        file.write_bytes(b'damaged')
    with pytest.raises(ValueError, match='index.faiss is damaged; index the videos again'):
        main('find', 'a bar', *where)
    main('index', folder, *where, '--workers', 0)
    main('find', 'a bar', *where)
    assert len(rows(capsys.readouterr().out)) == 5
    with pytest.raises(SystemExit):
        main('find', 'a bar', *where, '--top', 0)
    assert '0 must be at least 1' in capsys.readouterr().err
    shutil.rmtree(folder)
    main('find', 'a bar', *where, '--html', tmp_path / 'gone.html')
    assert (tmp_path / 'gone.html').read_text().count('there is no such video') == 5


def test_errors_are_one_line(tmp_path):
    command = [sys.executable, str(TOOL), 'find', 'a bar', '--index', str(tmp_path)]
    result = subprocess.run(command, capture_output=True, text=True, env={**os.environ, 'OMP_NUM_THREADS': '1'})
    assert result.returncode == 2 and 'Traceback' not in result.stderr
    assert result.stderr.splitlines()[-1].startswith('error: there is no video index')
