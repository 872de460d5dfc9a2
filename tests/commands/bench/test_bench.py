"""Speed and memory: fresh processes, taking turns; what is wrong is told before anything is measured."""

import json
import re
import sys
import types
from importlib import metadata
from importlib.util import find_spec
from statistics import median, stdev
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner, Result

from restormer_cli.benchmark.methods import OURS, Method
from restormer_cli.benchmark.timing import Timing
from restormer_cli.cli import app
from restormer_cli.commands.bench import plan, tables
from restormer_cli.commands.bench import summary as summary_module
from restormer_cli.commands.bench.types import Gates, Request
from restormer_cli.errors import Failed, UserError


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
    result = bench(colour_weights, "--sizes", "16x40", "--against", "textbook", "--threads", 1, "--runs", 2, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_json_has_every_figure(timed):
    result, _ = timed
    assert result["schema"] == "restormer-bench/1"
    assert result["network"]["task"] == "denoise"
    assert [(work["height"], work["width"]) for work in result["work"]] == [(16, 40)]
    assert result["machine"]["threads"] == 1
    cells = result["cost"]["cells"]
    assert [(cell["kind"], cell["height"], cell["width"]) for cell in cells] == [
        ("restormer", 16, 40),
        ("textbook", 16, 40),
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
    assert "16×40  textbook fp32" in stderr


def cell(pixels: int, *seconds: float) -> Timing:
    return Timing(Method(OURS), 1, pixels, seconds)


def test_the_scaling_exponent_is_the_slope_in_logarithms():
    cells = [cell(100, 1.0, 9.0, 2.0), cell(400, 8.0), Timing(Method(OURS), 1, 900, error="not enough memory")]
    (row,) = summary_module.scaling(cells)
    assert row.exponent == pytest.approx(1.0)  # 2 s -> 8 s over four times the pixels
    assert summary_module.scaling(cells[:1]) == ()


@pytest.mark.parametrize(("text", "size"), [("64", (64, 64)), ("1024x1536", (1024, 1536)), (" 8×9", (8, 9))])
def test_sizes(text, size):
    assert plan.parse_size(text) == size


@pytest.mark.parametrize("text", ["7", "64x", "-64", "64x7", "a", "1e3", "999999"])
def test_sizes_that_are_none(text):
    with pytest.raises(UserError, match="--sizes"):
        plan.parse_size(text)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nothing"], "no such weights file"),
        (["paper", "--against", "magic"], "--against magic: unknown; choose from textbook, published"),
        (["paper", "--against", "textbook=2"], "only classical methods have a strength: nl-means"),
        (["paper", "--against", "tv=-1"], "--against tv=-1: the strength is a number above 0, such as tv=0.7"),
        (["paper", "--against", "tv=much"], "--against tv=much: the strength is"),
        (["paper", "--precision", "fp8"], "--precision fp8: unknown"),
        (["paper", "--precision", "fp32,fp16"], "use bf16 or fp32 on a CPU"),
        (["paper", "--sizes", "64,big"], "--sizes big"),
        (["paper", "--tile", "64,x"], "--tile 64,x: write whole numbers"),
        (["paper", "--tile", "32,64"], "--overlap 32: must be at least 0 and less than the tile, 32"),
        (["paper", "--window", "4"], "--window 4: the smallest window is 8 pixels"),
        (["paper", "--memory", "much"], "--memory much: not an amount of memory"),
        (["paper", "--max-memory", "0GB"], "--max-memory 0GB: not an amount of memory"),
    ],
)
def test_a_wrong_request_is_refused_at_once(arguments, words):
    assert words in refused(*arguments)


def test_a_quota_of_processor_time_decides_the_threads(monkeypatch, colour_weights):
    """`docker --cpus 2` shows a process all cores of its machine."""
    monkeypatch.setattr(plan, "available_cores", lambda: 2)
    monkeypatch.setattr(plan.torch, "get_num_threads", lambda: 64)
    assert plan.start(Request(network=str(colour_weights), sizes=("16x16",))).machine.threads == 2
    assert plan.start(Request(network=str(colour_weights), sizes=("16x16",), threads=3)).machine.threads == 3


