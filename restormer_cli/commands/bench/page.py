"""`bench --report page.html`: figures, tables and pictures of a benchmark in one file (report/html.py renders it)."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from restormer_cli.commands.bench.tables import (
    decibels,
    gate_text,
    label,
    machine_line,
    result_tables,
    task_lines,
    weights_text,
    worst_line,
)
from restormer_cli.errors import one_line
from restormer_cli.files import write_atomically
from restormer_cli.images.formats.pillow import encode_8_bits
from restormer_cli.report.comparison import (
    MOST_SLIDERS,
    PAGE_PIXELS,
    Comparison,
    compare_samples,
    most_changed,
    share_of_page,
)
from restormer_cli.report.figures import COLOURS, canvas, drawing, plain_axes
from restormer_cli.report.html import check_page, data_uri, render
from restormer_cli.report.tables import cells, gigabytes

if TYPE_CHECKING:  # importing them would load torch
    from matplotlib.figure import Figure

    from restormer_cli.benchmark.scoring import ImageScore, Views
    from restormer_cli.commands.bench.types import Cost, Finished, Quality, Started

CROP = 160
"""Side of the crops of the worst and the best, in pixels."""
EXTREMES = 3
"""How many of the worst, and of the best, are shown."""


@dataclass(frozen=True)
class Slide:
    """A picture's slider, with a line about it."""

    name: str
    details: str
    comparison: Comparison


@dataclass(frozen=True)
class Crops:
    """A part of a picture before, after and as it should be, as addresses within the page."""

    name: str
    details: str
    side: int
    parts: tuple[tuple[str, str], ...]


