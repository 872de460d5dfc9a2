"""Result of a run, as one JSON document for machines: one on stdout, also after refusals, failures and interrupts.

The classes below are its description (docs/reference/json.md is made of them); within a schema keys are only added.
"""

import json
import textwrap
import time
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict
from typing import Any, NotRequired, TypedDict

from restormer_cli import __version__
from restormer_cli.commands.restore.types import Diagnosis, Page, Planned, Request, Restored, Started
from restormer_cli.errors import RestormerError

SCHEMA = "restormer-restore/1"


class SecondsEntry(TypedDict):
    """Seconds of one file; those of different pictures overlap."""

    total: float | None
    """null where it failed or was skipped."""
    read: float
    compute: float
    write: float


class DiagnosisEntry(TypedDict):
    """What is wrong with a picture, and what `--task auto` did about it."""

    analysis: dict[str, Any] | None
    """The estimates (`Findings`, below); null where the picture was not analysed."""
    task: str | None
    """With `--task auto` the task picked, or "none"; else null."""
    reason: str | None
    """Why."""


class PageEntry(DiagnosisEntry):
    """One page of a TIFF of several, with `--pages all`."""

    width: int
    height: int
    plan: str | None
    memory: int | None
    change: NotRequired[float | None]
    """Not in a dry run."""


class FileEntry(DiagnosisEntry):
    """One picture or video, in the order of completion."""

    input: str
    output: str
    status: str
    """"restored", "skipped", "failed", or in a dry run "planned"."""
    width: int
    """Of the picture, upright; like height, channels and bits 0 where it was not read (failed or skipped)."""
    height: int
    channels: NotRequired[int]
    """Not in a dry run."""
    bits: NotRequired[int]
    """Of a sample; 32: floats. Not in a dry run."""
    frames: NotRequired[int]
    """Of a video; 1 of a picture. Not in a dry run."""
    seconds: NotRequired[SecondsEntry]
    """Not in a dry run."""
    memory: int | None
    """Peak bytes while it was computed (Linux; on a GPU its tensors; else the process's peak so far); in a dry run
    the prediction, or null."""
    plan: str | None
    """How the network ran; null where it did not."""
    precision: NotRequired[str | None]
    """null where the network did not run. Not in a dry run."""
    change: NotRequired[float | None]
    """Mean absolute change by the network, in 1/255. Not in a dry run."""
    pages: list[PageEntry] | None
    """With `--pages all`, of a TIFF of several; else null. The file's own values are then those of the first page, its
    `memory` the most, its `change` the mean."""
    warnings: list[str]
    error: str | None
    """Why it failed."""


class RunEntry(TypedDict):
    """How the network was run."""

    weights: str | None
    task: str | None
    automatic: bool
    """`--task auto`: weights and task are chosen for each picture, and null here."""
    degradation: str | None
    """Of `--degrade`."""
    device: str
    precision: str
    threads: int
    tile: int | None
    warnings: list[str]


class SummaryEntry(TypedDict):
    """Counts; after an interrupt the statuses add up to less than `pictures`."""

    pictures: int
    """All that were found, videos among them."""
    videos: int
    restored: int
    skipped: int
    failed: int
    planned: int
    left_alone: int
    """Those of `restored` that needed nothing, by `--task auto`."""
    megapixels: float
    """Restored, all frames and pages."""
    seconds: float


class Document(TypedDict):
    """`restormer restore --json`; with `--watch` each picture is a line of its own, a file's entry and `schema`."""

    schema: str
    """"restormer-restore/1"."""
    version: str
    """The program's."""
    exit_code: int
    """The process's."""
    error: str | None
    """What ended the run, or spoiled all of it."""
    request: dict[str, Any]
    """The flags as understood."""
    run: RunEntry | None
    """null where the request was refused before any work."""
    files: list[FileEntry]
    summary: SummaryEntry


