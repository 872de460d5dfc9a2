"""Terminal view of `train`."""

import time
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from restormer_cli.report.console import animated, caution, duration, stderr

if TYPE_CHECKING:
    from restormer_cli.commands.train.run import Planned as PlannedTraining
    from restormer_cli.commands.train.run import Started as TrainingStarted
    from restormer_cli.training.trainer import StepLog
    from restormer_cli.training.validation import ValidationLog


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
    """Contents of the panel, kept from the logs."""

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
        from restormer_cli.data.pictures import Note, Reading
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


def show_plan(planned: "PlannedTraining") -> None:
    """Print a plan to stdout, as plain lines."""
    print("\n".join(plan_lines(planned)))


def plan_lines(planned: "PlannedTraining") -> list[str]:
    """Lines of a recipe's plan."""
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
    if (teacher := recipe.teacher) is not None:
        lines.append(f"teacher: {teacher.weights}, {teacher.views} of its views at a time; TFLOPs have its answers too")
    if plan.uneven:
        stages = ", ".join(map(str, plan.uneven))
        lines.append(f"warning: in stages {stages} some of {plan.devices} devices wait for others (run.uneven = true)")
    if recipe.expected:
        lines.append(f"expected: {recipe.expected}")
    if planned.missing:
        lines.append(f"not here yet: {', '.join(planned.missing)}")
    return lines
