import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode

from fewtokens.hosts.relative_positions import relative_index
from fewtokens.hosts.shifted_windows import _shift_mask
from fewtokens.ops.relative_positions import relative_offsets
from fewtokens.ops.tables import kept
from fewtokens.ops.tiles import _tile_tables

CPU = torch.device('cpu')
MAKERS = {
    'tiles': (_tile_tables, lambda n: ((2 * n, 2 * n + 1), (n, n), 5)),
    'relative positions': (relative_offsets, lambda n: ((n, n + 1),)),
    'relative positions with a class token': (relative_index, lambda n: ((n, n + 1),)),
    'masks of shifted windows': (_shift_mask, lambda n: ((n, n), (n // 2, n // 2), True, False, -100)),
}


def under_a_fake_mode(table, args):
    with FakeTensorMode():
        made = table(*args, device=CPU)
        assert all(isinstance(t, FakeTensor) for t in (made if isinstance(made, tuple) else (made,)))


def under_a_fake_mode_for_a_gpu(table, args):
    with FakeTensorMode():
        made = table(*args, device=torch.device('cuda', 0))
        assert all(t.device.type == 'cuda' for t in (made if isinstance(made, tuple) else (made,)))


def in_inference_mode(table, args):
    with torch.inference_mode():
        table(*args, device=CPU)


def in_functionalize(table, args):
    torch.func.functionalize(lambda x: (table(*args, device=CPU), x)[1])(torch.zeros(1))


def in_vmap(table, args):
    torch.vmap(lambda x: (table(*args, device=CPU), x)[1])(torch.zeros(2))


def with_another_default_device(table, args):
    with torch.device('meta'):
        table(*args, device=CPU)


def in_export(table, args):
    class Module(torch.nn.Module):
        def forward(self, x):
            made = table(*args, device=x.device)
            return x + (made[0] if isinstance(made, tuple) else made).sum()

    torch.export.export(Module(), (torch.zeros(1),))


FIRST = [
    under_a_fake_mode, under_a_fake_mode_for_a_gpu, in_inference_mode, in_functionalize, in_vmap,
    with_another_default_device, in_export,
]  # fmt: skip


@pytest.mark.parametrize('number, first', list(enumerate(FIRST)), ids=[first.__name__ for first in FIRST])
@pytest.mark.parametrize('name', MAKERS)
def test_whoever_asks_first_leaves_real_tables(name, number, first):
    table, args_of = MAKERS[name]
    args = args_of(11 + number)  # of a size that nobody asked for before
    first(table, args)
    made = table(*args, device=CPU)
    expected = table.__wrapped__(*args)
    for given, wanted in zip(*((t if isinstance(t, tuple) else (t,)) for t in (made, expected)), strict=True):
        assert type(given) is torch.Tensor and given.device == CPU and not given.is_inference()
        assert torch.equal(given, wanted)


def test_tables_are_made_once_for_a_device():
    made = []

    @kept
    def table(n):
        made.append(n)
        return torch.arange(n)

    assert table(3, device=CPU) is table(3, device=CPU) and made == [3]
    assert table(3, device=torch.device('meta')).is_meta and table(4, device=CPU).shape == (4,)
