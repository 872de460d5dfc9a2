"""Terminal view of `ablate`: progress on stderr, the answer on stdout, which is data."""

import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

from restormer_cli.commands.ablate.tables import budget_table, print_answer
from restormer_cli.report.console import animated, caution, duration, stderr
from restormer_cli.report.tables import markdown

if TYPE_CHECKING:  # importing them would load torch
    from restormer_cli.commands.ablate.types import Finished, Started, Step

LINE_EVERY = 10.0
"""Seconds between plain lines."""


def show_ablation(events: Iterable[object], *, tables: bool = True, page: Path | None = None) -> "Finished | None":
    """Show an ablation as it goes, draw its figure and page, and print its answer (unless the caller prints JSON).

    Returns the answer; None in a process that is not the first of several.
    """
    from restormer_cli.commands.ablate.types import Finished, Started

    finished: Finished | None = None
    with ExitStack() as stack:
        view: AblationView | None = None
        for event in events:
            if isinstance(event, Started):
                view = AblationView(event)
                stack.callback(view.close)
            elif isinstance(event, Finished):
                finished = event
            elif view is not None:
                view.take(event)
    if finished is not None:
        _draw(finished, page)
        if tables:
            print_answer(finished)
    return finished


def _draw(finished: "Finished", page: Path | None) -> None:
    from restormer_cli.commands.ablate.page import write_figure, write_page

    picture = finished.started.folder / "figure.png"
    page = page or finished.started.folder / "report.html"
    write_figure(finished, picture)
    write_page(finished, page)
    stderr.print(Text(f"figure: {picture}"))
    stderr.print(Text(f"page: {page}"))


def show_plan(started: "Started") -> None:
    """Print what would be compared to stdout."""
    print("\n".join(started_lines(started)))


class AblationView:
    """A bar on a terminal, else a line now and then."""

    def __init__(self, started: "Started") -> None:
        self.started = started
        self.lengths = {arm.name: started.iterations for arm in started.trainings}
        self.done: dict[tuple[int, str], int] = {}
        self.progress: Progress | None = None
        self.bar: TaskID | None = None
        self._last_line = time.monotonic()
        for line in started_lines(started):
            stderr.print(Text(line))
        if animated():
            columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
            self.progress = Progress(*columns, console=stderr, transient=True)
            self.progress.start()
            self.bar = self.progress.add_task("", total=self._total())

    def _total(self) -> int:
        return len(self.started.seeds) * sum(self.lengths.values())

    def take(self, event: object) -> None:
        """Show one event."""
        from restormer_cli.commands.ablate.types import Budget, InferenceCost, Notice, Phase, Scored, Step

        if isinstance(event, Step):
            self.done[event.repetition, event.arm] = event.iteration
            self._doing(self.line(event))
        elif isinstance(event, Phase):
            self._doing(event.text)
        elif isinstance(event, Budget):
            self.lengths = dict(event.iterations)
            if event.first < self.started.iterations:
                stderr.print(
                    Text(
                        f"shortened to {event.first:,} iterations: {self.started.iterations:,} would take about "
                        f"{duration(event.whole)} (--minutes 0 trains them all, --iterations N so many)"
                    )
                )
            if self.started.equal == "time":
                lengths = ", ".join(f"{name} {count:,}" for name, count in event.iterations)
                stderr.print(Text(f"iterations in equal time: {lengths}"))
        elif isinstance(event, InferenceCost) and event.error is not None:
            caution(f"note: {event.arm} could not be timed: {event.error}")
        elif isinstance(event, Scored):
            self.done[event.repetition, event.arm] = event.iterations
            stderr.print(
                Text(
                    f"seed {event.repetition + 1}  {event.arm}  {event.psnr:.2f} dB  {event.seconds:.0f} s of training"
                )
            )
        elif isinstance(event, Notice):
            caution(f"note: {event.arm}, seed {event.repetition + 1}: {event.text}")

    def line(self, step: "Step") -> str:
        """Where a training is."""
        return (
            f"seed {step.repetition + 1} of {len(self.started.seeds)}  {step.arm}  "
            f"{step.iteration:,} of {step.of:,}  loss {step.loss:.4f}"
        )

    def _doing(self, text: str) -> None:
        if self.progress is not None and self.bar is not None:
            trained = sum(count for (_, name), count in self.done.items() if name in self.lengths)
            self.progress.update(self.bar, description=text, completed=trained, total=self._total())
        elif time.monotonic() - self._last_line > LINE_EVERY:
            self._last_line = time.monotonic()
            stderr.print(Text(text))

    def close(self) -> None:
        """End the bar."""
        if self.progress is not None:
            self.progress.stop()
            self.progress = None


def started_lines(started: "Started") -> list[str]:
    """Header of a comparison: arms and machine."""
    seeds = f"{len(started.seeds)} seed{'s' * (len(started.seeds) > 1)}"
    length = (
        f"the time of {started.iterations:,} iterations"
        if started.equal == "time"
        else f"{started.iterations:,} iterations"
    )
    what = "degraded as they are" if started.degradation is None else started.degradation
    side = f"centre crops of {started.crop} pixels" if started.crop else "whole"
    lines = [
        f"{' vs '.join(arm.name for arm in started.arms)} at {started.scale} scale: {length} each, {seeds}, "
        f"into {started.folder}",
        f"data: {started.data}; {what}; scored on {started.pictures} picture{'s' * (started.pictures > 1)}, {side}",
    ]
    lines += markdown(budget_table(started)).splitlines()
    return lines + [f"note: {note}" for note in started.notes]
