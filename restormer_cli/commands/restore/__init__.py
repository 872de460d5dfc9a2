"""`restore`: degraded pictures in, restored ones out, the same names.

The caller's thread computes; others read ahead and write behind (engine/overlap.py). Which picture becomes which
file is settled in data/jobs.py, what a network makes of one picture in engine/pictures.py.
"""

from collections.abc import Iterator

from restormer_cli.atomic import sweep
from restormer_cli.commands.restore.stages import Degrading, Restoring
from restormer_cli.commands.restore.values import Planned, Request, Restored, Started, Watcher
from restormer_cli.commands.restore.work import Work, guarded, read_stage, write_stage
from restormer_cli.data.images import WRITABLE
from restormer_cli.data.probe import picture_size
from restormer_cli.data.jobs import STANDARD, Job, find_jobs
from restormer_cli.engine.overlap import overlapped
from restormer_cli.errors import Failed, NoRoom, UserError

ROOM = 256 << 20
"""Bytes of decoded pictures that wait to be computed, and as many to be written."""


def restore(request: Request, watch: Watcher | None = None) -> Iterator[Started | Planned | Restored]:
    """Restore a file or a folder, picture by picture; a bad picture costs that picture only.

    Yields one Started, then a Restored per picture (a Planned in a dry run, which writes nothing). Raises UserError before any work where the request is wrong,
    and at the end where not one picture could be restored; never leaves a partial file.
    """
    jobs = _jobs(request)
    stage = Degrading(request) if request.degrade is not None else Restoring(request)
    yield stage.started(jobs)
    yield from _dry_run(request, stage, jobs) if request.dry_run else _run(request, stage, jobs, watch)


def _jobs(request: Request) -> list[Job]:
    if request.overwrite and request.skip_existing:
        raise UserError("--overwrite and --skip-existing: give only one of them")
    extension = None
    if request.extension != "same":
        extension = "." + request.extension.lower().removeprefix(".")
        if extension not in WRITABLE:
            known = ", ".join(name[1:] for name in WRITABLE)
            raise UserError(f"--ext {request.extension}: no format that can be written; choose same, {known}")
    if "/" in request.suffix or "\0" in request.suffix:
        raise UserError(f"--suffix {request.suffix}: becomes part of file names, which hold no slash")
    return find_jobs(
        request.source,
        request.target,
        extension=extension,
        suffix=request.suffix,
        right=request.right,
        may_exist=request.overwrite or request.skip_existing,
    )


def _dry_run(request: Request, stage: Restoring | Degrading, jobs: list[Job]) -> Iterator[Planned]:
    """By the pictures' headers alone: fast, and blind to damage behind them."""
    for job in jobs:
        try:
            if job.trouble:
                raise UserError(job.trouble)
            if STANDARD in (job.source, job.target):
                raise UserError("--dry-run: the plan is made from files; name a file or a folder")
            height, width = picture_size(job.source)
            plan, predicted = stage.plan(height, width)
            there = request.skip_existing and job.target.exists()
            yield Planned(job.source, job.target, width, height, plan, predicted, skipped=there)
        except UserError as error:
            if len(jobs) == 1:
                raise
            yield Planned(job.source, job.target, error=str(error))


def _run(request: Request, stage: Restoring | Degrading, jobs: list[Job], watch: Watcher | None) -> Iterator[Restored]:
    for folder in {job.target.parent for job in jobs if job.target != STANDARD}:
        sweep(folder)
    done, errors = 0, []
    events = overlapped(
        jobs,
        read=lambda job: guarded("read", read_stage, request, Work(job)),
        compute=lambda work: guarded("compute", stage.compute, work),
        write=lambda work: guarded("write", write_stage, request, watch, work),
        size=Work.bytes,
        room=ROOM,
        threads=stage.threads_beside,
    )
    try:
        for work in events:
            yield work.event()
            done += work.error is None
            if work.error is not None:
                errors.append(work.error)
                if request.fail_fast or isinstance(work.error, NoRoom):
                    break
    finally:
        events.close()  # pyright: ignore
    if not errors:
        return
    if len(jobs) == 1:
        raise errors[0]
    if isinstance(errors[-1], NoRoom):
        raise Failed(f"stopped with {done} of {len(jobs)} pictures done: make room, then go on with --skip-existing")
    if request.fail_fast:
        raise type(errors[-1])(f"stopped at the first failure, with {done} of {len(jobs)} pictures done (--fail-fast)")
    if len(errors) == len(jobs):
        kind = UserError if all(isinstance(error, UserError) for error in errors) else Failed
        raise kind(f"{request.source}: none of its {len(jobs)} pictures could be restored")


__all__ = ["Planned", "Request", "Restored", "Started", "Watcher", "restore"]
