"""`restore` for one video: frame by frame, as pictures are restored, into one file that appears when it is whole.

`--task auto` looks at a few frames first and does one thing to all of them.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from restormer_cli import __version__
from restormer_cli.commands.restore.jobs import STANDARD, Job, renamed
from restormer_cli.commands.restore.operations import (
    Choosing,
    Degrading,
    Restoring,
    check_automatic,
    check_knobs,
    make_stage,
)
from restormer_cli.commands.restore.steps import diagnose_film, keep_time, read_mask
from restormer_cli.commands.restore.types import AUTO, Diagnosis, FrameDone, Planned, Request, Restored, Started
from restormer_cli.errors import Failed, RestormerError, UserError
from restormer_cli.files import check_folder, locked, replacing, sha256_of, sweep, write_atomically
from restormer_cli.images import segments
from restormer_cli.images.colour import Working
from restormer_cli.images.formats.table import READABLE
from restormer_cli.images.segments import Segments, waiting_frames
from restormer_cli.images.video import READABLE_VIDEOS, Frame, Video, open_video
from restormer_cli.images.video_writer import WRITABLE_VIDEOS, Writer, container_of, writing

LOOKED_AT = 5
"""Frames by which `--task auto` judges a film."""


def restore_video(request: Request) -> Iterator[Started | Planned | FrameDone | Restored]:
    """Yields one Started, a FrameDone per frame, and one Restored.

    Raises UserError before any work for what cannot be done; never leaves a partial file.
    """
    job = _job(request)
    there = job.target.exists()
    if there and not (request.overwrite or request.skip_existing):
        raise UserError(f"{job.target}: already there: --overwrite replaces it, --skip-existing leaves it alone")
    skipped = there and request.skip_existing
    with open_video(job.source) as video:
        diagnosis = None if request.task != AUTO or skipped else _diagnose(request)
        stage = _stage(request, diagnosis)
        started = _ALONE if stage is None else stage.started([job])
        alone = stage is None and job.source.suffix.lower() == job.target.suffix.lower() and not request.strip
        settings = _settings(request, job, stage, started, video)
        if not (skipped or alone) and (done := waiting_frames(_segments(job), settings)):
            started = replace(started, notes=(*started.notes, f"goes on at frame {done + 1:,}"))
        reason = None if diagnosis is None else diagnosis.reason
        yield replace(started, automatic=request.task == AUTO, reason=reason)
        size = (video.width, video.height)
        if request.dry_run:
            plan, predicted = ("left alone", None) if stage is None else stage.plan(video.height, video.width)
            yield Planned(job.source, job.target, *size, plan, predicted, skipped=skipped, diagnosis=diagnosis)
        elif skipped:
            yield Restored(job.source, job.target, *size)
        else:
            try:
                if alone:
                    yield replace(_copied(request, video, job), diagnosis=diagnosis)
                    return
                for event in _restore(request, stage, video, job, settings):
                    yield replace(event, diagnosis=diagnosis) if isinstance(event, Restored) else event
            except RestormerError as error:
                code = error.exit_code
                yield Restored(job.source, job.target, error=str(error), error_code=code, input_bytes=_length(job))
                raise


_ALONE = Started(pictures=1, weights=None, task=None, assumed=False, device="cpu", precision="fp32", tile=None)
"""The start of a film that needs nothing."""


def _diagnose(request: Request) -> Diagnosis:
    """What the whole film needs, by frames that are spread over it."""
    check_knobs(request)
    check_automatic(request)
    with open_video(request.source) as video:
        frames = [_shown(video, frame)[0] for frame in video.spread(LOOKED_AT)]
    return diagnose_film(frames)


def _stage(request: Request, diagnosis: Diagnosis | None) -> Restoring | Degrading | None:
    """What is done to every frame; None: nothing."""
    if request.task == AUTO:
        if diagnosis is None or diagnosis.task is None:
            return None
        request = replace(request, task=diagnosis.task)
    stage = make_stage(request)
    assert not isinstance(stage, Choosing)
    return stage


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"{folder}: this folder cannot be made: {error.strerror}") from None


def _copied(request: Request, video: Video, job: Job) -> Restored:
    """A film that needs nothing, byte for byte."""
    begun = time.perf_counter()
    _make_folder(job.target.parent)
    sweep(job.target.parent)
    with job.source.open("rb") as source:
        write_atomically(job.target, lambda stream: shutil.copyfileobj(source, stream), new=not request.overwrite)
    if request.keep_time:
        keep_time(job.source, job.target)
    seconds, length = time.perf_counter() - begun, _length(job)
    size = (video.width, video.height)
    return Restored(job.source, job.target, *size, seconds, write_seconds=seconds, bits=video.bits, input_bytes=length)


def _restore(
    request: Request, stage: Restoring | Degrading | None, video: Video, job: Job, settings: dict[str, Any]
) -> Iterator[FrameDone | Restored]:
    begun = time.perf_counter()
    _make_folder(job.target.parent)
    sweep(job.target.parent)
    made = _name_of(stage)
    signature = f"restormer-cli {__version__}, {made}" if request.sign and made else None
    with ExitStack() as stack:
        folder = _segments(job)
        stack.enter_context(locked(folder.with_suffix(".claim"), lambda holder: _busy(job, holder)))
        store = Segments(folder, settings)
        anew = ["an earlier run was interrupted, but with other settings: it starts again"] if store.anew else []
        stack.callback(store.close, whole=False)
        out = stack.enter_context(
            writing(video, job.target, store, request.quality, strip=request.strip, signature=signature)
        )
        yield from _segment_by_segment(request, stage, video, out, begun)
        count = store.frames
        with replacing(job.target, new=not request.overwrite) as stream:
            out.join(stream)
        store.close(whole=True)
        if request.keep_time:
            keep_time(job.source, job.target)
    notices = dict.fromkeys(notice for values in store.told for notice in values["notices"])  # each once, in order
    notes = [*anew, *out.notes, *video.notes, *notices, f"{count:,} frames"]
    if stage is None:
        notes.append(f"needs nothing, and is only coded anew for {job.target.suffix}")
    if video.damaged:
        notes.append(f"{video.damaged:,} damaged packets are left out; all else keeps its time")
    seconds, computed = time.perf_counter() - begun, sum(values["seconds"] for values in store.told)
    yield Restored(
        source=job.source,
        target=job.target,
        width=video.width,
        height=video.height,
        seconds=seconds,
        notes=tuple(notes),
        compute_seconds=computed,
        write_seconds=max(0.0, seconds - computed),
        channels=max(values["channels"] for values in store.told),
        bits=video.bits,
        plan=None if stage is None else stage.ran(video.height, video.width),
        change=None if stage is None else sum(values["change"] for values in store.told) / count,
        input_bytes=_length(job),
        frames=count,
    )


def _name_of(stage: Restoring | Degrading | None) -> str | None:
    if stage is None:
        return None
    return str(stage.degradation) if isinstance(stage, Degrading) else stage.weights.task or stage.weights.path.name


def _segment_by_segment(
    request: Request, stage: Restoring | Degrading | None, video: Video, out: Writer, begun: float
) -> Iterator[FrameDone]:
    weight = None if request.mask is None else read_mask(request.mask, video.height, video.width)
    count = first = out.store.frames
    for frames in out.missing():
        notices: dict[str, None] = {}
        told: dict[str, Any] = {"change": 0.0, "seconds": 0.0, "channels": 0}
        with out.segment(told) as write:
            for frame in frames:
                started = time.perf_counter()
                pixels = _compute(request, stage, video, frame, count, weight, notices.setdefault)
                told["seconds"] += time.perf_counter() - started
                told["change"] += float(np.abs(pixels - frame.pixels).mean()) * 255
                told["channels"] = frame.pixels.shape[2]
                write(pixels, frame)
                count += 1
                yield FrameDone(count, video.length, time.perf_counter() - begun, count - first, out.store.frames)
            told["notices"] = list(notices)


def _segments(job: Job) -> Path:
    """The hidden folder beside the result that holds what is done of it."""
    digest = hashlib.sha256(job.target.name.encode(errors="surrogateescape")).hexdigest()[:12]
    return job.target.with_name(f".restormer-{digest}.video")


def _busy(job: Job, holder: str) -> Failed:
    return Failed(f"{job.target}: {holder} is restoring it now: wait for it, or name another place to write to")


ELSEWHERE = (
    *("source", "target", "more", "weights", "extension", "suffix", "overwrite", "skip_existing", "fail_fast"),
    *("dry_run", "watch", "profile", "keep_time", "analyse", "mask"),
)
"""What of a request does not decide what the frames become, or is said by files' contents."""


