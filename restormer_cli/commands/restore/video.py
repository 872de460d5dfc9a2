"""`restore` for a video: frame by frame, as pictures are restored, into one file that appears when it is whole.

`--task auto` looks at a few frames first and does one thing to all of them.
"""

import hashlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from restormer_cli import __version__
from restormer_cli.commands.restore.jobs import STANDARD, Job, Names
from restormer_cli.commands.restore.operations import (
    Choosing,
    Degrading,
    Restoring,
    Stage,
    check_automatic,
    check_knobs,
    make_stage,
)
from restormer_cli.commands.restore.steps import diagnose_film, keep_time, read_mask, told
from restormer_cli.commands.restore.types import AUTO, Diagnosis, FrameDone, Planned, Request, Restored, Started
from restormer_cli.errors import AlreadyThere, Failed, NoRoom, RestormerError, UserError
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
    if job.target.exists() and not (request.overwrite or request.skip_existing):
        raise UserError(f"{job.target}: already there: --overwrite replaces it, --skip-existing leaves it alone")
    with _opened(request, job) as run:
        reason = None if run.diagnosis is None else run.diagnosis.reason
        notes = (*run.started.notes, *run.going_on)
        yield replace(run.started, notes=notes, automatic=request.task == AUTO, reason=reason)
        if request.dry_run:
            yield run.planned()
            return
        try:
            yield from run.events()
        except RestormerError as error:
            yield _failed(job, error)
            raise


def plan_among_others(request: Request, job: Job, stage: Stage) -> Planned:
    """What would be done to a video of a folder."""
    with _of_folder(request, job, stage) as run:
        return run.planned()


def restore_among_others(request: Request, job: Job, stage: Stage) -> Iterator[FrameDone | Restored]:
    """A video of a folder, with the folder's flags: `restore_video` without a Started.

    Raises Elsewhere where another run is restoring it now; all other errors are in the Restored.
    """
    try:
        if request.skip_existing and job.target.exists():
            yield Restored(job.source, job.target)
            return
        with _of_folder(request, job, stage) as run:
            notes = (*run.going_on, *(["--compare is for pictures"] if request.compare else []))
            for event in run.events():
                yield replace(event, notes=(*notes, *event.notes)) if isinstance(event, Restored) else event
    except Elsewhere:
        raise
    except AlreadyThere as error:
        yield Restored(job.source, job.target) if request.skip_existing else _failed(job, error)
    except RestormerError as error:
        yield _failed(job, error)
    except Exception as error:  # ours, or a library's: it costs this video
        yield _failed(job, Failed(f"{job.source}: a defect of restormer-cli, please report it: {told(error)}"))


class Elsewhere(Failed):
    """Another run is restoring this video now."""


def _failed(job: Job, error: RestormerError) -> Restored:
    return Restored(
        job.source,
        job.target,
        error=str(error),
        error_code=error.exit_code,
        input_bytes=_length(job),
        no_room=isinstance(error, NoRoom),
    )


def _of_folder(request: Request, job: Job, stage: Stage) -> "AbstractContextManager[_Run]":
    if job.trouble:
        raise UserError(job.trouble)
    own = replace(request, source=job.source, target=job.target, more=(), mask=job.mask, compare=False)
    return _opened(own, job, stage)


def frame_pixels(path: Path) -> int:
    """The pixels of all frames, by a video's header; 0 where it does not tell."""
    try:
        with open_video(path) as video:
            return video.width * video.height * (video.length or 0)
    except UserError:  # restoring it will say so
        return 0


