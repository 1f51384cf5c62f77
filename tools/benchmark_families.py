"""Measures a model of each family of hosts: how much faster it gets for the MACs that it saves.

Weights are random: this measures speed only. What is timed is the backbone on one image, in turn with the same backbone
with fused attention. Blocks are reduced where an image has 1500 tokens or more. Each model has a process of its own:
how soon memory is there depends on what was freed before.
"""

import argparse
import datetime
import multiprocessing
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import open_clip
import timm
import torch
import torchvision
import transformers
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import fewtokens.openmmlab  # noqa: F401, I001  before any other OpenMMLab package
from fewtokens import AvgPool, GradualUpdate, SharedUpdate
from fewtokens.attach import only_host
from fewtokens.cli.options import HelpFormatter, at_least
from fewtokens.cli.run import run
from fewtokens.measure.environment import describe_environment
from fewtokens.measure.files import write_json
from fewtokens.measure.macs import forward
from fewtokens.measure.timing import seconds_interleaved, summarize
from fewtokens.measure.variants import FUSED, count_rows_cheaply, make_variants
from fewtokens.plugin import text_of
from fewtokens.reducers import Reducer

SIDE = 640
"""Of the image, in pixels: 40 x 40 patches of 16."""
ON_GRID = (SharedUpdate(after=3, grid=24),)
ANY = (*ON_GRID, GradualUpdate(after=(0, 3, 6, 9), keep=0.35))


def in_windows(after: int, grid: int) -> tuple[Reducer, ...]:
    """With means of places, whose merging costs next to nothing: what is lost then is the host's."""
    return SharedUpdate(after, grid), AvgPool(after, grid)


IN_14, STAGES_OF_14 = in_windows(3, 10), in_windows(4, 10)
SWIN, SWIN_V2 = in_windows(4, 5), in_windows(4, 6)
SWIN_BASE = dict(embed_dims=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32))
BASE = dict(embed_dims=768, num_layers=12, num_heads=12)


@dataclass(frozen=True)
class Sample:
    """What stands for a family.

    Attributes:
        make: gives a model with random weights.
        reducers: what is measured on it.
        side: of the image, in pixels.
    """

    make: Callable[[], nn.Module]
    reducers: tuple[Reducer, ...] = ANY
    side: int = SIDE


def of_timm(name: str, *others: Any, side: int = SIDE, **options: Any) -> Sample:
    return Sample(lambda: timm.create_model(name, img_size=side, num_classes=0, **options), *others, side=side)


def of_timm_sam() -> nn.Module:
    return timm.models.vision_transformer_sam.VisionTransformerSAM(
        img_size=SIDE, embed_dim=768, depth=12, num_heads=12, window_size=14, use_rel_pos=True, use_abs_pos=True,
        global_attn_indexes=(2, 5, 8, 11), num_classes=0, neck_chans=256,
    )  # fmt: skip


def of_hugging_face(name: str, *others: Any, side: int = SIDE, **options: Any) -> Sample:
    """A base model, unless options say otherwise."""
    sizes = dict(hidden_size=768, num_attention_heads=12, num_hidden_layers=12, intermediate_size=3072, patch_size=16)

    def make() -> nn.Module:
        config = getattr(transformers, f'{name}Config')(**sizes | dict(image_size=side) | options)
        return getattr(transformers, f'{name}Model')(config)

    return Sample(make, *others, side=side)


def of_hugging_face_swin(name: str, window: int, reducers: tuple[Reducer, ...], side: int) -> Sample:
    options = dict(image_size=side, embed_dim=128, depths=(2, 2, 18, 2), num_heads=(4, 8, 16, 32), window_size=window)

    def make() -> nn.Module:
        return getattr(transformers, f'{name}Model')(getattr(transformers, f'{name}Config')(**options))

    return Sample(make, reducers, side)


def of_openmmlab(scope: str, kind: str, *others: Any, side: int = SIDE, **options: Any) -> Sample:
    def make() -> nn.Module:
        with DefaultScope.overwrite_default_scope(scope):
            return MODELS.build(dict(type=kind, **options))

    return Sample(make, *others, side=side)


def of_torchvision_vit() -> nn.Module:
    return torchvision.models.VisionTransformer(SIDE, 16, 12, 12, 768, 3072)


def of_open_clip() -> nn.Module:
    return open_clip.transformer.VisionTransformer(SIDE, 16, 768, 12, 12, mlp_ratio=4, output_dim=512)


def depth_anything() -> nn.Module:
    backbone = transformers.Dinov2Config(
        image_size=560, patch_size=14, out_indices=[3, 6, 9, 12], reshape_hidden_states=False, apply_layernorm=True
    )
    sizes = dict(reassemble_hidden_size=768, neck_hidden_sizes=[96, 192, 384, 768], fusion_hidden_size=128)
    return transformers.DepthAnythingForDepthEstimation(
        transformers.DepthAnythingConfig(backbone_config=backbone, patch_size=14, **sizes)
    )


