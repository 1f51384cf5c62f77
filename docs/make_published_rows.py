"""Writes docs/published_rows.md: every row that the papers' authors publish, and what stands for it here.

python docs/make_published_rows.py [--count]

The rows are those of tests/data; which config claims a row is read from its docstring. MACs are kept in
docs/figures/published_macs.json; --count counts them again, which takes some minutes.
"""

import argparse
import ast
import csv
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / 'docs/published_rows.md'
MACS = ROOT / 'docs/figures/published_macs.json'
CLAIM = re.compile(
    r'Published: (?P<host_macs>[\d.]+) to (?P<macs>[\d.]+) GMACs'
    r'(?:(?P<backbone> of the backbone)? at (?:(?P<frames>\d+) frames of )?(?P<height>\d+) x (?P<width>\d+))?[^,]*, '
    r'(?P<host_value>[\d.]+) to (?P<value>[\d.]+) (?P<metric>[\w ]+)'
)
DATASETS = {'MSR-VTT 1k-A (9k)': 'msrvtt-9k', 'ActivityNet': 'activitynet', 'MSVD': 'msvd', 'LSMDC': 'lsmdc'}
ALGORITHMS = {'none': 'clip4clip', 'k-medoids': 'kmedoids', 'spectral': 'spectral'}

