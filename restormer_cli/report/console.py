"""All of rich: what people see on stderr while a verb works, from the plain values that it yields.

Without a terminal, or with NO_COLOR, there are plain lines instead of a live panel.
"""

import os
import time
from collections import Counter
from collections.abc import Generator, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live
from rich.panel import Panel
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TransferSpeedColumn,
)
from rich.table import Table
from rich.text import Text

from restormer_cli.errors import printable

if TYPE_CHECKING:  # importing them would load torch
    from restormer_cli.commands.restore.types import Advanced, Planned, Restored, Started
    from restormer_cli.commands.train.run import Planned as PlannedTraining
    from restormer_cli.commands.train.run import Started as TrainingStarted
    from restormer_cli.training.trainer import StepLog
    from restormer_cli.training.validation import ValidationLog

# rich's own reading of NO_COLOR would still make text bold and draw panels.
stderr = Console(
    stderr=True, highlight=False, soft_wrap=True, color_system=None if os.environ.get("NO_COLOR") else "auto"
)


def complain(message: str) -> None:
    """One red line, whatever characters a file's name brings along."""
    line = printable(" ".join(message.split()))
    if os.environ.get("RANK", "0") != "0":  # one of several processes of accelerate launch
        line = f"process {os.environ['RANK']}: {line}"
    stderr.print(Text(f"error: {line}", style="bold red"))


def animated() -> bool:
    return stderr.is_terminal and stderr.color_system is not None


def fetched(name: str | None) -> str | None:
    """Weights as they were named; those that are elsewhere are fetched first, and become a path."""
    from restormer_cli.model.hub import fetch, is_remote

    if name is None or not is_remote(name) or os.path.lexists(name):
        return name
    first = os.environ.get("RANK", "0") == "0"  # of several processes one tells

    def notice(text: str) -> None:
        if first:
            stderr.print(Text(f"note: {text}", style="yellow"))

    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=stderr, transient=True, disable=not (first and animated()),
    ) as bar:  # fmt: skip
        task = bar.add_task(name, total=None)
        return str(fetch(name, notice, lambda done, total: bar.update(task, completed=done, total=total)))


def show_restoring(events: Iterable[object]) -> int:
    """Show a restoration as it goes; returns how many pictures failed. Draws the end of an interrupted one too."""
    from restormer_cli.commands.restore.types import Advanced, Planned, Restored, Started

    view = RestoringView()
    try:
        for event in events:
            if isinstance(event, Started):
                view.start(event)
            elif isinstance(event, Planned):
                view.plan(event)
            elif isinstance(event, Advanced):
                view.advance(event)
            elif isinstance(event, Restored):
                view.add(event)
    except KeyboardInterrupt:
        view.close()
        if view.started is not None:
            stderr.print(Text(f"interrupted: {view.summary()}; go on with --skip-existing"))
        raise
    finally:
        view.close()
        if isinstance(events, Generator):
            events.close()
    if view.started is not None:  # else another process of ours tells
        stderr.print(Text(view.summary()))
    return view.failed


