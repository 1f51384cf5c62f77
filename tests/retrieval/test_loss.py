import os
import socket

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from fewtokens.openmmlab.distributed import leave
from fewtokens.retrieval.loss import contrastive_loss


class Towers(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.video, self.text = nn.Linear(8, 5), nn.Linear(6, 5)
        self.scale = nn.Parameter(torch.tensor(2.0))

    def forward(self, videos, texts):
        videos, texts = F.normalize(self.video(videos), dim=1), F.normalize(self.text(texts), dim=1)
        return contrastive_loss(videos, texts, self.scale.exp())


def data():
    generator = torch.Generator().manual_seed(3)
    return torch.randn(6, 8, generator=generator), torch.randn(6, 6, generator=generator)


def work(rank: int, port: int, folder: str) -> None:
    os.environ |= dict(MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.distributed.init_process_group('gloo', rank=rank, world_size=2)
    model = nn.parallel.DistributedDataParallel(Towers())
    loss = model(*(part[rank * 3 : rank * 3 + 3] for part in data()))
    loss.backward()
    torch.save((loss.detach(), [p.grad for p in model.parameters()]), f'{folder}/{rank}.pt')
    del model, loss
    leave()


def test_two_processes_have_one_processes_gradient(tmp_path):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(tmp_path)), nprocs=2)
    model = Towers()
    expected = model(*data())
    expected.backward()
    losses, gradients = zip(*(torch.load(tmp_path / f'{rank}.pt') for rank in (0, 1)))
    torch.testing.assert_close(torch.stack(losses).mean(), expected.detach())
    for gradient in gradients:
        torch.testing.assert_close(gradient, [p.grad for p in model.parameters()])


def test_literal_formula():
    videos, texts = (F.normalize(torch.randn(4, 3), dim=1) for _ in range(2))
    logits = 7 * videos @ texts.T
    labels = torch.arange(4)
    expected = (F.cross_entropy(logits, labels) + F.cross_entropy(logits.T, labels)) / 2
    torch.testing.assert_close(contrastive_loss(videos, texts, torch.tensor(7.0)), expected)


def test_autocast_takes_no_digits():
    videos, texts = (F.normalize(torch.randn(16, 8), dim=1) for _ in range(2))
    scale = torch.tensor(100.0)
    with torch.autocast('cpu', torch.bfloat16):
        found = contrastive_loss(videos, texts, scale)
        rough = F.cross_entropy(scale * videos @ texts.T, torch.arange(16))
    assert found.dtype == torch.float32 and torch.equal(found, contrastive_loss(videos, texts, scale))
    assert abs(rough - F.cross_entropy(scale * videos @ texts.T, torch.arange(16))) > 1e-3


def test_pairs_are_needed():
    with pytest.raises(ValueError, match=r'one text: got \(4, 3\) and \(3, 3\)'):
        contrastive_loss(torch.zeros(4, 3), torch.zeros(3, 3), torch.tensor(1.0))
