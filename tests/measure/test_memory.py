import pytest
import torch

from fewtokens.measure.memory import MIB, peak_mib


def test_peak_memory_of_known_tensors():
    def call():
        a = torch.zeros(MIB)  # 4 MiB
        b = a + 1
        del a
        return (b + 1).sum()

    assert peak_mib(call, torch.device('cpu')) == pytest.approx(8, abs=0.01)
