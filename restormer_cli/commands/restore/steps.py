"""One picture on its way: read, computed, written; an error that a user can cause is kept in it."""

import hashlib
import os
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from restormer_cli import __version__
from restormer_cli.commands.restore.jobs import STANDARD
from restormer_cli.commands.restore.side_by_side import write_comparison
from restormer_cli.commands.restore.trial import analyse_and_choose
from restormer_cli.commands.restore.types import AUTO, Diagnosis, PictureTask, Request
from restormer_cli.errors import AlreadyThere, Failed, RestormerError, UserError
from restormer_cli.files import locked, write_atomically
from restormer_cli.images.formats.table import WRITABLE
from restormer_cli.images.io import (
    MAX_PIXELS,
    Picture,
    check_writable,
    decode_pages,
    decode_picture,
    encode_picture,
    read_pages,
    read_picture,
    write_pages,
    write_picture,
)
from restormer_cli.images.provenance import signed, stripped


def run_step(name: str, stage: Callable[..., None], *arguments: object) -> PictureTask:
    """Run one stage on a work, its last argument; an error that a user can cause is kept in it."""
    work = arguments[-1]
    assert isinstance(work, PictureTask)
    if work.error is None and not work.skipped and not work.elsewhere:
        begun = time.perf_counter()
        try:
            stage(*arguments)
        except RestormerError as error:
            work.error = error
        except Exception as error:  # ours, or a library's: it costs this picture, and the last line tells
            work.error = Failed(f"{work.job.source}: a defect of restormer-cli, please report it: {told(error)}")
            work.error.__cause__ = error
        work.seconds[name] = time.perf_counter() - begun
    if name == "write" or work.error is not None or work.skipped:
        work.claim.close()
        work.picture = work.right = work.pixels = work.weight = None
        work.pages = []
    return work


def compute_pages(compute: Callable[[PictureTask], None], work: PictureTask) -> None:
    """A picture and the pages behind it."""
    compute(work)
    for page in work.pages:
        compute(page)
    if work.pages:
        work.behind = tuple(page.page() for page in work.pages)
        work.notes = (f"{1 + len(work.pages)} pages", *_notes_of_pages([work, *work.pages]))


NUMBERED = 6
"""Pages that a note names by their numbers."""


def _notes_of_pages(tasks: list[PictureTask]) -> list[str]:
    """Each note once, with the pages that it is about unless these are all."""
    about: dict[str, list[int]] = {}
    for number, task in enumerate(tasks, start=1):
        for note in task.notes:
            about.setdefault(note, []).append(number)

    def words(numbers: list[int]) -> str:
        if len(numbers) == len(tasks):
            return ""
        more = f" and {len(numbers) - NUMBERED} more" if len(numbers) > NUMBERED else ""
        return f"page{'s' * (len(numbers) > 1)} {', '.join(map(str, numbers[:NUMBERED]))}{more}: "

    return [words(numbers) + note for note, numbers in about.items()]


def told(error: Exception) -> str:
    """Kind, message and place of a defect, for a report."""
    last = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})"


def read_stage(request: Request, work: PictureTask) -> None:
    job = work.job
    if job.trouble:
        raise UserError(job.trouble)
    if request.skip_existing and job.target.exists():
        work.skipped = True
        return
    if job.source == STANDARD:
        data = _standard_input()
        work.input_bytes = len(data)
        pages = decode_pages(data, "standard input") if request.takes_pages(job) else []
        pages = pages or [decode_picture(data, "standard input", salvage=request.salvage)]
    else:
        with suppress(OSError):  # gone: reading it says so
            work.input_bytes = job.source.stat().st_size
        pages = read_pages(job.source) if request.takes_pages(job) else []
        pages = pages or [read_picture(job.source, salvage=request.salvage)]
    work.picture = picture = pages[0]
    work.pages = [_page_task(request, work, number, page) for number, page in enumerate(pages[1:], start=2)]
    if request.strip:
        work.picture = picture = stripped(picture)
    if job.right is not None:
        work.right = read_picture(job.right)
    if job.mask is not None:
        work.weight = read_mask(job.mask, *picture.pixels.shape[:2])
    if request.analyse or request.task == AUTO:
        work.diagnosis = diagnose(picture, followed=request.task == AUTO)
    work.shape, work.bits = picture.pixels.shape, picture.bits
    work.notes = picture.notes + check_writable(_target(request, work), picture)
    if job.target != STANDARD and not request.overwrite:
        _claim(request, work)


def _page_task(request: Request, work: PictureTask, number: int, page: Picture) -> PictureTask:
    """A page that is not the first, as a task of its own."""
    job = work.job
    task = PictureTask(replace(job, source=job.source.with_name(f"{job.source.name}#{number}")))
    task.picture = stripped(page) if request.strip else page
    task.shape, task.bits = page.pixels.shape, page.bits
    task.notes = page.notes + check_writable(job.target, task.picture)
    if job.mask is not None:
        task.weight = read_mask(job.mask, *page.pixels.shape[:2])
    if request.analyse or request.task == AUTO:
        task.diagnosis = diagnose(page, followed=request.task == AUTO)
    return task


