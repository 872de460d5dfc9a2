"""From single measurements to the figures that people quote."""

from collections.abc import Sequence
from math import inf
from statistics import fmean, median, stdev

import numpy as np

from restormer_cli.benchmark.methods import OURS, Method
from restormer_cli.benchmark.published import published
from restormer_cli.benchmark.scoring import ImageScore, published_sigma
from restormer_cli.benchmark.timing import Timing
from restormer_cli.commands.bench.types import Finished, Gate, Gates, Scaling, Started, Statistic, Summary
from restormer_cli.hardware import parse_memory


def scaling(cells: Sequence[Timing]) -> tuple[Scaling, ...]:
    """The slope of log seconds over log pixels, for every method timed at two sizes or more."""
    found = []
    for method in dict.fromkeys(cell.method for cell in cells):
        points = [(c.height * c.width, c.median) for c in cells if c.method == method and c.error is None]
        if len({pixels for pixels, _ in points}) > 1:
            pixels, seconds = np.log(np.array(points)).T
            found.append(Scaling(method, float(np.polyfit(pixels, seconds, 1)[0])))
    return tuple(found)


def summarise(started: Started, judged: Sequence[ImageScore]) -> tuple[Summary, ...]:
    """Every method over all pictures that all of them managed, and over each folder where there are several."""
    broken = {event.sample for event in judged if event.error is not None}
    sound = [event for event in judged if event.sample not in broken]
    groups: list[str | None] = [None]
    names = list(dict.fromkeys(event.sample.group for event in sound))
    groups += names if len(names) > 1 else []
    found = []
    for group in groups:
        for method in dict.fromkeys(event.method for event in sound):
            rows = [e for e in sound if e.method == method and group in (None, e.sample.group)]
            found.append(_summary(started, method, group, rows))
    return tuple(found)


def _summary(started: Started, method: Method | None, group: str | None, rows: list[ImageScore]) -> Summary:
    seconds = [row.seconds for row in rows if row.seconds is not None]
    rates = [row.seconds / (row.height * row.width / 1e6) for row in rows if row.seconds is not None]
    task = started.task
    assert task is not None
    figure = None
    if method is not None and method.kind == OURS and task.source.crop is None:
        sigma = published_sigma(task.source.degradation)
        figure = published(started.network, task.protocol.name, group or task.dataset, sigma)
    return Summary(
        method,
        group,
        len(rows),
        tuple((name, statistic([measures(row)[name] for row in rows])) for name in measures(rows[0])),
        median(seconds) if seconds else None,
        median(rates) if rates else None,
        figure,
    )


def measures(row: ImageScore) -> dict[str, float]:
    """Name -> value of everything that was measured of a picture."""
    assert row.scores is not None
    known = {"psnr": row.scores.psnr, "ssim": row.scores.ssim, "mae": row.scores.mae, **dict(row.perceptual)}
    return {name: value for name, value in known.items() if value is not None}


def statistic(values: Sequence[float]) -> Statistic:
    """Mean and standard deviation; 0 for one picture. Infinite where a picture is (a PSNR of identical ones)."""
    if not np.isfinite(values).all():
        return Statistic(float("inf"), float("nan"))
    return Statistic(fmean(values), stdev(values) if len(values) > 1 else 0.0)


def gates(limits: Gates, result: Finished) -> tuple[Gate, ...]:
    """Every threshold that was asked for, with the worst of our own runs; one that failed holds none."""
    found = []
    if limits.min_psnr is not None and result.quality is not None:
        rows = [s for s in result.quality.summaries if s.group is None and _is_ours(s.method)]
        scores = [(row.mean("psnr") or 0.0, _whose(row.method)) for row in rows]
        found.append(Gate("min-psnr", limits.min_psnr, *min(scores, default=(-inf, "no picture"))))
    if limits.max_seconds is not None:
        times = [(inf if cell.error else cell.median, _at(cell)) for cell in _ours(result)]
        if not times and result.quality is not None:
            times = [
                (s.seconds, _whose(s.method))
                for s in result.quality.summaries
                if s.group is None and _is_ours(s.method) and s.seconds is not None
            ]
        found += [Gate("max-seconds", limits.max_seconds, *max(times))] if times else []
    if limits.max_memory is not None:
        peaks = [(inf if c.error else float(c.device_peak or c.peak or 0), _at(c)) for c in _ours(result)]
        found += [Gate("max-memory", parse_memory(limits.max_memory, "--max-memory"), *max(peaks))] if peaks else []
    return tuple(found)


def _ours(result: Finished) -> list[Timing]:
    cells = () if result.cost is None else result.cost.cells
    return [cell for cell in cells if _is_ours(cell.method)]


def _is_ours(method: Method | None) -> bool:
    return method is not None and method.kind == OURS


def _whose(method: Method | None) -> str:
    assert method is not None
    return f"{method.name} {method.precision}"


def _at(cell: Timing) -> str:
    return f"{cell.height}×{cell.width} {_whose(cell.method)}"
