"""A run's curves as one picture: loss, learning rate and validation PSNR over the iterations."""

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restormer_cli.files import write_atomically

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_curves(metrics: Path, picture: Path, title: str) -> bool:
    """metrics.jsonl -> a PNG; False where there is nothing to draw yet. Raises Failed where it cannot be written."""
    entries = list(_entries(metrics))
    steps = [entry for entry in entries if "iteration" in entry and entry["loss"] is not None]
    scores = [entry for entry in entries if "validation" in entry]
    if not steps:
        return False
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # no display, and no state shared with others
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 9 if scores else 6), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(3 if scores else 2, 1, sharex=True)
    figure.suptitle(title)
    at = [entry["iteration"] for entry in steps]
    losses = [entry["loss"] for entry in steps]
    panels[0].plot(at, losses, linewidth=0.5, color="tab:blue", alpha=0.35)
    panels[0].plot(at, smoothed(losses), color="tab:blue")
    panels[0].set(ylabel="training loss", yscale="log" if min(losses) > 0 else "linear")  # minus a PSNR is below 0
    panels[1].plot(at, [entry["lr"] for entry in steps], color="tab:gray")
    panels[1].set(ylabel="learning rate", yscale="log")
    if scores:
        _draw_scores(panels[2], scores)
    for panel in panels:
        for previous, entry in pairwise(steps):
            if entry["stage"] != previous["stage"]:
                panel.axvline(entry["iteration"], linewidth=0.5, color="black", linestyle=":")
    panels[-1].set(xlabel="iteration (dotted: a stage begins)")
    write_atomically(picture, lambda stream: figure.savefig(stream, format="png", dpi=120))
    return True


def smoothed(values: list[float]) -> list[float]:
    """A running mean that forgets over about a fiftieth of the curve; unbiased at its start."""
    keep = 1 - 1 / max(1, len(values) / 50)
    total = weight = 0.0
    result = []
    for value in values:
        total, weight = keep * total + value, keep * weight + 1
        result.append(total / weight)
    return result


def _draw_scores(panel: "Axes", scores: list[dict[str, Any]]) -> None:
    at = [entry["validation"] for entry in scores]
    panel.plot(at, [entry["psnr"] for entry in scores], marker="o", markersize=3, color="tab:green", label="output")
    panel.plot(at, [entry["input_psnr"] for entry in scores], color="tab:red", linestyle="--", label="input")
    panel.set(ylabel="validation PSNR, dB")
    panel.legend()


def _entries(path: Path) -> Iterator[dict[str, Any]]:
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # nothing logged
        return
    for line in lines:
        try:
            yield json.loads(line)
        except ValueError:  # torn by a kill
            continue
