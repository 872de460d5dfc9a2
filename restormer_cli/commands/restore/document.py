"""Result of a run, as one JSON document for machines. docs/restore.md describes it; a field is never renamed
without a new schema.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from typing import Any

from restormer_cli import __version__
from restormer_cli.commands.restore.types import Diagnosis, Page, Planned, Request, Restored, Started
from restormer_cli.errors import RestormerError

SCHEMA = "restormer-restore/1"


class RestoreDocument:
    """Collects the events of a restoration on their way; complete at any moment, also after a failure."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.started: Started | None = None
        self.files: list[dict[str, Any]] = []
        self.error: str | None = None
        self.exit_code = 0
        self._begun = time.monotonic()

    def watch(self, events: Iterable[object]) -> Iterator[object]:
        """The events, as they come."""
        try:
            for event in events:
                if isinstance(event, Started):
                    self.started = event
                elif isinstance(event, Restored):
                    self.files.append(_restored(event, self.started))
                elif isinstance(event, Planned):
                    self.files.append(_planned(event))
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

    def values(self) -> dict[str, Any]:
        """The document."""
        done = [file for file in self.files if file["status"] == "restored"]
        pixels = sum(map(_pixels, done))
        counts = dict.fromkeys(("restored", "skipped", "failed", "planned"), 0)
        left_alone = sum(all(page["task"] == "none" for page in file["pages"] or [file]) for file in self.files)
        for file in self.files:
            counts[file["status"]] += 1
        exit_code = self.exit_code or (3 if counts["failed"] else 0)
        started = self.started
        return {
            "schema": SCHEMA,
            "version": __version__,
            "exit_code": exit_code,
            "error": self.error,
            "request": asdict(self.request),
            "run": started
            and {
                "weights": None if started.weights is None else str(started.weights),
                "task": started.task,
                "automatic": started.automatic,
                "degradation": started.degradation,
                "device": started.device,
                "precision": started.precision,
                "threads": started.threads,
                "tile": started.tile,
                "warnings": [*started.notes, *([started.left_out] if started.left_out else [])],
            },
            "files": self.files,
            "summary": {
                "pictures": started.pictures if started else 0,
                "videos": started.videos if started else 0,
                **counts,
                "left_alone": left_alone,
                "megapixels": pixels / 1e6,
                "seconds": round(time.monotonic() - self._begun, 3),
            },
        }

    def text(self) -> str:
        """The document as JSON, ASCII so that no terminal's encoding can break it."""
        return json.dumps(self.values(), indent=1, allow_nan=False, default=str)


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


def _restored(event: Restored, started: Started | None) -> dict[str, Any]:
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
        "pages": [_page(page, "change") for page in event.pages] or None,
        "warnings": list(event.notes),
        "error": event.error,
    }


def _page(page: Page, *also: str) -> dict[str, Any]:
    values = {
        "width": page.width,
        "height": page.height,
        "plan": page.plan,
        "memory": page.predicted,
        "change": None if page.change is None else round(page.change, 4),
    }
    kept = {"width", "height", "plan", "memory", *also}
    return {**{key: value for key, value in values.items() if key in kept}, **_diagnosis(page.diagnosis)}


def _pixels(file: dict[str, Any]) -> int:
    """Of all pages or frames."""
    if file["pages"]:
        return sum(page["width"] * page["height"] for page in file["pages"])
    return file["width"] * file["height"] * file["frames"]


def _diagnosis(diagnosis: Diagnosis | None) -> dict[str, Any]:
    """Findings, and the task that `--task auto` chose by them."""
    if diagnosis is None:
        return {"analysis": None, "task": None, "reason": None}
    followed = diagnosis.followed
    return {
        "analysis": diagnosis.findings,
        "task": (diagnosis.task or "none") if followed else None,
        "reason": diagnosis.reason if followed else None,
    }


def _planned(event: Planned) -> dict[str, Any]:
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
        "pages": [_page(page) for page in event.pages] or None,
        "warnings": [],
        "error": event.error,
    }