SAMPLES = {
    'timm VisionTransformer, DINOv2': of_timm('vit_base_patch14_dinov2', side=560),
    'timm VisionTransformer, DINOv2 small': of_timm('vit_small_patch14_dinov2', side=560),
    'timm Eva, DINOv3': of_timm('vit_base_patch16_dinov3'),
    'timm Eva, EVA-02': of_timm('eva02_base_patch14_224', side=560),
    'timm Beit': of_timm('beit_base_patch16_224', ON_GRID),
    'timm VisionTransformerRelPos': of_timm('vit_relpos_base_patch16_224', ON_GRID),
    'timm VisionTransformerSAM': Sample(of_timm_sam, IN_14),
    'timm HieraDet, SAM 2 tiny': Sample(
        lambda: timm.create_model('sam2_hiera_tiny', num_classes=0), STAGES_OF_14, 1024
    ),
    'timm Swin v1': of_timm('swin_base_patch4_window7_224', SWIN, side=672),
    'timm Swin v2': of_timm('swinv2_base_window8_256', SWIN_V2, side=640),
    'Hugging Face ViT': of_hugging_face('ViT'),
    'Hugging Face DINOv2': of_hugging_face('Dinov2', patch_size=14, side=560),
    'Hugging Face DINOv3': of_hugging_face('DINOv3ViT'),
    'Hugging Face SigLIP': of_hugging_face('SiglipVision'),
    'Hugging Face Depth Anything': Sample(depth_anything, side=560),
    'Hugging Face BEiT': of_hugging_face('Beit', ON_GRID, use_relative_position_bias=True),
    'Hugging Face SAM': of_hugging_face('SamVision', IN_14, global_attn_indexes=[2, 5, 8, 11]),
    'Hugging Face SAM 2 tiny': Sample(
        lambda: transformers.Sam2VisionModel(transformers.Sam2VisionConfig()), STAGES_OF_14, 1024
    ),
    'Hugging Face Swin v1': of_hugging_face_swin('Swin', 7, SWIN, 672),
    'Hugging Face Swin v2': of_hugging_face_swin('Swinv2', 8, SWIN_V2, 640),
    'torchvision VisionTransformer': Sample(of_torchvision_vit),
    'torchvision Swin v1': Sample(torchvision.models.swin_b, SWIN, 672),
    'torchvision Swin v2': Sample(torchvision.models.swin_v2_b, SWIN_V2, 640),
    'OpenMMLab ViT': of_openmmlab('mmseg', 'VisionTransformer', img_size=SIDE, final_norm=True, **BASE),
    'OpenMMLab BEiT': of_openmmlab('mmseg', 'BEiT', ON_GRID, img_size=SIDE, qv_bias=True, **BASE),
    'OpenMMLab Swin': of_openmmlab('mmdet', 'SwinTransformer', SWIN, side=672, **SWIN_BASE),
    'open_clip VisionTransformer': Sample(of_open_clip),
}


@torch.no_grad()
def measure(name: str, rounds: int, warmup: int) -> list[dict[str, Any]]:
    """A row of the fused host and one of each reducer."""
    sample = SAMPLES[name]
    model, images = sample.make(), torch.randn(1, 3, sample.side, sample.side)
    model.eval()  # returns None for some of them
    variants = make_variants({text_of(reducer): reducer for reducer in sample.reducers})[1:]
    contexts = {variant.name: partial(variant.applied, model) for variant in variants}
    counted = count_rows_cheaply(model, variants, images)
    seconds = seconds_interleaved(contexts, lambda: forward(model, images), rounds, warmup)
    about = dict(model=name, family=only_host(model).family, side=sample.side)
    return [about | row.as_json() | asdict(summarize(seconds[row.name], seconds[FUSED])) for row in counted]


def format_rows(rows: Sequence[dict[str, Any]]) -> str:
    """As a table of Markdown: how much of the speed that MACs promise is there."""
    lines = ['| model | pixels | | MACs | speed-up | × MACs |', '| --- | --- | --- | --- | --- | --- |']
    for row in rows:
        if row['name'] == FUSED:
            macs = row['macs']
            continue
        part = row['macs'] / macs
        figures = f'{part:.3f} | {row["speedup"]:.2f} | {part * row["speedup"]:.2f}'
        lines.append(f'| {row["model"]} | {row["side"]} | {row["name"]} | {figures} |')
    return '\n'.join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument('--only', nargs='+', metavar='MODEL', help='parts of the names of those that are measured')
    parser.add_argument('--rounds', type=at_least(1), default=7, help='how many times each row is timed')
    parser.add_argument('--warmup', type=at_least(0), default=1, help='rounds before those, which are not counted')
    parser.add_argument('--out', type=Path, default=Path('work_dirs/bench'), help='folder of the JSON file')
    args = parser.parse_args()
    names = [name for name in SAMPLES if any(part in name for part in args.only or [''])]
    if not names:
        raise ValueError(f'--only {" ".join(args.only)} is in no name of: {", ".join(SAMPLES)}')
    torch.set_num_threads(1)
    environment = describe_environment(torch.device('cpu'), rounds=args.rounds, warmup=args.warmup)
    file, rows = args.out / f'families-{datetime.date.today()}.json', []
    # Forked, so that it needn't import all libraries again.
    with multiprocessing.get_context('fork').Pool(1, maxtasksperchild=1) as apart:
        for name in names:
            rows += apart.apply(measure, (name, args.rounds, args.warmup))
            # After each: what there is when it is stopped is kept.
            write_json(file, dict(environment=environment, rows=rows))
    print(format_rows(rows), file, sep='\n\n')


if __name__ == '__main__':
    run(main)
