"""What plugins do to a model's features on your own pictures: cosines block by block, speed, and drawings of them.

Needs no labels: everything is compared with the full model's. `tune` finds settings; this shows what they do.
"""

from pathlib import Path

import numpy as np

from ..attach import only_host
from ..measure.features import agreement, look
from ..measure.files import shown
from ..measure.progress import progress_bar
from ..measure.variants import FUSED, Variant, benchmark_rows, environment_of
from ..report.curve import as_png
from ..report.features import (
    Shown,
    Story,
    colours_of,
    draw_features,
    plot_by_block,
    with_metrics,
    write_features,
)  # fmt: skip
from ..report.table import format_table
from .options import add_machine_options, add_plugin_options, at_least, make_parser
from .sources import NAMES, Source, add_folder, add_source_options, open_source, plugin_parser

COSINE, WORST = 'cosine', 'worst cosine'
SHOWN = 12
"""Pictures on the page: it holds all its drawings."""


def main() -> None:
    parser = make_parser(__doc__, checkpoint=False, config=NAMES)
    add_folder(parser)
    add_plugin_options(parser)
    add_source_options(parser, pictures=8, use='how many to look at')
    parser.add_argument('--rounds', type=at_least(1), default=5, help='how many times each row is timed')
    parser.add_argument('--out', type=Path, help='folder of the report; the work folder if left out')
    add_machine_options(parser)
    args = parser.parse_args()
    if not args.plugin:
        raise ValueError(
            'name what to compare: --plugin "SharedUpdate(after=3, grid=24)"; `fewtokens tune` finds what fits'
        )
    parse = plugin_parser(args.config)
    variants = [Variant(FUSED), *(Variant(text, parse(text)) for text in args.plugin)]
    source = open_source(args)
    model, pictures, out = source.model, source.pictures, args.out or source.work_dir
    # First, for it finds out whether the plugins fit.
    rows = benchmark_rows(model, variants, pictures[0], args.rounds, warmup=1)
    for row in rows:
        if row.failure:
            raise ValueError(f'{row.name} cannot run in {args.dtype}: {row.failure}')
    cosines, by_block, drawn = compare(source, variants)
    metrics = [{COSINE: float(100 * of.mean()), WORST: float(100 * of.min())} for of in cosines.T]
    reported = with_metrics(rows, metrics)
    settings = source.settings(args)
    environment = environment_of(pictures[0], **settings, pictures=len(pictures), rounds=args.rounds)
    story = tell(args.config, environment, {'features by block': as_png(plot_by_block(rows, by_block), dpi=140)})
    write_features(out, 'features', reported, drawn, environment, story)
    print(format_table(reported))
    source.tell_unreadable()
    print(f'report: {shown(out / "report.html")}')


def compare(source: Source, variants: list[Variant]) -> tuple[np.ndarray, np.ndarray, list[Shown]]:
    """Cosines [pictures, variants], their means after each block [variants, blocks], and drawings of the first."""
    host, pictures = only_host(source.model), source.pictures
    cosines, by_block, drawn = [], [], []
    with progress_bar(len(pictures), 'comparing features') as bar:
        for number, picture in enumerate(pictures):
            seen = [look(host, source.model, variant, picture, source.look) for variant in variants]
            found = [agreement(seen[0], each) for each in seen]
            cosines.append([cosine for cosine, _ in found])
            by_block.append([blocks for _, blocks in found])
            if number < SHOWN:
                image = colours_of(picture[0].float().cpu().numpy(), source.mean, source.std)
                columns = draw_features(image, [each.map for each in seen], [each.clusters for each in seen])
                drawn.append(Shown(shown(source.names[number]), columns, [100 * cosine for cosine in cosines[-1]]))
            bar.update()
    return np.array(cosines), np.array(by_block).mean(axis=0), drawn


def tell(name: str, environment: dict, curves: dict[str, bytes]) -> Story:
    return Story(
        title=f'{name} with fewer tokens',
        about=f'{environment["pictures"]} pictures, each compared with what the full model makes of it. Nothing was '
        'retrained.',
        metrics={COSINE: 'cosine of features', WORST: 'of the worst picture'},
        figures='The cosine is a mean over tokens and pictures, of the output in which it is lowest. MACs, time and '
        f'memory are the model’s, of {environment["timed"]}; speed-up is against the full model with fused attention, '
        f'the median over {environment["rounds"]} rounds in which every row took its turn.',
        lines=(
            'First line: the picture, and which tokens were merged, each cluster in its mean colour.',
            'Second: the last block’s three main components as colours, those of the full model, so that the same '
            'colour is the same feature.',
        ),
        curves=curves,
    )
