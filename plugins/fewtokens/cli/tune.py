"""Finds the plugin for your model: the settings that lose least at a speed, or the fastest that agree well enough.

Needs pictures, and no labels: outputs are compared with the full model's.
"""

from pathlib import Path

from ..measure.files import shown
from ..measure.target import Target
from ..measure.tune import Tuned, tune
from ..measure.variants import environment_of
from ..report.tuning import config_lines, python_line, write_tuned
from ..sdpa import use_sdpa
from .options import add_machine_options, at_least, make_parser
from .sources import NAMES, Source, add_folder, add_source_options, open_source


def main() -> None:
    parser = make_parser(__doc__, checkpoint=False, config=NAMES)
    add_folder(parser)
    parser.add_argument('target', help="a speed such as 2x, or an agreement such as 'cosine >= 0.98'")
    add_source_options(parser, pictures=24, use='how many to use; a third is held out')
    parser.add_argument('--batch', type=at_least(1), default=1, help='images at a time, in timing')
    parser.add_argument('--out', type=Path, help='folder of the results; the work folder if left out')
    add_machine_options(parser)
    args = parser.parse_args()
    target = Target.parse(args.target)
    found = open_source(args)
    model, pictures, out = found.model, found.pictures, args.out or found.work_dir
    kept = out / 'tune.jsonl'
    tuned = tune(model, pictures, target, look=found.look, batch=args.batch, kept=kept)
    lines = plugin_lines(found, tuned)
    timed = pictures[0].expand(args.batch, -1, -1, -1)
    described = environment_of(timed, **found.settings(args), left_out=len(found.unreadable))
    params = sum(parameter.numel() for parameter in model.parameters())
    print(write_tuned(out, tuned, lines, described, params))
    found.tell_unreadable()
    print(f'figures: {shown(out / "tune.json")}, frontier: {shown(out / "tune.png")}')


def plugin_lines(source: Source, tuned: Tuned) -> list[str]:
    """The choice as it is put on: in Python, and in a config where the model has one."""
    with use_sdpa(source.model) as fused:
        sdpa = bool(fused.places)
    line = python_line(tuned.chosen.reducer, sdpa)
    return [line, *config_lines(tuned.chosen.reducer, sdpa)] if source.of_config else [line]