def test_a_missing_package_is_named_with_its_cure(monkeypatch):
    def missing(name: str) -> str:
        raise metadata.PackageNotFoundError

    monkeypatch.setattr(metadata, "version", missing)
    monkeypatch.setattr("restormer_cli.benchmark.methods.find_spec", lambda name: None)
    for kind, extra in (("onnxruntime", "export"), ("openvino", "export,openvino"), ("wavelet", "classical")):
        assert f"pip install 'restormer-cli[{extra}]'" in refused("paper", "--against", kind)
    assert "pip install bm3d" in refused("paper", "--against", "bm3d")


def test_who_does_not_offer_a_precision_is_left_out_with_a_note():
    methods, notes = plan.list_methods(
        Request(precisions=("fp32", "bf16"), devices=("cpu",), against=("onnxruntime",), tiles=(64, 0))
    )
    assert [(c.name, c.precision) for c in methods] == [
        ("restormer tile 64", "fp32"),
        ("restormer", "fp32"),
        ("onnxruntime", "fp32"),
        ("restormer tile 64", "bf16"),
        ("restormer", "bf16"),
    ]
    assert notes == ("onnxruntime does not run in bf16 on cpu: left out there",)


# --- Quality --------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clean(tmp_path_factory, write_png):
    folder = tmp_path_factory.mktemp("pictures") / "clean"
    for name, width in (("indoor/a.png", 24), ("indoor/b.png", 30), ("outdoor/c.png", 26)):
        write_png(folder / name, 24, width)
    return folder


@pytest.fixture(scope="module")
def judged(colour_weights, clean):
    options = ("--clean", clean, "--degrade", "gaussian:25", "--against", "tv", "--tile", "0,16", "--overlap", 8)
    result = bench(colour_weights, *options, "--json", "--min-psnr", 1)
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout), result.stderr


def test_quality_is_summed_up_over_all_and_by_folder(judged):
    quality = judged[0]["quality"]
    assert quality["protocol"]["name"] == "gaussian"
    assert quality["degradation"] == "gaussian:25"
    assert (quality["crop"], quality["failed"], quality["dataset"]) == (None, 0, "clean")
    rows = [(s["contestant"] and s["contestant"]["name"], s["group"], s["pictures"]) for s in quality["summaries"]]
    names = (None, "restormer", "restormer tile 16", "tv")
    assert rows == [(n, g, k) for g, k in ((None, 3), ("indoor", 2), ("outdoor", 1)) for n in names]
    for index, name in enumerate(names):
        pictures = [
            p["measures"]["psnr"] for p in quality["pictures"] if (p["contestant"] and p["contestant"]["name"]) == name
        ]
        statistic = quality["summaries"][index]["measures"]["psnr"]
        assert statistic["mean"] == pytest.approx(sum(pictures) / 3)
        assert statistic["deviation"] == pytest.approx(stdev(pictures))


def test_no_ssim_stands_without_its_protocol(colour_weights, clean):
    result = bench(colour_weights, "--clean", clean, "--degrade", "gaussian:25")
    assert "SSIM (gaussian)" in " ".join(result.output.split())


def test_a_clean_photograph_comes_through_and_a_file_is_scored_as_a_file(colour_weights, clean):
    """Two questions that are asked of a denoiser: does it leave alone what is clean, and does it help a JPEG?"""
    result = bench(colour_weights, "--clean", clean, "--degrade", "round8", "--min-psnr", 99, "--json")
    assert result.exit_code == 4, result.output
    document = json.loads(result.stdout)
    untouched, restored = document["quality"]["summaries"][:2]
    assert untouched["measures"]["psnr"]["mean"] is None  # the input is the clean picture
    assert document["gates"][0]["worst"] == restored["measures"]["psnr"]["mean"] > 5

    options = ("--clean", clean, "--degrade", "gaussian:15+jpeg:85", "--against", "tv=1,median=3")
    result = bench(colour_weights, *options, "--json")
    assert result.exit_code == 0, result.output
    quality = json.loads(result.stdout)["quality"]
    assert (quality["protocol"]["name"], quality["degradation"]) == ("plain", "gaussian:15+jpeg:85")
    file, _, tv, median_filter = (row for row in quality["summaries"] if row["group"] is None)
    assert 20 < file["measures"]["psnr"]["mean"] < 33
    told = [(row["contestant"]["strength"], row["contestant"]["sigma"]) for row in (tv, median_filter)]
    assert told == [(1, 15 / 255), (3, 15 / 255)]


