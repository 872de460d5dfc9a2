"""A picture of any size comes out as if it had been padded by hand; tiles leave neither seam nor border."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from restormer_cli.engine import restorer
from restormer_cli.engine.restorer import Restorer, _spans
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.errors import UserError
from restormer_cli.hardware import choose_device
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.padding import pad_to_multiple_of_8
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights_file import Weights

SIZES = [(1, 1), (7, 5), (8, 8), (9, 13), (3, 61), (24, 40), (17, 1), (4, 12)]


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, channels), np.float32)


def run(network: Restormer, pixels: np.ndarray) -> np.ndarray:
    """The bare network on (h, w, c), h and w multiples of 8."""
    with torch.no_grad():
        return network(torch.from_numpy(pixels.transpose(2, 0, 1).copy())[None])[0].permute(1, 2, 0).numpy()


def silent(network: Restormer) -> Restormer:
    """The network with its last convolution at zero: its output is its input."""
    with torch.no_grad():
        network.output.weight.zero_()
    return network


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(-10 * np.log10(np.mean((a.astype(np.float64) - b) ** 2)))


# --- Padding --------------------------------------------------------------------------------------------------


def pad_by_hand(pixels: np.ndarray) -> np.ndarray:
    for axis in (1, 0):
        side = pixels.shape[axis]
        more = -side % 8
        # Reflection repeats side - 1 pixels at most; beyond that the edge is repeated.
        at = [*range(side), *((side - 2 - i if more < side else side - 1) for i in range(more))]
        pixels = pixels.take(at, axis=axis)
    return pixels


@pytest.mark.parametrize(("height", "width"), SIZES)
def test_any_size_equals_the_network_on_a_picture_padded_by_hand(tiny_network, height, width):
    network, pixels = tiny_network(), picture(height, width)
    padded = pad_by_hand(pixels)
    assert padded.shape[0] % 8 == padded.shape[1] % 8 == 0
    restored = Restorer(network, device="cpu")(pixels)
    assert restored.shape == pixels.shape
    assert restored.dtype == np.float32
    np.testing.assert_allclose(restored, run(network, padded)[:height, :width], atol=1e-6)
    assert np.abs(restored - pixels).max() > 1e-3  # the network does something


def test_padding_is_at_the_right_and_the_bottom_and_reflects():
    x = torch.arange(9 * 9, dtype=torch.float32).reshape(1, 1, 9, 9)
    padded = pad_to_multiple_of_8(x)[0, 0]
    assert padded.shape == (16, 16)
    assert torch.equal(padded[:9, :9], x[0, 0])
    assert padded[0, 9:].tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert padded[9:, 0].tolist() == [63, 54, 45, 36, 27, 18, 9]


def test_padding_repeats_the_edge_where_there_is_too_little_to_reflect():
    padded = pad_to_multiple_of_8(torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))[0, 0]
    assert padded[0].tolist() == [1] + 7 * [2]
    assert padded[7].tolist() == [3] + 7 * [4]


def test_multiples_of_8_are_not_padded():
    assert pad_to_multiple_of_8(torch.rand(1, 3, 16, 8)).shape == (1, 3, 16, 8)


# --- Tiles ----------------------------------------------------------------------------------------------------

AXIS = {
    "side": st.integers(1, 400),
    "tile": st.integers(1, 12).map(lambda eighths: 8 * eighths),
    "overlap": st.integers(0, 95),
}


@settings(max_examples=200)
@given(**AXIS)
def test_tiles_cover_an_axis_overlap_enough_and_weigh_more_than_nothing(side, tile, overlap):
    overlap = min(overlap, tile - 1)
    spans = list(_spans(side, tile, overlap))
    total = torch.zeros(side)
    for start, end, weights in spans:
        assert 0 <= start < end <= side
        assert end - start == len(weights) == min(tile, side)
        assert weights.min() > 0
        assert weights.max() <= 1
        total[start:end] += weights
    assert total.min() > 0
    assert spans[0][0] == 0
    assert spans[-1][1] == side
    for (_, end, _), (start, _, _) in pairwise(spans):
        assert end - start >= overlap
    # No more tiles than are needed: one fewer could not cover the side.
    if len(spans) > 1:
        assert (len(spans) - 1) * (min(tile, side) - overlap) + overlap < side


def test_weights_of_neighbours_cross_linearly_and_sum_to_one_where_no_third_tile_reaches():
    total = torch.zeros(100)
    for start, end, weights in _spans(100, 40, 8):
        total[start:end] += weights
    torch.testing.assert_close(total, torch.ones(100))
    (_, _, first), *_ = _spans(100, 40, 8)
    steps = first[-10:].diff()
    assert torch.all(steps <= 0)
    assert steps[-8:].max() < 0


def test_weights_stay_full_at_the_border_of_the_picture():
    spans = list(_spans(100, 40, 8))
    assert spans[0][2][0] == 1
    assert spans[-1][2][-1] == 1


@settings(max_examples=30)
@given(
    height=st.integers(1, 20),
    width=st.integers(1, 50),
    tile=st.integers(1, 5).map(lambda eighths: 8 * eighths),
    overlap=st.integers(0, 20),
)
def test_tiles_of_a_network_that_changes_nothing_change_nothing(tiny_network, height, width, tile, overlap):
    restorer = Restorer(silent(tiny_network()), device="cpu", tile=tile, overlap=min(overlap, tile // 2))
    pixels = picture(height, width)
    np.testing.assert_allclose(restorer(pixels), pixels, atol=1e-6)


def test_every_tile_counts_in_proportion_to_its_weight(tiny_network):
    """The blend written out on one axis, with a network that does something."""
    network, pixels = tiny_network(), picture(16, 40)
    total, weight = np.zeros_like(pixels), np.zeros((1, 40, 1))
    for start in (0, 12, 24):
        up, down = np.arange(1, 5) / 5, np.arange(4, 0, -1) / 5
        rows = np.ones(16)
        rows[:4] *= up if start > 0 else 1
        rows[-4:] *= down if start < 24 else 1
        total[:, start : start + 16] += run(network, pixels[:, start : start + 16]) * rows[None, :, None]
        weight[:, start : start + 16] += rows[None, :, None]
    restored = Restorer(network, device="cpu", tile=16, overlap=4)(pixels)
    np.testing.assert_allclose(restored, total / weight, atol=1e-6)
    assert np.abs(restored - Restorer(network, device="cpu")(pixels)).max() > 1e-5  # tiles are approximate


@pytest.mark.parametrize("tile", [40, 48, 512])
def test_a_tile_that_holds_the_picture_equals_the_whole(tiny_network, tile):
    network, pixels = tiny_network(), picture(37, 29)
    assert np.array_equal(Restorer(network, device="cpu", tile=tile)(pixels), Restorer(network, device="cpu")(pixels))


@pytest.mark.parametrize("overlap", [0, 8, 32])
@pytest.mark.parametrize("axis", [0, 1])
def test_tiles_leave_no_seam(tiny_network, monkeypatch, overlap, axis):
    """With what is worst for tiles, a network of nothing but statistics, which differ from tile to tile:
    between two tiles the result climbs in steps as small as the overlap allows."""
    monkeypatch.setattr(Restorer, "_whole", lambda _, x, *__: x.mean(dim=(2, 3), keepdim=True).expand_as(x))
    ramp = np.linspace(0, 1, 128, dtype=np.float32)
    pixels = np.moveaxis(np.broadcast_to(ramp[:, None, None], (128, 64, 3)), 0, axis)
    restored = Restorer(tiny_network(), device="cpu", tile=64, overlap=overlap)(pixels)
    line = np.moveaxis(restored, axis, 0)[:, 7, 0]
    means = [ramp[start:end].mean() for start, end, _ in _spans(128, 64, overlap)]
    steps = np.diff(line)
    assert steps.min() > -1e-6
    # Twice, since where one overlap ends the next may begin.
    assert steps.max() <= 2.01 * np.diff(means).max() / (overlap + 1)
    assert np.isclose(line[0], means[0])
    assert np.isclose(line[-1], means[-1])


@pytest.mark.parametrize(("asked", "taken"), [(8, 8), (9, 16), (500, 504), (512, 512)])
def test_tile_sizes_are_rounded_up_to_multiples_of_8(tiny_network, asked, taken):
    assert Restorer(tiny_network(), device="cpu", tile=asked, overlap=0).tile == taken


@pytest.mark.parametrize(("tile", "overlap"), [(7, 0), (0, 0), (-8, 0), (16, 16), (16, 32), (16, -1), (None, -1)])
def test_impossible_tiles_are_refused(tiny_network, tile, overlap):
    with pytest.raises(UserError, match=r"^--(tile|overlap) -?\d+: .*"):
        Restorer(tiny_network(), device="cpu", tile=tile, overlap=overlap)


def test_a_large_overlap_matters_only_with_tiles(tiny_network):
    assert Restorer(tiny_network(), device="cpu", overlap=1000)(picture(9, 9)).shape == (9, 9, 3)


# --- The caller's things stay as they are ---------------------------------------------------------------------


@pytest.mark.parametrize("training", [False, True])
def test_the_model_stays_as_it_was(tiny_network, training):
    network = tiny_network().train(training)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    generator = torch.get_rng_state()
    Restorer(network, device="cpu", tile=8, overlap=4)(picture(20, 20))
    assert network.training is training
    assert all(module.training is training for module in network.modules())
    assert all(parameter.requires_grad and parameter.grad is None for parameter in network.parameters())
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(torch.get_rng_state(), generator)


def test_a_model_in_training_is_restored_with_as_in_evaluation(tiny_network):
    pixels = picture(9, 13)
    restored = Restorer(tiny_network().train(), device="cpu")(pixels)
    assert np.array_equal(restored, Restorer(tiny_network().eval(), device="cpu")(pixels))


def test_the_picture_stays_as_it_was_and_may_be_read_only(tiny_network):
    pixels = picture(16, 8)
    before = pixels.copy()
    pixels.setflags(write=False)
    restored = Restorer(tiny_network(), device="cpu")(pixels)
    assert np.array_equal(pixels, before)
    restored += 1  # the result is the caller's own


@pytest.mark.parametrize("view", [lambda p: p[::-1], lambda p: p.transpose(1, 0, 2), lambda p: p[::2, 1:]])
def test_views_of_a_picture_are_read_right(tiny_network, view):
    restorer, pixels = Restorer(tiny_network(), device="cpu"), view(picture(20, 24))
    assert np.array_equal(restorer(pixels), restorer(pixels.copy()))


# --- Range, type, channels ------------------------------------------------------------------------------------


def test_input_is_not_clipped_and_output_not_clamped(tiny_network):
    pixels = 6 * picture(9, 13) - 3
    np.testing.assert_allclose(Restorer(silent(tiny_network()), device="cpu")(pixels), pixels, atol=1e-6)
    np.testing.assert_allclose(
        Restorer(silent(tiny_network()), device="cpu", tile=8, overlap=2)(pixels), pixels, atol=1e-5
    )


@pytest.mark.parametrize("kind", [np.float64, np.float16])
def test_other_floats_are_taken_as_float32(tiny_network, kind):
    restorer, pixels = Restorer(tiny_network(), device="cpu"), picture(9, 13).astype(kind)
    restored = restorer(pixels)
    assert restored.dtype == np.float32
    assert np.array_equal(restored, restorer(pixels.astype(np.float32)))


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.int64, bool])
def test_integers_are_refused_since_their_range_is_not_guessed(tiny_network, kind):
    with pytest.raises(UserError, match=f"type {np.dtype(kind)}.*0 for black and 1 for white"):
        Restorer(tiny_network(), device="cpu")(np.ones((8, 8, 3), kind))


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 4), (8, 8), (1, 8, 8, 3), (0, 8, 3), (8, 0, 3), (3, 8, 8)])
def test_other_shapes_are_refused(tiny_network, shape):
    with pytest.raises(UserError, match=r"shape \(.*this model takes \(h, w, 3\)"):
        Restorer(tiny_network(), device="cpu")(np.zeros(shape, np.float32))


def test_gray_and_dual_pixel_networks_keep_their_channels(tiny_network):
    gray = Restorer(tiny_network(in_channels=1, out_channels=1), device="cpu", tile=8, overlap=2)
    assert gray(picture(9, 13, 1)).shape == (9, 13, 1)
    dual = Restorer(tiny_network(in_channels=6, dual_pixel=True), device="cpu", tile=8, overlap=2)
    assert dual(picture(9, 13, 6)).shape == (9, 13, 3)


# --- Device and precision -------------------------------------------------------------------------------------


def test_bf16_is_close_to_fp32_but_not_the_same(tiny_network):
    network, pixels = tiny_network(), picture(33, 47)
    exact, rough = (Restorer(network, device="cpu", precision=name)(pixels) for name in ("fp32", "bf16"))
    assert rough.dtype == np.float32
    assert 40 < psnr(rough, exact) < 100


def test_auto_is_fp32(tiny_network):
    assert Restorer(tiny_network(), device="cpu").precision == "fp32"


@pytest.mark.parametrize("name", ["fp64", "half", ""])
def test_an_unknown_precision_is_refused(tiny_network, name):
    with pytest.raises(UserError, match=f"^--precision {name}: unknown; choose auto, fp32, tf32, bf16, fp16$"):
        Restorer(tiny_network(), device="cpu", precision=name)


def test_fp16_is_refused_on_a_cpu(tiny_network):
    with pytest.raises(UserError, match=r"fp16.*bf16 or fp32"):
        Restorer(tiny_network(), device="cpu", precision="fp16")


@pytest.mark.parametrize("name", ["toaster", "", "cuda:x", "CPU"])
def test_an_unknown_device_is_refused(name):
    with pytest.raises(UserError, match=f"^--device {name}: unknown; choose auto, cpu, cuda"):
        choose_device(name)


@pytest.mark.parametrize("name", ["cuda:99", "meta"])
def test_a_device_that_is_not_here_is_refused(name):
    with pytest.raises(UserError, match=f"^--device {name}: not on this machine"):
        choose_device(name)


def test_the_default_network_is_what_the_model_room_says():
    """Restorer reads the configuration off the model, not off a default."""
    config = ModelConfig(in_channels=1, out_channels=1, dim=4, blocks=(1, 1, 1, 1), heads=(1, 1, 1, 1), refinement=0)
    assert Restorer(Restormer(config), device="cpu").config is config


def test_tiles_for_want_of_memory_are_said_aloud(tiny_network, monkeypatch):
    restorer, pixels, said = Restorer(tiny_network(), device="cpu"), picture(96, 96), []
    chosen = replace(restorer.plan(96, 96), kind="tiles", tile=64)
    monkeypatch.setattr(Restorer, "plan", lambda *_: chosen)
    restored = restorer(pixels, said.append)
    assert restored.shape == pixels.shape
    assert said == ["memory is too short for the whole picture: tiles of 64, which is approximate"]


def test_memory_that_runs_out_loses_no_picture(tiny_network, monkeypatch):
    pixels, said, sides = picture(200, 160), [], []
    run = StripNetwork.run

    def short(self, x, keep_v=True, *rest):
        sides.append((max(x.shape[-2:]), keep_v))
        if max(x.shape[-2:]) > 64:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 MiB")
        return run(self, x, keep_v, *rest)

    monkeypatch.setattr(StripNetwork, "run", short)
    restored = Restorer(tiny_network(), device="cpu")(pixels, said.append)
    assert np.isfinite(restored).all()
    assert sides[:4] == [(200, True), (200, False), (104, True), (56, True)]
    assert said[0] == "memory ran out: going on with recomputing v"
    assert said[-1] == "memory ran out: going on with tiles of 56, which is approximate"


@pytest.mark.parametrize("overlap", [32, 48])
def test_smaller_tiles_for_want_of_memory_overlap_less(tiny_network, monkeypatch, overlap):
    run = StripNetwork.run

    def short(self, x, keep_v=True, *rest):
        if max(x.shape[-2:]) > 32:
            raise RuntimeError("CUDA out of memory")
        return run(self, x, keep_v, *rest)

    monkeypatch.setattr(StripNetwork, "run", short)
    said = []
    restored = Restorer(tiny_network(), device="cpu", tile=64, overlap=overlap)(picture(72, 80), said.append)
    assert np.isfinite(restored).all()
    assert said == ["memory ran out: going on with tiles of 32, which is approximate"]


def test_other_errors_are_not_taken_for_want_of_memory(tiny_network, monkeypatch):
    def broken(self, x, keep_v=True, *rest):
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(StripNetwork, "run", broken)
    with pytest.raises(RuntimeError, match="shapes differ"):
        Restorer(tiny_network(), device="cpu")(picture(16, 16))


def test_what_overflows_in_low_precision_is_done_again_in_fp32(tiny_network, monkeypatch):
    network, pixels, said = tiny_network(), picture(24, 16), []
    exact = Restorer(network, device="cpu", precision="fp32")(pixels)
    run = StripNetwork.run

    def overflow(self, x, keep_v=True, *rest):
        return run(self, x, keep_v, *rest) * (float("inf") if self.dtype == torch.bfloat16 else 1)

    monkeypatch.setattr(StripNetwork, "run", overflow)
    restored = Restorer(network, device="cpu", precision="bf16")(pixels, said.append)
    assert np.array_equal(restored, exact)
    assert said == ["bf16 overflowed on 16×24 pixels: done again in fp32"]


def test_a_window_changes_the_answer_only_where_the_picture_is_larger(tiny_network):
    network, large, small = tiny_network(), picture(48, 64), picture(16, 24)
    whole, local = (Restorer(network, device="cpu", window=window) for window in (None, 24))
    assert np.abs(whole(large) - local(large)).max() > 1e-6
    np.testing.assert_allclose(whole(small), local(small), atol=1e-6)


def test_an_impossible_window_is_told(tiny_network):
    with pytest.raises(UserError, match="the smallest window is 8"):
        Restorer(tiny_network(), device="cpu", window=7)


@pytest.mark.parametrize(
    ("header", "device", "native", "chosen"),
    [
        ({"bf16_loss": 0.005}, "cuda", True, "bf16"),
        ({"bf16_loss": 0.05}, "cuda", True, "fp32"),
        ({}, "cuda", True, "fp32"),
        ({"bf16_loss": "none"}, "cuda", True, "fp32"),
        ({"bf16_loss": 0.005}, "cuda", False, "fp32"),
        ({"bf16_loss": 0.005}, "cpu", True, "bf16"),
        ({"bf16_loss": 0.005}, "cpu", False, "fp32"),
        ({"bf16_loss": 0.005}, "mps", True, "fp32"),
    ],
)
def test_auto_takes_bf16_only_where_it_is_native_and_costs_little(header, device, native, chosen, monkeypatch):
    monkeypatch.setattr(restorer, "multiplies_bf16", lambda device: native or device.type == "cpu")
    monkeypatch.setattr(restorer, "multiplies_pairs", lambda: native)
    assert restorer.automatic_precision(header, torch.device(device)) == chosen


def test_loaded_weights_are_a_model_whose_header_decides_auto(tiny_network, monkeypatch):
    """And a launcher's process takes its own GPU, unless one is named by its number."""
    network, pixels = tiny_network(), picture(16, 24)
    weights = Weights(model=network, config=network.config, header={"bf16_loss": 0.05}, path=Path("x.safetensors"))
    assert np.array_equal(Restorer(weights, device="cpu")(pixels), Restorer(network, device="cpu")(pixels))
    asked = []
    monkeypatch.setattr(restorer, "automatic_precision", lambda *told: asked.append(told) or "bf16")
    assert Restorer(weights, device="cpu").precision == "bf16"
    assert asked == [(weights.header, torch.device("cpu"))]
    monkeypatch.setattr(restorer, "local_place", lambda: (1, 2))
    devices = [str(restorer._own_gpu(torch.device(name))) for name in ("cuda", "cuda:0", "cpu")]
    assert devices == ["cuda:1", "cuda:0", "cpu"]
