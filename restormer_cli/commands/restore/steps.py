"""One picture on its way: read, computed, written; an error that a user can cause is kept in it."""

import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from restormer_cli.commands.restore.jobs import STANDARD, Job
from restormer_cli.commands.restore.side_by_side import write_comparison
from restormer_cli.commands.restore.types import Request, Restored
from restormer_cli.errors import Failed, NoRoom, RestormerError, UserError
from restormer_cli.images.formats.pillow import WRITABLE
from restormer_cli.images.io import (
    MAX_PIXELS,
    Picture,
    check_writable,
    decode_picture,
    encode_picture,
    read_picture,
    write_picture,
)


@dataclass(eq=False)
class Work:
    """A picture on its way through reading, computing and writing."""

    job: Job
    picture: Picture | None = None
    right: Picture | None = None
    pixels: np.ndarray | None = None
    skipped: bool = False
    error: RestormerError | None = None
    notes: tuple[str, ...] = ()
    seconds: dict[str, float] = field(default_factory=dict)
    shape: tuple[int, int, int] = (0, 0, 0)
    bits: int = 0
    length: int = 0
    plan: str | None = None
    peak: int | None = None
    change: float | None = None

    def bytes(self) -> int:
        arrays = [self.pixels, *(view.pixels for view in (self.picture, self.right) if view is not None)]
        return sum(array.nbytes for array in arrays if array is not None)

    def event(self) -> Restored:
        height, width, channels = self.shape
        spent: dict[str, Any] = {stage: self.seconds.get(stage, 0.0) for stage in ("read", "compute", "write")}
        return Restored(
            source=self.job.source,
            target=self.job.target,
            width=width,
            height=height,
            seconds=None if self.skipped or self.error else sum(spent.values()),
            notes=self.notes,
            error=None if self.error is None else str(self.error),
            **spent,
            channels=channels,
            bits=self.bits,
            plan=self.plan,
            peak=self.peak,
            change=self.change,
            length=self.length,
            error_code=0 if self.error is None else self.error.exit_code,
            no_room=isinstance(self.error, NoRoom),
        )


def guarded(name: str, stage: Callable[..., None], *arguments: object) -> Work:
    """Run one stage on a work, its last argument; an error that a user can cause is kept in it."""
    work = arguments[-1]
    assert isinstance(work, Work)
    if work.error is None and not work.skipped:
        begun = time.perf_counter()
        try:
            stage(*arguments)
        except RestormerError as error:
            work.error = error
        work.seconds[name] = time.perf_counter() - begun
    if name == "write" or work.error is not None:
        work.picture = work.right = work.pixels = None
    return work


def read_stage(request: Request, work: Work) -> None:
    job = work.job
    if job.trouble:
        raise UserError(job.trouble)
    if request.skip_existing and job.target.exists():
        work.skipped = True
        return
    if job.source == STANDARD:
        data = _standard_input()
        work.length = len(data)
        work.picture = picture = decode_picture(data, "standard input")
    else:
        with suppress(OSError):  # gone: reading it says so
            work.length = job.source.stat().st_size
        work.picture = picture = read_picture(job.source)
    if job.right is not None:
        work.right = read_picture(job.right)
    work.shape, work.bits = picture.pixels.shape, picture.bits
    work.notes = picture.notes + check_writable(_target(request, work), picture)


def _standard_input() -> bytes:
    """Everything, in steps, and not much more than any picture within the limit needs."""
    parts, length = [], 0
    while length <= 17 * MAX_PIXELS and (part := sys.stdin.buffer.read(1 << 20)):
        parts.append(part)
        length += len(part)
    return b"".join(parts)


def _target(request: Request, work: Work) -> Path:
    """The target; for standard output a name that says the format."""
    assert work.picture is not None
    if work.job.target != STANDARD:
        return work.job.target
    extension = work.picture.format if request.extension == "same" else request.extension.removeprefix(".")
    return Path(f"standard output.{extension.lower()}")


def write_stage(request: Request, work: Work) -> None:
    assert work.picture is not None
    assert work.pixels is not None
    target, options = _target(request, work), {"quality": request.quality, "subsampling": request.subsampling}
    if work.job.target == STANDARD:
        data = encode_picture(work.pixels, work.picture, WRITABLE[target.suffix], **options)
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
    else:
        _make_folder(target.parent)
        if not request.overwrite and target.exists():
            if request.skip_existing:  # another run on the same folders was faster
                work.skipped = True
                return
            raise Failed(f"{target}: appeared while this ran, and is left as it is")
        write_picture(target, work.pixels, like=work.picture, **options)
        if request.compare:
            work.notes += write_comparison(target, work.picture, work.pixels, **options)


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"{folder}: this folder cannot be made: {error.strerror}") from None
