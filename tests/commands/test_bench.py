"""Speed and memory: fresh processes, taking turns; what is wrong is told before anything is measured."""

import json
from statistics import median

import pytest
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.commands import bench as verb
from restormer_cli.engine.contestants import OURS, Contestant
from restormer_cli.engine.stopwatch import Cell
from restormer_cli.errors import UserError


def bench(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["bench", "--device", "cpu", *map(str, arguments)])


def refused(*arguments: object) -> str:
    """The one red line of a refusal."""
    result = bench(*arguments)
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture(scope="module")
def timed(colour_weights):
    """One real run: our network and the textbook's, in a process each."""
    result = bench(
        colour_weights, "--sizes", "24,16x40", "--against", "textbook", "--threads", 1, "--runs", 2, "--json"
    )
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_json_has_every_figure(timed):
    result, _ = timed
    assert result["schema"] == "restormer-bench/1"
    assert result["network"]["task"] == "denoise"
    assert [(work["height"], work["width"]) for work in result["work"]] == [(24, 24), (16, 40)]
    assert result["machine"]["threads"] == 1
    cells = result["cost"]["cells"]
    assert [(cell["kind"], cell["height"]) for cell in cells] == [
        (kind, height) for height in (24, 16) for kind in ("restormer", "textbook")
    ]
    for cell in cells:
        assert cell["error"] is None
        assert len(cell["seconds"]) == 2
        assert cell["median"] == median(cell["seconds"]) > 0
        assert cell["megapixels_per_second"] == pytest.approx(cell["height"] * cell["width"] / 1e6 / cell["median"])


def test_peak_memory_is_that_of_a_process_with_torch_in_it(timed):
    for cell in timed[0]["cost"]["cells"]:
        assert 100e6 < cell["peak"] < 2e9


def test_ours_agrees_with_the_textbook(timed):
    ours, textbook = timed[0]["cost"]["cells"][:2]
    assert textbook["difference"] == 0
    assert 0 <= ours["difference"] < 1e-5


def test_the_stages_are_the_networks(timed):
    stages = timed[0]["cost"]["cells"][0]["stages"]
    assert list(stages) == [
        *("encoder_level1", "encoder_level2", "encoder_level3", "latent"),
        *("decoder_level3", "decoder_level2", "decoder_level1", "refinement", "convolutions between"),
    ]
    assert all(seconds > 0 for seconds in stages.values())


def test_stderr_says_what_is_measured(timed, colour_weights):
    _, stderr = timed
    assert f"colour · {colour_weights}" in stderr
    assert "24×24  textbook fp32" in stderr


def cell(pixels: int, *seconds: float) -> Cell:
    return Cell(Contestant(OURS), 1, pixels, seconds)


def test_the_scaling_exponent_is_the_slope_in_logarithms():
    cells = [cell(100, 1.0, 9.0, 2.0), cell(400, 8.0), Cell(Contestant(OURS), 1, 900, error="not enough memory")]
    (row,) = verb.scaling(cells)
    assert row.exponent == pytest.approx(1.0)  # 2 s -> 8 s over four times the pixels
    assert verb.scaling(cells[:1]) == ()


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("1024x1536", (1024, 1536)), (" 8×9", (8, 9))])
def test_sizes(text, size):
    assert verb.parse_size(text) == size


@pytest.mark.parametrize("text", ["7", "64x", "-64", "64x7", "a", "1e3", "999999"])
def test_sizes_that_are_none(text):
    with pytest.raises(UserError, match="--sizes"):
        verb.parse_size(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no such weights file"),
        (["paper", "--against", "magic"], "--against magic: unknown; choose from textbook, compile"),
        (["paper", "--precision", "fp8"], "--precision fp8: unknown"),
        (["paper", "--precision", "fp32,fp16"], "use bf16 or fp32 on a CPU"),
        (["paper", "--sizes", "64,big"], "--sizes big"),
        (["paper", "--tile", "64,x"], "--tile 64,x: write whole numbers"),
    ],
)
def test_a_wrong_request_is_refused_at_once(arguments, words):
    assert words in refused(*arguments)


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    monkeypatch.setattr("restormer_cli.engine.contestants.find_spec", lambda name: None)
    assert "needs the package onnxruntime, which is not installed: pip install" in refused(
        "paper", "--against", "onnxruntime"
    )


def test_who_does_not_offer_a_precision_is_left_out_with_a_note():
    contestants, notes = verb._contestants(
        verb.Request(precisions=("fp32", "bf16"), devices=("cpu",), against=("onnxruntime",), tiles=(64, 0))
    )
    assert [(c.name, c.precision) for c in contestants] == [
        ("restormer tile 64", "fp32"),
        ("restormer", "fp32"),
        ("onnxruntime", "fp32"),
        ("restormer tile 64", "bf16"),
        ("restormer", "bf16"),
    ]
    assert notes == ("onnxruntime does not run in bf16 on cpu: left out there",)