def test_the_protocol_is_printed_beside_its_numbers(judged, colour_weights, clean):
    assert "protocol gaussian: noise of np.random.seed(0)" in judged[1]
    result = bench(colour_weights, "--clean", clean, "--degrade", "gaussian:25", "--crop", 16)
    assert result.exit_code == 0, result.output
    (heading,) = [line for line in result.stdout.splitlines() if line.startswith("Quality.")]
    assert "centre crops of 16 pixels" in heading
    assert "not clipped" in heading
    table = result.stdout.partition("| method")[2].splitlines()
    assert re.search(r"^\| input +\| +all 3 +\| +2\d\.\d\d ± \d\.\d\d", table[2])
    assert "PSNR in dB, picture by picture" in result.stdout


def test_without_sizes_quality_times_no_sizes(judged):
    assert judged[0]["cost"] is None
    assert judged[0]["work"] == []


@pytest.mark.parametrize(
    ("gate", "code", "words"),
    [
        (("--min-psnr", 60), 4, "error: not good enough: --min-psnr"),
        (("--max-seconds", 1e-9), 4, "--max-seconds 1e-09 s: MISSED"),
        (("--max-seconds", 1e9), 0, "held"),
    ],
)
def test_gates(colour_weights, clean, gate, code, words):
    result = bench(colour_weights, "--clean", clean, "--degrade", "gaussian:25", "--crop", 16, *gate)
    assert result.exit_code == code, result.output
    assert words in result.stderr
    assert "| input" in result.stdout  # the table comes all the same


def test_the_gate_on_memory_is_that_of_the_process(colour_weights):
    result = bench(colour_weights, "--sizes", 24, "--threads", 1, "--runs", 1, "--max-memory", "10MB", "--json")
    assert result.exit_code == 4, result.output
    (gate,) = json.loads(result.stdout)["gates"]
    assert gate["limit"] == 10e6
    assert gate["worst"] > 100e6
    assert gate["passed"] is False


def test_a_size_that_fails_holds_no_gate(colour_weights):
    ours = Method(OURS)
    cells = (Timing(ours, 8, 8, (1.0,), peak=10**9), Timing(ours, 8, 900, error="not enough memory"))
    result = SimpleNamespace(cost=SimpleNamespace(cells=cells), quality=None)
    for gate in summary_module.gates(Gates(max_seconds=9.0, max_memory="2GB"), result):  # pyright: ignore
        assert not gate.passed
        assert tables.worst_line(gate) == "not measured: 8×900 restormer fp32"


def test_a_picture_that_fails_exits_3_and_is_left_out_of_every_mean(colour_weights, tmp_path, write_png):
    write_png(tmp_path / "clean" / "a.png", 16, 16)
    (tmp_path / "clean" / "b.png").write_bytes(b"no picture")
    result = bench(colour_weights, "--clean", tmp_path / "clean", "--degrade", "gaussian:25", "--json")
    assert result.exit_code == 3, result.output
    quality = json.loads(result.stdout)["quality"]
    assert quality["failed"] == 1
    assert {summary["pictures"] for summary in quality["summaries"]} == {1}
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "b.png" in line


def test_a_picture_that_one_method_fails_on_counts_for_none(monkeypatch, colour_weights, clean):
    """Means over different pictures would not compare."""

    def fail_on_c(kind, run, degraded, right):
        if degraded.shape[1] == 26:
            raise Failed("tv: not today")
        return run(degraded)

    monkeypatch.setattr("restormer_cli.benchmark.scoring._classical", fail_on_c)
    options = ("--clean", clean, "--degrade", "gaussian:25", "--against", "tv", "--json")
    result = bench(colour_weights, *options)
    assert result.exit_code == 3, result.output
    quality = json.loads(result.stdout)["quality"]
    assert {(row["group"], row["pictures"]) for row in quality["summaries"]} == {(None, 2)}
    assert len({(row["contestant"] or {}).get("kind") for row in quality["summaries"]}) == 3