SEGMENTER = 'https://www.rocq.inria.fr/cluster-willow/rstrudel/segmenter/checkpoints'
MASKDINO = (
    'https://github.com/IDEA-Research/detrex-storage/releases/download/maskdino-v0.1.0/'
    'maskdino_swinl_50ep_300q_hid2048_3sd1'
)
DPT = 'https://github.com/isl-org/DPT/releases/download/1_0'
COCO = 'COCO 2017 (val2017 and its annotations)'
OPENMMLAB_SWIN = '[Shifted windows](differences.md#hourglass) have a mask of their own.'
# By the task, the data set and the model's name as far as they are given, the first that fits.
DOWNLOADS = {
    ('semantic', 'ADE20K', 'Segmenter'): f"[Segmenter's weights]({SEGMENTER}/ade20k/seg_large_mask_640/checkpoint.pth) "
    'through `tools/convert_checkpoint.py`; ADE20K (ADEChallengeData2016)',
    (
        'semantic',
        'Cityscapes',
        'Segmenter',
    ): f"[Segmenter's weights]({SEGMENTER}/cityscapes/seg_large_mask/checkpoint.pth) "
    'through `tools/convert_checkpoint.py`; Cityscapes (leftImg8bit and gtFine)',
    ('semantic', 'PascalContext', 'Segmenter'): f"[Segmenter's weights]({SEGMENTER}/pascal_context/seg_large_mask/"
    "checkpoint.pth) through `tools/convert_checkpoint.py`; VOC 2010 with Pascal Context's labels",
    ('detection', 'COCO', 'DINO'): "detrex's DINO Swin-L 384 with five scales, 36 epochs, through "
    f'`tools/convert_checkpoint.py`; {COCO}',
    (
        'instance',
        'COCO',
        'MaskDINO',
    ): f"[MaskDINO's weights]({MASKDINO}_instance_maskenhanced_mask52.3ap_box59.0ap.pth) "
    f'through `tools/convert_checkpoint.py`; {COCO}',
    ('panoptic', 'COCO', 'MaskDINO'): f"[MaskDINO's weights]({MASKDINO}_panoptic_58.3pq.pth) "
    f'through `tools/convert_checkpoint.py`; {COCO}',
    ('', 'COCO', 'Mask2Former'): "Mask2Former's Swin-L IN21k 384, 100 epochs, of detectron2's model zoo, through "
    f'`tools/convert_checkpoint.py`; {COCO}',
    ('', 'ADE20K', 'Mask2Former'): "Mask2Former's Swin-L IN21k 384, 160k steps, of detectron2's model zoo, through "
    '`tools/convert_checkpoint.py` (semantic: `--arch mask2former-mmseg`); ADE20K (ADEChallengeData2016)',
    ('', '', 'Mask2Former'): "Video Mask2Former's Swin-L, 8 epochs, of its model zoo, through "
    '`tools/convert_checkpoint.py --arch mask2former-vis`; YouTubeVIS of that year (its server scores the answers)',
    ('', '', 'OneFormer'): "OneFormer's Swin-L, 160k steps at 1280; ADE20K (ADEChallengeData2016)",
    ('depth', 'KITTI', ''): f"[DPT's weights]({DPT}/dpt_hybrid_kitti-cb926ef4.pt); KITTI raw, Eigen's split",
    ('depth', 'NYUv2', ''): f"[DPT's weights]({DPT}/dpt_hybrid_nyu-2ce69ec7.pt); NYU Depth v2",
    ('video classification', '', ''): "Video Swin-L's weights; Kinetics",
    ('classification', '', ''): "SWAG's weights (of torchvision or its repository; CC-BY-NC); ImageNet-1k",
    ('SAM', '', ''): 'nothing: a speed alone is published; '
    "[SAM's weights](https://dl.fbaipublicfiles.com/segment_anything/sam_vit_h_4b8939.pth) to look at masks",
    ('retrieval', 'MSR-VTT', ''): "MSR-VTT's videos, and CLIP4Clip's archive of its captions and splits",
    ('retrieval', 'LSMDC', ''): "LSMDC's clips and annotations, which MPII gives on request",
    ('retrieval', 'ActivityNet', ''): "ActivityNet's videos (200 hours) and ActivityNet Captions",
    ('retrieval', '', ''): "the data set's videos and captions",
}
REASONS = {
    ('EViT', ''): 'another method, which the paper compares with',
    ('ACT', ''): 'another method, which the paper compares with',
    ('ToMe', 'SWAG'): "`ToMe(tuple(range(depth)), r)` goes on timm's ViT as a plugin",
    ('ToMe', ''): 'another method, which the paper compares with',
    ('Hourglass', 'OneFormer'): '[in transformers](hugging_face_swin.md), as a plugin; OpenMMLab has no OneFormer',
    ('Hourglass', 'SWAG'): "goes on [torchvision's ViT](torchvision.md) as a plugin; no config of OpenMMLab",
    ('Hourglass', 'SAM'): 'goes on [SAM](segment_anything.md) as a plugin; no config of OpenMMLab',
    ('Hourglass', 'Video Swin'): 'no host: its windows reach over time',
}
DIFFERENCES = {
    'Segmenter': "Reconstruction weights add up to one (`normalize='l2'` is the published). Published figures come "
    'from another counter: of the host alone it differs by 0.9 to 1.8 %.',
    'DINO': OPENMMLAB_SWIN,
    'MaskDINO': f"{OPENMMLAB_SWIN} MaskDINO itself is [ours, of mmdet's parts](differences.md#maskdino).",
    'Mask2Former': OPENMMLAB_SWIN,
}
NOTES = {
    'mask2former_swin-l_ade20k-640x640_8-8x8': 'counted with after=7',
    'mask2former_swin-l_coco-instance_12-8x8': 'counted with after=11',
    'mask2former_swin-l_coco-panoptic_10-8x8': 'counted with after=9',
    'mask2former-vis_swin-l_youtubevis-2019_14-8x8': 'counted on 28 frames of 480 x 832',
    'mask2former-vis_swin-l_youtubevis-2021_14-8x8': 'counted on 32 frames of 400 x 640',
}


@dataclass(frozen=True)
class Claim:
    """What a config says is published of it."""

    path: Path
    figures: dict[str, str]

    def fits(self, row: dict[str, str]) -> bool:
        """Whether it is of this row of Expedit's tables."""
        same = rounded(published_gmacs(row), self.figures['macs']) and rounded(row['value'], self.figures['value'])
        return same and row['metric'] == self.figures['metric'] and row['method'] != 'none'


def published_gmacs(row: dict[str, str]) -> str:
    """Of a row of Expedit's tables, where an operation of depth's rows is half of a multiplication and addition."""
    figure = row['gflops_published']
    return str(float(figure) / 2) if figure and row['task'] == 'depth' else figure


def rounded(published: str, stated: str) -> bool:
    """Whether a figure is the published one, to as many digits as are stated."""
    return bool(published) and f'{float(published):.{len(stated.partition(".")[2])}f}' == stated