class RestoringView:
    """One live display on a terminal, else a line per picture; both from the same counts."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.done = self.planned = self.skipped = self.failed = 0
        self.megapixels = 0.0
        self.peak = 0
        self.plans: Counter[str] = Counter()
        self._begun = self._told = time.monotonic()
        self._left: dict[str, int] = {}
        self._read: dict[str, int] = {}
        self._pixels: dict[str, int] = {}
        self._live: Live | None = None
        self._bar = Progress(BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=stderr)
        self._task: TaskID | None = None

    def start(self, event: "Started") -> None:
        """The first event: what will be done."""
        self.started, self._begun = event, time.monotonic()
        self._left = dict(event.bytes_by_format)
        for line in _started_lines(event):
            stderr.print(Text(line))
        if animated():
            self._task = self._bar.add_task("", total=event.pictures)
            self._live = Live(self._bar, console=stderr, refresh_per_second=4)
            self._live.start()

    def add(self, event: "Restored") -> None:
        """A picture that is done, skipped or failed."""
        self._count(event)
        alone = self.started is not None and self.started.pictures == 1
        if event.error is not None and not alone:  # of a single picture the error itself follows
            complain(event.error)
        elif event.error is None and event.seconds is not None and self._live is None:
            stderr.print(Text(printable(f"{event.target}  {event.width}×{event.height}  {event.seconds:.1f} s")))
        for note in event.notes:
            stderr.print(Text(printable(f"note: {event.source}: {note}"), style="yellow"))
        if self._task is not None:
            self._bar.update(self._task, advance=1, description=self.rates())

    def plan(self, event: "Planned") -> None:
        """A picture of a dry run."""
        self.planned += event.error is None and not event.skipped
        self.skipped += event.skipped
        self.failed += event.error is not None
        if event.error is not None:
            complain(event.error)
            return
        how = "there already" if event.skipped else str(event.plan)
        memory = f", {event.predicted / 1e9:.2f} GB" if event.predicted else ""
        stderr.print(Text(printable(f"{event.target}  {event.width}×{event.height}  {how}{memory}")))

    def advance(self, event: "Advanced") -> None:
        """A frame of a video: on a terminal the bar counts frames, else there is a line now and then."""
        rate = event.frames / max(event.seconds, 1e-9)
        left = "" if event.total is None else f" · {duration(max(0, event.total - event.frames) / rate)} left"
        if self._task is not None:
            description = f"{rate:.2f} frames/s{left}"
            self._bar.update(self._task, total=event.total, completed=event.frames, description=description)
        elif time.monotonic() - self._told > 10:
            self._told = time.monotonic()
            of = "" if event.total is None else f" of {event.total:,}"
            stderr.print(Text(f"frame {event.frames:,}{of}  {rate:.2f} frames/s{left}"))

    def _count(self, event: "Restored") -> None:
        kind = event.source.suffix.lower()
        self._left[kind] = self._left.get(kind, 0) - event.length
        if event.error is not None:
            self.failed += 1
        elif event.seconds is None:
            self.skipped += 1
        else:
            self.done += 1
            self.peak = max(self.peak, event.peak or 0)
            if event.plan:
                self.plans[event.plan] += 1
            pixels = event.width * event.height * event.frames
            self.megapixels += pixels / 1e6
            self._read[kind] = self._read.get(kind, 0) + event.length
            self._pixels[kind] = self._pixels.get(kind, 0) + pixels

    def rates(self) -> str:
        """Pictures and megapixels per second so far, and the time left."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        words = [f"{self.done / seconds:.1f} pictures/s", f"{self.megapixels / seconds:.2f} megapixels/s"]
        left = self.seconds_left()
        return " · ".join(words if left is None else [*words, f"{duration(left)} left"])

    def seconds_left(self) -> float | None:
        """By the pixels still to come: their files' bytes, at the pixels per byte that their format had so far."""
        if not self.megapixels:
            return None
        seen, read = sum(self._pixels.values()), max(1, sum(self._read.values()))
        pixels = 0.0
        for kind, length in self._left.items():
            ratio = self._pixels[kind] / max(1, self._read[kind]) if kind in self._pixels else seen / read
            pixels += max(0, length) * ratio
        return pixels / 1e6 * (time.monotonic() - self._begun) / self.megapixels

    def summary(self) -> str:
        """The last line."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        rate = f", {self.megapixels / seconds:.2f} megapixels per second" if self.megapixels else ""
        skips = f", {self.skipped} skipped" if self.skipped else ""
        what = f"{self.planned} would be restored" if self.planned else f"{self.done} restored"
        return f"{what}{skips}, {self.failed} failed{rate}{self._how()}"

    def _how(self) -> str:
        """Precision, plans and memory, where a network ran."""
        if not self.plans or self.started is None:
            return ""
        (most, _), *others = self.plans.most_common()
        plans = most + "".join(f", {plan} {count}×" for plan, count in others)
        memory = f", at most {self.peak / 1e9:.2f} GB" if self.peak else ""
        return f" ({self.started.precision}, {plans}{memory})"

    def close(self) -> None:
        """Stop the live display."""
        if self._live is not None:
            self._live.stop()
            self._live = None


def _started_lines(event: "Started") -> list[str]:
    pictures = f"{event.pictures} picture{'s' * (event.pictures != 1)}"
    if event.weights is None:
        return [f"{pictures} · made worse by {event.degradation}"]
    how = f"{event.device}, {event.precision}, " + (f"tiles of {event.tile}" if event.tile else "whole pictures")
    lines = [f"{pictures} · {event.weights.name} · {how}"]
    if event.assumed:
        lines.insert(
            0,
            f"no --task or --weights given: using the bundled {event.task or event.weights.stem} checkpoint",
        )
    return lines + [f"note: {note}" for note in event.notes]


def show_training(events: Iterable[object]) -> None:
    """Show a training run as it goes: a live panel on a terminal, else a line now and then."""
    from restormer_cli.commands.train.run import Started

    with ExitStack() as stack:
        view: TrainingView | None = None
        for event in events:
            if isinstance(event, Started):
                view = TrainingView.started(event)
                stack.callback(view.close)
            elif view is not None:
                view.take(event)


class TrainingView:
    """What the panel shows, kept from the logs."""

    def __init__(
        self, stages: list[tuple[int, int, int]], name: str, folder: Path = Path(), expected: str | None = None
    ) -> None:
        self.stages = stages
        self.name = name
        self.folder = folder
        self.expected = expected
        self.skipped = 0
        self.live: Live | None = None
        self.log: StepLog | None = None
        self.validation: ValidationLog | None = None
        self._pixels = self._pictures = self._seconds = 0.0
        self._last_line = self._last_step = time.monotonic()

    @classmethod
    def started(cls, event: "TrainingStarted") -> "TrainingView":
        """Tell what will be trained; a live panel where the terminal can show one."""
        recipe = event.recipe
        length = f"{recipe.iterations:,} iterations"
        stderr.print(Text(f"training {recipe.name} ({recipe.task}) for {length} into {event.folder}"))
        if recipe.expected:
            stderr.print(Text(f"expected: {recipe.expected}"))
        stages = [(stage.iterations, stage.patch, stage.batch) for stage in recipe.stage]
        view = cls(stages, recipe.name, event.folder, recipe.expected)
        if animated():
            view.live = Live(console=stderr, refresh_per_second=4)
            view.live.start()
        return view

    def take(self, event: object) -> None:
        """Show one event of a run."""
        # Imported only now: a mistake in the recipe is told at once, without torch.
        from restormer_cli.commands.train.run import Finished
        from restormer_cli.data.batches import Note, Reading
        from restormer_cli.training.trainer import RolledBack, StepLog, Stopped
        from restormer_cli.training.validation import ValidationLog

        if isinstance(event, StepLog):
            self.step(event)
            self._refresh(self.line() if self.live is None and self.due() else None)
        elif isinstance(event, ValidationLog):
            self.validation = event
            self._refresh(f"{event.iteration:>8,}  validation {self.score()}")
        elif isinstance(event, RolledBack):
            caution(
                f"iteration {event.iteration:,}: too many steps in a row had no finite loss or gradient; back to "
                f"iteration {event.to:,}, and on with {event.scale} of the learning rate"
            )
        elif isinstance(event, Stopped):
            self.close()
            kept = f"iteration {event.kept:,} is kept" if event.kept else "nothing is kept yet"
            caution(f"stopped after iteration {event.iteration:,}; {kept}; go on with --resume")
            self.draw_curves()
        elif isinstance(event, Reading):
            stderr.print(Text(f"reading pictures: {event.done:,} of {event.total:,}"))
        elif isinstance(event, Note):
            caution(f"note: {event.text}")
        elif isinstance(event, Finished):
            self.close()
            self.draw_curves()
            stderr.print(Text(f"weights: {event.weights}"))

    def _refresh(self, line: str | None) -> None:
        if self.live is not None:
            self.live.update(self.panel())
        elif line is not None:
            stderr.print(Text(line))

    def draw_curves(self) -> None:
        """Loss, rate and score over the iterations as a picture in the run folder."""
        from restormer_cli.commands.train.curves import draw_curves

        picture = self.folder / "curves.png"
        if draw_curves(self.folder / "metrics.jsonl", picture, f"training {self.name}"):
            stderr.print(Text(f"curves: {picture}"))

    def close(self) -> None:
        """End the live panel."""
        if self.live is not None:
            self.live.stop()
            self.live = None

    def step(self, log: "StepLog") -> None:
        """Take in one iteration; rates are averaged over about the last 50."""
        now = time.monotonic()
        keep = 0.98 if self.log is not None else 0.0
        self._pixels = keep * self._pixels + log.batch * log.patch**2
        self._pictures = keep * self._pictures + log.batch
        self._seconds = keep * self._seconds + (now - self._last_step if self.log is not None else log.seconds)
        self._last_step = now
        self.skipped = max(self.skipped, log.skipped)
        self.log = log

    def due(self) -> bool:
        """Whether it is time for another plain line: every ten seconds."""
        if time.monotonic() - self._last_line < 10:
            return False
        self._last_line = time.monotonic()
        return True

    def seconds_left(self) -> float:
        """By the pixels still to come, so that a change of stage does not upset it."""
        assert self.log is not None
        pixels, end = 0, 0
        for iterations, patch, batch in self.stages:
            end += iterations
            pixels += min(iterations, max(0, end - self.log.iteration)) * batch * patch**2
        return pixels * self._seconds / max(1.0, self._pixels)

    def score(self) -> str:
        """Validation PSNR beside the input's own."""
        if self.validation is None:
            return "–"
        return f"{self.validation.psnr:.2f} dB (input {self.validation.input_psnr:.2f} dB)"

    def rows(self) -> list[tuple[str, str]]:
        """Label and value of every field of the panel."""
        assert self.log is not None
        total = sum(iterations for iterations, _, _ in self.stages)
        return [
            ("iteration", f"{self.log.iteration:,} of {total:,}"),
            (
                "stage",
                f"{self.log.stage + 1} of {len(self.stages)}: patch {self.log.patch}, batch {self.log.batch}",
            ),
            ("loss", f"{self.log.loss:.5f}"),
            ("learning rate", f"{self.log.lr:.2e}"),
            ("validation PSNR", self.score()),
            ("images per second", f"{self._pictures / max(self._seconds, 1e-9):.1f}"),
            ("time left", duration(self.seconds_left())),
            *([("expected", self.expected)] if self.expected else []),
            *([("steps skipped", f"{self.skipped:,} without a finite loss or gradient")] if self.skipped else []),
        ]

    def line(self) -> str:
        """The panel in one line."""
        assert self.log is not None
        return (
            f"{self.log.iteration:>8,}  stage {self.log.stage + 1}  patch {self.log.patch}  batch {self.log.batch}  "
            f"loss {self.log.loss:.5f}  lr {self.log.lr:.2e}  "
            f"{self._pictures / max(self._seconds, 1e-9):.1f} images/s  {duration(self.seconds_left())} left"
        )

    def panel(self) -> Panel:
        """The live panel."""
        table = Table.grid(padding=(0, 2))
        for label, value in self.rows():
            table.add_row(Text(label, style="dim"), Text(value))
        return Panel(table, title=f"training {self.name}", expand=False)


