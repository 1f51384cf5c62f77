"""Finds videos by a text: `index` encodes a folder of videos once, `find` searches it."""

import argparse
import os
from pathlib import Path
from typing import Any

import torch
from mmengine.dist import is_main_process

from ..measure.files import shown
from ..search import model as search_model
from ..search.contact_sheet import write_contact_sheet
from ..search.decoding import TIME_LIMIT
from ..search.index import VideoIndex, check_model
from ..search.processes import join
from ..video.clustered import VideoPlugin
from .options import LAUNCHERS, CfgOptions, HelpFormatter, add_device_option, at_least

DEFAULT_CLIP = ('ViT-B-32', 'openai')


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    commands = parser.add_subparsers(required=True, metavar='COMMAND')
    text = 'Encodes what is new or changed in a folder of videos.'
    index = commands.add_parser('index', formatter_class=HelpFormatter, description=text, help=text)
    index.set_defaults(command=index_folder)
    index.add_argument('folder', type=Path, help='folder of videos, and of folders with more')
    index.add_argument('--config', help='config of a text-video retrieval model')
    index.add_argument('--cfg-options', nargs='+', action=CfgOptions, help='settings to override, as key=value')
    text = "instead of a config: a model of open_clip; ViT-B-32 with OpenAI's weights if neither is given"
    index.add_argument('--clip', help=text)
    index.add_argument('--pretrained', help="its weights: one of open_clip's tags, or a file")
    example = 'SegmentClustering(segments=12, clusters=24, size_bias=True, after=6)'
    text = f'clusters tokens, such as "{example}"; may be repeated'
    index.add_argument('--plugin', action='append', default=[], help=text)
    index.add_argument('--batch', type=at_least(1), default=8, help='videos encoded together')
    text = 'processes that decode; 0: this one, where nothing ends a decoder that hangs'
    index.add_argument('--workers', type=at_least(0), default=2, help=text)
    text = 'seconds to decode a video; one that takes longer counts as unreadable'
    index.add_argument('--time-limit', type=at_least(1), default=TIME_LIMIT, help=text)
    index.add_argument('--skip-unreadable', action='store_true', help='leave damaged videos out and count them')
    index.add_argument('--launcher', choices=LAUNCHERS, default='none', help='what started the processes')
    # torchrun and torch.distributed.launch pass it.
    index.add_argument('--local_rank', '--local-rank', type=int, default=0, help=argparse.SUPPRESS)
    text = 'Finds the videos nearest to a text.'
    find = commands.add_parser('find', formatter_class=HelpFormatter, description=text, help=text)
    find.set_defaults(command=find_videos)
    find.add_argument('query', help='what is to be seen, such as "a bird lands on the water"')
    find.add_argument('--top', type=at_least(1), default=20, help='how many')
    find.add_argument('--html', type=Path, metavar='FILE', help='a page with frames of each video found')
    for command in (index, find):
        command.add_argument('--index', type=Path, default=Path('work_dirs/video_index'), help='folder of the index')
        command.add_argument('--checkpoint', help='weights of the model; where they are now, if the index knows them')
        add_device_option(command, 'cuda' if torch.cuda.is_available() else 'cpu')
    return parser.parse_args()


def index_folder(args: argparse.Namespace) -> None:
    if not args.folder.is_dir():
        raise FileNotFoundError(f'there is no folder {str(args.folder)!r}')
    os.environ.setdefault('LOCAL_RANK', str(args.local_rank))
    join(args.launcher)
    index = VideoIndex(args.index)
    model, described = search_model.build(choose_model(args, index), args.device)
    update = index.update(
        args.folder, model.encode_video, search_model.make_loader(described), described,
        batch=args.batch, workers=args.workers, skip_unreadable=args.skip_unreadable,
        time_limit=args.time_limit,
    )  # fmt: skip
    if not is_main_process():
        return
    print(
        f'{shown(args.index)}: {update.total} videos; '
        f'{update.added} new, {update.changed} changed, {update.removed} removed'
    )
    if update.unreadable:
        print(f'{len(update.unreadable)} unreadable videos left out:')
        for reason in update.unreadable.values():
            print(f'  {shown(reason)}')


def choose_model(args: argparse.Namespace, index: VideoIndex) -> dict[str, Any]:
    """The model that was asked for; else that of the index; else OpenAI's CLIP."""
    if args.config and args.clip:
        raise ValueError('--config and --clip exclude each other: each says which model encodes')
    if bool(args.clip) != bool(args.pretrained):
        raise ValueError('--clip and --pretrained go together: a model of open_clip, and a tag or file of its weights')
    if args.checkpoint and not args.config and (args.clip or not index.exists):
        raise ValueError('--checkpoint goes with --config, or says where the weights of an index are now')
    if args.cfg_options and not args.config:
        raise ValueError('--cfg-options are for --config')
    plugins = list(map(VideoPlugin.parse, args.plugin))
    if args.config:
        setting = search_model.from_config(args.config, args.checkpoint, args.cfg_options)
    elif args.clip:
        setting = search_model.from_clip(args.clip, args.pretrained)
    elif index.exists:
        setting = known_model(index, args.checkpoint)
    else:
        print(f"no model was given: open_clip's {DEFAULT_CLIP[0]} with the weights {DEFAULT_CLIP[1]!r} is taken")
        setting = search_model.from_clip(*DEFAULT_CLIP)
    return search_model.with_clusterings(setting, plugins)


def known_model(index: VideoIndex, checkpoint: str | None) -> dict[str, Any]:
    setting = search_model.read_saved(index.model)
    return search_model.move_checkpoint(setting, checkpoint) if checkpoint else setting


def find_videos(args: argparse.Namespace) -> None:
    if not args.query.strip():
        raise ValueError('the query is empty: say what is to be seen')
    index = VideoIndex(args.index)
    index.load()
    model, described = search_model.build(known_model(index, args.checkpoint), args.device)
    check_model(index.model, described, args.index)
    with torch.no_grad():
        (embedding,) = model.encode_text([args.query])
    hits = index.find(embedding.cpu(), args.top)
    print('rank | score | video')
    for rank, hit in enumerate(hits, 1):
        print(f'{rank:4} | {hit.score:5.3f} | {shown(hit.path)}')
    if args.html:
        write_contact_sheet(args.html, args.query, hits, index.folder, len(index))
        print(f'contact sheet: {shown(args.html)}')


def main() -> None:
    args = parse_args()
    args.command(args)
