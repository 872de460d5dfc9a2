"""`restore`: degraded pictures in, restored ones out, the same names.

The caller's thread computes; others read ahead and write behind (pipeline.py). Which picture becomes which file is
settled in jobs.py, what a network makes of one picture in engine/adapter.py. Videos come after the pictures, one by one
(video.py). Several processes split all of it by pixels, and the first one tells of all (work_sharing.py).
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import zip_longest
from math import prod
from pathlib import Path
from typing import Any

from restormer_cli.commands.restore.earlier import is_earlier_out, record, recorded
from restormer_cli.commands.restore.jobs import STANDARD, Job, find_jobs, names_of
from restormer_cli.commands.restore.operations import Stage, make_stage, sizes_of
from restormer_cli.commands.restore.pipeline import overlapped
from restormer_cli.commands.restore.settings import SettingsRecord, settings_of
from restormer_cli.commands.restore.side_by_side import check_comparisons
from restormer_cli.commands.restore.steps import (
    compute_pages,
    diagnose,
    read_stage,
    release,
    run_step,
    write_stage,
)
from restormer_cli.commands.restore.types import AUTO, FrameDone, Page, PictureTask, Planned, Request, Restored, Started
from restormer_cli.commands.restore.video import (
    Elsewhere,
    frame_pixels,
    plan_among_others,
    restore_among_others,
    restore_video,
)
from restormer_cli.commands.restore.watch import check_watch, watch, watching
from restormer_cli.commands.restore.work_sharing import Team, split
from restormer_cli.errors import Failed, RestormerError, UserError
from restormer_cli.files import check_folder, sweep
from restormer_cli.images.io import Picture, page_sizes, picture_size, read_pages, read_picture
from restormer_cli.images.listing import left_out
from restormer_cli.images.video import EXTRA, READABLE_VIDEOS, is_video

POLL = 0.2
"""Seconds between two looks at a picture that another run is restoring."""


def restore(
    request: Request, progress: Callable[[float], None] | None = None
) -> Iterator[Started | Planned | FrameDone | Restored]:
    """Restore files or folders, picture by picture, then video by video; a bad one costs that one only.

    `progress` hears the share that is done of the picture that is restored, from 0 to 1, between two events.
    Yields one Started, then a Restored per picture; in a dry run, which writes nothing, a Planned. Raises UserError
    before any work where the request is wrong, and at the end where not one picture could be restored; never leaves
    a partial file.
    """
    team = Team.join()
    if team is not None and team.rank > 0:
        _take_part(request, team)
        return
    try:
        if is_video(request.source) and not request.source.is_dir() and not request.more:
            yield from restore_video(request)
            return
        if request.watch:
            yield from _watch(request, progress)
            return
        jobs = _jobs(request)
        stage = make_stage(request, progress)
        started = stage.started(jobs)
        started = replace(started, notes=(*started.notes, *_notes(request, stage, jobs, started)))
        if missing := left_out(request.sources, _videos_left_out(request), is_earlier_out, recorded, request.target):
            started = replace(started, left_out=missing)
        yield started
        if request.dry_run:
            yield from _dry_run(request, stage, jobs)
            return
        if request.target != STANDARD:
            record((job.target for job in jobs), request.sources, request.target)
        own = jobs if team is None else _hand_out(request, jobs, team)
    finally:
        if team is not None:
            team.dismiss()  # those that have been given nothing to do
    events = _run(request, stage, own)
    yield from _judged(request, jobs, events if team is None else _gathered(events, team, jobs))


def _watch(request: Request, progress: Callable[[float], None] | None) -> Iterator[Started | FrameDone | Restored]:
    """Everything that appears in the folder; ends by an exception only."""
    check_watch(request)
    names_of(request)
    check_folder(request.target)
    if request.mask is not None and not request.mask.is_file():
        raise UserError(f"--mask {request.mask}: no such file; a watched folder takes one mask for all pictures")
    request = watching(request)
    stage = make_stage(request, progress)
    yield replace(stage.started([]), watching=True)
    sweep(request.target)

    def run(jobs: list[Job]) -> Iterator[FrameDone | Restored]:
        record((job.target for job in jobs), request.sources, request.target)
        return _run(request, stage, jobs)

    yield from watch(request, run)


def _notes(request: Request, stage: Stage, jobs: list[Job], started: Started) -> Iterator[str]:
    """What is to be told before the work."""
    if request.deinterlace and not started.videos:
        yield "--deinterlace is for videos, and there is none"
    if request.skip_existing and (record := _settings_record(request, stage)) and (told := record.others(jobs)):
        yield told


def _settings_record(request: Request, stage: Stage) -> SettingsRecord | None:
    """With which settings results are made; of a single picture or video nothing is written down."""
    several = request.more or request.source.is_dir()
    return SettingsRecord(request.target, settings_of(request, stage)) if several else None


def _jobs(request: Request) -> list[Job]:
    if request.overwrite and request.skip_existing:
        raise UserError("--overwrite and --skip-existing: give only one of them")
    names = names_of(request)
    may_exist = request.overwrite or request.skip_existing
    sources = [source for source in request.sources if names.videos or source.is_dir() or not is_video(source)]
    if not sources:
        raise UserError(f"nothing but videos, and they are left out: {_cure_of_videos(request)}")
    jobs = find_jobs(
        sources, request.target, right=request.right, mask=request.mask, may_exist=may_exist, **vars(names)
    )
    if names.video_extension and not any(job.video for job in jobs):
        raise UserError(f"--ext {request.extension}: is for videos, and there is none: choose a format of pictures")
    if request.compare:
        check_comparisons([job for job in jobs if not job.video], may_exist)
    return sorted(jobs, key=lambda job: job.video)


def _cure_of_videos(request: Request) -> str:
    return EXTRA if request.right is None else "a video has no second views: restore it without --right"


def _videos_left_out(request: Request) -> dict[str, str]:
    """Extensions of videos that are not restored, and what to do about it."""
    return {} if names_of(request).videos else dict.fromkeys(READABLE_VIDEOS, _cure_of_videos(request))


def _dry_run(request: Request, stage: Stage, jobs: list[Job]) -> Iterator[Planned]:
    """By the pictures' headers, and where their faults are asked for by their pixels."""
    for job in jobs:
        try:
            if job.trouble:
                raise UserError(job.trouble)
            if job.video:
                yield plan_among_others(request, job, stage)
                continue
            if STANDARD in (job.source, job.target):
                raise UserError("--dry-run: the plan is made from files; name a file or a folder")
            yield _planned(request, stage, job)
        except UserError as error:
            if len(jobs) == 1:
                raise
            yield Planned(job.source, job.target, error=str(error))


