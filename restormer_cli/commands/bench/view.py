"""Terminal view of `bench`: progress on stderr, tables on stdout, which are data."""

from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.text import Text

from restormer_cli.commands.bench.tables import (
    decibels,
    gate_text,
    label,
    machine_line,
    print_tables,
    task_lines,
    weights_text,
    worst_line,
)
from restormer_cli.report.console import animated, complain, stderr
from restormer_cli.report.tables import gigabytes

if TYPE_CHECKING:  # importing them would load torch
    from restormer_cli.benchmark.timing import Timing
    from restormer_cli.commands.bench.page import BenchPage
    from restormer_cli.commands.bench.types import Finished, Started


def show_benchmark(events: Iterable[object], *, tables: bool = True, page: "BenchPage | None" = None) -> "Finished":
    """Show a benchmark as it goes, then its tables (unless the caller prints JSON), and write its page where there
    is to be one; returns the result."""
    from restormer_cli.benchmark.scoring import ImageScore
    from restormer_cli.commands.bench.types import Finished, Started

    finished: Finished | None = None
    with ExitStack() as stack:
        progress = bar = None
        for event in events:
            if isinstance(event, Started):
                if page is not None:
                    page.start(event)
                for line in started_lines(event):
                    stderr.print(Text(line))
                if animated():
                    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
                    progress = stack.enter_context(Progress(*columns, console=stderr, transient=True))
                    bar = progress.add_task("")
            elif isinstance(event, Finished):
                finished = event
            else:
                if isinstance(event, ImageScore):
                    if event.error is not None:
                        complain(event.error)
                    if page is not None:
                        page.watch(event)
                if progress is not None and bar is not None:
                    progress.update(bar, description=doing(event))
                elif line := done_line(event):
                    stderr.print(Text(line))
    assert finished is not None
    if page is not None:
        page.write(finished)
        stderr.print(Text(f"page: {page.path}"))
    if tables:
        print_tables(finished)
    for gate in finished.gates:
        verdict = "held" if gate.passed else "MISSED"
        stderr.print(Text(f"--{gate.name} {gate_text(gate.name, gate.limit)}: {verdict}, {worst_line(gate)}"))
    return finished


def doing(event: object) -> str:
    """Current activity, for a line that is drawn over itself."""
    from restormer_cli.benchmark.scoring import ImageScore, Tuning
    from restormer_cli.benchmark.timing import TimingProgress

    if isinstance(event, TimingProgress):
        what = "warm-up" if event.round == 0 else f"run {event.round} of {event.rounds}"
        return f"{event.height}×{event.width}  {label(event.method)}  {what}"
    if isinstance(event, Tuning):
        return f"tuning {event.method.name}"
    if isinstance(event, ImageScore):
        return f"{event.sample.name}  {'input' if event.method is None else label(event.method)}"
    return ""


def done_line(event: object) -> str:
    """One measurement in a line, for those without a terminal; nothing for what only begins."""
    from restormer_cli.benchmark.scoring import ImageScore
    from restormer_cli.benchmark.timing import Timing

    if isinstance(event, Timing):
        return cell_line(event)
    if isinstance(event, ImageScore) and event.scores is not None:
        who = "input" if event.method is None else label(event.method)
        seconds = "" if event.seconds is None else f"  {event.seconds:.3g} s"
        return f"{event.sample.name}  {who}  {decibels(event.scores.psnr)} dB{seconds}"
    return ""


def started_lines(started: "Started") -> list[str]:
    """Header of a benchmark: network and machine."""
    network, machine = started.network, started.machine
    lines = ["no network named: using " + network.name] if started.assumed else []
    lines += [f"{network.name} · {weights_text(network)} · {started.parameters:,} parameters", machine_line(started)]
    if machine.load is not None and machine.load > 0.5:
        lines.append(f"note: the machine is busy (load {machine.load:.1f}): times will be too long, and uneven")
    if started.task is not None:
        lines += task_lines(started.task)
    return lines + [f"note: {note}" for note in started.notes]


def cell_line(cell: "Timing") -> str:
    """One measurement in a line, for those without a terminal."""
    size = f"{cell.height}×{cell.width}"
    if cell.error is not None:
        return f"{size}  {label(cell.method)}: {cell.error}"
    peak = "" if cell.peak is None else f"  {gigabytes(cell.peak)}"
    return f"{size}  {label(cell.method)}  {cell.median:.3g} s{peak}"