def caution(line: str) -> None:
    """A yellow line."""
    stderr.print(Text(line, style="yellow"))


def show_plan(planned: "PlannedTraining") -> None:
    """Print a plan to stdout, as plain lines."""
    print("\n".join(plan_lines(planned)))


def plan_lines(planned: "PlannedTraining") -> list[str]:
    """What a recipe will do, for people."""
    plan, recipe = planned.plan, planned.plan.recipe
    devices = f"{plan.devices} device{'s' * (plan.devices > 1)}"
    lines = [
        f"{recipe.name} ({recipe.task}): {recipe.iterations:,} iterations, {plan.stages[-1].samples:,} pictures, "
        f"{devices}, {recipe.run.precision}",
        f"network: {plan.parameters:,} parameters; a 256² picture takes {plan.gmacs:.2f} G multiply-accumulates in "
        f"convolutions (the paper's FLOPs), {plan.gflops:.1f} GFLOPs in all",
        "",
    ]
    rows = [
        ("stage", "iterations", "up to", "patch", "batch", "= each × devices × steps", "Mpixel", "pictures seen",
         "TFLOPs", "memory"),
        *(
            (str(number), f"{row.stage.iterations:,}", f"{row.last:,}", f"{row.stage.patch}²", str(row.stage.batch),
             f"= {row.split}", f"{row.megapixels:.2f}", f"{row.samples:,}", f"{row.tflops:.3g}",
             f"{row.memory / 1e9:.1f} GB")
            for number, row in enumerate(plan.stages)
        ),
    ]  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines += ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    lines += [
        "",
        "Mpixel and TFLOPs: per iteration, over all devices, there and back. memory: on each device, estimated; "
        "less with run.micro_batch or run.activation_checkpointing.",
        "learning rate: " + ", ".join(f"{rate:.3g} at {iteration:,}" for iteration, rate in plan.rates),
    ]
    if plan.uneven:
        stages = ", ".join(map(str, plan.uneven))
        lines.append(f"warning: in stages {stages} some of {plan.devices} devices wait for others (run.uneven = true)")
    if recipe.expected:
        lines.append(f"expected: {recipe.expected}")
    if planned.missing:
        lines.append(f"not here yet: {', '.join(planned.missing)}")
    return lines


def duration(seconds: float, digits: int = 0) -> str:
    """12 s (with digits of its own), 4 min 05 s, 2 h 03 min."""
    if round(seconds, digits) < 60:
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
