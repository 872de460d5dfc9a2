"""With which settings a folder's results were made, so that `--skip-existing` notices where they were others.

OUT holds results and nothing else, so this is kept in the user's cache: a file for each OUT has a line of JSON for each
run, an id and its settings, and one for each result, that id, the name and the length. Lines are appended in one write
each, so that several runs may share it; what cannot be read is passed over.
"""

import hashlib
import json
import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from restormer_cli.commands.restore.jobs import Job
from restormer_cli.commands.restore.operations import Choosing, Degrading, Stage
from restormer_cli.commands.restore.types import AUTO, Request
from restormer_cli.files import cache_folder, sha256_of
from restormer_cli.images.formats.table import WRITABLE
from restormer_cli.images.video import is_video

KNOBS = ("strength", "luma", "chroma", "detail", "grain", "protect", "ensemble", "window", "strip", "sign", "pages")
LOSSY = ("quality", "subsampling")
LOSSLESS = frozenset({"png", "tif", "bmp", "dng"})
"""Formats that these do not concern."""


def settings_of(request: Request, stage: Stage) -> dict[str, Any]:
    """What decides what the results become, as plain values by the flags' names; files by their contents."""
    settings: dict[str, Any] = {name: getattr(request, name) for name in (*KNOBS, *LOSSY, "deinterlace")}
    settings["mask"] = request.mask and _contents(request.mask)
    if isinstance(stage, Degrading):
        return {**settings, "degrade": str(stage.degradation), "seed": request.seed}
    if isinstance(stage, Choosing):
        settings["weights"], stage = AUTO, next(iter(stage.stages.values()))
    else:
        settings["weights"] = _contents(stage.weights.path)
    tile = stage.restorer.tile
    return {**settings, "precision": stage.restorer.precision, "tile": tile, "overlap": tile and request.overlap}


def _contents(path: Path) -> str:
    """What a file holds; of a graph in two files both; of a folder its place."""
    if path.is_dir():
        return str(path.resolve())
    parts = [path, *(other for other in [path.with_suffix(".bin")] if path.suffix == ".xml" and other.is_file())]
    return " ".join(sha256_of(part)[:16] for part in parts if part.is_file())


class SettingsRecord:
    """The record of an OUT, and what this run does."""

    def __init__(self, out: Path, settings: dict[str, Any]) -> None:
        place = os.path.realpath(out)
        name = hashlib.sha256(os.fsencode(place)).hexdigest()[:24]
        self.out, self.settings, self.path = Path(place), settings, cache_folder() / "results" / f"{name}.jsonl"
        self._id = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
        self._told = False

    def add(self, target: Path) -> None:
        """A result of this run. What cannot be written is left: it only serves later runs."""
        with suppress(OSError):
            lines: list[list[Any]] = [] if self._told else [[self._id, self.settings]]
            lines.append([self._id, self._name(target), target.stat().st_size])
            if not self._told:
                self.path.parent.mkdir(parents=True, exist_ok=True)
            text = "".join(json.dumps(line) + "\n" for line in lines)
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o666)
            try:
                os.write(descriptor, text.encode())
            finally:
                os.close(descriptor)
            self._told = True

    def others(self, jobs: Iterable[Job]) -> str | None:
        """A note on the results that are there and were made with other settings."""
        settings, names = self._read()
        count, differ = 0, dict[str, None]()
        for job in jobs:
            identity, size = names.get(self._name(job.target), ("", 0))
            before = settings.get(identity)
            if before is None or job.trouble or _size(job.target) != size:  # gone, or something else by now
                continue
            keys = _differences(before, self.settings, job.target)
            count += bool(keys)
            differ.update(dict.fromkeys(keys))
        if not count:
            return None
        what = "1 of the results that are there was" if count == 1 else f"{count} of the results that are there were"
        return f"{what} made with other settings ({', '.join(differ)}): --overwrite makes them anew"

    def _name(self, target: Path) -> str:
        return os.path.relpath(os.path.realpath(target.parent), self.out) + os.sep + target.name

    def _read(self) -> tuple[dict[str, dict[str, Any]], dict[str, tuple[str, int]]]:
        """Settings by id, and the id and length of each name's newest result."""
        settings: dict[str, dict[str, Any]] = {}
        names: dict[str, tuple[str, int]] = {}
        with suppress(OSError):
            for line in self.path.read_text(encoding="utf-8", errors="replace").splitlines():
                with suppress(ValueError, TypeError):
                    identity, what, *size = json.loads(line)
                    if size:
                        names[str(what)] = (str(identity), int(size[0]))
                    else:
                        settings[str(identity)] = dict(what)
        return settings, names


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except OSError:
        return None


def _differences(before: dict[str, Any], now: dict[str, Any], target: Path) -> list[str]:
    """The flags by which two runs would make something else of this target."""
    idle = {"deinterlace"} if not is_video(target) else {"subsampling"}
    idle |= {"pages"} if WRITABLE.get(target.suffix.lower()) != "tif" else set()
    if WRITABLE.get(target.suffix.lower()) in LOSSLESS:
        idle |= set(LOSSY)
    keys = [key for key in {**now, **before} if before.get(key) != now.get(key) and key not in idle]
    return [f"--{key}" for key in keys]