def claims() -> list[Claim]:
    """Of all configs that state MACs and a metric."""
    found = []
    for path in sorted((ROOT / 'configs').glob('*/*.py')):
        match = CLAIM.match(ast.get_docstring(ast.parse(path.read_text())) or '')
        if match and path.parent.name != '_base_':
            found.append(Claim(path, match.groupdict()))
    return found


def read_rows(name: str) -> list[dict[str, str]]:
    with open(ROOT / f'tests/data/{name}.csv', newline='') as file:
        return list(csv.DictReader(file))


def recipe_of(row: dict[str, str]) -> str:
    """The name of the config in configs/centerclip that a row of CenterCLIP's tables has."""
    name = f'{ALGORITHMS[row["method"]]}_{row["backbone"].lower().replace("/", "-")}_{DATASETS[row["dataset"]]}'
    return name if row['method'] == 'none' else f'{name}_{row["after"]}-{row["segments"]}x{row["clusters"]}'


def first_fitting(table: dict[tuple[str, ...], str], *names: str) -> str:
    for key, text in table.items():
        if all(part in name for part, name in zip(key, names)):
            return text
    raise LookupError(f'nothing is written of {names}')


def name_of(path: Path) -> str:
    """By the name that every tool takes, `fewtokens::…`: the site has no configs to link to."""
    return f'`{path.relative_to(ROOT / "configs")}`'


def expedit_lines(macs: dict[str, list[float]]) -> Iterator[str]:
    known = claims()
    for (task, dataset, model), group in groupby(read_rows('expedit'), lambda r: (r['task'], r['dataset'], r['model'])):
        rows = list(group)
        yield f'### {model}, {task}{f", {dataset}" if dataset else ""}\n'
        yield f'To repeat the accuracy: {first_fitting(DOWNLOADS, task, dataset, model)}.\n'
        for note in sorted({row['note'] for row in rows if row['note']}):
            yield f'Published with: {note}.\n'
        differs = next((text for name, text in DIFFERENCES.items() if model.startswith(name)), None)
        if differs:
            yield f'What differs: {differs}\n'
        metric = rows[0]['metric']
        yield f'| method | setting | {metric} | GMACs published | ours | config, or why there is none |'
        yield '| --- | --- | --- | --- | --- | --- |'
        found = [next((claim for claim in known if claim.fits(row)), None) for row in rows]
        host = next((macs[claim.path.stem][0] for claim in found if claim), None)
        for row, claim in zip(rows, found):
            yield expedit_row(row, claim, host if claim is None else macs[claim.path.stem][1])
        yield ''


def expedit_row(row: dict[str, str], claim: Claim | None, counted: float | None) -> str:
    name = 'host' if row['method'] == 'none' else row['method']
    setting = row['setting'] or (f'after {row["after"]}, {row["grid"]}' if row['after'] else row['grid']) or '–'
    if claim:
        stem = claim.path.stem
        there = name_of(claim.path) + (f'; {NOTES[stem]}' if stem in NOTES else '')
    elif name == 'host':
        there = "the first row of a report on the host's other configs" if counted else '–'
    else:
        there, counted = first_fitting(REASONS, name, row['model']), None
    figures = row['value'], published_gmacs(row) or '–', f'{counted:.1f}' if counted else '–'
    return f'| {" | ".join((name, setting, *figures, there))} |'


