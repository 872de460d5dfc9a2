"""`restore --report page.html`: the page of a restoration, made as the pictures come (report/html.py renders it).

Before and after are read from their files once more, so that the page shows what was written, tells of pictures that
were there already, and does not care which process restored them.
"""

import shlex
import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restormer_cli.commands.restore.jobs import STANDARD
from restormer_cli.errors import RestormerError, one_line
from restormer_cli.files import write_atomically
from restormer_cli.images.io import read_pages, read_picture
from restormer_cli.images.video import is_video
from restormer_cli.report.comparison import (
    LEAST_PIXELS,
    MOST_SLIDERS,
    PAGE_PIXELS,
    Comparison,
    compare_samples,
    share_of_page,
    visible,
)
from restormer_cli.report.console import duration
from restormer_cli.report.html import check_page, render

if TYPE_CHECKING:  # importing it would load torch
    from restormer_cli.commands.restore.types import Request, Restored, Started
    from restormer_cli.images.io import Picture

KNOBS = {"strength": 1.0, "luma": 1.0, "chroma": 1.0, "detail": 0.0, "grain": 0.0}
"""With these, all of the change is kept."""
WAITING = 4
"""Pictures whose preview may be behind; then the restoration waits."""


@dataclass(frozen=True)
class PictureRow:
    """One file of a restore page: done (`seconds`), skipped (neither) or failed (`error` says why)."""

    name: str
    width: int = 0
    height: int = 0
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None
    comparison: "Comparison | None" = None
    pages: tuple["PictureRow", ...] = ()
    """Pages that can be shown, where there are several; this row stands for all of them."""
    pixels: int = 0
    """Of all pages or frames; 0: of this one."""

    @property
    def details(self) -> str:
        """Size and time in a phrase."""
        size = f"{self.width:,} × {self.height:,}" if self.width else ""
        return " · ".join(part for part in (size, "" if self.seconds is None else f"{self.seconds:.1f} s") if part)

    @property
    def outcome(self) -> str:
        """Outcome, in a word."""
        return "failed" if self.error else "skipped" if self.seconds is None else "restored"


