"""Terminal view of `restore`."""

import time
from collections import Counter
from collections.abc import Generator, Iterable
from typing import TYPE_CHECKING

from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn
from rich.text import Text

from restormer_cli.errors import printable
from restormer_cli.report.console import animated, complain, duration, stderr

if TYPE_CHECKING:
    from restormer_cli.commands.restore.types import Diagnosis, FrameDone, Planned, Restored, Started


DRAWN = 0.2
"""Seconds between two steps of the bar within a picture."""
TOLD = 10.0
"""Seconds between two lines about one picture, or a film, where there is no bar."""


def show_restoring(events: Iterable[object], view: "RestoringView | None" = None) -> int:
    """Show a restoration as it goes; returns how many pictures failed. Draws the end of an interrupted one too."""
    from restormer_cli.commands.restore.types import FrameDone, Planned, Restored, Started

    view = view or RestoringView()
    try:
        for event in events:
            if isinstance(event, Started):
                view.start(event)
            elif isinstance(event, Planned):
                view.plan(event)
            elif isinstance(event, FrameDone):
                view.advance(event)
            elif isinstance(event, Restored):
                view.add(event)
    except KeyboardInterrupt:
        view.close()
        if view.started is not None:
            watched = view.started.watching
            words = ("ended", "") if watched else ("interrupted", "; go on with --skip-existing")
            if view.frames and view.started.pictures != 1:
                words = (words[0], f"{words[1]}; the video goes on at frame {view.kept + 1:,}")
            elif view.frames:
                words = (
                    "interrupted",
                    f" after {view.frames:,} frames; the same command goes on at frame {view.kept + 1:,}",
                )
            stderr.print(Text(f"{words[0]}: {view.summary()}{words[1]}"))
        raise
    finally:
        view.close()
        if isinstance(events, Generator):
            events.close()
    if view.started is not None:  # else another process of ours tells
        stderr.print(Text(view.summary()))
        if view.started.left_out:
            stderr.print(Text(printable(f"note: {view.started.left_out}"), style="yellow"))
    return view.failed


