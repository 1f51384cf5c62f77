"""Hugging Face's plain ViTs: ViT, DeiT, DINOv2 with and without registers, SigLIP, CLIP, DPT, EoMT and others."""

import inspect
import sys
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, Optional

import torch
from torch import nn

from ..ops.grid import pair
from .attention import AttentionContext
from .base import Host, class_names, register_host
from .layout import Grid
from .spread import Sublayers, sublayers


@dataclass(frozen=True)
class Parts:
    """Where the parts of a model stand."""

    entry: str
    """The convolution that makes tokens: its output says how many."""
    blocks: str
    norm: str | None
    """None where not all tokens go through one."""
    num_prefix_tokens: int
    """Besides registers, whose number the configuration says."""
    norms: tuple[str, str]
    """In a block, before attention and before the MLP."""
    mlp: tuple[str, str]
    """In a block, the MLP's first layer and its activation."""
    mask: str | None = 'attention_mask'
    """The argument of a block that is added to the logits of attention; None where blocks take none."""
    queries: bool = False
    """Whether queries join the tokens, which must be whole then, before the configuration's last `num_blocks`."""


VIT = Parts(
    'embeddings.patch_embeddings.projection', 'layers', 'layernorm', 1,
    ('layernorm_before', 'layernorm_after'), ('mlp.fc1', 'mlp.activation_fn'),
)  # fmt: skip
DINOV2 = Parts(
    'embeddings.patch_embeddings.projection', 'encoder.layer', 'layernorm', 1,
    ('norm1', 'norm2'), ('mlp.fc1', 'mlp.activation_fn'),
)  # fmt: skip
CLIP = Parts(
    # Of the tokens, the class token alone is normed at the end.
    'embeddings.patch_embedding', 'encoder.layers', None, 1,
    ('layer_norm1', 'layer_norm2'), ('mlp.fc1', 'mlp.activation_fn'),
)  # fmt: skip
SIGLIP = Parts(
    'embeddings.patch_embedding', 'encoder.layers', 'post_layernorm', 0,
    ('layer_norm1', 'layer_norm2'), ('mlp.fc1', 'mlp.activation_fn'),
)  # fmt: skip
DPT = Parts(
    'embeddings.patch_embeddings.projection', 'encoder.layer', 'layernorm', 1,
    ('layernorm_before', 'layernorm_after'), ('intermediate.dense', 'intermediate.intermediate_act_fn'),
    # Its attention passes no mask on, but what it isn't asked for by name.
    mask='position_bias',
)  # fmt: skip
MODELS = {
    'vit.modeling_vit.ViTModel': VIT,
    'deit.modeling_deit.DeiTModel': replace(VIT, num_prefix_tokens=2),
    'ijepa.modeling_ijepa.IJepaModel': replace(VIT, num_prefix_tokens=0),
    'vit_msn.modeling_vit_msn.ViTMSNModel': VIT,
    'dinov2.modeling_dinov2.Dinov2Model': DINOV2,
    'dinov2.modeling_dinov2.Dinov2Backbone': DINOV2,
    'dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersModel': DINOV2,
    'dinov2_with_registers.modeling_dinov2_with_registers.Dinov2WithRegistersBackbone': DINOV2,
    'clip.modeling_clip.CLIPVisionModel': CLIP,
    'siglip.modeling_siglip.SiglipVisionModel': SIGLIP,
    'dpt.modeling_dpt.DPTModel': DPT,
    'eomt.modeling_eomt.EomtForUniversalSegmentation': replace(DINOV2, blocks='layers', norm=None, queries=True),
}
RECORDS = 'transformers.utils.output_capturing'
"""Where the hooks come from that record what `output_hidden_states` asks for."""

ATTENTIONS = 'output_attentions=True asks for attention between all tokens, and there are fewer: leave it out'
MASKED = 'attention_mask is for all tokens, and there are fewer: leave it out'