class BenchPage:
    """Looks on at a benchmark (`watch` takes every picture that was judged), then writes its page."""

    def __init__(self, path: Path) -> None:
        """Raises UserError for a path that cannot become a page."""
        check_page(path)
        self.path = path
        self.slides: list[Slide] = []
        self._pixels = PAGE_PIXELS
        self._before: dict[str, float] = {}
        self._seen: list[tuple[float, str, Views]] = []

    def start(self, started: "Started") -> None:
        """Learn how many pictures share the page."""
        if started.task is not None:
            self._pixels = share_of_page(len(started.task.source.samples))

    def watch(self, event: "ImageScore") -> None:
        """Take a picture in; of those that come with views, only small pieces are kept."""
        if event.scores is None:
            return
        name = one_line(event.sample.name)
        if event.method is None:
            self._before[name] = event.scores.psnr
        if event.views is None:
            return
        score = event.scores.psnr
        if len(self.slides) < MOST_SLIDERS:
            comparison = compare_samples(event.views.degraded, event.views.restored, self._pixels)
            assert comparison is not None
            details = f"{decibels(self._before[name])} dB → {decibels(score)} dB"
            self.slides.append(Slide(name, details, comparison))
        self._seen.append((score, name, event.views))
        self._seen.sort(key=lambda row: row[0])
        if len(self._seen) > 2 * EXTREMES:
            del self._seen[EXTREMES]

    def write(self, finished: "Finished") -> None:
        """The page, whole or not at all."""
        started = finished.started
        text = render(
            "bench.html",
            title=f"Benchmark of {one_line(started.network.name)}",
            lead=machine_line(started),
            numbers=_numbers(finished),
            settings=_settings(finished),
            notes=started.notes,
            figures=_figures(finished),
            tables=[(heading, *cells(table)) for heading, table in result_tables(finished)],
            slides=self.slides,
            extremes=self._extremes(),
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda stream: stream.write(text.encode()))

    def _extremes(self) -> list[tuple[str, list[Crops]]]:
        """The pictures with the lowest and the highest score, where they are furthest off, and where most was won."""
        rows = self._seen
        if len(rows) < 2:
            return [("Where it is furthest off", [_crops(*row, worst=True) for row in rows])] if rows else []
        half = min(EXTREMES, len(rows) // 2)
        worst = [_crops(*row, worst=True) for row in rows[:half]]
        best = [_crops(*row, worst=False) for row in rows[: -half - 1 : -1]]
        return [
            ("The lowest scores, where the result is furthest off", worst),
            ("The highest scores, where most has changed", best),
        ]


def _crops(score: float, name: str, views: "Views", worst: bool) -> Crops:
    pair = (views.restored, views.clean) if worst else (views.degraded, views.restored)
    left, top, width, height = most_changed(*pair, pixels=CROP * CROP)
    part = np.s_[top : top + height, left : left + width]
    parts = (("degraded", views.degraded), ("restored", views.restored), ("clean", views.clean))
    return Crops(
        name,
        f"{decibels(score)} dB · {width}×{height} pixels from ({left}, {top})",
        width,
        tuple((what, _png(picture[part])) for what, picture in parts),
    )


def _png(samples: np.ndarray) -> str:
    """uint8 (h, w, 1 or 3) as a data URI, every pixel as it is."""
    return data_uri(encode_8_bits(samples, "PNG"), "image/png")


def _numbers(finished: "Finished") -> list[tuple[str, ...]]:
    """Main figures, shown first."""
    started, quality, cost = finished.started, finished.quality, finished.cost
    numbers: list[tuple[str, ...]] = []
    if quality is not None:
        rows = [summary for summary in quality.summaries if summary.group is None]
        before, ours = rows[0].mean("psnr") or 0.0, rows[1].mean("psnr") or 0.0
        numbers += [(f"{decibels(ours)} dB", "mean PSNR", ""), (f"{ours - before:+.2f} dB", "over the input", "good")]
    for cell in () if cost is None else cost.cells[:1]:
        if cell.error is None:
            numbers.append((f"{cell.median:.3g} s", f"for {cell.height}×{cell.width}", ""))
            numbers += [] if cell.peak is None else [(gigabytes(cell.peak), "peak memory", "")]
    numbers.append((f"{started.parameters / 1e6:.2f} M", "parameters", ""))
    for gate in finished.gates:
        mood = "good" if gate.passed else "bad"
        numbers.append((gate_text(gate.name, gate.worst), f"{gate.name} {gate_text(gate.name, gate.limit)}", mood))
    return numbers


def _settings(finished: "Finished") -> list[tuple[str, str]]:
    started = finished.started
    network = started.network
    settings = [("weights", one_line(weights_text(network)))]
    if started.sizes:
        settings.append(
            ("timed", f"median of {started.runs}, in turn, after one warm-up; threads {started.machine.threads}")
        )
    if started.task is not None:
        about, rules = task_lines(started.task)
        settings += [("pictures", one_line(about)), ("scored by", rules)]
    return settings + [(f"--{gate.name}", worst_line(gate)) for gate in finished.gates]


# --- Figures ------------------------------------------------------------------------------------------------


def _figures(finished: "Finished") -> list[tuple[Markup, str]]:
    """(drawing, caption) of what can be drawn from the result."""
    figures = []
    if finished.quality is not None:
        figures.append((drawing(_quality_figure(finished.quality)), "Quality against time: up and left is better."))
    cost = finished.cost
    if cost is not None and any(cell.error is None for cell in cost.cells):
        caption = "Time and peak memory against size."
        figures.append((drawing(_cost_figure(cost)), f"{caption} Each process was fresh, Python included."))
        if any(cell.stages for cell in cost.cells):
            figures.append((drawing(_stage_figure(cost)), "Where our own time goes."))
    return figures


def _quality_figure(quality: "Quality") -> "Figure":
    figure = canvas(1)
    (panel,) = figure.axes
    summaries = [s for s in quality.summaries if s.group is None and s.method is not None]
    for index, summary in enumerate(summaries):
        assert summary.method is not None
        psnr, seconds = summary.mean("psnr"), summary.seconds_per_megapixel
        if psnr is None or seconds is None or not np.isfinite(psnr):
            continue
        name = f"{label(summary.method)}, {psnr:.2f} dB"
        panel.scatter(seconds, psnr, s=70, color=COLOURS[index % len(COLOURS)], alpha=0.85, label=name)
    panel.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    panel.set(xscale="log", xlabel="seconds per megapixel", ylabel="mean PSNR, dB")
    panel.margins(0.12)
    plain_axes(panel.xaxis)
    return figure


def _cost_figure(cost: "Cost") -> "Figure":
    figure = canvas(2)
    time, memory = figure.axes
    for index, method in enumerate(dict.fromkeys(cell.method for cell in cost.cells)):
        cells = [cell for cell in cost.cells if cell.method == method and cell.error is None]
        if not cells:
            continue
        colour = COLOURS[index % len(COLOURS)]
        pixels = [cell.height * cell.width / 1e6 for cell in cells]
        time.plot(pixels, [cell.median for cell in cells], "o-", color=colour, label=label(method))
        peaks = [(cell.device_peak or cell.peak or 0) / 1e9 for cell in cells]
        memory.plot(pixels, peaks, "o-", color=colour)
    for panel, name in ((time, "seconds"), (memory, "peak memory, GB")):
        panel.set(xscale="log", yscale="log", xlabel="megapixels", ylabel=name)
        plain_axes(panel.xaxis)
        plain_axes(panel.yaxis)
    time.legend(frameon=False)
    return figure


def _stage_figure(cost: "Cost") -> "Figure":
    cells = [cell for cell in cost.cells if cell.stages]
    figure = canvas(1)
    (panel,) = figure.axes
    left = np.zeros(len(cells))
    names = [f"{cell.height}×{cell.width}\n{label(cell.method)}" for cell in cells]
    for index, (stage, _) in enumerate(cells[0].stages):
        shares = np.array([cell.stages[index][1] / sum(t for _, t in cell.stages) for cell in cells])
        panel.barh(names, 100 * shares, left=100 * left, label=stage.replace("_", " "), color=f"C{index}")
        left += shares
    panel.set(xlabel="% of the time", xlim=(0, 100))
    panel.invert_yaxis()
    panel.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 1.0), fontsize=8)
    return figure
