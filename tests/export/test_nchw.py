"""The network in planes is the network: against the textbook page, in float64, for every kind of it."""

import itertools

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from restormer_cli.export.nchw import AnySize, Planar
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.padding import pad_to_multiple_of_8
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.textbook import TextbookRestormer

PRIMES = {"dim": 6, "blocks": (2, 1, 1, 3), "heads": (3, 2, 4, 1), "refinement": 1, "expansion": 2.65}
KINDS = {
    "colour": {},
    "bias-free": {"norm": "bias-free"},
    "gray": {"norm": "bias-free", "in_channels": 1, "out_channels": 1},
    "dual-pixel": {"in_channels": 6, "dual_pixel": True},
    "with biases": {"bias": True},
    "mta, fn, no concatenation": {"attention": "mta", "feed_forward": "fn", "concat": False, "bias": True},
    "gfn": {"feed_forward": "gfn", "bias": True},
    "dfn": {"feed_forward": "dfn"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_planes_give_the_textbook_network(kind: str) -> None:
    torch.manual_seed(1)
    model = Restormer(ModelConfig(**{**PRIMES, **KINDS[kind]}))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)  # no symmetry, no zero bias, no equal temperatures
    textbook = TextbookRestormer(model.config).double()
    textbook.load_state_dict(model.state_dict())
    x = torch.rand(2, model.config.in_channels, 3 * 8, 5 * 8)
    with torch.inference_mode():
        expected = textbook(x.double())
        # With float64 weights the sums are still in float32, hence not 1e-12.
        torch.testing.assert_close(Planar(model)(x).double(), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("norm", ["with-bias", "bias-free"])
def test_sums_are_products(tiny_network, norm: str) -> None:
    """pnnx, which makes ncnn's networks of ONNX, would not sum at all (findings/pnnx-onnx-sums-nothing.sh)."""
    network, called = Planar(tiny_network(norm=norm)), set()

    class Seen(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            called.add(function.overloadpacket)
            return function(*args, **(kwargs or {}))

    with torch.inference_mode(), Seen():
        network(torch.rand(1, 3, 16, 24))
    aten = torch.ops.aten
    assert aten.matmul in called
    assert not called & {aten.sum, aten.mean, aten.var, aten.norm, aten.linalg_vector_norm, aten.amax}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_close_and_takes_and_gives_float32(tiny_network, dtype: torch.dtype) -> None:
    model = tiny_network()
    x = torch.rand(1, 3, 16, 24)
    with torch.inference_mode():
        result, exact = Planar(model, dtype)(x), model(x)
    assert result.dtype == torch.float32
    assert 0 < (result - exact).abs().max() < 0.01


def test_sums_over_a_large_picture_do_not_overflow_fp16(tiny_network) -> None:
    model = tiny_network()
    with torch.no_grad():
        model.encoder_level1[0].attn.qkv.weight.mul_(300)  # Σ q² over 1024 pixels is far beyond 65,504
        x = torch.rand(1, 3, 32, 32)
        assert torch.isfinite(Planar(model, torch.float16)(x)).all()
        torch.testing.assert_close(Planar(model, torch.float16)(x), model(x), rtol=0.02, atol=0.2)


class Witness(nn.Module):
    """Gives back what it gets, and keeps it."""

    def forward(self, x: Tensor) -> Tensor:
        self.seen = x
        return x


def test_the_graphs_own_padding_is_the_restorers_at_every_small_size() -> None:
    witness = Witness()
    padded = AnySize(witness)
    for h, w in itertools.product(range(1, 18), range(1, 18)):
        x = torch.rand(1, 2, h, w)
        assert torch.equal(padded(x), x)
        assert torch.equal(witness.seen, pad_to_multiple_of_8(x)), (h, w)


def test_the_model_is_not_changed(tiny_network) -> None:
    model = tiny_network(norm="bias-free")
    before = {key: value.clone() for key, value in model.state_dict().items()}
    Planar(model, torch.float16)
    for key, value in model.state_dict().items():
        assert value.dtype == torch.float32
        assert torch.equal(before[key], value)