def test_nothing_but_bad_pictures_is_an_input_error(colour_weights, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no picture")
    result = bench(colour_weights, "--clean", tmp_path, "--degrade", "gaussian:25")
    assert result.exit_code == 2
    assert "none of 1 pictures could be scored; the first: " in result.stderr


def test_identical_pictures_are_null_in_json_and_infinite_in_tables(colour_weights, clean):
    options = (colour_weights, "--clean", clean, "--degraded", clean, "--protocol", "plain")
    result = bench(*options, "--json")
    assert result.exit_code == 0, result.output
    first = json.loads(result.stdout)["quality"]["summaries"][0]
    assert first["measures"]["psnr"] == {"mean": None, "deviation": None}
    assert "∞" in bench(*options).stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--degrade", "gaussian:25"], "--degrade: is about quality, which needs --clean DIR"),
        (["--min-psnr", "30"], "--min-psnr: is about quality"),
        (["--clean", "CLEAN"], "--clean needs either --degraded DIR"),
        (["--clean", "CLEAN", "--degraded", "CLEAN", "--degrade", "gaussian:25"], "--clean needs either"),
        (["--clean", "CLEAN", "--degrade", "blizzard"], 'unknown kind "blizzard"'),
        (["--clean", "CLEAN", "--degrade", "gaussian:25", "--protocol", "magic"], "--protocol magic: unknown"),
        (["--clean", "CLEAN", "--degrade", "jpeg:50", "--protocol", "gaussian"], "score jpeg:50 by plain"),
        (["--clean", "CLEAN", "--degrade", "gaussian:25", "--crop", "2"], "--crop 2: at least 8"),
        (["--clean", "CLEAN", "--degrade", "gaussian:25", "--metrics", "taste"], "--metrics taste: unknown"),
        (["--clean", "CLEAN", "--degrade", "gaussian:25", "--max-memory", "2GB"], "name some, such as --sizes 512"),
        (["--max-memory", "much"], "--max-memory much: not an amount of memory"),
        (["--clean", "CLEAN", "--degraded", "CLEAN", "--right", "CLEAN"], "takes one picture: leave it out"),
        (["--clean", "CLEAN", "--degrade", "gaussian:9", "--against", "richardson-lucy"], "undoes a known blur"),
        (["--clean", "nowhere", "--degrade", "gaussian:9"], "--clean: there is no folder nowhere"),
    ],
)
def test_a_wrong_question_of_quality_is_refused(colour_weights, clean, arguments, words):
    result = bench(colour_weights, *(str(clean) if word == "CLEAN" else word for word in arguments))
    assert result.exit_code == 2, result.output
    assert words in next(line for line in result.stderr.splitlines() if line.startswith("error: "))


def test_random_weights_have_no_quality(clean):
    assert "random weights, whose quality says nothing" in refused("paper", "--clean", clean, "--degrade", "gaussian:9")


def test_dual_pixel_weights_ask_for_the_second_views(dual_pixel_weights, clean):
    assert "name the second views by --right DIR" in refused(dual_pixel_weights, "--clean", clean, "--degraded", clean)


# --- Learned measures -----------------------------------------------------------------------------------------


class FakeLpips:
    """Stands in for the package: half of the mean absolute difference of what it is given in [-1, 1]."""

    def __init__(self, net: str, verbose: bool) -> None:
        if net == "vgg":
            raise OSError("no network\nat all")

    def eval(self):
        return self

    def to(self, device: str):
        return self

    def __call__(self, first, second):
        return (first - second).abs().mean() / 2


@pytest.fixture
def fake_lpips(monkeypatch):
    monkeypatch.setitem(sys.modules, "lpips", types.SimpleNamespace(LPIPS=FakeLpips))
    monkeypatch.setattr("restormer_cli.metrics.perceptual.require", lambda *_: None)


def test_lpips_is_measured_where_its_package_is(colour_weights, clean, fake_lpips):
    options = ("--clean", clean, "--degrade", "gaussian:25", "--metrics", "lpips", "--json")
    result = bench(colour_weights, *options)
    assert result.exit_code == 0, result.output
    for picture in json.loads(result.stdout)["quality"]["pictures"]:
        assert picture["measures"]["lpips"] == pytest.approx(picture["measures"]["mae"], abs=0.01)


def test_weights_that_cannot_be_had_are_told_in_one_line(colour_weights, clean, fake_lpips):
    line = bench(colour_weights, "--clean", clean, "--degrade", "gaussian:25", "--metrics", "lpips-vgg").stderr
    assert "error: --metrics lpips-vgg: the weights of its vgg backbone cannot be loaded (no network at all)" in line


def test_without_the_package_its_install_line_is_told(colour_weights, clean):
    if find_spec("lpips") is not None:
        pytest.skip("lpips is installed")
    assert "pip install 'restormer-cli[metrics]'" in refused(
        colour_weights, "--clean", clean, "--degrade", "gaussian:25", "--metrics", "lpips"
    )