@register_host
@dataclass(frozen=True)
class TransformersViT(Host):
    family = 'transformers ViT'
    argument = 'hidden_states'
    ways = ('forward',)

    parts: Parts = VIT

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TransformersViT']:
        return find_model(cls, MODELS, path, module)

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return pair(map(int, output.shape[-2:]))

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        self._refuse_weights(kwargs)
        if torch.compiler.is_exporting() and (len(args) > 1 or kwargs.get('attention_mask') is not None):
            raise ValueError(f'{MASKED}; while exporting, give all but images by name')
        # Hidden states are what comes into the first block, and what comes out of each.
        return [state - 1 for state in self._seen_states(kwargs) if state]

    def _seen_states(self, kwargs: dict[str, Any]) -> set[int]:
        depth = getattr(self.backbone.config, 'num_hidden_layers', len(self.blocks))
        # A feature extractor's stages are hidden states.
        states = {index % (depth + 1) for index in getattr(self.backbone, 'out_indices', ())}
        asked = kwargs.get('output_hidden_states', self.backbone.config.output_hidden_states)
        if not asked:
            return states
        from transformers.utils.output_capturing import selected_hidden_states

        selected = selected_hidden_states(asked)
        every = range(depth + 1)
        return states | set(every if selected is None else (i % (depth + 1) for i in selected))

    def records(self, hook: Callable) -> bool:
        return getattr(hook, '__module__', None) == RECORDS

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        named = dict(zip(('attention_mask', 'position_embeddings'), args)) | kwargs
        self._refuse_weights(named)
        # torch.export's own mask hides nothing; a caller's was refused as the pass began.
        if named.pop('attention_mask', None) is not None and not torch.compiler.is_exporting():
            raise ValueError(MASKED)
        if self.parts.mask == 'attention_mask':
            named['attention_mask'] = None
        mask = context.key_mask(value)
        if mask is not None:
            self._check_attention()
            named[self.parts.mask] = mask
        return forward(value, **named)

    def _refuse_weights(self, kwargs: dict[str, Any]) -> None:
        if kwargs.get('output_attentions', self.backbone.config.output_attentions):
            raise ValueError(ATTENTIONS)

    def _check_attention(self) -> None:
        kind = self.backbone.config._attn_implementation
        takes = ('sdpa', 'eager') if self.parts.mask == 'attention_mask' else ('sdpa',)
        if kind not in takes:
            raise ValueError(
                f'attn_implementation={kind!r} of {type(self.backbone).__name__} takes no bias by which attention '
                f'counts the members of a token: {" or ".join(map(repr, takes))} does, or size_bias=False'
            )

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        linear, activation = (part_of(block, path) for path in self.parts.mlp)
        if part_of(block, 'mlp.gate_proj') is not None:
            linear = activation = None
        norm, mlp_norm = (part_of(block, path) for path in self.parts.norms)
        return sublayers(norm, mlp_norm, linear, activation)


def find_model(cls: type[TransformersViT], models: dict[str, Parts], path: str, module: nn.Module) -> Any:
    """A model of transformers as a host of that class, None if it is none of these.

    Raises:
        ValueError: it is one, as another version of transformers builds it.
    """
    names = class_names(module)
    parts = next((parts for name, parts in models.items() if f'transformers.models.{name}' in names), None)
    if parts is None:
        return None
    config, entry, blocks = module.config, entry_of(module, parts), part_of(module, parts.blocks)
    norm = None if parts.norm is None else part_of(module, parts.norm)
    if entry is None or blocks is None or (norm is None) != (parts.norm is None) or not _takes(blocks, parts.mask):
        raise built_differently(path, module)
    return cls(
        path=path,
        backbone=module,
        entry=entry,
        blocks=list(blocks)[: len(blocks) - config.num_blocks] if parts.queries else list(blocks),
        taps=None,
        nominal_grid=_nominal_grid(config),
        norm=norm,
        num_prefix_tokens=parts.num_prefix_tokens + getattr(config, 'num_register_tokens', 0),
        parts=parts,
    )


def built_differently(path: str, module: nn.Module) -> ValueError:
    version = getattr(sys.modules.get('transformers'), '__version__', 'this version')
    return ValueError(
        f'{path or type(module).__name__}: transformers {version} builds {type(module).__name__} differently from what '
        'fewtokens[huggingface] was tested with: transformers 5.24 fits'
    )


def entry_of(module: nn.Module, parts: Parts) -> nn.Module | None:
    # DPT's hybrid makes tokens of the features of another backbone.
    return part_of(module, parts.entry) or part_of(module, 'embeddings.projection')


def part_of(module: nn.Module, path: str) -> nn.Module | None:
    for name in path.split('.'):
        module = getattr(module, name, None)
    return module if isinstance(module, nn.Module) else None


def _takes(blocks: nn.Module, argument: str | None) -> bool:
    """Whether blocks have the argument, or pass on what they have no name for, as DPT's must."""
    if argument is None:
        return True
    parameters = inspect.signature(type(blocks[0]).forward).parameters
    return argument in parameters or (argument == DPT.mask and 'kwargs' in parameters)


def _nominal_grid(config: Any) -> Grid:
    if hasattr(config, 'num_patches'):
        return _pair(int(config.num_patches**0.5))
    patch = config.patch_size if hasattr(config, 'patch_size') else config.patch_stride
    return pair(side // stride for side, stride in zip(_pair(config.image_size), _pair(patch)))


def _pair(value: Any) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)