def _planned(request: Request, stage: Stage, job: Job) -> Planned:
    """The plan of a picture, or of all its pages."""
    there = request.skip_existing and job.target.exists()
    judged = request.degrade is None and not there
    pictures: list[Picture] = []
    sizes = page_sizes(job.source) if request.takes_pages(job) else []
    if judged:
        pictures = read_pages(job.source) if sizes else [read_picture(job.source, salvage=request.salvage)]

    def page(height: int, width: int, picture: Picture | None) -> Page:
        plan, predicted = stage.plan(height, width)
        diagnosis = None if picture is None else diagnose(picture, followed=request.task == AUTO)
        if diagnosis is not None and diagnosis.left_alone:
            plan, predicted = "left alone", None
        return Page(width, height, plan, predicted, diagnosis=diagnosis)

    pages = tuple(
        page(height, width, picture)
        for (height, width), picture in zip_longest(sizes or [picture_size(job.source)], pictures)
    )
    first = pages[0]
    predicted = max((page.predicted for page in pages if page.predicted is not None), default=None)
    return Planned(
        job.source,
        job.target,
        first.width,
        first.height,
        first.plan,
        predicted,
        there,
        first.diagnosis,
        pages=pages if len(pages) > 1 else (),
    )


def _run(request: Request, stage: Stage, jobs: list[Job]) -> Iterator[FrameDone | Restored]:
    """The events of this process's own pictures, then of its videos."""
    settings = _settings_record(request, stage)
    for event in _run_all(request, stage, jobs):
        try:
            yield event  # first, so that an interrupt while the record is written does not keep it from being told
        finally:
            if settings and isinstance(event, Restored) and event.error is None and event.seconds is not None:
                settings.add(event.target)


def _run_all(request: Request, stage: Stage, jobs: list[Job]) -> Iterator[FrameDone | Restored]:
    if pictures := [job for job in jobs if not job.video]:
        yield from _run_pictures(request, stage, pictures)
    videos = [job for job in jobs if job.video]
    while videos:
        later: list[Job] = []
        for job in videos:
            try:
                yield from restore_among_others(request, job, stage)
            except Elsewhere as error:  # wait for it, or take it over where the other run ends without it
                if request.skip_existing:
                    later.append(job)
                else:
                    yield Restored(job.source, job.target, error=str(error), error_code=error.exit_code)
        if len(later) == len(videos):
            time.sleep(POLL)
        videos = later