@contextmanager
def _opened(request: Request, job: Job, shared: Stage | None = None) -> "Iterator[_Run]":
    """A video, open, with what is to be done to it. `shared`: the network that its folder's pictures have."""
    skipped = request.skip_existing and job.target.exists()
    with open_video(job.source, deinterlace=request.deinterlace) as video:
        diagnosis = None if request.task != AUTO or skipped else _diagnose(request)
        stage = _stage(request, diagnosis, shared)
        started = _ALONE if stage is None else stage.started([job])
        alone = stage is None and job.source.suffix.lower() == job.target.suffix.lower() and not request.strip
        alone = alone and not (request.deinterlace and video.opening.interlaced)
        settings = _settings(request, job, stage, started, video)
        yield _Run(request, job, video, stage, diagnosis, started, settings, skipped, alone)


@dataclass(frozen=True, eq=False)
class _Run:
    """A video that is to be restored."""

    request: Request
    job: Job
    video: Video
    stage: Restoring | Degrading | None
    diagnosis: Diagnosis | None
    started: Started
    settings: dict[str, Any]
    skipped: bool
    alone: bool
    """It needs nothing: it is copied."""

    @property
    def going_on(self) -> tuple[str, ...]:
        """A note where an interrupted run is gone on with."""
        if self.skipped or self.alone or not (done := waiting_frames(_segments(self.job), self.settings)):
            return ()
        return (f"goes on at frame {done + 1:,}",)

    def planned(self) -> Planned:
        """Plan of a dry run."""
        job, video, size = self.job, self.video, (self.video.width, self.video.height)
        plan, predicted = ("left alone", None) if self.stage is None else self.stage.plan(video.height, video.width)
        return Planned(job.source, job.target, *size, plan, predicted, skipped=self.skipped, diagnosis=self.diagnosis)

    def events(self) -> Iterator[FrameDone | Restored]:
        """A FrameDone per frame, and one Restored."""
        job, video = self.job, self.video
        if self.skipped:
            yield Restored(job.source, job.target, video.width, video.height)
        elif self.alone:
            yield replace(_copied(self.request, video, job), diagnosis=self.diagnosis)
        else:
            for event in _restore(self.request, self.stage, video, job, self.settings):
                yield replace(event, diagnosis=self.diagnosis) if isinstance(event, Restored) else event


_ALONE = Started(1, None, task=None, assumed=False, device="cpu", precision="fp32", tile=None, videos=1)
"""The start of a film that needs nothing."""


def _diagnose(request: Request) -> Diagnosis:
    """What the whole film needs, by frames that are spread over it."""
    check_knobs(request)
    check_automatic(request)
    with open_video(request.source, deinterlace=request.deinterlace) as video:
        frames = [_shown(video, frame)[0] for frame in video.spread(LOOKED_AT)]
    return diagnose_film(frames)


def _stage(request: Request, diagnosis: Diagnosis | None, shared: Stage | None) -> Restoring | Degrading | None:
    """What is done to every frame; None: nothing."""
    if request.task == AUTO:
        if diagnosis is None or diagnosis.task is None:
            return None
        if isinstance(shared, Choosing):
            return shared.stage_of(diagnosis.task)
        request = replace(request, task=diagnosis.task)
    stage = shared or make_stage(request)
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
        if job.target.exists() and not request.overwrite:
            raise AlreadyThere(f"{job.target}: appeared while this ran, and is left as it is")
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
    notes = [*anew, *out.notes, *video.notes, *notices, f"{count:,} frame{'s' * (count != 1)}"]
    if stage is None:
        fields = request.deinterlace and video.opening.interlaced
        why = "deinterlaced" if fields else f"coded anew for {job.target.suffix}"
        notes.append(f"needs nothing, and is only {why}")
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


def _busy(job: Job, holder: str) -> Elsewhere:
    return Elsewhere(f"{job.target}: {holder} is restoring it now: wait for it, or name another place to write to")


ELSEWHERE = (
    *("source", "target", "more", "weights", "extension", "suffix", "overwrite", "skip_existing", "fail_fast"),
    *("pages", "dry_run", "watch", "profile", "keep_time", "analyse", "mask"),
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
        extension = None if request.extension == "same" else "." + request.extension.lower().removeprefix(".")
        target = target / Names(video_extension=extension, suffix=request.suffix).of(source)
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
