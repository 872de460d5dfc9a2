"""The kernels against the textbook network; where no compiler is, PyTorch's operators."""

import os
import subprocess
from copy import deepcopy
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from restormer_cli.engine import strips
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.engine.tlc import Cells
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.textbook import TextbookRestormer
from restormer_cli.native import build
from restormer_cli.native.build import library

compiled = pytest.mark.skipif(library() is None, reason="no compiler here")

VARIANTS = {
    "colour": {},
    "bias-free": {"norm": "bias-free"},
    "biases": {"bias": True},
    "dual-pixel": {"in_channels": 6, "dual_pixel": True, "bias": True},
    "gray, reduced": {"in_channels": 1, "out_channels": 1, "concat": False, "bias": True},
    "whole vectors": {"dim": 16, "heads": (1, 2, 4, 8), "expansion": 2.0},
    "partly other blocks": {"attention": "mta"},
    "empty levels": {"blocks": (0, 2, 1, 0), "refinement": 0},
}


def network(**variant: Any) -> Restormer:
    torch.manual_seed(7)
    shape: dict[str, Any] = {"dim": 14, "blocks": (1, 2, 1, 1), "refinement": 1, "heads": (7, 2, 4, 8)}
    model = Restormer(ModelConfig(**{**shape, **variant}))
    for parameter in model.parameters():  # biases and temperatures too: zeros and ones hide mistakes
        torch.nn.init.normal_(parameter, std=0.2)
    return model.eval()


def textbook(model: Restormer, picture: torch.Tensor) -> torch.Tensor:
    judge = TextbookRestormer(model.config).to(picture.dtype)
    judge.load_state_dict(model.state_dict())
    with torch.no_grad():
        return judge(picture)


@cache
def pictures_and_truths(variant: str) -> tuple[Restormer, list[tuple[torch.Tensor, torch.Tensor, float]]]:
    """The network, pictures with the exact answers, and the textbook's error; the tests change none of them."""
    model, cases = network(**VARIANTS[variant]), []
    for size in ((8, 8), (24, 56), (136, 8), (16, 152)):
        picture = torch.rand(1, model.config.in_channels, *size)
        truth = textbook(model, picture.double())
        cases.append((picture, truth, (textbook(model, picture) - truth).abs().max().item()))
    return model, cases


@compiled
@pytest.mark.parametrize("keep_v", [True, False], ids=["v kept", "v recomputed"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_kernels_are_no_farther_from_the_truth_than_the_textbook(variant, keep_v):
    model, cases = pictures_and_truths(variant)
    for picture, truth, allowed in cases:
        for threads in (1, 3):
            result = StripNetwork(model, threads=threads, native=True).run(picture, keep_v)
            assert (result - truth).abs().max().item() <= max(2e-6, 3 * allowed)


@compiled
@pytest.mark.parametrize("window", [16, 40])
def test_windows_are_those_of_the_operators(window):
    model = network(bias=True)
    picture = torch.rand(1, 3, 48, 88)
    truth = StripNetwork(model.double(), torch.float64, window=window).run(picture.double())
    model.float()
    allowed = (StripNetwork(model, window=window, native=False).run(picture) - truth).abs().max().item()
    result = StripNetwork(model, threads=2, window=window, native=True).run(picture)
    assert (result - truth).abs().max().item() <= 3 * allowed
    rounded = StripNetwork(model, torch.bfloat16, threads=2, window=window, native=True).run(picture)
    by_operators = StripNetwork(model, torch.bfloat16, window=window, native=False).run(picture)
    assert (rounded - truth).norm() <= (by_operators - truth).norm()


@compiled
def test_the_result_does_not_depend_on_the_number_of_threads_beyond_rounding():
    model = network()
    picture = torch.rand(1, 3, 64, 200)
    one, five = (StripNetwork(model, threads=threads, native=True).run(picture) for threads in (1, 5))
    assert (one - five).abs().max().item() <= 1e-5 * one.abs().max().item()


@pytest.mark.parametrize("native", [pytest.param(True, marks=compiled), False])
def test_what_lies_between_the_passes_wakes_no_threads_that_would_spin(native, monkeypatch):
    """Each of a block's matrices is made by one core (WorkerPool.alone)."""
    cores, means = [], Cells.means
    monkeypatch.setattr(Cells, "means", lambda *given: (cores.append(torch.get_num_threads()), means(*given))[1])
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        StripNetwork(network(), native=native).run(torch.rand(1, 3, 16, 16))
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)
    assert set(cores) == {1}


@compiled
def test_numbers_that_are_none_stay_none():
    model = network()
    picture = torch.rand(1, 3, 16, 16)
    picture[0, 0, 3, 3] = float("nan")
    assert not StripNetwork(model, native=True).run(picture).isfinite().any()


@compiled
@pytest.mark.parametrize("keep_v", [True, False], ids=["v kept", "v recomputed"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_products_of_bf16_are_no_farther_from_the_truth_than_autocast(variant, keep_v):
    """By the processor's own instruction or, where it has none, by others. Pictures and features are not rounded."""
    model, cases = pictures_and_truths(variant)
    for picture, truth, _ in cases:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            allowed = (textbook(model, picture) - truth).norm()
        result = StripNetwork(model, torch.bfloat16, threads=2, native=True).run(picture, keep_v)
        assert result.dtype == torch.float32
        assert 1e-4 * truth.norm() < (result - truth).norm() <= 1.1 * allowed < 0.1 * truth.norm()


@compiled
def test_the_kernels_run_float32_on_a_cpu_and_bf16_where_that_is_faster(monkeypatch):
    model = network()
    for pairs in (True, False):
        monkeypatch.setattr(strips, "multiplies_pairs", lambda pairs=pairs: pairs)
        assert StripNetwork(model).native
        assert StripNetwork(model, torch.bfloat16).native is pairs
        assert not StripNetwork(deepcopy(model).double(), torch.float64).native


@pytest.mark.parametrize(
    ("instruction", "tiles", "known", "worth"),
    [(True, False, 1, True), (True, False, 0, False), (True, True, 1, False), (False, False, 1, False)],
)
def test_bf16_is_for_processors_with_an_instruction_for_it_that_the_compiler_knows(
    monkeypatch, instruction, tiles, known, worth
):
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: instruction)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: tiles)
    monkeypatch.setattr(build, "library", lambda **_: SimpleNamespace(has_pairs=lambda: known))
    assert build.multiplies_pairs.__wrapped__() is worth
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported")
    assert not build.multiplies_pairs.__wrapped__()


@pytest.fixture
def anew(monkeypatch, tmp_path):
    """Nothing compiled yet, and nothing remembered afterwards."""
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path))
    build.library.cache_clear()
    yield tmp_path / "native"
    build.library.cache_clear()


