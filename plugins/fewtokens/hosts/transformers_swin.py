"""Hugging Face's Swin v1 and v2, alone and in Mask2Former, MaskFormer, OneFormer, UperNet, Donut and others."""

import inspect
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Optional

from torch import Tensor, nn

from ..ops.grid import pair
from .attention import AttentionContext, Context
from .base import Handle, class_names, register_host
from .layout import Grid, Layout, Windows
from .replaced import ReplacedCall
from .shifted_windows import (
    SwinHost,
    WindowWeights,
    attend,
    attend_in_windows,
    continuous_table,
    describe_stages,
    half_windows,
    scaled_cosines,
    shift,
)
from .spread import Sublayers, sublayers
from .transformers_vit import ATTENTIONS, built_differently, part_of

V1, V2 = 'transformers.models.swin.modeling_swin.Swin', 'transformers.models.swinv2.modeling_swinv2.Swinv2'
DONUT = 'transformers.models.donut.modeling_donut_swin.DonutSwin'
MASKFORMER = 'transformers.models.maskformer.modeling_maskformer_swin.MaskFormerSwin'
# The backbone of v1 has its model in it, which is found.
MODELS = {f'{V1}Model', f'{V2}Model', f'{V2}Backbone', f'{DONUT}Model', f'{MASKFORMER}Model', f'{MASKFORMER}Backbone'}
BLOCKS = {f'{name}Layer' for name in (V1, V2, DONUT, MASKFORMER)}