def centerclip_lines(macs: dict[str, list[float]]) -> Iterator[str]:
    yield "All want OpenAI's weights of that CLIP, which open_clip fetches, and training: the authors give results of"
    yield 'eight checkpoints (they stand in the configs), and no addresses. They publish times and memory, and no MACs:'
    yield 'ours are those of the visual tower for one video. Each row has a config of its own in configs/centerclip.\n'
    yield 'What differs: frames are drawn evenly in training, and short videos have no repeated frames. Of the spectral'
    yield "rows the graph is known for LSMDC (nearest neighbours); the others have the published code's default.\n"
    names = [
        'method',
        'after, segments x clusters',
        'R@1 text to video',
        'video to text',
        'ms a video',
        'GB in training',
    ]
    for (dataset, backbone), group in groupby(read_rows('centerclip'), lambda r: (r['dataset'], r['backbone'])):
        yield f'### {dataset}, {backbone}\n'
        yield f'To repeat the accuracy: {first_fitting(DOWNLOADS, "retrieval", dataset, "")}.\n'
        yield f'| {" | ".join([*names, "GMACs", "config"])} |'
        yield f'| {" | ".join(["---"] * (len(names) + 2))} |'
        for row in group:
            stem = recipe_of(row)
            host = row['method'] == 'none'
            setting = '–' if host else f'{row["after"]}, {row["segments"]} x {row["clusters"]}'
            published = [row[name] for name in ('t2v_r1', 'v2t_r1', 'ms_per_video', 'train_memory_gb')]
            there = name_of(ROOT / f'configs/centerclip/{stem}.py')
            cells = ['host' if host else row['method'], setting, *published, f'{macs[stem][0]:.1f}', there]
            yield f'| {" | ".join(cells)} |'
        yield ''


def make_page(macs: dict[str, list[float]]) -> str:
    return '\n'.join(
        [
            '# Every published row, and what stands for it here\n',
            '<!-- Made by docs/make_published_rows.py: change that, and the tables in tests/data. -->\n',
            'MACs are counted on the meta device (`tools/benchmark.py CONFIG --macs-only`): of the whole model on one',
            'crop, or of the backbone alone where that is what was published. The published figures of Swin count five',
            'operations for each element of a norm as well; ours count none. Departures that all rows share are in',
            '[differences.md](differences.md). A config stands by what comes after `fewtokens::`, its name for every',
            'tool.\n',
            '## Hourglass (Expedit)\n',
            *expedit_lines(macs),
            '## CenterCLIP\n',
            *centerclip_lines(macs),
        ]
    )


def counted_macs() -> dict[str, list[float]]:
    """What `count_all` gave when it was last asked."""
    return json.loads(MACS.read_text())


def count_all() -> dict[str, list[float]]:
    """GMACs without and with the plugin of every config that claims a row; of a recipe for retrieval its own alone."""
    import fewtokens.openmmlab  # noqa: F401, I001  before any other OpenMMLab package
    import fewtokens.retrieval  # noqa: F401
    import torch
    from mmengine.registry import MODELS, DefaultScope

    from fewtokens.measure.macs import count_macs
    from fewtokens.openmmlab.config import load_config
    from fewtokens.openmmlab.model import build_model, without_pretrained
    from fewtokens.openmmlab.registry import build_reducer

    counted = {}
    for claim in claims():
        config = load_config(claim.path)
        (hook,) = (hook for hook in config.custom_hooks if hook['type'] == 'FewTokensHook')
        height, width = claim.figures['height'], claim.figures['width']
        size = (int(height), int(width)) if height else config.crop_size
        if claim.figures['backbone']:
            with DefaultScope.overwrite_default_scope(config.default_scope):
                model = MODELS.build(config.model.backbone).to('meta')
            model.eval()
        else:
            model = build_model(config, device='meta')
        image = torch.empty(int(claim.figures['frames'] or 1), 3, *size, device='meta')
        figures = [count_macs(model, image) / 1e9]
        with fewtokens.attach(model, build_reducer(hook['reducer'])):
            figures.append(count_macs(model, image) / 1e9)
        counted[claim.path.stem] = [round(figure, 2) for figure in figures]
    for row in read_rows('centerclip'):
        config = load_config(ROOT / f'configs/centerclip/{recipe_of(row)}.py')
        with torch.device('meta'):
            encoder = MODELS.build(without_pretrained(config.model)).encoder.eval()
        video = torch.empty(1, config.frames, 3, 224, 224, device='meta')
        counted[recipe_of(row)] = [round(count_macs(encoder, video) / 1e9, 2)]
    return counted


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--count', action='store_true', help='count the MACs again')
    if parser.parse_args().count:
        MACS.write_text(json.dumps(count_all(), indent=1) + '\n')
    PAGE.write_text(make_page(counted_macs()))


if __name__ == '__main__':
    main()