def _settings(
    request: Request, job: Job, stage: Restoring | Degrading | None, started: Started, video: Video
) -> dict[str, Any]:
    """Everything that decides what the frames of the result become, as plain values."""
    import av

    asked = {key: value for key, value in asdict(request).items() if key not in ELSEWHERE}
    file = video.path.stat()
    contents = [request.mask] if request.mask is not None else []
    if isinstance(stage, Restoring):
        graph = stage.weights.path
        contents += [
            graph,
            *(path for path in [graph.with_suffix(".bin")] if path.is_file() and graph.suffix == ".xml"),
        ]
    torch = sys.modules.get("torch") if isinstance(stage, Restoring) else None
    return {
        "version": [__version__, str(torch and torch.__version__), av.__version__, av.library_versions],
        "source": [video.path.name, file.st_size, file.st_mtime_ns],
        "request": asked,
        "files": [sha256_of(path) for path in contents if path.is_file()],
        "how": [started.device, started.precision, started.threads],
        "written": [job.target.suffix.lower(), segments.LENGTH],
    }


def _compute(
    request: Request,
    stage: Restoring | Degrading | None,
    video: Video,
    frame: Frame,
    number: int,
    weight: np.ndarray | None,
    notice: Callable[[str], None],
) -> np.ndarray:
    if stage is None:
        return frame.pixels
    shown, working = _shown(video, frame)
    if isinstance(stage, Degrading):
        result = stage.degradation(shown, np.random.default_rng([request.seed, number]))
    else:
        try:
            result = stage.restored(shown, weight=None if weight is None else weight.copy(), notice=notice)[0]
        except RestormerError as error:
            raise type(error)(f"{request.source}: {error}") from None
    return result if working is None else working.carry(frame.pixels, shown, result)


def _shown(video: Video, frame: Frame) -> tuple[np.ndarray, Working | None]:
    """A frame as a network sees it, and the way back."""
    working = video.working(frame.pixels)
    return frame.pixels if working is None else working.show(frame.pixels), working


def _job(request: Request) -> Job:
    """Where the video goes. Raises UserError for everything that can be refused before it is opened."""
    source, target = request.source, request.target
    if request.overwrite and request.skip_existing:
        raise UserError("--overwrite and --skip-existing: give only one of them")
    if request.right is not None:
        raise UserError("--right: a video has no second views: leave it out")
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
