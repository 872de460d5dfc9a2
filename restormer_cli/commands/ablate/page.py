"""An ablation's figure, as a PNG and in one self-contained page (report/html.py renders it)."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from restormer_cli.commands.ablate.tables import answer_lines, answer_table, budget_table, mean_text, shape_text
from restormer_cli.errors import one_line
from restormer_cli.files import write_atomically
from restormer_cli.report.figures import COLOURS, drawing
from restormer_cli.report.html import render
from restormer_cli.report.tables import cells

if TYPE_CHECKING:  # importing them would load torch
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from restormer_cli.commands.ablate.types import Finished

CAPTION = (
    "Left: accuracy against speed, up and left is better; bars are standard errors over pictures and seeds together, "
    "wider than those of the paired differences. Right: validation PSNR along the training, mean over the seeds; the "
    "band reaches from the lowest to the highest seed."
)


def write_figure(finished: "Finished", path: Path) -> None:
    """The figure as a PNG."""
    figure = draw(finished)
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=130)
    write_atomically(path, lambda file: file.write(stream.getvalue()))


def write_page(finished: "Finished", path: Path) -> None:
    """The page, whole or not at all."""
    started = finished.started
    best = max(finished.means, key=lambda row: row[1].mean)
    numbers = [
        (f"{mean_text(estimate)} dB", name, "good" if name == best[0] else "") for name, estimate in finished.means
    ]
    seeds = f"{finished.repetitions} of {len(started.seeds)}"
    length = "iterations of the first arm, equal time" if started.equal == "time" else "iterations each"
    settings = [
        ("length", f"{started.iterations:,} {length}"),
        ("seeds", seeds),
        ("data", one_line(started.data)),
        ("degradation", started.degradation or "as the pairs have it"),
        ("scored", f"{started.pictures} pictures, {f'centre crops of {started.crop}' if started.crop else 'whole'}"),
        ("device", f"{started.device}: {started.machine.processor}, {started.machine.threads} threads"),
    ]
    verdict, *lines = answer_lines(finished)
    text = render(
        "ablate.html",
        title=" vs ".join(arm.name for arm in started.arms),
        lead=verdict,
        numbers=numbers,
        settings=settings + [(arm.name, shape_text(arm.recipe.model, arm.window)) for arm in started.arms],
        notes=[*lines, *started.notes],
        figures=[(drawing(draw(finished)), CAPTION)],
        tables=[
            ("What came out", *cells(answer_table(finished))),
            ("Budgets, for a picture of 256²", *cells(budget_table(started))),
            ("PSNR in dB, picture by picture", *_pictures(finished)),
        ],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda stream: stream.write(text.encode()))


def _pictures(finished: "Finished") -> tuple[list[str], list[list[str]]]:
    """Every score: pictures down, arms and seeds across."""
    rows = [(arm.name, row) for arm in finished.started.arms for row in finished.of(arm.name)]
    columns = ["picture ", "input", *(f"{name}, seed {row.repetition + 1}" for name, row in rows)]
    first = rows[0][1]
    table = [
        [one_line(name), f"{first.inputs[index]:.2f}", *(f"{row.pictures[index][1]:.2f}" for _, row in rows)]
        for index, (name, _) in enumerate(first.pictures)
    ]
    return columns, table


# --- The figure -----------------------------------------------------------------------------------------------


def draw(finished: "Finished") -> "Figure":
    """Accuracy against speed, and curves by iteration."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no state shared with others
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4.4), layout="constrained")
    FigureCanvasAgg(figure)
    speed, curves = figure.subplots(1, 2)
    for panel in (speed, curves):
        panel.spines[["top", "right"]].set_visible(False)
        panel.set_facecolor("none")
    _draw_speed(speed, finished)
    _draw_curves(curves, finished)
    return figure


def _draw_speed(panel: "Axes", finished: "Finished") -> None:
    means = dict(finished.means)
    prices = {price.arm: price.seconds for price in finished.prices}
    for index, arm in enumerate(finished.started.arms):
        estimate, seconds = means[arm.name], prices.get(arm.name)
        if seconds is None:
            continue
        panel.errorbar(
            seconds, estimate.mean, yerr=estimate.error, fmt="o", markersize=8, capsize=4,
            color=COLOURS[index % len(COLOURS)], label=f"{arm.name}, {estimate.mean:.2f} dB",
        )  # fmt: skip
    panel.set(xlabel="seconds per megapixel", ylabel="mean PSNR, dB")
    panel.margins(0.2)
    if panel.get_legend_handles_labels()[1]:
        panel.legend(frameon=False, fontsize=8)


def _draw_curves(panel: "Axes", finished: "Finished") -> None:
    for index, arm in enumerate(finished.started.arms):
        rows = [row.curve for row in finished.of(arm.name) if row.curve]
        if not rows or len({len(row) for row in rows}) > 1:
            continue
        at = [iteration for iteration, _ in rows[0]]
        values = np.array([[psnr for _, psnr in row] for row in rows])
        colour = COLOURS[index % len(COLOURS)]
        panel.plot(at, values.mean(axis=0), "o-", markersize=3, color=colour, label=arm.name)
        panel.fill_between(at, values.min(axis=0), values.max(axis=0), color=colour, alpha=0.15, linewidth=0)
    panel.set(xlabel="iteration", ylabel="validation PSNR, dB")
