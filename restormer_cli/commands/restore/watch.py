"""`--watch`: stay, and restore what appears in a folder, once it is complete.

A file is complete when its length and time have stood still for a while; one that cannot be read then is reported,
and tried again should it change. What has a result is left alone, so that a restart goes on where the last run ended.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from restormer_cli.commands.restore.jobs import Job, jobs_of_folder
from restormer_cli.commands.restore.types import FrameDone, Request, Restored
from restormer_cli.errors import Failed, UserError

POLL = 1.0
"""Seconds from one look at the folder to the next."""
SETTLED = 2.0
"""Seconds for which a file must stand still."""

Stat = tuple[int, int]
"""Length and time of the last change."""


def check_watch(request: Request) -> None:
    """Raises UserError for what cannot be watched, or what would make no sense."""
    if request.more or not request.source.is_dir():
        raise UserError(f"--watch {request.source}: watches a folder: name one")
    for flag, given in (("--dry-run", request.dry_run), ("--overwrite", request.overwrite)):
        if given:
            raise UserError(f"--watch: restores what has no result yet: leave {flag} out")


def watch(
    request: Request, restore: Callable[[list[Job]], Iterator[FrameDone | Restored]]
) -> Iterator[FrameDone | Restored]:
    """The events of everything that appears, for ever; `restore` does some jobs. Ends by an exception only.

    Raises UserError where the folder vanishes, Failed where nothing more can be written.
    """
    waiting = Waiting()
    while True:
        if not request.source.is_dir():
            raise UserError(f"{request.source}: the watched folder is gone; what was in it before is restored")
        ready = waiting.ready(jobs_of_folder(request))
        for event in restore(ready) if ready else ():
            yield event
            if isinstance(event, Restored) and event.no_room:
                raise Failed("stopped: make room, then watch again: what is done is left alone")
        if not ready:
            time.sleep(POLL)


class Waiting:
    """Files that have been seen, and for how long they have stood still."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since: dict[Path, tuple[Stat, float]] = {}
        self._tried: dict[Path, Stat] = {}

    def ready(self, jobs: list[Job]) -> list[Job]:
        """Those of the jobs that have no result, are complete, and were not tried as they are."""
        ready, since = [], {}
        for job in jobs:
            if job.target.exists():
                continue
            try:
                found = job.source.stat()
            except OSError:  # gone again
                continue
            stat = (found.st_size, found.st_mtime_ns)
            before, begun = self._since.get(job.source, (None, 0.0))
            since[job.source] = (stat, begun if before == stat else self._clock())
            still = self._clock() - since[job.source][1] >= SETTLED
            if still and stat[0] and self._tried.get(job.source) != stat:
                self._tried[job.source] = stat
                ready.append(job)
        self._since = since
        return ready


def watching(request: Request) -> Request:
    """The request of a watched run: what is there already is left alone."""
    return replace(request, skip_existing=True)
