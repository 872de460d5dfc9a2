"""`restore --report page.html`: the page of a restoration, made as the pictures come (pages.py draws it).

Before and after are read from their files once more, so that the page shows what was written, tells of pictures that
were there already, and does not care which process restored them.
"""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from restormer_cli.commands.restore.jobs import STANDARD, check_folder
from restormer_cli.errors import RestormerError, UserError
from restormer_cli.files import write_atomically
from restormer_cli.errors import one_line
from restormer_cli.images.io import read_picture
from restormer_cli.report.comparison import (
    MOST_SLIDERS,
    PAGE_PIXELS,
    PictureRow,
    compare_samples,
    restore_page,
    share_of_page,
    visible,
)

if TYPE_CHECKING:  # importing it would load torch
    from restormer_cli.commands.restore.types import Request, Restored, Started

WAITING = 4
"""Pictures whose preview may be behind; then the restoration waits."""


class RestorePage:
    """Looks on at a restoration: `for event in page.watch(verb.restore(request)): …`."""

    def __init__(self, path: Path, request: "Request") -> None:
        """Raises UserError for a path that cannot become a page, or a file there that is no page of ours."""
        self.path, self.request = path, request
        check_page(path)
        self._started: Started | None = None
        self._rows: list[Future[PictureRow]] = []
        self._share = PAGE_PIXELS
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
                    shown = len(self._rows) < MOST_SLIDERS
                    self._rows.append(maker.submit(self._row, event, shown))
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

    def _row(self, event: "Restored", shown: bool) -> PictureRow:
        """What the page says about one picture, with both sides of it where it can be shown."""
        base = self.request.source
        name = event.source.relative_to(base) if base in event.source.parents else event.source.name
        row = PictureRow(
            name="standard input" if event.source == STANDARD else one_line(str(name)),
            width=event.width,
            height=event.height,
            seconds=event.seconds,
            notes=event.notes,
            error=None if event.error is None else one_line(event.error),
        )
        if event.error is not None or not shown or event.frames > 1 or STANDARD in (event.source, event.target):
            return row
        try:
            before = read_picture(event.source)
            width, height, icc = before.pixels.shape[1], before.pixels.shape[0], before.icc
            left = visible(before)
            del before  # three quarters of the memory
            after = read_picture(event.target)
            comparison = compare_samples(left, visible(after), self._share, icc, after.icc)
            return replace(row, width=width, height=height, comparison=comparison)
        except RestormerError as error:  # gone or changed since
            return replace(row, notes=(*row.notes, f"cannot be shown: {one_line(str(error))}"))
        except MemoryError:
            return replace(row, notes=(*row.notes, "too large to be shown: not enough memory"))

    def _write(self, started: "Started") -> None:
        rows = [future.result() for future in self._rows]
        notes = list(started.notes)
        if len(rows) > MOST_SLIDERS:
            notes.append(f"The first {MOST_SLIDERS} of {len(rows):,} files are shown; the table has all of them.")
        if len(rows) < started.pictures:
            notes.append(
                f"Ended early: {started.pictures - len(rows):,} of {started.pictures:,} files were not reached."
            )
        text = restore_page(
            rows,
            source=str(self.request.source),
            target=str(self.request.target),
            settings=_settings(self.request, started),
            notes=tuple(notes),
            seconds=time.monotonic() - self._begun,
            title="Degraded pictures" if started.degradation else "Restored pictures",
        )
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path, lambda stream: stream.write(text.encode()))


def _settings(request: "Request", started: "Started") -> list[tuple[str, str]]:
    """What the pictures were made with, and only what says something."""
    if started.degradation is not None:
        return [("degradation", started.degradation), ("seed", str(request.seed))]
    assert started.weights is not None
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
        settings.append(("ensemble", "8 turned and mirrored copies"))
    if request.strength != 1:
        settings.append(("strength", f"{request.strength:g}"))
    if request.right is not None:
        settings.append(("second views", request.right))
    return settings


def check_page(path: Path) -> None:
    """Raises UserError for a path that cannot become a page, or a file there that is no page of ours."""
    if path.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--report {path}: is a web page: give it a name that ends in .html")
    if path.is_dir():
        raise UserError(f"--report {path}: is a folder; name a file in it, such as {path / 'report.html'}")
    if path.exists() and not _is_page(path):
        raise UserError(f"--report {path}: is there already, and no page of ours: give it another name")
    check_folder(path.parent)


def _is_page(path: Path) -> bool:
    with path.open("rb") as stream:
        return b'name="generator" content="restormer' in stream.read(2000)