class RestoringView:
    """One live display on a terminal, else a line per picture; both from the same counts."""

    def __init__(self) -> None:
        self.started: Started | None = None
        self.done = self.planned = self.skipped = self.failed = 0
        self.megapixels = 0.0
        self.frames = self.kept = self._events = 0
        self.peak = 0
        self.plans: Counter[str] = Counter()
        self.tasks: Counter[str] = Counter()
        self.noise: list[float] = []
        self._begun = self._told = time.monotonic()
        self._left: dict[str, int] = {}
        self._read: dict[str, int] = {}
        self._pixels: dict[str, int] = {}
        self._share = 0.0
        self._picture_begun = self._drawn = self._begun
        self._live: Live | None = None
        self._bar = Progress(BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=stderr)
        self._task: TaskID | None = None

    def start(self, event: "Started") -> None:
        """The first event: what will be done."""
        self.started, self._begun = event, time.monotonic()
        self._left = dict(event.bytes_by_format)
        for line in _started_lines(event):
            stderr.print(Text(line))
        if animated() and not event.watching:
            self._task = self._bar.add_task("", total=event.pictures)
            self._live = Live(self._bar, console=stderr, refresh_per_second=4)
            self._live.start()

    def add(self, event: "Restored") -> None:
        """A picture that is done, skipped or failed."""
        self.frames, self._share = 0, 0.0
        self._events += 1
        self._count(event)
        alone = self.started is not None and self.started.pictures == 1
        if event.error is not None and not alone:  # of a single picture the error itself follows
            complain(event.error)
        elif event.error is None and event.seconds is not None and self._live is None:
            stderr.print(Text(printable(f"{event.target}  {event.width}×{event.height}  {event.seconds:.1f} s")))
        told = self.started is not None and self.started.reason is not None  # at the start, of a film
        if event.diagnosis is not None and event.diagnosis.followed and event.error is None and not told:
            reasons = [page.diagnosis.reason for page in event.pages if page.diagnosis is not None]
            for number, reason in enumerate(reasons or [event.diagnosis.reason], start=1):
                of = f"page {number}: " if reasons else ""
                stderr.print(Text(printable(f"{event.source}: {of}{reason}")))
        for note in event.notes:
            stderr.print(Text(printable(f"note: {event.source}: {note}"), style="yellow"))
        if self._task is not None:
            self._bar.update(self._task, completed=self._events, description=self.rates())

    def plan(self, event: "Planned") -> None:
        """A picture of a dry run."""
        self.planned += event.error is None and not event.skipped
        self.skipped += event.skipped
        self.failed += event.error is not None
        if event.error is not None:
            complain(event.error)
            return
        for number, page in enumerate(event.pages or [event], start=1):
            how = "there already" if event.skipped else str(page.plan)
            memory = f", {page.predicted / 1e9:.2f} GB" if page.predicted else ""
            of = f"page {number} of {len(event.pages)}  " if event.pages else ""
            stderr.print(Text(printable(f"{event.target}  {of}{page.width}×{page.height}  {how}{memory}")))
            self._diagnosed(page.diagnosis)
            if page.diagnosis is not None:
                would = "" if page.diagnosis.followed else "--task auto would say: "
                for line in (page.diagnosis.words, would + page.diagnosis.reason):
                    stderr.print(Text(printable(f"  {line}")))

    def advance(self, event: "FrameDone") -> None:
        """A frame of a video: on a terminal the bar counts frames, else there is a line now and then."""
        self.frames, self.kept = event.frames, event.kept
        rate = event.new / max(event.seconds, 1e-9)
        left = "" if event.total is None else f" · {duration(max(0, event.total - event.frames) / rate)} left"
        several = self.started is not None and self.started.pictures > 1
        if self._task is not None and several:
            share = 0 if event.total is None else min(1, event.frames / event.total)
            description = f"frame {event.frames:,} of this video · {rate:.2f} frames/s{left}"
            self._bar.update(self._task, completed=self._events + share, description=description)
        elif self._task is not None:
            description = f"{rate:.2f} frames/s{left}"
            self._bar.update(self._task, total=event.total, completed=event.frames, description=description)
        elif time.monotonic() - self._told > TOLD:
            self._told = time.monotonic()
            of = "" if event.total is None else f" of {event.total:,}"
            stderr.print(Text(f"frame {event.frames:,}{of}  {rate:.2f} frames/s{left}"))

    def progress(self, share: float) -> None:
        """A share of one picture: the bar moves; without a terminal there is a line now and then."""
        now = time.monotonic()
        if share == 0 or share < self._share:  # another picture, or this one from its beginning
            self._picture_begun = self._told = now
        self._share = share
        if self._task is not None and now - self._drawn > DRAWN:
            self._drawn = now
            self._bar.update(self._task, completed=self._events + share, description=self.of_picture(now))
        elif self._task is None and now - self._told > TOLD and 0 < share < 1:
            self._told = now
            stderr.print(Text(self.of_picture(now)))

    def of_picture(self, now: float) -> str:
        """How much of the picture is done, and when the rest of it will be."""
        spent = now - self._picture_begun
        left = f" · {duration(spent * (1 - self._share) / self._share)} left" if self._share > 0 else ""
        alone = self.started is not None and self.started.pictures == 1
        if alone or not self.megapixels:
            return f"{self._share:.0%} of this picture{left}"
        return f"{self._share:.0%} of this picture · {self.rates()}"

    def _count(self, event: "Restored") -> None:
        kind = event.source.suffix.lower()
        self._left[kind] = self._left.get(kind, 0) - event.input_bytes
        if event.error is not None:
            self.failed += 1
        elif event.seconds is None:
            self.skipped += 1
        else:
            self.done += 1
            for diagnosis in [page.diagnosis for page in event.pages] or [event.diagnosis]:
                self._diagnosed(diagnosis)
            self.peak = max(self.peak, event.peak_bytes or 0)
            if event.plan:
                self.plans[event.plan] += 1
            self.megapixels += event.pixels / 1e6
            self._read[kind] = self._read.get(kind, 0) + event.input_bytes
            self._pixels[kind] = self._pixels.get(kind, 0) + event.pixels

    def _diagnosed(self, diagnosis: "Diagnosis | None") -> None:
        if diagnosis is None:
            return
        sigma = diagnosis.findings["noise"]["sigma"]
        self.noise.append((sum(value**2 for value in sigma) / len(sigma)) ** 0.5)
        if diagnosis.followed:
            self.tasks[diagnosis.task or "left alone"] += 1

    def rates(self) -> str:
        """Pictures and megapixels per second so far, and the time left."""
        seconds = max(time.monotonic() - self._begun, 1e-9)
        words = [f"{self.done / seconds:.1f} pictures/s", f"{self.megapixels / seconds:.2f} megapixels/s"]
        left = self.seconds_left()
        rest = " before the videos" if self.started is not None and self.started.videos else ""
        return " · ".join(words if left is None else [*words, f"{duration(left)} left{rest}"])

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
        tasks = ", ".join(f"{count} {task}" for task, count in self.tasks.most_common())
        noise = f"; noise σ {min(self.noise):.1f} to {max(self.noise):.1f}" if len(self.noise) > 1 else ""
        chosen = f" ({tasks}{noise})" if tasks else noise
        return f"{what}{chosen}{skips}, {self.failed} failed{rate}{self._how()}"

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
    counts = {"picture": event.pictures - event.videos, "video": event.videos}
    words = [f"{count} {word}{'s' * (count != 1)}" for word, count in counts.items() if count]
    pictures = ", ".join(words) or "0 pictures"
    if event.watching:
        pictures = "watching, until Ctrl-C"
    if event.reason is not None:
        network = f" · {event.weights.name} · {event.device}, {event.precision}" if event.weights else ""
        return [f"1 video{network} · {printable(event.reason)}", *_notes(event)]
    if event.automatic:
        return [f"{pictures} · for each the task that it needs · {event.device}, {event.precision}", *_notes(event)]
    if event.weights is None:
        return [f"{pictures} · made worse by {event.degradation}", *_notes(event)]
    how = f"{event.device}, {event.precision}, " + (f"tiles of {event.tile}" if event.tile else "whole pictures")
    lines = [f"{pictures} · {event.weights.name} · {how}"]
    if event.assumed:
        lines.insert(
            0,
            f"no --task or --weights given: using the bundled {event.task or event.weights.stem} checkpoint",
        )
    return lines + _notes(event)


def _notes(event: "Started") -> list[str]:
    return [f"note: {note}" for note in event.notes]