def _claim(request: Request, work: PictureTask) -> None:
    """Say to other runs that this picture is ours; a killed run's claims are void.

    Where it is another's: with --skip-existing left for later, else refused.
    """
    target = work.job.target
    _make_folder(target.parent)
    digest = hashlib.sha256(target.name.encode(errors="surrogateescape")).hexdigest()[:12]
    path = target.with_name(f".restormer-{digest}.claim")

    def refuse(holder: str) -> Failed:
        return Failed(f"{target}: {holder} is restoring it now: --skip-existing shares the work")

    try:
        work.claim.enter_context(locked(path, refuse))
    except Failed:
        if not request.skip_existing:
            raise
        work.elsewhere = True
        work.picture = work.right = None
        return
    if request.skip_existing and target.exists():  # made since we looked
        work.skipped = True


def release(claims: list[ExitStack]) -> None:
    """Give back the claims of works that were abandoned on their way."""
    for claim in claims:
        claim.close()


def read_mask(path: Path, height: int, width: int) -> np.ndarray:
    """The weights of a mask for a picture of this size: float32 (h, w) in [0, 1]."""
    from restormer_cli.engine.control import mask_weight

    try:
        return mask_weight(read_picture(path).pixels, height, width)
    except UserError as error:
        trouble = str(error)
        raise UserError(trouble if trouble.startswith(str(path)) else f"the mask {path} {trouble}") from None


def diagnose(picture: Picture, *, followed: bool = False) -> Diagnosis:
    """Diagnose a picture: its defects, and the task that cures them; `followed`: with a trial of the derainer."""
    from restormer_cli.analysis.decision import choose_task, read_camera
    from restormer_cli.analysis.findings import analyse

    camera = read_camera(picture.exif)
    if followed:
        findings, choice = analyse_and_choose(picture.shown, camera)
    else:
        findings = analyse(picture.shown)
        choice = choose_task(findings, camera)
    return Diagnosis(findings.to_json(), str(findings), choice.task, choice.reason, followed)


def diagnose_film(frames: list[np.ndarray]) -> Diagnosis:
    """Diagnose a film by some of its frames, float32 (h, w, 1 or 3): the task that most of them need.

    The film is left alone unless more than half of the frames need the same task. Findings are those of the first
    frame that needs what is done.
    """
    findings, choices = zip(*map(analyse_and_choose, frames), strict=True)
    (task, count), *_ = Counter(choice.task for choice in choices).most_common()
    of = f"{len(frames)} frame{'s' * (len(frames) != 1)}"
    if 2 * count <= len(frames):
        said = ", ".join(sorted({choice.task or "nothing" for choice in choices}))
        return Diagnosis(findings[0].to_json(), str(findings[0]), None, f"{of} disagree ({said}): left alone", True)
    first = next(number for number, choice in enumerate(choices) if choice.task == task)
    reason = f"{choices[first].reason} ({count} of {of})"
    return Diagnosis(findings[first].to_json(), str(findings[first]), task, reason, True)


def _standard_input() -> bytes:
    """Everything, in steps, and not much more than any picture within the limit needs."""
    parts, length = [], 0
    while length <= 17 * MAX_PIXELS and (part := sys.stdin.buffer.read(1 << 20)):
        parts.append(part)
        length += len(part)
    return b"".join(parts)


def _target(request: Request, work: PictureTask) -> Path:
    """The target; for standard output a name that says the format."""
    assert work.picture is not None
    if work.job.target != STANDARD:
        return work.job.target
    extension = work.picture.format if request.extension == "same" else request.extension.removeprefix(".")
    return Path(f"standard output.{extension.lower()}")


def write_stage(request: Request, work: PictureTask) -> None:
    assert work.picture is not None
    assert work.pixels is not None
    target, options = _target(request, work), {"quality": request.quality, "subsampling": request.subsampling}
    if request.sign:
        for task in (work, *work.pages):
            assert task.picture is not None
            task.picture = signed(task.picture, __version__, task.made)
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
        try:
            if _as_it_is(work) and not (request.strip or request.sign):
                data = work.job.source.read_bytes()
                write_atomically(target, lambda stream: stream.write(data), new=not request.overwrite)
                work.notes = ()
            else:
                _write(target, work, options, new=not request.overwrite)
        except AlreadyThere:
            if not request.skip_existing:
                raise
            work.skipped = True
            return
        if request.keep_time and work.job.source != STANDARD:
            keep_time(work.job.source, target)
        if request.compare:
            work.notes += write_comparison(target, _pages_of(work), **options)


def _write(target: Path, work: PictureTask, options: dict[str, Any], *, new: bool) -> None:
    assert work.picture is not None
    assert work.pixels is not None
    if not work.pages:
        write_picture(target, work.pixels, like=work.picture, **options, new=new)
        return
    write_pages(target, _pages_of(work), new=new)


def _pages_of(work: PictureTask) -> list[tuple[np.ndarray, Picture]]:
    """What was restored, and what it was: the picture, and the pages behind it."""
    tasks = (work, *work.pages)
    return [(task.pixels, task.picture) for task in tasks if task.pixels is not None and task.picture is not None]


def keep_time(source: Path, target: Path) -> None:
    """Give a result the times of its input; what the file system refuses is left."""
    with suppress(OSError):
        times = source.stat()
        os.utime(target, ns=(times.st_atime_ns, times.st_mtime_ns))


def _as_it_is(work: PictureTask) -> bool:
    """Whether the result is the input's very bytes: a picture that needs nothing, in the format that it has."""
    assert work.picture is not None
    left_alone = all(task.diagnosis is not None and task.diagnosis.left_alone for task in (work, *work.pages))
    same_format = WRITABLE.get(work.job.target.suffix.lower()) == work.picture.format
    return left_alone and same_format and work.job.source != STANDARD


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"{folder}: this folder cannot be made: {error.strerror}") from None
