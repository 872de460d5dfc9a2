"""The tables of `bench`, and its figures in words: for stdout and the page.

On a terminal tables have lines; into a file or a pipe they go as Markdown.
"""

import math
import os
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from restormer_cli.model.cards import CHECKPOINTS
from restormer_cli.report.tables import gigabytes, markdown, text_table

if TYPE_CHECKING:
    from restormer_cli.benchmark.methods import Method
    from restormer_cli.benchmark.networks import Network
    from restormer_cli.benchmark.timing import Timing
    from restormer_cli.commands.bench.types import Cost, Finished, Gate, Quality, Started, Statistic, Summary, Task


def gate_text(name: str, value: float) -> str:
    """A threshold's value with its unit."""
    if name == "max-memory":
        return gigabytes(value)
    return f"{value:.2f} dB" if name == "min-psnr" else f"{value:.3g} s"


def worst_line(gate: "Gate") -> str:
    """Describe the run that came closest to a threshold, or exceeded it."""
    if not math.isfinite(gate.worst) and not gate.passed:
        return f"not measured: {gate.whose}"
    return f"{gate_text(gate.name, gate.worst)} by {gate.whose}"


def weights_text(network: "Network") -> str:
    """Where the weights come from; of bundled ones their name says it."""
    if network.path is None:
        return "random weights"
    return "bundled weights" if network.path.parent == CHECKPOINTS else str(network.path)


def task_lines(task: "Task") -> list[str]:
    """Describe the pictures that are scored, and the protocol."""
    source = task.source
    how = "as they are" if source.degradation is None else f"degraded by {source.degradation}, seed {source.seed}"
    crop = f", centre crops of {source.crop} pixels" if source.crop else ""
    return [
        f"{task.dataset}: {len(source.samples)} picture{'s' * (len(source.samples) != 1)} {how}{crop}",
        f"protocol {task.protocol.name}: {task.protocol.rules}",
    ]


def machine_line(started: "Started") -> str:
    """The machine in one line."""
    machine = started.machine
    memory = f", {machine.memory / 2**30:.0f} GiB" if machine.memory else ""
    accelerator = f", {machine.accelerator}" if machine.accelerator else ""
    libraries = ", ".join(f"{name} {version}" for name, version in machine.libraries.items())
    return (
        f"{machine.processor}, {machine.instructions}, {machine.threads} of {machine.cores} cores{memory}{accelerator}"
        f" · {machine.system} · Python {machine.python}, {libraries}"
    )


def label(method: "Method") -> str:
    """A method with its precision, and its device where that is no CPU."""
    device = "" if method.device == "cpu" else f" {method.device}"
    return f"{method.name} {method.precision}{device}"


def print_tables(finished: "Finished") -> None:
    """Every table of the result, on stdout."""
    console = Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
    for heading, table in result_tables(finished):
        if console.is_terminal:
            console.print(Text(heading, style="bold"), table)
        else:
            print(f"{heading}\n\n{markdown(table)}\n")


def result_tables(finished: "Finished") -> list[tuple[str, Table]]:
    """(heading, table) of everything that was measured."""
    tables = [("Work", _work_table(finished.started))] if finished.started.operations else []
    if finished.cost is not None:
        tables.append((f"Speed and memory, median of {finished.started.runs}", _cost_table(finished.cost)))
        stages = _stage_table(finished.cost)
        tables += [("Where the time goes, seconds", stages)] if stages is not None else []
        if finished.cost.scaling:
            tables.append(("Growth: seconds ~ pixels to this power", _scaling_table(finished.cost)))
    if finished.quality is not None:
        about = "; ".join(task_lines(finished.quality.task))
        tables.append((f"Quality. {about}", _quality_table(finished.quality)))
        tables.append(("PSNR in dB, picture by picture", _picture_table(finished.quality)))
    return tables


def _work_table(started: "Started") -> Table:
    table = text_table(
        "size", "parameters", "convolution GMACs (the paper's GFLOPs)", "all GMACs", "GFLOPs (2 per MAC)"
    )
    for size, work in zip(started.sizes, started.operations, strict=True):
        table.add_row(
            f"{size[0]}×{size[1]}",
            f"{started.parameters:,}",
            f"{work.conv_macs / 1e9:,.2f}",
            f"{work.macs / 1e9:,.2f}",
            f"{work.flops / 1e9:,.1f}",
        )
    return table


