"""Writes docs/hosts.md: what stands in a table of models, asked of the hosts themselves.

python docs/make_hosts.py
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import open_clip
import timm
import torch
import torchvision
import transformers
from mmengine.registry import MODELS, DefaultScope
from torch import nn

import fewtokens.openmmlab  # noqa: F401, I001  before any other OpenMMLab package
from fewtokens.attach import only_host
from fewtokens.hosts import FAMILIES, Host

PAGE = Path(__file__).parent / 'hosts.md'
TIMM = (
    'vit_large_patch14_dinov2', 'vit_base_patch14_reg4_dinov2', 'vit_so400m_patch14_siglip_384',
    'vit_base_patch16_clip_224', 'deit3_base_patch16_224', 'vit_base_patch16_dinov3', 'eva02_base_patch14_224',
    'beitv2_base_patch16_224', 'vit_relpos_base_patch16_224', 'samvit_huge_patch16', 'sam2_hiera_tiny',
    'swin_base_patch4_window7_224', 'swinv2_base_window8_256',
)  # fmt: skip
TRANSFORMERS = (
    'ViT', 'DeiT', 'Dinov2', 'Dinov2WithRegisters', 'DINOv3ViT', 'SiglipVision', 'Siglip2Vision', 'CLIPVision', 'IJepa',
    'ViTMSN', 'DPT', 'Beit', 'Swin', 'Swinv2', 'SamVision', 'Sam2Vision',
)  # fmt: skip
OTHERS = ('EomtForUniversalSegmentation', 'Mask2FormerForUniversalSegmentation', 'OneFormerForUniversalSegmentation')
TORCHVISION = ('vit_l_16', 'swin_b', 'swin_v2_b')
OPENMMLAB = {
    'mmseg VisionTransformer': ('mmseg', dict(type='VisionTransformer')),
    'mmseg BEiT': ('mmseg', dict(type='BEiT')),
    'mmseg MAE': ('mmseg', dict(type='MAE')),
    'mmdet SwinTransformer': ('mmdet', dict(type='SwinTransformer')),
    'mmseg SwinTransformer': ('mmseg', dict(type='SwinTransformer')),
}


def models() -> Iterator[tuple[str, str, Callable[[], nn.Module]]]:
    """Each one's library, name, and how it is made."""
    for name in TIMM:
        yield 'timm', name, lambda name=name: timm.create_model(name)
    for name in TRANSFORMERS:
        config = getattr(transformers, f'{name}Config')
        yield 'transformers', f'{name}Model', lambda n=name, c=config: getattr(transformers, f'{n}Model')(c())
    for name in OTHERS:
        yield 'transformers', name, lambda name=name: made_by_config(getattr(transformers, name))
    for name in TORCHVISION:
        yield 'torchvision', name, lambda name=name: getattr(torchvision.models, name)()
    for name, (scope, settings) in OPENMMLAB.items():
        yield 'OpenMMLab', name, lambda s=scope, given=settings: build(s, given)
    yield 'open_clip', 'ViT-B-16', lambda: open_clip.create_model('ViT-B-16', device='meta').visual


def made_by_config(cls: type) -> nn.Module:
    swin = dict(backbone_config=transformers.SwinConfig(out_features=['stage1', 'stage2', 'stage3', 'stage4']))
    return cls(cls.config_class(**({} if cls is transformers.EomtForUniversalSegmentation else swin)))


def build(scope: str, settings: dict) -> nn.Module:
    with DefaultScope.overwrite_default_scope(scope):
        return MODELS.build(settings)


def without_memory(make: Callable[[], nn.Module]) -> nn.Module:
    """On the meta device, unless a model reads values as it is made."""
    try:
        with torch.device('meta'):
            return make()
    except RuntimeError:
        return make()


def line(library: str, name: str, host: Host) -> str:
    windowed = 'window' in host.grid_is
    rows, columns = host.nominal_grid
    if host.region_end(0) < len(host.blocks):
        restored = "each stage's end"
    elif host.norm is not None:
        restored = 'the final norm, and where an output is asked for'
    else:
        restored = 'the last block, and where an output is asked for'
    positions = 'relative' if host.relative_positions else 'rotary' if host.rotary_positions else 'absolute'
    methods = 'those on a grid' if host.relative_positions else 'all'
    lies = f'{rows} x {columns} in a window' if windowed else f'{rows} x {columns}'
    cells = library, name, host.family, len(host.blocks), host.num_prefix_tokens, lies, positions, methods, restored
    return f'| {" | ".join(map(str, cells))} |'


def make_page() -> str:
    lines, seen = [], set()
    for library, name, make in models():
        host = only_host(without_memory(make))
        seen.add(type(host))
        lines.append(line(library, name, host))
    missing = [family.family for family in FAMILIES if family not in seen]
    if missing:
        raise LookupError(f'no model stands for {missing}')
    names = (
        'library',
        'model',
        'host',
        'blocks',
        'prefix tokens',
        'tokens',
        'positions',
        'methods',
        'all tokens again at',
    )
    return '\n'.join(
        [
            '# Hosts',
            '',
            '<!-- Made by docs/make_hosts.py: change that. -->',
            '',
            'Some models that are known, asked by `fewtokens.supported`. A host takes all models of its class,',
            'whatever their size, alone and inside others. Methods on a grid are `SharedUpdate`, `Hourglass` and',
            '`AvgPool`.',
            '',
            f'| {" | ".join(names)} |',
            f'|{" --- |" * len(names)}',
            *lines,
            '',
        ]
    )


if __name__ == '__main__':
    PAGE.write_text(make_page(), encoding='utf-8')
