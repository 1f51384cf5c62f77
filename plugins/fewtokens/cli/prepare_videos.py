"""Makes small copies of a folder's videos for training, as CenterCLIP does: 3 frames a second, short side 224.

Run again, it makes only those that are missing or whose video has changed; interrupted, it leaves nothing half done.
"""

import argparse
import json
import os
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

from ..measure.files import shown, write_json
from ..measure.progress import progress_bar
from ..retrieval.prepare import PrepareVideo, PrepareWithin, copy_of
from ..search.decoding import TIME_LIMIT, decode_videos
from ..search.index_files import VideoFile
from ..search.indexing import find_videos
from .options import HelpFormatter, at_least

SETTINGS = '.prepared.json'
"""What the copies in a folder were made with."""


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('folder', type=Path, help='folder of videos, and of folders with more')
    parser.add_argument('out', type=Path, help='folder of the copies, under the same names, as mp4')
    parser.add_argument('--rate', type=float, default=3.0, help='frames per second')
    parser.add_argument('--side', type=int, default=224, help='short side in pixels')
    parser.add_argument('--workers', type=at_least(1), default=os.cpu_count() or 1, help='processes')
    text = 'seconds for a video; one that takes longer counts as unreadable'
    parser.add_argument('--time-limit', type=at_least(1), default=TIME_LIMIT, help=text)
    parser.add_argument('--skip-unreadable', action='store_true', help='leave damaged videos out and count them')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    prepare = PrepareVideo(args.rate, args.side)
    files = find_videos(args.folder)
    check_names(files)
    inside = args.out.resolve(), args.folder.resolve()
    if inside[0].is_relative_to(inside[1]):
        raise ValueError(f'{str(args.out)!r} is within {str(args.folder)!r}: copies would be taken for videos')
    args.out.mkdir(parents=True, exist_ok=True)
    check_settings(args.out, dict(rate=args.rate, side=args.side))
    missing = [file for file in files if not is_made(file, args.out)]
    unreadable = []
    with TemporaryDirectory(prefix='.unfinished-', dir=args.out, ignore_cleanup_errors=True) as scratch:
        load = PrepareWithin(prepare, args.folder, args.out, Path(scratch))
        paths = [args.folder / file.name for file in missing]
        with closing(decode_videos(paths, load, args.workers, args.time_limit)) as outcomes:
            with progress_bar(len(missing), 'making copies') as bar:
                for outcome in outcomes:
                    if isinstance(outcome, str):
                        if not args.skip_unreadable:
                            raise ValueError(f'{outcome}; --skip-unreadable leaves such videos out and counts them')
                        unreadable.append(outcome)
                    bar.update()
    made = len(missing) - len(unreadable)
    print(
        f'{shown(args.out)}: {len(files) - len(unreadable)} videos; {made} made, {len(files) - len(missing)} were there'
    )
    if unreadable:
        print(f'{len(unreadable)} unreadable videos left out:')
        for reason in unreadable:
            print(f'  {shown(reason)}')


def check_names(files: list[VideoFile]) -> None:
    """No two videos may want the same copy."""
    seen: dict[Path, str] = {}
    for file in files:
        other = seen.setdefault(copy_of(file.name, Path()), file.name)
        if other != file.name:
            raise ValueError(f'{shown(other)} and {shown(file.name)} would have the same copy: rename one')


def check_settings(out: Path, settings: dict[str, float]) -> None:
    """Copies of other settings aren't mixed with these; those that are there say which they are of."""
    path = out / SETTINGS
    if path.exists():
        try:
            before = json.loads(path.read_text())
        except ValueError as error:
            raise ValueError(f'{str(path)!r} is damaged: {error}') from error
        if before != settings:
            raise ValueError(f'{str(out)!r} was made with {before}, not {settings}: give another folder')
    else:
        write_json(path, settings)


def is_made(file: VideoFile, out: Path) -> bool:
    """Whether there is a copy of the video as it is now."""
    copy = copy_of(file.name, out)
    # To the second: not all disks know times as exactly.
    return copy.is_file() and copy.stat().st_mtime_ns // 10**9 == file.mtime_ns // 10**9