class RestorePage:
    """Looks on at a restoration: `for event in page.watch(verb.restore(request)): …`."""

    def __init__(self, path: Path, request: "Request") -> None:
        """Raises UserError for a path that cannot become a page, or a file there that is no page of ours."""
        self.path, self.request = path, request
        check_page(path)
        self._started: Started | None = None
        self._rows: list[Future[PictureRow]] = []
        self._share, self._sliders = PAGE_PIXELS, 0
        self._begun = time.monotonic()

    def watch(self, events: "Iterable[object]") -> Iterator[object]:
        """The same events; at their end, be it early, the page is written."""
        from restormer_cli.commands.restore.types import Restored, Started

        waiting: deque[Future[PictureRow]] = deque()
        maker = ThreadPoolExecutor(1, thread_name_prefix="page")
        try:
            for event in events:
                if isinstance(event, Started):
                    self._started, self._share = event, share_of_page(event.pictures)
                elif isinstance(event, Restored):
                    self._rows.append(maker.submit(self._row, event))
                    waiting.append(self._rows[-1])
                    if len(waiting) > WAITING:
                        waiting.popleft().result()
                yield event
        finally:
            if isinstance(events, Generator):
                events.close()
            maker.shutdown()
            # Without a picture there is nothing to show: a refusal, a dry run, or another process's part.
            if self._started is not None and self._rows:
                self._write(self._started)

    def _row(self, event: "Restored") -> PictureRow:
        """Row of one picture, with both sides of it where it can be shown."""
        bases = [base for base in self.request.sources if base in event.source.parents]
        name = event.source.relative_to(bases[0]) if bases else event.source.name
        row = PictureRow(
            name="standard input" if event.source == STANDARD else one_line(str(name)),
            width=event.width,
            height=event.height,
            seconds=event.seconds,
            notes=(*_reason(event), *event.notes),
            error=None if event.error is None else one_line(event.error),
            pixels=event.pixels,
        )
        film = event.frames > 1 or is_video(event.source)
        full = self._sliders >= MOST_SLIDERS
        if event.error is not None or full or film or STANDARD in (event.source, event.target):
            return row
        try:
            pages = self._pages(event, row)
        except RestormerError as error:  # gone or changed since
            return replace(row, notes=(*row.notes, f"cannot be shown: {one_line(str(error))}"))
        except MemoryError:
            return replace(row, notes=(*row.notes, "too large to be shown: not enough memory"))
        self._sliders += len(pages)
        row = replace(row, width=pages[0].width, height=pages[0].height)
        return replace(row, pages=tuple(pages)) if len(pages) > 1 else replace(row, comparison=pages[0].comparison)

    def _pages(self, event: "Restored", row: PictureRow) -> list[PictureRow]:
        """Both sides of a picture, or of its pages as far as there are sliders left."""
        before = read_pages(event.source) if self.request.pages == "all" else []
        after = read_pages(event.target) if len(before) > 1 else []
        if len(after) < 2:
            before = [read_picture(event.source, salvage=self.request.salvage)]
            only = self._sides(before, [read_picture(event.target)], self._share)
            return [replace(row, **only)]
        count, share = len(after), max(LEAST_PIXELS, self._share // len(after))
        pages = []
        for number in range(1, min(count, MOST_SLIDERS - self._sliders) + 1):
            sides = self._sides(before, after, share)
            page = PictureRow(f"{row.name}, page {number} of {count}", notes=row.notes if number == 1 else (), **sides)
            pages.append(page)
        return pages

    def _sides(self, befores: "list[Picture]", afters: "list[Picture]", share: int) -> dict[str, Any]:
        """Size of the first of these, and its slider; they are taken out of their lists, since they are large."""
        before, after = befores.pop(0), afters.pop(0)
        (height, width), icc = before.pixels.shape[:2], before.icc
        left = visible(before)
        del before  # three quarters of the memory
        right, detail = visible(after), None
        if self._command() and left.shape == right.shape:
            from restormer_cli.engine.control import detail_layer

            detail = detail_layer(left, right)
        comparison = compare_samples(left, right, share, icc, after.icc, detail)
        return {"width": width, "height": height, "comparison": comparison}

    def _command(self) -> str | None:
        """Command that restores these pictures with other knobs; None where knobs cannot blend the page's pictures."""
        from restormer_cli.commands.restore.types import Request

        request = self.request
        limited = request.mask is not None or request.protect is not None or request.degrade is not None
        turned = any(getattr(request, knob) != usual for knob, usual in KNOBS.items())
        if turned or limited or STANDARD in (request.source, request.target):
            return None
        words = ["restormer", "restore", *map(str, request.sources), str(request.target)]
        for flag in ("task", "weights", "right", "tile", "window", "precision", "suffix"):
            value = getattr(request, flag)
            if value is not None and value != getattr(Request, flag, None):
                words += [f"--{flag}", str(value)]
        words += ["--ext", request.extension] if request.extension != Request.extension else []
        words += ["--ensemble"] if request.ensemble else []
        words += ["--pages", request.pages] if request.pages != Request.pages else []
        return one_line(shlex.join([*words, "--overwrite"]))

    def _write(self, started: "Started") -> None:
        rows = [future.result() for future in self._rows]
        notes = [*started.notes, *([started.left_out] if started.left_out else [])]
        if len(rows) > MOST_SLIDERS:
            notes.append(f"The first {MOST_SLIDERS} of {len(rows):,} files are shown; the table has all of them.")
        elif self._sliders >= MOST_SLIDERS and any(row.pages for row in rows):
            notes.append(f"The first {MOST_SLIDERS} pages are shown.")
        if len(rows) < started.pictures:
            notes.append(
                f"Ended early: {started.pictures - len(rows):,} of {started.pictures:,} files were not reached."
            )
        given = [f"--{knob}" for knob, usual in KNOBS.items() if getattr(self.request, knob) != usual]
        if given:
            notes.append(f"Sliders for luma, chroma and detail are on the page of a run without {', '.join(given)}.")
        text = restore_page(
            rows,
            source=", ".join(map(str, self.request.sources[:3])) + (" …" if len(self.request.more) > 2 else ""),
            target=str(self.request.target),
            settings=_settings(self.request, started),
            notes=tuple(notes),
            seconds=time.monotonic() - self._begun,
            knobs=self._command(),
            title="Degraded pictures" if started.degradation else "Restored pictures",
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda stream: stream.write(text.encode()))


def _reason(event: "Restored") -> tuple[str, ...]:
    """Why `--task auto` did what it did."""
    return (event.diagnosis.reason,) if event.diagnosis is not None and event.diagnosis.followed else ()


def _settings(request: "Request", started: "Started") -> list[tuple[str, str]]:
    """Settings of the run, without those that say nothing."""
    if started.degradation is not None:
        return [("degradation", started.degradation), ("seed", str(request.seed))]
    if started.weights is None:
        settings = [("task", "for each picture what it needs")]
    else:
        settings = [("weights", started.weights.name), ("task", started.task or "not said in the file")]
    settings += [("device", started.device), ("precision", started.precision)]
    settings.append(("pictures", f"in tiles of {started.tile}" if started.tile else "whole"))
    if started.tile:
        settings.append(("overlap", f"{request.overlap} pixels"))
    if request.window is not None:
        settings.append(
            ("window of attention", request.window if request.window == "auto" else f"{request.window} pixels")
        )
    if request.memory is not None:
        settings.append(("memory", request.memory))
    if request.ensemble:
        settings.append(("ensemble", "turned and mirrored copies"))
    for knob, usual in KNOBS.items():
        if (value := getattr(request, knob)) != usual:
            settings.append((knob, f"{value:g}"))
    if request.mask is not None:
        settings.append(("mask", str(request.mask)))
    if request.protect is not None:
        settings.append(("protected", request.protect))
    if request.right is not None:
        settings.append(("second views", request.right))
    return settings


def restore_page(
    rows: list[PictureRow],
    *,
    source: str,
    target: str,
    settings: list[tuple[str, str]],
    notes: tuple[str, ...] = (),
    seconds: float | None = None,
    knobs: str | None = None,
    title: str = "Restored pictures",
) -> str:
    """The page of a restoration: a slider per picture, failures first, settings, times.

    settings: (name, value) pairs, shown as they are. seconds: the whole run's, by the clock; None: the sum of the
    pictures' own. knobs: the command that restored them, to which the page adds what its sliders say; None: no sliders.
    """
    done = [row for row in rows if row.outcome == "restored"]
    failures = [row for row in rows if row.error]
    shown = [page for row in rows for page in row.pages or (row,) if page.comparison]
    megapixels = sum(row.pixels or row.width * row.height for row in done) / 1e6
    took = sum(row.seconds or 0.0 for row in done) if seconds is None else seconds
    numbers: list[tuple[str, ...]] = [(f"{len(done):,}", "restored", "good" if done else "")]
    if skipped := len(rows) - len(done) - len(failures):
        numbers.append((f"{skipped:,}", "skipped", ""))
    if failures:
        numbers.append((f"{len(failures):,}", "failed", "bad"))
    numbers += [(f"{megapixels:,.1f}", "megapixels", ""), (duration(took, 1), "in all", "")]
    if megapixels and took:
        numbers.append((f"{megapixels / took:.2f}", "megapixels per second", ""))
    return render(
        "restore.html",
        title=title,
        source=one_line(source),
        target=one_line(target),
        numbers=numbers,
        settings=[(name, one_line(value)) for name, value in settings],
        notes=notes,
        failures=failures,
        shown=shown,
        knobs=knobs if any(row.comparison and row.comparison.detail for row in shown) else None,
        columns=["file ", "outcome ", "width", "height", "seconds", "notes "],
        rows=[
            (
                row.name,
                row.outcome,
                row.width or "",
                row.height or "",
                "" if row.seconds is None else f"{row.seconds:.2f}",
                "; ".join(row.notes),
            )
            for row in rows
        ],
    )
