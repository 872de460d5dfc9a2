"""`restore` for one video: frame by frame, as pictures are restored, into one file that appears when it is whole."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack

import numpy as np

from restormer_cli.commands.restore.jobs import STANDARD, Job, renamed
from restormer_cli.commands.restore.operations import Choosing, Degrading, Restoring, make_stage
from restormer_cli.commands.restore.steps import read_mask
from restormer_cli.commands.restore.types import AUTO, FrameDone, Planned, Request, Restored, Started
from restormer_cli.errors import Failed, RestormerError, UserError
from restormer_cli.files import check_folder, replacing, sweep
from restormer_cli.images.formats.table import READABLE
from restormer_cli.images.video import READABLE_VIDEOS, WRITABLE_VIDEOS, Frame, Video, container_of, open_video


def restore_video(request: Request) -> Iterator[Started | Planned | FrameDone | Restored]:
    """Yields one Started, a FrameDone per frame, and one Restored.

    Raises UserError before any work for what cannot be done; never leaves a partial file.
    """
    job = _job(request)
    there = job.target.exists()
    if there and not (request.overwrite or request.skip_existing):
        raise UserError(f"{job.target}: already there: --overwrite replaces it, --skip-existing leaves it alone")
    with open_video(job.source) as video:
        stage = make_stage(request)
        assert not isinstance(stage, Choosing)
        yield stage.started([job])
        plan, predicted = stage.plan(video.height, video.width)
        if request.dry_run:
            skipped = there and request.skip_existing
            yield Planned(job.source, job.target, video.width, video.height, plan, predicted, skipped=skipped)
        elif there and request.skip_existing:
            yield Restored(job.source, job.target, video.width, video.height)
        else:
            try:
                yield from _restore(request, stage, video, job)
            except RestormerError as error:
                code = error.exit_code
                yield Restored(job.source, job.target, error=str(error), error_code=code, input_bytes=_length(job))
                raise


def _restore(request: Request, stage: Restoring | Degrading, video: Video, job: Job) -> Iterator[FrameDone | Restored]:
    begun, computed, changed, count = time.perf_counter(), 0.0, 0.0, 0
    try:
        job.target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"{job.target.parent}: this folder cannot be made: {error.strerror}") from None
    sweep(job.target.parent)
    channels, weight = 0, None if request.mask is None else read_mask(request.mask, video.height, video.width)
    notices: dict[str, None] = {}  # each once, in order
    with ExitStack() as stack:
        stream = stack.enter_context(replacing(job.target, new=not request.overwrite))
        out = stack.enter_context(video.writer(stream, job.target, request.quality))
        for frame in video.frames(out):
            started = time.perf_counter()
            pixels = _compute(request, stage, frame, count, weight, lambda text: notices.setdefault(text))
            computed += time.perf_counter() - started
            changed += float(np.abs(pixels - frame.pixels).mean()) * 255
            channels = frame.pixels.shape[2]
            out.write(pixels, frame)
            count += 1
            yield FrameDone(count, video.length, time.perf_counter() - begun)
    notes = [*out.notes, *video.notes, *notices, f"{count:,} frames"]
    if video.damaged:
        notes.append(f"{video.damaged:,} damaged packets are left out; all else keeps its time")
    seconds = time.perf_counter() - begun
    yield Restored(
        source=job.source,
        target=job.target,
        width=video.width,
        height=video.height,
        seconds=seconds,
        notes=tuple(notes),
        compute_seconds=computed,
        write_seconds=seconds - computed,
        channels=channels,
        bits=video.bits,
        plan=stage.ran(video.height, video.width),
        change=changed / count,
        input_bytes=_length(job),
        frames=count,
    )


def _compute(
    request: Request,
    stage: Restoring | Degrading,
    frame: Frame,
    number: int,
    weight: np.ndarray | None,
    notice: Callable[[str], None],
) -> np.ndarray:
    if isinstance(stage, Degrading):
        return stage.degradation(frame.pixels, np.random.default_rng([request.seed, number]))
    try:
        return stage.restored(frame.pixels, weight=None if weight is None else weight.copy(), notice=notice)[0]
    except RestormerError as error:
        raise type(error)(f"{request.source}: {error}") from None


def _job(request: Request) -> Job:
    """Where the video goes. Raises UserError for everything that can be refused before it is opened."""
    source, target = request.source, request.target
    if request.overwrite and request.skip_existing:
        raise UserError("--overwrite and --skip-existing: give only one of them")
    if request.right is not None:
        raise UserError("--right: a video has no second views: leave it out")
    if request.task == AUTO:
        raise UserError("--task auto: chooses for pictures; name the task of a video")
    if request.mask is not None and not request.mask.is_file():
        raise UserError(f"--mask {request.mask}: no such file; a video takes one mask for all its frames")
    if request.compare:
        raise UserError("--compare: is for pictures; leave it out for a video")
    if not source.is_file():
        raise UserError(f"{source}: no such file")
    if target == STANDARD:
        raise UserError(f"{source}: a video does not fit through standard output: name a file or a folder")
    suffix = target.suffix.lower()
    if suffix in READABLE and not target.is_dir():
        raise UserError(f"{target}: is a picture's name, but {source} is a video: use {', '.join(WRITABLE_VIDEOS)}")
    if target.is_dir() or suffix not in READABLE_VIDEOS:
        kept = source.suffix if source.suffix.lower() in WRITABLE_VIDEOS else ".mkv"
        extension = kept if request.extension == "same" else "." + request.extension.lower().removeprefix(".")
        target = target / renamed(source, extension, request.suffix)
    container_of(target)
    if os.path.realpath(source) == os.path.realpath(target):
        raise UserError(f"{target}: is an input, which is never overwritten: name another place to write to")
    check_folder(target.parent)
    return Job(source, target)


def _length(job: Job) -> int:
    try:
        return job.source.stat().st_size
    except OSError:
        return 0
