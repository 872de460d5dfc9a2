"""For a machine with a CUDA device: `pytest -m gpu`. The same answers as on a CPU, and memory that is kept."""

import numpy as np
import pytest
import torch

from restormer_cli.engine.restorer import Restorer
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.fixture(autouse=True)
def _no_tf32():
    """Convolutions would round their inputs to 10 bits."""
    with torch.backends.cudnn.flags(allow_tf32=False):
        yield


def network(**options) -> Restormer:
    torch.manual_seed(0)
    return Restormer(ModelConfig(dim=16, blocks=(2, 1, 1, 2), refinement=1, **options)).eval()


def picture(height: int, width: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(0).random((height, width, channels), np.float32)


@pytest.mark.parametrize(
    "options",
    [{}, {"norm": "bias-free"}, {"in_channels": 6, "dual_pixel": True}, {"attention": "mta", "feed_forward": "dfn"}],
)
@pytest.mark.parametrize("window", [None, 64])
def test_a_gpu_gives_the_answer_of_a_cpu(options, window):
    model, pixels = network(**options), picture(200, 136, options.get("in_channels", 3))
    expected = Restorer(model, device="cpu", window=window)(pixels)
    assert np.abs(Restorer(model, device="cuda", window=window)(pixels) - expected).max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precisions_stay_close(dtype):
    model = network().cuda()
    planes = torch.from_numpy(picture(128, 192)).permute(2, 0, 1)[None].cuda()
    exact, rounded = StripNetwork(model).run(planes), StripNetwork(model, dtype).run(planes)
    assert 0 < (rounded - exact).square().mean().sqrt().item() < 0.01


def test_strip_and_band_sizes_change_nothing():
    model = network().cuda()
    planes = torch.from_numpy(picture(64, 200)).permute(2, 0, 1)[None].cuda()
    small = StripNetwork(model, strip_bytes=1 << 16, band=48).run(planes)
    assert (small - StripNetwork(model).run(planes)).abs().max().item() < 1e-4


def test_compiled_gives_the_same_answer():
    model, pixels = network(norm="bias-free"), picture(128, 136)
    plain = Restorer(model, device="cuda")(pixels)
    assert np.abs(Restorer(model, device="cuda", compile=True)(pixels) - plain).max() < 1e-4


def test_memory_asked_for_is_kept():
    restorer = Restorer(network(), device="cuda", memory="1GB")
    plan = restorer.plan(1024, 1536)
    torch.cuda.reset_peak_memory_stats()
    restorer(picture(1024, 1536))
    peak = torch.cuda.max_memory_allocated()
    assert peak <= 1e9
    assert 0.5 < plan.bytes / peak < 2


def test_a_device_that_runs_out_loses_no_picture():
    said = []
    restorer = Restorer(network(), device="cuda")
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.empty_cache()
    try:
        torch.cuda.set_per_process_memory_fraction(min(1.0, 1.2e9 / total))
        restored = restorer(picture(3000, 4000), said.append)
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    assert np.isfinite(restored).all()
    assert any("memory" in sentence for sentence in said)
