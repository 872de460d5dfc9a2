"""`bench`: how fast, how large, how good, compared with what."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

from restormer_cli.benchmark.methods import needs_onnx
from restormer_cli.benchmark.scoring import ImageScore, Tuning, evaluate
from restormer_cli.benchmark.timing import Timing, TimingProgress, export_elsewhere, measure
from restormer_cli.commands.bench.plan import start
from restormer_cli.commands.bench.summary import gates, scaling, summarise
from restormer_cli.commands.bench.types import Cost, Finished, Quality, Request, Started
from restormer_cli.errors import UserError
from restormer_cli.metrics.perceptual import Perceptual


def bench(request: Request) -> Iterator[Started | TimingProgress | Timing | Tuning | ImageScore | Finished]:
    """Yields Started, then TimingProgress and Timing (speed), Tuning and ImageScore (quality), then Finished.

    Raises UserError before any work where the request is wrong, and at the end where no picture could be judged.
    """
    started = start(request)
    yield started
    result = Finished(started)
    with _exported(started) as onnx:
        if started.sizes:
            cells = []
            for event in _cost(started, onnx):
                if isinstance(event, Timing):
                    cells.append(event)
                yield event
            result = replace(result, cost=Cost(tuple(cells), scaling(cells)))
        if started.task is not None:
            judged = []
            for event in _quality(started, onnx):
                if isinstance(event, ImageScore):
                    judged.append(replace(event, views=None))  # a page takes them as they come
                yield event
            result = replace(result, quality=_judgement(started, judged))
    yield replace(result, gates=gates(request.gates, result))


@contextmanager
def _exported(started: Started) -> Iterator[Path | None]:
    """The network as an ONNX file for as long as it is needed, if anybody needs it."""
    if not any(needs_onnx(method.kind) for method in started.methods):
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="restormer-bench-") as folder:
        path = Path(folder) / "network.onnx"
        export_elsewhere(started.network, path, started.machine.threads)
        yield path


def _cost(started: Started, onnx: Path | None) -> Iterator[TimingProgress | Timing]:
    for size in started.sizes:
        yield from measure(
            [(method, started.network) for method in started.methods],
            size,
            rounds=started.runs,
            threads=started.machine.threads,
            onnx=onnx,
        )


def _quality(started: Started, onnx: Path | None) -> Iterator[Tuning | ImageScore]:
    task = started.task
    assert task is not None
    yield from evaluate(
        started.methods,
        started.network,
        task.source,
        task.protocol,
        threads=started.machine.threads,
        onnx=onnx,
        perceptual=Perceptual(task.metrics) if task.metrics else None,
        keep_views=task.keep_views,
    )


def _judgement(started: Started, judged: list[ImageScore]) -> Quality:
    task = started.task
    assert task is not None
    failed = {event.sample for event in judged if event.error is not None}
    if len(failed) == len(task.source.samples):
        first = next(event.error for event in judged if event.error is not None)
        raise UserError(f"none of {len(failed)} pictures could be scored; the first: {first}")
    return Quality(task, tuple(judged), summarise(started, judged), len(failed))
