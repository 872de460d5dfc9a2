"""A whole map at a time: the textbook's answer, whatever the pieces, by PyTorch's calls and by Triton's kernels."""

import os
import subprocess
import sys
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch

from restormer_cli.engine import whole_map
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.engine.whole_map import Plain, WholeMap, cut, fits, has_few_cells, predicted_bytes, tensor_float_32
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.textbook import TextbookRestormer

NETWORKS = [
    {},
    {"norm": "bias-free"},
    {"bias": True},
    {"concat": False},
    {"in_channels": 6, "dual_pixel": True},
]


def network(**options) -> Restormer:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Restormer(ModelConfig(dim=4, blocks=(1, 2, 1, 1), heads=(1, 2, 2, 4), refinement=1, **options)).eval()


def textbook(model: Restormer) -> TextbookRestormer:
    judge = TextbookRestormer(model.config).to(next(model.parameters()).dtype).eval()
    judge.load_state_dict(model.state_dict())
    return judge


@cache
def double(number: int) -> tuple[Restormer, torch.Tensor, torch.Tensor]:
    """A network in double precision, two pictures and the textbook's answer; the tests change none of them."""
    model = network(**NETWORKS[number]).double()
    pictures = torch.rand(2, model.config.in_channels, 24, 40, dtype=torch.float64)
    with torch.no_grad():
        return model, pictures, textbook(model)(pictures)


@pytest.mark.parametrize("number", range(len(NETWORKS)), ids=lambda number: f"options{number}")
@pytest.mark.parametrize("piece_bytes", [None, 1, 5000])
def test_a_whole_map_equals_the_textbook(number, piece_bytes):
    model, pictures, expected = double(number)
    result = WholeMap(model, torch.float64, piece_bytes=piece_bytes).run(pictures)
    assert (result - expected).abs().max() < 1e-12


def test_bf16_stays_close_and_is_not_the_same():
    model, pictures = network(), torch.rand(1, 3, 48, 40)
    exact, rounded = (WholeMap(model, dtype).run(pictures) for dtype in (torch.float32, torch.bfloat16))
    assert 0 < (rounded - exact).square().mean().sqrt() < 0.01
    assert rounded.dtype == torch.float32


@pytest.mark.parametrize(("count", "height", "limit"), [(1, 7, 3), (3, 8, 100), (5, 8, 16), (2, 9, 4), (1, 1, 1)])
def test_pieces_cover_every_row_once_and_read_one_more_on_either_side(count, height, limit):
    seen = torch.zeros(count, height)
    for piece in cut(count, height, 1, limit):
        seen[piece.rows] += 1
        assert (piece.top, piece.bottom) == (max(piece.first - 1, 0), min(piece.end + 1, height))
        assert seen[piece.rows].numel() <= max(limit, 1)
    assert seen.eq(1).all()


def test_what_it_does_not_know_is_left_to_strips():
    assert fits(ModelConfig())
    assert not fits(ModelConfig(attention="mta"))
    assert not fits(ModelConfig(feed_forward="gfn"))
    assert has_few_cells(4096, 4096, None)
    assert has_few_cells(4096, 4096, 512)
    assert not has_few_cells(4096, 4096, 64)


@pytest.mark.parametrize("window", [8, 16, 20, 64])
@pytest.mark.parametrize("piece_bytes", [None, 1, 5000])
def test_windows_are_those_of_strips(window, piece_bytes):
    """Two pictures at once too, each with its own windows."""
    model, pictures, _ = double(0)
    result = WholeMap(model, torch.float64, window=window, piece_bytes=piece_bytes).run(pictures)
    strips = StripNetwork(model, torch.float64, window=window)
    expected = torch.cat([strips.run(picture[None]) for picture in pictures])
    assert (result - expected).abs().max() < 1e-12
    assert (result - double(0)[2]).abs().max() > 1e-6 or window == 64


class Broken(Plain):
    """Kernels of which one fails, as on a GPU that Triton does not know."""

    @staticmethod
    def gate(*_):
        raise RuntimeError("no such instruction")


def test_kernels_that_fail_are_replaced():
    model, pictures = network(), torch.rand(1, 3, 16, 24)
    broken = WholeMap(model, operations=Broken)
    assert torch.equal(broken.run(pictures), WholeMap(model).run(pictures))
    assert broken.operations is Plain
    assert "no such instruction" in broken.notes[0]


def test_kernels_that_are_wrong_are_found_before_they_are_used(monkeypatch):
    class Wrong(Plain):
        @staticmethod
        def layer_norm(x, weight, bias):
            return 1.1 * Plain.layer_norm(x, weight, bias)

    monkeypatch.setattr(whole_map, "kernels", lambda device: Wrong)
    assert WholeMap(network()).operations is Plain


def test_a_capture_that_fails_is_done_without():
    class Failing:
        def run(self, pictures, network):
            raise RuntimeError("operation not permitted when stream is capturing")

    model, pictures = network(), torch.rand(1, 3, 16, 24)
    ours = WholeMap(model)
    ours.graphs = Failing()  # type: ignore[assignment]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.cuda, "synchronize", lambda device: None)
        assert torch.equal(ours.run(pictures), WholeMap(model).run(pictures))
    assert ours.graphs is None
    assert "capturing" in ours.notes[0]


def test_float32_is_not_rounded_to_tf32_and_settings_are_put_back():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    for allowed in (False, True):
        with tensor_float_32(allowed):
            assert (matmul.allow_tf32, cudnn.allow_tf32) == (allowed, allowed)
    assert (matmul.allow_tf32, cudnn.allow_tf32) == before


def test_predicted_bytes_follow_the_picture():
    small, large = (predicted_bytes(ModelConfig(), side, side, 2) for side in (64, 2048))
    assert small < 150e6
    assert 2e9 < large < 4e9
    assert predicted_bytes(ModelConfig(), 2048, 2048, 4) > 1.7 * large
    windows = [predicted_bytes(ModelConfig(), 2048, 2048, 2, window=window) - large for window in (1024, 256, 128)]
    assert 64e6 < windows[0] < windows[1] < windows[2] < 5e9


@pytest.mark.slow  # the interpreter takes a minute
@pytest.mark.skipif(find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize("test", ["steps", "network"])
def test_kernels_in_the_interpreter(test):
    script = Path(__file__).with_name("interpreted_kernels.py")
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, script, test], capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
