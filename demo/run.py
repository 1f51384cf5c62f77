"""A real model on real photographs; then the main jobs on held-out scenes and clips: reports, a search. `make demo`."""

import argparse
import shlex
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parents[1] / 'tools'
MODEL = ['configs/demo/segmenter_scenes-256x256.py', 'configs/demo/segmenter_scenes.pth']
PLUGINS = [
    'Hourglass(after=6, grid=20)',
    'Hourglass(after=3, grid=18)',
    'AvgPool(after=6, grid=20)',
    'SharedUpdate(after=6, grid=16)',
    'SharedUpdate(after=3, grid=16)',
    'SharedUpdate(after=(3, 6), grid=(20, 14))',
    'GradualUpdate(after=(1, 4, 7, 10), keep=0.25)',
]
CLIP = ['configs/demo/clip_clips.py', 'configs/demo/clip_clips.pth']
CLUSTERINGS = [
    'SegmentClustering(segments=12, clusters=24, size_bias=True, after=2)',
    'SegmentClustering(segments=12, clusters=24, after=2)',
    "SegmentClustering(segments=12, clusters=24, algorithm='spectral', aggregate='mean', normalize=True, sigma=0.5, "
    'size_bias=True, after=2)',
]
QUERY = 'a large red square, then two small green stars'


def tool(name: str, *args: str) -> None:
    print(f'\n$ python tools/{name} {shlex.join(args)}', flush=True)
    subprocess.run([sys.executable, str(TOOLS / name), *args], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--pictures', help='a folder of your own photographs, for the real model to look at as well')
    photographs(parser.parse_args().pictures)
    segmentation()
    retrieval()


def photographs(folder: str | None) -> None:
    own = ['--pictures', folder] if folder else []
    tool('compare_photographs.py', *own, '--out', 'work_dirs/demo/real')


def segmentation() -> None:
    tool('make_scenes.py', 'data/scenes', '--validation', '120')
    tool('test.py', *MODEL, '--plugin', PLUGINS[4], '--sdpa', '--work-dir', 'work_dirs/demo/test')
    options = ['--half-resolution', '--rounds', '5', '--out', 'work_dirs/demo/segmentation']
    tool('tradeoff.py', *MODEL, *plugin_options(PLUGINS), *options)


def retrieval() -> None:
    clips, index = 'data/demo_clips', ['--index', 'work_dirs/demo/index']
    tool('make_clips.py', clips, '--test', '120', '--processes', '2')
    data = ['--cfg-options', f'test_dataloader.dataset.data_root={clips}']
    options = [*data, '--batch', '20', '--rounds', '5', '--out', 'work_dirs/demo/retrieval']
    tool('tradeoff.py', *CLIP, *plugin_options(CLUSTERINGS), *options)
    model = ['--config', CLIP[0], '--checkpoint', CLIP[1], '--plugin', CLUSTERINGS[0]]
    tool('search_videos.py', 'index', f'{clips}/MSRVTT_Videos', *model, *index)
    tool('search_videos.py', 'find', QUERY, '--top', '8', '--html', 'work_dirs/demo/found.html', *index)


def plugin_options(plugins: list[str]) -> list[str]:
    return [part for plugin in plugins for part in ('--plugin', plugin)]
