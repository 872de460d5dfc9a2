"""What a machine is asked about, it answers; whatever PyTorch lacks."""

import pytest
import torch

from restormer_cli import hardware
from restormer_cli.errors import UserError

CPU = torch.device("cpu")
ASKED = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")


@pytest.mark.parametrize("able", ASKED)
def test_either_kind_of_bf16_product_will_do(monkeypatch: pytest.MonkeyPatch, able: str) -> None:
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")
    for name in ASKED:
        monkeypatch.setattr(torch.cpu, name, lambda name=name: name == able, raising=False)
    assert hardware.multiplies_bf16(CPU)
    monkeypatch.setattr(torch.cpu, able, lambda: False)
    assert not hardware.multiplies_bf16(CPU)


def test_a_pytorch_that_cannot_say_means_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware.platform, "machine", lambda: "x86_64")
    for name in ASKED:
        monkeypatch.delattr(torch.cpu, name, raising=False)
    assert not hardware.multiplies_bf16(CPU)
    monkeypatch.setattr(hardware.platform, "machine", lambda: "arm64")
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not hardware.multiplies_bf16(CPU)


def test_memory_without_a_unit_is_told_the_unit():
    with pytest.raises(UserError, match=r"--memory 6: .*--memory 6GB"):
        hardware.parse_memory("6")
