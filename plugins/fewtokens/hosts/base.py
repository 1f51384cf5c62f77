"""What the rest of the package knows about a backbone."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Optional, Protocol, TypeVar

from torch import Tensor, nn

from .attention import AttentionContext, Context
from .layout import Grid, Layout, WholeGrid
from .middle import Middle
from .spread import Sublayers
from .versions import refuse_old


class Handle(Protocol):
    """Something that was put on a module."""

    def remove(self) -> None: ...


@dataclass(frozen=True)
class Head:
    """A head that works token by token: where tokens enter it, and where its class map leaves it."""

    name: str
    module: nn.Module
    """Called with the backbone's outputs."""
    entry: nn.Module
    """Called in it with tokens [B, N, C] first."""
    exit: nn.Module
    """Returns the class map, [B, N, classes]."""


@dataclass(frozen=True)
class Host:
    """A backbone with a chain of blocks over tokens that stand on a grid.

    A family of backbones is a frozen subclass with `find`, registered by `register_host`. What it doesn't override fits
    blocks that take tokens [B, N, C], prefix tokens first, and nothing that depends on how many there are.
    """

    family: ClassVar[str]
    defaults: ClassVar[dict[str, Any]] = dict(iters=5, k=20)
    """The published settings for this family."""
    relative_positions: ClassVar[bool] = False
    """Whether attention depends on where tokens stand on the grid, which reduced ones must stand on too."""
    argument: ClassVar[str] = 'x'
    """The name of the blocks' first argument."""
    ways: ClassVar[tuple[str, ...]] = ()
    """Methods of the backbone that know which blocks' outputs their caller sees: see `seen`."""

    path: str
    """Of the backbone in the model, '' for the model itself."""
    backbone: nn.Module
    entry: nn.Module
    """Runs first on every way into the backbone, on images [B, 3, H, W]: a forward pass begins with it."""
    blocks: Sequence[nn.Module]
    taps: tuple[int, ...] | None
    """Indices of the blocks whose output the backbone's caller sees; None where it is known at the call alone."""
    nominal_grid: Grid
    """The grid of the input size that the model was built for; of a window for windowed backbones."""
    norm: nn.Module | None = None
    """Final norm, after the last block."""
    num_prefix_tokens: int = 0
    """Class and register tokens at the front."""
    head: Head | None = None
    image_size: tuple[int, int] | None = None
    """The only height and width of images that it takes; None if it takes others."""

    @property
    def rotary_positions(self) -> bool:
        """Whether attention depends on positions that any reduced token has: the mean of its members'."""
        return False

    @property
    def grid_is(self) -> str:
        """What `nominal_grid` is the size of."""
        return 'tokens at its nominal input size'

    @classmethod
    def find(cls, path: str, module: nn.Module, parent: nn.Module | None) -> Optional['Host']:
        """This family's description of a module, None if it is no backbone of it. Classes are known by name."""
        raise NotImplementedError

    @staticmethod
    def fuse(module: nn.Module) -> list[Handle]:
        """Gives a module of this family PyTorch's fused attention where it misses it; the output stays the same."""
        return []

    def grid(self, args: tuple, kwargs: dict[str, Any], output: Any) -> Grid:
        """(H, W) of the tokens of an image, from a call of `entry`.

        Raises:
            ValueError: the host takes no input of that size.
        """
        raise NotImplementedError

    def seen(self, way: str, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
        """Indices of the blocks whose output the caller of this method in `ways` sees."""
        raise NotImplementedError

    def records(self, hook: Callable) -> bool:
        """Whether a hook on a block is the library's own, by which it records no outputs but those of `seen`."""
        return False

    def region_end(self, index: int) -> int:
        """The number of blocks until tokens reduced before that block must be whole again."""
        return len(self.blocks)

    def layout(self, index: int, args: tuple, kwargs: dict[str, Any], grid: Grid) -> Layout:
        """How the tokens lie in a block's call, while they are whole; `args` without the tokens."""
        return WholeGrid(self.num_prefix_tokens, grid)

    def tokens(self, value: Any) -> Tensor:
        """[B, N, C] of a block's first argument or output."""
        return value

    def with_tokens(self, value: Any, tokens: Tensor, layout: Layout) -> Any:
        """A block's first argument or output with these tokens in the place of its own."""
        return tokens

    def call(
        self, index: int, forward: Callable, value: Any, args: tuple, kwargs: dict, context: AttentionContext
    ) -> Any:
        """Calls a block with reduced tokens, and with what else must be another for them: a mask, positions, a size."""
        return forward(value, *args, **kwargs)

    def sublayers(self, block: nn.Module) -> Sublayers | None:
        """The parts of a pre-norm block that aren't linear; None where they aren't known."""
        return None

    def middle(self, block: nn.Module) -> Middle | None:
        """The parts around the place between a pre-norm block's attention and its MLP; None where they aren't known."""
        return None

    def place_attention(self, block: nn.Module, context: Context) -> list[Handle]:
        """Makes a block's attention fit reduced tokens whenever `context` returns something.

        For hosts whose blocks take no mask or positions from their caller; the others override `call`.
        """
        return []


Family = TypeVar('Family', bound=type[Host])
FAMILIES: list[type[Host]] = []


def register_host(cls: Family) -> Family:
    """Class decorator: makes a family of backbones known to `attach`, `supported` and `use_sdpa`.

    Raises:
        ValueError: it is no `Host`, has no name of its own, or its name is taken.
    """
    if not (isinstance(cls, type) and issubclass(cls, Host)) or 'family' not in vars(cls):
        raise ValueError(f'{cls!r} must be a subclass of fewtokens.Host with a family of its own')
    if any(known.family == cls.family for known in FAMILIES):
        raise ValueError(f'there is a host family {cls.family!r} already')
    FAMILIES.append(cls)
    return cls


def find_hosts(model: nn.Module) -> list[Host]:
    """Every known backbone in the model, in the order of its modules."""
    modules = dict(model.named_modules())
    parents = {path: modules.get(path.rpartition('.')[0]) if path else None for path in modules}
    found = (find_host(path, module, parents[path]) for path, module in modules.items())
    return [host for host in found if host is not None]


def find_host(path: str, module: nn.Module, parent: nn.Module | None) -> Host | None:
    """What a module at that path of a model is described as; None if it is no known backbone.

    Raises:
        ValueError: it is one, of a version of its library that is too old.
    """
    found = (cls.find(path, module, parent) for cls in FAMILIES)
    try:
        host = next((host for host in found if host is not None), None)
    except AttributeError:
        refuse_old(module)
        raise
    if host is not None:
        refuse_old(host.backbone)
    return host


def asked_blocks(take: Callable, depth: int, args: tuple, kwargs: dict[str, Any]) -> Collection[int]:
    """Indices of the blocks that `forward_intermediates` is asked for, by its library's own `feature_take_indices`."""
    return take(depth, args[1] if len(args) > 1 else kwargs.get('indices'))[0]


def class_names(module: nn.Module) -> set[str]:
    """Qualified names of a module's class and its bases: classes are known by name, so that no host is imported."""
    return {f'{c.__module__}.{c.__qualname__}' for c in type(module).__mro__}