def _run_pictures(request: Request, stage: Stage, jobs: list[Job]) -> Iterator[Restored]:
    claims: list[ExitStack] = []

    def read(job: Job) -> PictureTask:
        work = PictureTask(job)
        claims.append(work.claim)
        return run_step("read", read_stage, request, work)

    later: list[Job] = []
    try:
        for work in _overlapped(request, stage, jobs, read):
            if work.elsewhere:
                later.append(work.job)
                continue
            yield work.event()
        while later:  # what other runs have begun: wait for it, or take it over where they end without it
            for work in _overlapped(request, stage, [later.pop(0)], read):
                if work.elsewhere:
                    later.append(work.job)
                    time.sleep(POLL)
                    continue
                yield work.event()
    finally:
        release(claims)


def _overlapped(
    request: Request, stage: Stage, jobs: list[Job], read: Callable[[Job], PictureTask]
) -> Iterator[PictureTask]:
    works = overlapped(
        jobs,
        read=read,
        compute=lambda work: run_step("compute", compute_pages, stage.compute, work),
        write=lambda work: run_step("write", write_stage, request, work),
        size=PictureTask.bytes,
        room=stage.room,
        threads=stage.threads_beside,
    )
    with closing(works):
        yield from works


def _judged(
    request: Request, jobs: list[Job], events: Iterator[FrameDone | Restored]
) -> Iterator[FrameDone | Restored]:
    """The events, and at the end, or where going on is pointless, an error that speaks for all of them."""
    for folder in {job.target.parent for job in jobs if job.target != STANDARD}:
        sweep(folder)
    done, codes = 0, []
    with closing(events):  # pyright: ignore
        for event in events:
            yield event
            if isinstance(event, FrameDone):
                continue
            done += event.error is None
            if event.error is None:
                continue
            codes.append(event.error_code)
            kind = UserError if event.error_code == UserError.exit_code else Failed
            if len(jobs) == 1:
                raise kind(event.error)
            so_far = f"with {done} of {_counted(jobs)} done"
            if event.no_room:
                raise Failed(f"stopped {so_far}: make room, then go on with --skip-existing")
            if request.fail_fast:
                raise kind(f"stopped at the first failure, {so_far} (--fail-fast)")
    if len(codes) == len(jobs):
        kind = UserError if set(codes) == {UserError.exit_code} else Failed
        what = "none of the" if request.more else f"{request.source}: none of its"
        raise kind(f"{what} {_counted(jobs)} could be restored")


def _counted(jobs: list[Job]) -> str:
    """How many there are of what: "3 pictures and videos"."""
    videos = sum(job.video for job in jobs)
    return f"{len(jobs)} {'pictures' if not videos else 'videos' if videos == len(jobs) else 'pictures and videos'}"


# --- Several processes --------------------------------------------------------------------------------------


def _hand_out(request: Request, jobs: list[Job], team: Team) -> list[Job]:
    """Split pictures and videos by their pixels; this process keeps the first share."""

    def pixels(job: Job) -> int:
        if job.trouble or (request.skip_existing and job.target.exists()):
            return 0
        if job.video:
            return frame_pixels(job.source)
        try:
            return sum(map(prod, sizes_of(request, job)))
        except UserError:  # reading it will say so
            return 0

    shares = split([pixels(job) for job in jobs], team.size)
    if STANDARD in (jobs[0].source, jobs[0].target):
        shares[0] = [0]  # ours is the standard input that the caller sees
        shares[1:] = [[] for _ in shares[1:]]
    team.assign([[jobs[index].to_json() for index in share] for share in shares])
    return [jobs[index] for index in shares[0]]


def _take_part(request: Request, team: Team) -> None:
    """In every process but the first: restore what is asked, and tell the first one."""
    share = team.share()
    try:
        if share:
            jobs = [Job.from_json(values) for values in share]
            for event in _run(request, make_stage(request), jobs):
                if isinstance(event, Restored):
                    team.send(event.to_json())
    except RestormerError as error:
        team.send({"trouble": str(error)})
    team.send(None)


def _gathered(events: Iterator[FrameDone | Restored], team: Team, jobs: list[Job]) -> Iterator[FrameDone | Restored]:
    """Our own events, and between them and after them those of the other processes; in the end what the dead leave."""
    told: set[Path] = set()

    def every() -> Iterator[FrameDone | Restored]:
        with closing(events):  # pyright: ignore
            for event in events:
                yield event
                yield from map(_received, team.heard())
        yield from map(_received, team.remaining())

    for event in every():
        if isinstance(event, Restored):
            told.add(event.target)
        yield event
    for job in jobs if team.lost else ():
        if job.target not in told:
            which = ", ".join(map(str, sorted(team.lost)))
            error = f"{job.source}: missing: process {which} died before it was done; go on with --skip-existing"
            yield Restored(job.source, job.target, error=error, error_code=Failed.exit_code)


def _received(message: dict[str, Any]) -> Restored:
    if "trouble" in message:
        raise Failed(f"another process: {message['trouble']}")
    return Restored.from_json(message)