def _cost_table(cost: "Cost") -> Table:
    against = any(cell.difference is not None for cell in cost.cells)
    table = text_table("size", "method", "seconds", "fastest–slowest", "relative", "MP/s", "peak memory")
    table.columns[1].justify = "left"
    if against:
        table.add_column("difference from textbook", justify="right")
    first: dict[tuple[int, int], Timing] = {}
    for cell in cost.cells:
        size = f"{cell.height}×{cell.width}"
        if cell.error is not None:
            table.add_row(size, label(cell.method), cell.error)
            continue
        base = first.setdefault((cell.height, cell.width), cell)
        row = [
            size,
            label(cell.method),
            f"{cell.median:.3g}",
            f"{min(cell.seconds):.3g}–{max(cell.seconds):.3g}",
            f"{cell.median / base.median:.2f}×",
            f"{cell.megapixels_per_second:.3f}",
            "–" if cell.peak is None else gigabytes(cell.device_peak or cell.peak),
        ]
        if against:
            row.append("–" if cell.difference is None else f"{cell.difference:.1e}")
        table.add_row(*row)
    return table


def _stage_table(cost: "Cost") -> Table | None:
    cells = [cell for cell in cost.cells if cell.stages]
    if not cells:
        return None
    table = text_table("stage", *(f"{c.height}×{c.width} {label(c.method)}" for c in cells))
    totals = [sum(seconds for _, seconds in cell.stages) for cell in cells]
    for index, (name, _) in enumerate(cells[0].stages):
        times = [cell.stages[index][1] for cell in cells]
        table.add_row(name, *(f"{t:.3g} ({t / total:.0%})" for t, total in zip(times, totals, strict=True)))
    table.add_row("all", *(f"{total:.3g}" for total in totals))
    return table


def _scaling_table(cost: "Cost") -> Table:
    table = text_table("method", "exponent")
    for scaling in cost.scaling:
        table.add_row(label(scaling.method), f"{scaling.exponent:.2f}")
    return table


NAMES = {"psnr": "PSNR, dB", "ssim": "SSIM", "mae": "MAE", "lpips": "LPIPS", "lpips-vgg": "LPIPS (VGG)"}


def _quality_table(quality: "Quality") -> Table:
    summaries = quality.summaries
    grouped = any(summary.group is not None for summary in summaries)
    printed = any(summary.published is not None for summary in summaries)
    names = [name for name, _ in summaries[0].measures]
    table = text_table("method")
    if grouped:
        table.add_column("folder")
    for name in names:
        # SSIM by channel and as a volume differ by up to 0.47 on one pair: never without its protocol.
        protocol = f" ({quality.task.protocol.name})" if name == "ssim" else ""
        table.add_column(NAMES.get(name, name) + protocol, justify="right")
        if name == "psnr":
            table.add_column("gain", justify="right")
    table.add_column("s per picture", justify="right")
    table.add_column("s per MP", justify="right")
    if printed:
        table.add_column("the paper's", justify="right")
        table.add_column("difference", justify="right")
    inputs = {s.group: s.mean("psnr") or 0.0 for s in summaries if s.method is None}
    for summary in summaries:
        row = [summary_label(summary)]
        row += [f"all {summary.pictures}" if summary.group is None else summary.group or "."] if grouped else []
        for name, statistic in summary.measures:
            row.append(plus_minus(name, statistic))
            if name == "psnr":
                gain = statistic.mean - inputs[summary.group]
                row.append("" if summary.method is None else f"{gain:+.2f}")
        row += ["" if value is None else f"{value:.3g}" for value in (summary.seconds, summary.seconds_per_megapixel)]
        if printed:
            figure, psnr = summary.published, summary.mean("psnr") or 0.0
            row += ["", ""] if figure is None else [f"{figure.psnr:.2f}", f"{psnr - figure.psnr:+.2f}"]
        table.add_row(*row)
    return table


def _picture_table(quality: "Quality") -> Table:
    table = text_table("picture", "size", "input")
    sound = [row for row in quality.judged if row.scores is not None]
    methods = list(dict.fromkeys(row.method for row in sound if row.method is not None))
    for method in methods:
        table.add_column(label(method), justify="right")
    found = {(row.sample, row.method): row for row in sound}
    for sample in dict.fromkeys(row.sample for row in sound):
        first = found[sample, None]
        rows = [found.get((sample, method)) for method in (None, *methods)]
        scores = ["failed" if row is None or row.scores is None else decibels(row.scores.psnr) for row in rows]
        table.add_row(sample.name, f"{first.width}×{first.height}", *scores)
    return table


def summary_label(summary: "Summary") -> str:
    """Name of a method, with a classical method's parameters."""
    method = summary.method
    if method is None:
        return "input"
    hints = method.hints
    if hints is None:
        return label(method)
    return f"{method.name} (strength {hints.strength:g}, told σ {255 * hints.sigma:.3g}/255)"


def plus_minus(name: str, statistic: "Statistic") -> str:
    """Mean and standard deviation, with the digits that a measure deserves."""
    if statistic.mean == float("inf"):
        return "∞"
    digits = 2 if name == "psnr" else 4
    return f"{statistic.mean:.{digits}f} ± {statistic.deviation:.{digits}f}"


def decibels(value: float) -> str:
    """PSNR with two digits; ∞ where nothing differs."""
    return "∞" if value == float("inf") else f"{value:.2f}"
