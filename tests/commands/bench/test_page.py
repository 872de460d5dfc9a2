"""The page of a benchmark: what it says, that nothing in a name can act in it, and that it works in Chromium."""

import os
import re
import shutil
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from restormer_cli.benchmark.methods import OURS, Method
from restormer_cli.benchmark.networks import find_network
from restormer_cli.benchmark.timing import Timing
from restormer_cli.cli import app
from restormer_cli.commands.bench import page as report_bench_page
from restormer_cli.commands.bench import tables
from restormer_cli.commands.bench.page import BenchPage
from restormer_cli.commands.bench.run import bench
from restormer_cli.commands.bench.summary import scaling
from restormer_cli.commands.bench.types import Cost, Finished, Gates, Request
from restormer_cli.report.tables import markdown

HOSTILE = "<script>document.title = 'owned'<∕script>.png"


@pytest.fixture(scope="module")
def page(tmp_path_factory, colour_weights, write_png):
    """A page with everything in it: quality as measured, times made up."""
    folder = tmp_path_factory.mktemp("bench")
    for name, width in (("a.png", 40), ("b.png", 48), ("c.png", 44), (HOSTILE, 36)):
        write_png(folder / "clean" / name, 32, width)
    request = Request(
        network=str(colour_weights),
        devices=("cpu",),
        clean=folder / "clean",
        degrade="gaussian:25",
        against=("tv",),
        keep_views=True,
        threads=1,
        gates=Gates(min_psnr=60),
    )
    page = BenchPage(folder / "page.html")
    events = list(bench(request))
    for event in events:
        if type(event).__name__ == "Started":
            page.start(event)  # pyright: ignore[reportArgumentType]
        elif type(event).__name__ == "ImageScore":
            page.watch(event)  # pyright: ignore[reportArgumentType]
    finished = events[-1]
    assert isinstance(finished, Finished)
    stages = tuple((name, 0.1) for name in ("encoder_level1", "latent", "refinement"))
    cells = [
        Timing(
            Method(kind),
            side,
            side,
            (side / 256, side / 250),
            peak=side << 20,
            stages=stages if kind == OURS else (),
        )
        for side in (256, 512)
        for kind in (OURS, "textbook")
    ]
    page.write(Finished(finished.started, Cost(tuple(cells), scaling(cells)), finished.quality, finished.gates))
    return page.path


def test_the_page_has_its_figures_tables_and_pictures(page):
    text = page.read_text(encoding="utf-8")
    assert text.count("<svg") == 3
    assert text.count('class="slider"') == 4
    assert text.count('<div class="crops">') == 4  # two of the worst, two of the best
    for heading in ("Speed and memory", "Where the time goes", "Growth", "Quality", "PSNR in dB, picture by picture"):
        assert f"<h2>{heading}" in text
    assert "protocol gaussian: noise of np.random.seed(0)" in text
    assert "restormer fp32" in text
    assert "min-psnr 60.00 dB" in text


def test_the_page_asks_for_nothing_outside_and_escapes_names(page):
    text = page.read_text(encoding="utf-8")
    assert re.findall(r'(?:src|href)="(?!data:|#)[^"]*"', text) == []
    assert "<script>document" not in text


def test_the_page_in_chromium(page):
    """Opens without an error or a request; the divider moves; light and dark are drawn."""
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    required = os.environ.get("RESTORMER_TEST_BROWSER") == "required"
    if executable is None and not required:
        pytest.skip("apt-get install chromium")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'restormer-cli[test]'")
    wrongs: list[str] = []
    with playwright.sync_playwright() as run:
        browser = run.chromium.launch(executable_path=executable, args=["--no-sandbox"])
        tab = browser.new_page(viewport={"width": 1000, "height": 700})
        tab.on("pageerror", lambda error: wrongs.append(str(error)))
        tab.on("console", lambda message: wrongs.append(message.text))
        tab.on("request", lambda it: it.url.startswith(("file:", "data:")) or wrongs.append(it.url))
        tab.goto(page.as_uri())
        assert tab.title() == "Benchmark of colour"
        broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
        assert tab.evaluate(broken) == 0
        assert tab.locator("figure.drawing svg").count() == 3
        assert all(box["width"] > 400 for box in (one.bounding_box() for one in tab.locator(".drawing svg").all()))
        assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
        slider = tab.locator(".slider").first
        slider.scroll_into_view_if_needed()
        before = slider.evaluate("one => getComputedStyle(one).getPropertyValue('--split')")
        slider.locator("input").focus()
        tab.keyboard.press("ArrowRight")
        assert slider.evaluate("one => getComputedStyle(one).getPropertyValue('--split')") != before
        grounds = []
        for scheme in ("light", "dark"):
            tab.emulate_media(color_scheme=scheme)
            grounds.append(tab.evaluate("getComputedStyle(document.body).backgroundColor"))
        assert grounds[0] != grounds[1]
        browser.close()
    assert wrongs == []


def test_the_flag_writes_the_page_and_says_where(tmp_path, colour_weights, write_png):
    write_png(tmp_path / "clean" / "a.png", 24, 32)
    command = [
        "bench",
        str(colour_weights),
        "--device",
        "cpu",
        "--clean",
        f"{tmp_path}/clean",
        "--degrade",
        "gaussian:25",
    ]
    result = CliRunner().invoke(app, [*command, "--report", f"{tmp_path}/new/page.html"])
    assert result.exit_code == 0, result.output
    assert f"page: {tmp_path}/new/page.html" in result.stderr
    assert "<h2>Quality</h2>" in (tmp_path / "new" / "page.html").read_text(encoding="utf-8")
    refused = CliRunner().invoke(app, [*command, "--report", f"{tmp_path}/page.txt"])
    assert refused.exit_code == 2
    assert "is a web page" in refused.stderr
    assert not (tmp_path / "page.txt").exists()


def test_tables_are_markdown_where_nobody_watches():
    cells = (
        Timing(Method(OURS), 64, 64, (1.0, 3.0, 2.0), peak=10**9),
        Timing(Method("textbook"), 64, 64, error="not enough memory"),
    )
    lines = markdown(tables._cost_table(Cost(cells, ()))).splitlines()
    assert [cell.strip() for cell in lines[2].split("|")[1:-1]] == [
        *("64×64", "restormer fp32", "2", "1–3", "1.00×", "0.002", "1.00 GB"),
    ]
    assert "not enough memory" in lines[3]


@pytest.mark.parametrize(("name", "words"), [("paper", "random weights"), ("denoise", "bundled weights")])
def test_weights_are_told_without_the_path_of_the_installation(name, words):
    assert tables.weights_text(find_network(name)) == words


def test_logarithmic_axes_have_plain_numbers():
    quality = SimpleNamespace(
        summaries=[
            SimpleNamespace(
                group=None,
                method=Method(OURS),
                seconds_per_megapixel=seconds,
                mean=lambda _: 30.0,
            )
            for seconds in (0.06, 9.0)
        ]
    )
    figure = report_bench_page._quality_figure(quality)  # pyright: ignore[reportArgumentType]
    figure.draw_without_rendering()
    labels = [label.get_text() for label in figure.axes[0].get_xticklabels()]
    assert {"0.1", "0.2", "0.5", "1", "2", "5"} <= set(labels)
    assert not any("10^" in label for label in labels)
