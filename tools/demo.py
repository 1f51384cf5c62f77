"""The main job on real input: held-out scenes, the plugin line, and an honest report. Run by `make demo`."""

import shlex
import subprocess
import sys
from pathlib import Path

TOOLS = Path(__file__).parent
MODEL = ['configs/demo/segmenter_scenes-256x256.py', 'configs/demo/segmenter_scenes.pth']
PLUGINS = [
    'Hourglass(after=6, grid=20, temperature=10.0)',
    'Hourglass(after=3, grid=18, temperature=10.0)',
    'AvgPool(after=6, grid=20)',
    'SharedUpdate(after=6, grid=16)',
    'SharedUpdate(after=3, grid=16)',
    'SharedUpdate(after=(3, 6), grid=(20, 14))',
]


def tool(name: str, *args: str) -> None:
    print(f'\n$ python tools/{name} {shlex.join(args)}', flush=True)
    subprocess.run([sys.executable, str(TOOLS / name), *args], check=True)


def main() -> None:
    tool('make_scenes.py', 'data/scenes', '--validation', '200')
    tool('test.py', *MODEL, '--sdpa', '--work-dir', 'work_dirs/demo/test')
    tool('test.py', *MODEL, '--plugin', PLUGINS[4], '--sdpa', '--work-dir', 'work_dirs/demo/test')
    plugins = [part for plugin in PLUGINS for part in ('--plugin', plugin)]
    tool('tradeoff.py', *MODEL, *plugins, '--half-resolution', '--rounds', '6', '--out', 'work_dirs/demo/segmentation')


if __name__ == '__main__':
    try:
        main()
    except subprocess.CalledProcessError as error:
        # The tool has said what is wrong.
        sys.exit(error.returncode)