def test_without_a_compiler_the_operators_run(anew, monkeypatch):
    monkeypatch.setattr(build, "_compilers", list)
    assert build.library() is None
    model = network()
    strips = StripNetwork(model)
    assert not strips.native
    assert strips.run(torch.rand(1, 3, 16, 16)).shape == (1, 3, 16, 16)


@pytest.mark.parametrize("command", ["false", "no-such-compiler", "true"])
def test_a_compiler_that_fails_is_as_good_as_none(anew, monkeypatch, command):
    monkeypatch.setattr(build, "_compilers", lambda: [(command,)])
    assert build.library() is None
    assert not anew.is_dir() or not list(anew.iterdir())


def test_they_can_be_switched_off(anew, monkeypatch):
    monkeypatch.setenv("RESTORMER_NATIVE", "0")
    assert build.library() is None
    assert not anew.exists()


@pytest.fixture
def hasty(anew, monkeypatch):
    """As `anew`, by one compiler that does not optimise, which takes a tenth of the time."""
    compiler = build._compilers()[:1]
    monkeypatch.setattr(build, "_compilers", lambda: compiler)
    monkeypatch.setattr(build, "FLAGS", tuple(flag for flag in build.FLAGS if flag != "-O3"))
    return anew


@compiled
def test_they_are_compiled_once_and_a_damaged_file_is_compiled_anew(hasty, monkeypatch):
    assert build.library() is not None
    (made,) = hasty.iterdir()
    build.library.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(subprocess, "run", None)  # nobody may compile now
        assert build.library() is not None
    # Under another name, since a library that is loaded is loaded only once.
    other = made.with_name("other" + made.suffix)
    monkeypatch.setattr(build, "_fingerprint", lambda compiler: "other")
    other.write_bytes(b"no library")
    other.chmod(0o600)
    build.library.cache_clear()
    assert build.library() is not None
    assert len(other.read_bytes()) > 10_000


@compiled
@pytest.mark.skipif(not hasattr(os, "getuid"), reason="POSIX")
def test_a_library_that_others_may_write_to_is_not_loaded(hasty):
    assert build.library() is not None
    (made,) = hasty.iterdir()
    made.chmod(0o666)
    with pytest.raises(PermissionError):
        build._load(made)
    build.library.cache_clear()
    assert build.library() is not None  # compiled anew
    assert made.stat().st_mode & 0o022 == 0