@register_host
@dataclass(frozen=True)
class TransformersSwin(SwinHost):
    family: ClassVar[str] = 'transformers Swin and Swin v2'
    argument: ClassVar[str] = 'hidden_states'
    ways: ClassVar[tuple[str, ...]] = ('forward',)

    arguments: tuple[str, ...] = ()
    """Names of the blocks' arguments after the first."""
    options: tuple[str, ...] = ()
    """Names of the backbone's arguments."""

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['TransformersSwin']:
        names = class_names(module)
        if not MODELS & names or (parent is not None and f'{MASKFORMER}Backbone' in class_names(parent)):
            return None
        inner = module.model if f'{MASKFORMER}Backbone' in names else module
        entry, stages = part_of(inner, 'embeddings.patch_embeddings'), part_of(inner, 'encoder.layers')
        if entry is None or stages is None or not all(_is_known(block) for stage in stages for block in stage.blocks):
            raise built_differently(path, module)
        described = describe_stages([list(stage.blocks) for stage in stages])
        if any(name.startswith(MASKFORMER) for name in names):
            # It may be asked for what comes out of each block.
            described['taps'] = None
        window = max(block.window_size for block in described['blocks'])
        return cls(
            path=path,
            backbone=module,
            entry=entry,
            nominal_grid=(window, window),
            arguments=_names(described['blocks'][0])[1:],
            options=_names(module),
            **described,
        )

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        if not BLOCKS & class_names(module) or not _is_known(module):
            return []
        if getattr(getattr(module.attention, 'config', None), '_attn_implementation', None) == 'sdpa':
            return []
        return [
            ReplacedCall(module, _own_windows, innermost=True, name='get_attn_mask'),
            ReplacedCall(module.attention, fused_attention, innermost=True),
        ]

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        return pair(map(int, output[1]))

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        named, config = dict(zip(self.options, args)) | kwargs, self.backbone.config
        weights, states = (named.get(name) for name in ('output_attentions', 'output_hidden_states'))
        self._refuse_weights(config.output_attentions if weights is None else weights)
        every = config.output_hidden_states if states is None else states
        return range(len(self.blocks)) if every else [end - 1 for end in self.ends]

    def layout(self, index: int, args: tuple, kwargs: dict[str, Any], grid: Grid) -> Layout:
        named = self._named(index, args, kwargs)
        return Windows(pair(map(int, named['input_dimensions'])), (self.blocks[index].window_size,) * 2)

    def tokens(self, value: Any) -> Tensor:
        return value if isinstance(value, Tensor) else value[0]

    def with_tokens(self, value: Any, tokens: Tensor, layout: Layout) -> Any:
        return tokens if isinstance(value, Tensor) else (tokens, *value[1:])

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        named, kind = self._named(index, args, kwargs), self.backbone.config._attn_implementation
        self._refuse_weights(named.get('output_attentions'))
        if kind not in ('sdpa', 'eager'):
            raise ValueError(f"attn_implementation={kind!r} knows no windows of fewer tokens: 'sdpa' or 'eager' fits")
        named['input_dimensions'] = given_size(context.layout.extent, self.blocks[index].window_size)
        return forward(value, **named)

    def _named(self, index: int, args: tuple, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A block's arguments after the first."""
        named = dict(zip(self.arguments, args)) | kwargs
        if 'always_partition' in self.arguments:
            if not named.get('always_partition'):
                # What the block does for images as small as a window: by the size of the image, not of fewer tokens.
                self.blocks[index].set_shift_and_window_size(named['input_dimensions'])
            named['always_partition'] = True
        return named

    def _refuse_weights(self, asked: Any) -> None:
        if asked:
            raise ValueError(ATTENTIONS)

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        if _is_cosine(block):
            return None
        mlp = ('mlp.fc1', 'mlp.activation_fn')
        if part_of(block, 'mlp') is None:
            mlp = ('intermediate.dense', 'intermediate.intermediate_act_fn')
        return sublayers(block.layernorm_before, block.layernorm_after, *(part_of(block, path) for path in mlp))

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        handles: list[Handle] = [
            ReplacedCall(block, ReducedMask(context), name='get_attn_mask'),
            ReplacedCall(block.attention, ReducedAttention(context)),
        ]
        if hasattr(block, 'cyclic_shift'):
            handles.append(ReplacedCall(block, NoShift(context), name='cyclic_shift'))
        return handles


def _names(module: nn.Module) -> tuple[str, ...]:
    """Of the arguments of a module's own forward."""
    return tuple(inspect.signature(type(module).forward).parameters)[1:]


def _is_known(block: nn.Module) -> bool:
    """Whether a block has the parts that are used here."""
    attention = part_of(block, 'attention')
    parts = ('q_proj', 'relative_position_bias') if _has(attention, 'q_proj') else ('self.query', 'output.dense')
    return hasattr(block, 'get_attn_mask') and all(part_of(attention, path) is not None for path in parts)


def _has(module: nn.Module | None, name: str) -> bool:
    return module is not None and part_of(module, name) is not None


def _is_cosine(block: nn.Module) -> bool:
    return hasattr(getattr(block.attention, 'self', None), 'logit_scale')


# A block gives its attention windows and a mask of them. In the mask's place comes how the windows were cut.


@dataclass(frozen=True)
class OwnWindows:
    """How a block cut an image into windows."""

    layout: Windows
    """Of the image, made whole windows."""
    shifts: Grid
    """By how many rows and columns the block shifts."""
    shifted: bool = True
    """Whether the image was shifted before."""


def _own_windows(block: nn.Module, previous: Callable, *size: Any, **kwargs: Any) -> OwnWindows:
    # Height and width come apart or as one.
    size = size[0] if isinstance(size[0], tuple) else size[:2]
    return OwnWindows(Windows(tuple(size), (block.window_size,) * 2), (block.shift_size,) * 2)


def given_size(extent: Grid, window: int) -> Grid:
    """(H, W) that a block is told fewer tokens have: of one column of its windows, which costs no copy to cut, or own.

    Nothing but the cutting depends on it.
    """
    count = extent[0] * extent[1]
    return extent if count % window else (count // window, window)


@dataclass
class ReducedMask:
    """Stands in for a block's making of a mask."""

    context: Context

    def __call__(self, block: nn.Module, previous: Callable, *args: Any, **kwargs: Any) -> Any:
        if self.context() is None:
            return previous(*args, **kwargs)
        return replace(_own_windows(block, previous, *args), shifted=not hasattr(block, 'cyclic_shift'))


@dataclass
class NoShift:
    """Stands in for the shift of a block that has a method for it: of fewer tokens, their own attention shifts."""

    context: Context

    def __call__(self, block: nn.Module, previous: Callable, image: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        return previous(image, *args, **kwargs) if self.context() is None else image


@dataclass
class ReducedAttention:
    """Attention of a block that has cut reduced tokens into windows of the host's size: within their own instead."""

    context: Context

    def __call__(self, module: nn.Module, previous: Callable, windows: Tensor, mask: Any = None, **kwargs: Any) -> Any:
        context = self.context()
        if context is None:
            return previous(windows, mask, **kwargs)
        layout, back = context.windows, mask.shifts if mask.shifted else (0, 0)
        own = replace(mask.layout, extent=given_size(layout.extent, mask.layout.grid[0]))
        tokens = own.crop(shift(own.uncut(windows.unflatten(0, (-1, *own.counts))), back, back=True))
        shifts, keys = half_windows(layout, mask.shifts), context.key_bias(tokens)
        out = attend(weights_of(module, tokens), tokens, layout, shifts, keys)
        return own.cut(shift(own.pad(out), back)).flatten(0, 2), None


def fused_attention(module: nn.Module, previous: Callable, windows: Tensor, own: OwnWindows, **kwargs: Any) -> Any:
    """The host's attention as it is, by PyTorch's fused kernel."""
    if kwargs.get('output_attentions'):
        raise ValueError('output_attentions=True asks for what fused attention never makes: remove() what use_sdpa put')
    cut = windows.unflatten(0, (-1, *own.layout.counts))
    return attend_in_windows(weights_of(module, cut), cut, own.layout, own.shifts).flatten(0, 2), None


def weights_of(attention: nn.Module, like: Tensor) -> WindowWeights:
    """Of a block's `attention`, whose parts have other names in each model.

    Args:
        like: a tensor where the weights must be.
    """
    if part_of(attention, 'q_proj') is not None:
        return _weights_of_v1(attention, like)
    own = attention.self
    cosine = hasattr(own, 'logit_scale')
    _refuse_offloaded(own.logit_scale if cosine else own.relative_position_bias_table, like)

    def project(x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        parts = (each(x).unflatten(-1, (own.num_attention_heads, -1)) for each in (own.query, own.key, own.value))
        query, key, value = parts
        return scaled_cosines(query, key, value, own.logit_scale) if cosine else (query, key, value)

    if cosine:
        table = continuous_table(own.continuous_position_bias_mlp, own.relative_coords_table)
    else:
        table = own.relative_position_bias_table
    return WindowWeights(
        project=project,
        out=lambda x: attention.output(x, x),
        table=table,
        window=tuple(own.window_size),
        scale=1.0 if cosine else own.attention_head_size**-0.5,
        dropout=own.dropout.p if own.training else 0.0,
        # v2 adds its mask twice.
        masked=-200 if cosine else -100,
    )


def _weights_of_v1(attention: nn.Module, like: Tensor) -> WindowWeights:
    positions = attention.relative_position_bias
    _refuse_offloaded(positions.relative_position_bias_table, like)

    def project(x: Tensor) -> tuple[Tensor, ...]:
        parts = (attention.q_proj, attention.k_proj, attention.v_proj)
        return tuple(each(x).unflatten(-1, (attention.num_attention_heads, -1)) for each in parts)

    return WindowWeights(
        project=project,
        out=attention.o_proj,
        table=positions.relative_position_bias_table,
        window=tuple(positions.window_size),
        scale=attention.scaling,
        dropout=attention.attention_dropout if attention.training else 0.0,
    )


def _refuse_offloaded(parameter: Tensor, like: Tensor) -> None:
    if parameter.is_meta and not like.is_meta:
        raise ValueError(
            "a block's relative positions are offloaded, and there only while their own layer runs: a device_map that "
            'leaves Swin blocks on a device fits'
        )