class RestoreDocument:
    """Collects the events of a restoration on their way; complete at any moment, also after a failure.

    Of a file its entry's JSON is kept, compressed, and what the summary counts.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.started: Started | None = None
        self.error: str | None = None
        self.exit_code = 0
        self._packed: list[bytes] = []
        self._packer = zlib.compressobj()
        self._counts: Counter[str] = Counter()
        self._pixels = 0
        self._begun = time.monotonic()

    def watch(self, events: Iterable[object]) -> Iterator[object]:
        """The events, as they come."""
        try:
            for event in events:
                if isinstance(event, Started):
                    self.started = event
                elif isinstance(event, Restored):
                    self._add(_restored(event, self.started))
                elif isinstance(event, Planned):
                    self._add(_planned(event))
                yield event
        finally:
            if isinstance(events, Iterator) and hasattr(events, "close"):
                events.close()  # pyright: ignore

    def stopped(self, error: BaseException) -> None:
        """Record the error that ended the run early, or spoiled all of it."""
        self.error = "interrupted" if isinstance(error, KeyboardInterrupt) else str(error) or type(error).__name__
        self.exit_code = 130 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 1)
        if not isinstance(error, RestormerError | KeyboardInterrupt):
            self.error = f"{type(error).__name__}: {error}"

    def _add(self, file: FileEntry) -> None:
        self._packed.append(self._packer.compress(f",\n{textwrap.indent(_text(file), '  ')}".encode()))
        self._counts[file["status"]] += 1
        self._counts["left alone"] += all(page["task"] == "none" for page in file["pages"] or [file])
        self._pixels += _pixels(file) if file["status"] == "restored" else 0

    def values(self) -> Document:
        """The document."""
        document = self._without_files()
        document["files"] = json.loads(f"[{self._entries()}]")
        return document

    def text(self) -> str:
        """The document as JSON, ASCII so that no terminal's encoding can break it."""
        whole = _text(self._without_files())
        if not (files := self._entries()):
            return whole
        before, after = whole.split('\n "files": []', 1)
        return f'{before}\n "files": [\n{files}\n ]{after}'

    def _entries(self) -> str:
        """The files' entries so far, one after the other."""
        packed = b"".join(self._packed) + self._packer.copy().flush()
        return zlib.decompress(packed).decode().removeprefix(",\n")

    def _without_files(self) -> Document:
        counts, started = self._counts, self.started
        exit_code = self.exit_code or (3 if counts["failed"] else 0)
        return {
            "schema": SCHEMA,
            "version": __version__,
            "exit_code": exit_code,
            "error": self.error,
            "request": asdict(self.request),
            "run": None if started is None else _run(started),
            "files": [],
            "summary": {
                "pictures": started.pictures if started else 0,
                "videos": started.videos if started else 0,
                "restored": counts["restored"],
                "skipped": counts["skipped"],
                "failed": counts["failed"],
                "planned": counts["planned"],
                "left_alone": counts["left alone"],
                "megapixels": self._pixels / 1e6,
                "seconds": round(time.monotonic() - self._begun, 3),
            },
        }


class RestoreLines:
    """`--watch --json`: each picture as one line of JSON, as it is done; then the reason of an end that was none."""

    def __init__(self, write: Callable[[str], None]) -> None:
        self._write = write
        self._started: Started | None = None

    def watch(self, events: Iterable[object]) -> Iterator[object]:
        """The events, as they come."""
        try:
            for event in events:
                if isinstance(event, Started):
                    self._started = event
                try:
                    yield event
                finally:  # what was restored is told, also where the end comes just then
                    if isinstance(event, Restored):
                        values = {"schema": SCHEMA, **_restored(event, self._started)}
                        self._write(json.dumps(values, allow_nan=False))
        finally:
            if isinstance(events, Iterator) and hasattr(events, "close"):
                events.close()  # pyright: ignore


def _text(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=1, allow_nan=False, default=str)


def _run(started: Started) -> RunEntry:
    return {
        "weights": None if started.weights is None else str(started.weights),
        "task": started.task,
        "automatic": started.automatic,
        "degradation": started.degradation,
        "device": started.device,
        "precision": started.precision,
        "threads": started.threads,
        "tile": started.tile,
        "warnings": [*started.notes, *([started.left_out] if started.left_out else [])],
    }


def _restored(event: Restored, started: Started | None) -> FileEntry:
    skipped = event.error is None and event.seconds is None
    return {
        "input": str(event.source),
        "output": str(event.target),
        "status": "failed" if event.error is not None else "skipped" if skipped else "restored",
        "width": event.width,
        "height": event.height,
        "channels": event.channels,
        "bits": event.bits,
        "frames": event.frames,
        "seconds": {
            "total": None if event.seconds is None else round(event.seconds, 4),
            "read": round(event.read_seconds, 4),
            "compute": round(event.compute_seconds, 4),
            "write": round(event.write_seconds, 4),
        },
        "memory": event.peak_bytes,
        "plan": event.plan,
        "precision": started.precision if started and event.plan else None,
        "change": None if event.change is None else round(event.change, 4),
        **_diagnosis(event.diagnosis),
        "pages": [_page(page, restored=True) for page in event.pages] or None,
        "warnings": list(event.notes),
        "error": event.error,
    }


def _page(page: Page, *, restored: bool) -> PageEntry:
    entry: PageEntry = {
        "width": page.width,
        "height": page.height,
        "plan": page.plan,
        "memory": page.predicted,
        "change": None if page.change is None else round(page.change, 4),
        **_diagnosis(page.diagnosis),
    }
    if not restored:
        del entry["change"]
    return entry


def _pixels(file: FileEntry) -> int:
    """Of all pages or frames."""
    if file["pages"]:
        return sum(page["width"] * page["height"] for page in file["pages"])
    return file["width"] * file["height"] * file.get("frames", 1)


def _diagnosis(diagnosis: Diagnosis | None) -> DiagnosisEntry:
    """Findings, and the task that `--task auto` chose by them."""
    if diagnosis is None:
        return {"analysis": None, "task": None, "reason": None}
    followed = diagnosis.followed
    return {
        "analysis": diagnosis.findings,
        "task": (diagnosis.task or "none") if followed else None,
        "reason": diagnosis.reason if followed else None,
    }


def _planned(event: Planned) -> FileEntry:
    status = "failed" if event.error is not None else "skipped" if event.skipped else "planned"
    return {
        "input": str(event.source),
        "output": str(event.target),
        "status": status,
        "width": event.width,
        "height": event.height,
        "plan": event.plan,
        "memory": event.predicted,
        **_diagnosis(event.diagnosis),
        "pages": [_page(page, restored=False) for page in event.pages] or None,
        "warnings": [],
        "error": event.error,
    }
