"""What `bench` shows: progress on stderr, tables on stdout, which are data. The other half of report.py.

On a terminal tables have lines; into a file or a pipe they go as Markdown.
"""

import io
import os
from collections.abc import Iterable
from contextlib import ExitStack
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from restormer_cli import report

if TYPE_CHECKING:  # importing them would load torch
    from restormer_cli.commands.bench import Cost, Finished, Started
    from restormer_cli.engine.contestants import Contestant
    from restormer_cli.engine.stopwatch import Cell


def show_benchmark(events: Iterable[object], *, tables: bool = True) -> "Finished":
    """Show a benchmark as it goes, then its tables (unless the caller prints JSON); returns the result."""
    from restormer_cli.commands.bench import Finished, Started
    from restormer_cli.engine.stopwatch import Cell, Turn

    finished: Finished | None = None
    with ExitStack() as stack:
        progress = bar = None
        for event in events:
            if isinstance(event, Started):
                for line in started_lines(event):
                    report.console.print(Text(line))
                if report._animated():
                    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
                    progress = stack.enter_context(Progress(*columns, console=report.console, transient=True))
                    bar = progress.add_task("")
            elif isinstance(event, Turn) and progress is not None and bar is not None:
                what = "warm-up" if event.round == 0 else f"run {event.round} of {event.rounds}"
                progress.update(bar, description=f"{event.height}×{event.width}  {label(event.contestant)}  {what}")
            elif isinstance(event, Cell) and progress is None:
                report.console.print(Text(cell_line(event)))
            elif isinstance(event, Finished):
                finished = event
    assert finished is not None
    if tables:
        print_tables(finished)
    return finished


def started_lines(started: "Started") -> list[str]:
    """What is about to be measured, and on what."""
    network, machine = started.network, started.machine
    kind = "random weights" if network.path is None else str(network.path)
    lines = ["no network named: using " + network.name] if started.assumed else []
    lines += [f"{network.name} · {kind} · {started.parameters:,} parameters", machine_line(started)]
    if machine.load is not None and machine.load > 0.5:
        lines.append(f"note: the machine is busy (load {machine.load:.1f}): times will be too long, and uneven")
    return lines + [f"note: {note}" for note in started.notes]


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


def cell_line(cell: "Cell") -> str:
    """One measurement in a line, for those without a terminal."""
    size = f"{cell.height}×{cell.width}"
    if cell.error is not None:
        return f"{size}  {label(cell.contestant)}: {cell.error}"
    peak = "" if cell.peak is None else f"  {gigabytes(cell.peak)}"
    return f"{size}  {label(cell.contestant)}  {cell.median:.3g} s{peak}"


def label(contestant: "Contestant") -> str:
    """A contestant with its precision, and its device where that is no CPU."""
    device = "" if contestant.device == "cpu" else f" {contestant.device}"
    return f"{contestant.name} {contestant.precision}{device}"


def gigabytes(size: float) -> str:
    """Bytes as decimal gigabytes."""
    return f"{size / 1e9:.2f} GB"


def print_tables(finished: "Finished") -> None:
    """Every table of the result, on stdout."""
    console = Console(highlight=False, color_system=None if os.environ.get("NO_COLOR") else "auto")
    for heading, table in result_tables(finished):
        if console.is_terminal:
            console.print(Text(heading, style="bold"), table)
        else:
            print(f"{heading}\n\n{markdown(table)}\n")


def markdown(table: Table) -> str:
    """A table as Markdown, its columns aligned."""
    table.box = box.MARKDOWN
    console = Console(file=io.StringIO(), width=1000, color_system=None)
    with console.capture() as captured:
        console.print(table)
    return "\n".join(line.rstrip() for line in captured.get().splitlines() if line.strip())


def result_tables(finished: "Finished") -> list[tuple[str, Table]]:
    """(heading, table) of everything that was measured."""
    tables = [("Work", _work_table(finished.started))] if finished.started.operations else []
    if finished.cost is not None:
        tables.append((f"Speed and memory, median of {finished.started.runs}", _cost_table(finished.cost)))
        stages = _stage_table(finished.cost)
        tables += [("Where the time goes, seconds", stages)] if stages is not None else []
        if finished.cost.scaling:
            tables.append(("Growth: seconds ~ pixels to this power", _scaling_table(finished.cost)))
    return tables


def _table(*columns: str) -> Table:
    """A table whose first column is text and whose others are figures."""
    table = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        table.add_column(column, justify="left" if index == 0 else "right")
    return table


def _work_table(started: "Started") -> Table:
    table = _table("size", "parameters", "convolution GMACs (the paper's GFLOPs)", "all GMACs", "GFLOPs (2 per MAC)")
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
    table = _table("size", "contestant", "seconds", "fastest–slowest", "relative", "MP/s", "peak memory")
    table.columns[1].justify = "left"
    if against:
        table.add_column("difference from textbook", justify="right")
    first: dict[tuple[int, int], Cell] = {}
    for cell in cost.cells:
        size = f"{cell.height}×{cell.width}"
        if cell.error is not None:
            table.add_row(size, label(cell.contestant), cell.error)
            continue
        base = first.setdefault((cell.height, cell.width), cell)
        row = [
            size,
            label(cell.contestant),
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
    table = _table("stage", *(f"{c.height}×{c.width} {label(c.contestant)}" for c in cells))
    totals = [sum(seconds for _, seconds in cell.stages) for cell in cells]
    for index, (name, _) in enumerate(cells[0].stages):
        times = [cell.stages[index][1] for cell in cells]
        table.add_row(name, *(f"{t:.3g} ({t / total:.0%})" for t, total in zip(times, totals, strict=True)))
    table.add_row("all", *(f"{total:.3g}" for total in totals))
    return table


def _scaling_table(cost: "Cost") -> Table:
    table = _table("contestant", "exponent")
    for scaling in cost.scaling:
        table.add_row(label(scaling.contestant), f"{scaling.exponent:.2f}")
    return table
