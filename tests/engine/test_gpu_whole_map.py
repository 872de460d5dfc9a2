"""Whole maps on a CUDA device: `pytest -m gpu`. Triton's kernels and graphs give PyTorch's answer on a CPU."""

import numpy as np
import pytest
import torch

from restormer_cli.engine.restorer import Restorer
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.engine.whole_map import Plain, WholeMap, predicted_bytes, tensor_float_32
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]

NETWORKS = [{}, {"norm": "bias-free"}, {"bias": True}, {"concat": False}, {"in_channels": 6, "dual_pixel": True}]


def network(**options) -> Restormer:
    torch.manual_seed(0)
    return Restormer(ModelConfig(**{"dim": 16, "blocks": (1, 1, 1, 1), "refinement": 1} | options)).eval()


def pictures(count: int, channels: int, height: int, width: int) -> torch.Tensor:
    return torch.rand(count, channels, height, width, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("options", NETWORKS)
@pytest.mark.parametrize("piece_bytes", [None, 100_000])
def test_whole_maps_equal_the_cpu_first_as_calls_and_then_as_a_graph(options, piece_bytes):
    model = network(**options)
    batch = pictures(2, model.config.in_channels, 200, 136)
    expected = torch.cat([StripNetwork(model).run(batch[:1]), StripNetwork(model).run(batch[1:])])
    ours = WholeMap(model.cuda(), piece_bytes=piece_bytes)
    for number in range(3):
        shifted = batch.roll(number, 0)
        result = ours.run(shifted.cuda()).cpu()
        assert (result - expected.roll(number, 0)).abs().max() < 1e-4
    assert ours.operations is not Plain
    assert not ours.notes
    assert ours.graphs is not None


@pytest.mark.parametrize("window", [40, 96])
def test_windows_are_those_of_a_cpu_first_as_calls_and_then_as_a_graph(window):
    model, picture = network(), pictures(1, 3, 200, 136)
    expected = StripNetwork(model, window=window).run(picture)
    ours = WholeMap(model.cuda(), window=window)
    for _ in range(3):
        assert (ours.run(picture.cuda()).cpu() - expected).abs().max() < 1e-4
    assert ours.operations is not Plain
    assert not ours.notes
    assert ours.graphs is not None


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("options", [{}, {"dim": 48, "norm": "bias-free"}])
def test_half_precisions_stay_close(dtype, options):
    model, batch = network(**options).cuda(), pictures(1, 3, 128, 200).cuda()
    exact, ours = WholeMap(model).run(batch), WholeMap(model, dtype)
    for _ in range(3):
        assert 0 < (ours.run(batch) - exact).square().mean().sqrt().item() < 0.01
    assert ours.operations is not Plain
    assert not ours.notes


def test_tf32_is_another_answer_and_fp32_is_not():
    model, batch = network().cuda(), pictures(1, 3, 128, 128).cuda()
    with tensor_float_32(True):  # whatever the process has set
        exact, rounded = WholeMap(model).run(batch), WholeMap(model, tf32=True).run(batch)
    expected = StripNetwork(model.cpu()).run(batch.cpu())
    assert (exact.cpu() - expected).abs().max() < 2e-5
    assert (rounded.cpu() - expected).abs().max() < 2e-2


def test_the_same_picture_gives_the_same_bits():
    model, batch = network().cuda(), pictures(1, 3, 256, 256).cuda()
    ours = WholeMap(model, torch.bfloat16)
    ours.run(batch)
    assert torch.equal(ours.run(batch), ours.run(batch))


@pytest.mark.parametrize("side", [512, 1024])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_memory_is_as_predicted(side, dtype):
    model = Restormer(ModelConfig(blocks=(1, 1, 1, 1), refinement=1)).eval().cuda()
    ours, batch = WholeMap(model, dtype), torch.rand(1, 3, side, side, device="cuda")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    ours.run(batch)
    torch.cuda.synchronize()
    ratio = predicted_bytes(model.config, side, side, dtype.itemsize) / (torch.cuda.max_memory_allocated() - before)
    assert 0.85 < ratio < 1.6


def test_restorer_runs_whole_maps_of_any_size():
    model, picture = network(), np.random.default_rng(0).random((131, 77, 3), np.float32)
    restorer = Restorer(model, device="cuda")
    assert restorer.plan(131, 77).whole_map
    for _ in range(3):
        assert np.abs(restorer(picture) - Restorer(model, device="cpu")(picture)).max() < 1e-4


def test_small_pictures_and_tiles_go_together_and_come_out_as_alone():
    model, rng = network(), np.random.default_rng(0)
    batch = [rng.random((96, 128, 3), np.float32) for _ in range(9)]
    restorer = Restorer(model, device="cuda", precision="fp32")
    assert restorer.plan(96, 128).together == 8
    alone = [Restorer(model, device="cpu", precision="fp32")(one) for one in batch]
    for _ in range(3):  # by single calls, then as a graph
        for one, other in zip(restorer.several(batch), alone, strict=True):
            np.testing.assert_allclose(one, other, atol=1e-4)
    large = rng.random((200, 264, 3), np.float32)
    one, other = (Restorer(model, device=name, precision="fp32", tile=64, overlap=8)(large) for name in ("cuda", "cpu"))
    np.testing.assert_allclose(one, other, atol=1e-4)
