"""`restore`: degraded pictures in, restored ones out, the same names."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from restormer_cli.data.images import (
    READABLE,
    WRITABLE,
    Picture,
    check_writable,
    find_pictures,
    read_picture,
    write_picture,
)
from restormer_cli.engine.restorer import Restorer
from restormer_cli.errors import Failed, RestormerError, UserError
from restormer_cli.model.weights import Weights, bundled_tasks, load_weights

DEFAULT_TASK = "denoise"


@dataclass(frozen=True)
class Request:
    """What to restore, where to, and how."""

    source: Path
    target: Path
    weights: str | None = None
    """A weights file or a bundled name; None takes the bundled checkpoint of `task`."""
    task: str | None = None
    tile: int | None = None
    overlap: int = 32
    device: str = "auto"
    precision: str = "auto"
    overwrite: bool = False
    skip_existing: bool = False


@dataclass(frozen=True)
class Started:
    """What will be done, before the first picture."""

    pictures: int
    weights: Path
    task: str | None
    assumed: bool
    """Neither weights nor task were named, so this task was taken."""
    device: str
    precision: str
    tile: int | None
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Restored:
    """One picture, done, skipped (`seconds` is None) or failed (`error` says why)."""

    source: Path
    target: Path
    width: int = 0
    height: int = 0
    seconds: float | None = None
    notes: tuple[str, ...] = ()
    error: str | None = None


def restore(request: Request) -> Iterator[Started | Restored]:
    """Restore a file or a folder, picture by picture; a bad picture costs that picture only.

    Yields one Started, then a Restored per picture. Raises UserError before any work where the request is wrong,
    and at the end where not one picture could be restored; never leaves a partial file.
    """
    jobs = _jobs(request)
    weights = _weights(request)
    restorer = Restorer(
        weights.model,
        device=request.device,
        precision=request.precision,
        tile=request.tile,
        overlap=request.overlap,
    )
    if weights.config.dual_pixel:
        raise UserError(f"{weights.path}: dual-pixel weights take two views of a scene; restore takes single pictures")
    notes = ()
    if request.tile is not None and restorer.tile != request.tile:
        notes = (f"--tile {request.tile} rounded up to {restorer.tile}, a multiple of 8",)
    yield Started(
        pictures=len(jobs),
        weights=weights.path,
        task=weights.task,
        assumed=request.weights is None and request.task is None,
        device=str(restorer.device),
        precision=restorer.precision,
        tile=restorer.tile,
        notes=notes,
    )
    errors: list[RestormerError] = []
    for source, target in jobs:
        if request.skip_existing and target.exists():
            yield Restored(source, target)
            continue
        try:
            yield _restore_one(restorer, source, target)
        except RestormerError as error:
            if len(jobs) == 1:
                raise
            errors.append(error)
            yield Restored(source, target, error=str(error))
    if len(errors) == len(jobs):
        kind = UserError if all(isinstance(error, UserError) for error in errors) else Failed
        raise kind(f"{request.source}: none of its {len(jobs)} pictures could be restored")


def _restore_one(restorer: Restorer, source: Path, target: Path) -> Restored:
    begun = time.perf_counter()
    picture = read_picture(source)
    notes = picture.notes + check_writable(target, picture)
    try:
        pixels = _restore_channels(restorer, picture)
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError, on a GPU a kind of it
        if isinstance(error, RuntimeError) and "memory" not in str(error):
            raise
        smaller = f"a --tile smaller than {restorer.tile}" if restorer.tile else "--tile 512"
        raise Failed(f"{source}: not enough memory: try {smaller}") from None
    if not np.isfinite(pixels).all():
        cure = "these weights cannot restore it" if restorer.precision == "fp32" else "try --precision fp32"
        raise Failed(f"{source}: the result is not finite: {cure}")
    _make_folder(target.parent)
    write_picture(target, pixels, like=picture)
    height, width = picture.pixels.shape[:2]
    return Restored(source, target, width, height, time.perf_counter() - begun, notes)


def _restore_channels(restorer: Restorer, picture: Picture) -> np.ndarray:
    """Gray pictures go through colour weights as three equal channels and come back gray."""
    takes, has = restorer.config.in_channels, picture.pixels.shape[2]
    if takes == has:
        return restorer(picture.pixels)
    if takes == 3 and has == 1:
        return restorer(np.repeat(picture.pixels, 3, axis=2)).mean(axis=2, keepdims=True)
    raise UserError(
        f"{picture.path}: has {has} channels, these weights take {takes}: "
        + ("convert it to gray, or use colour weights" if takes == 1 else "use weights for gray or colour pictures")
    )


def _weights(request: Request) -> Weights:
    if request.weights is not None and request.task is not None:
        raise UserError("--weights and --task: give only one of them, a file of your own or a bundled task")
    if request.weights is not None:
        return load_weights(request.weights)
    task = request.task or DEFAULT_TASK
    if task not in bundled_tasks():
        raise UserError(f"--task {task}: no such bundled checkpoint (bundled: {', '.join(bundled_tasks()) or 'none'})")
    return load_weights(task)


def _jobs(request: Request) -> list[tuple[Path, Path]]:
    """(source, target) of every picture; everything that can be refused is refused here, before any work."""
    source, target = request.source, request.target
    if request.overwrite and request.skip_existing:
        raise UserError("--overwrite and --skip-existing: give only one of them")
    if not source.exists():
        raise UserError(f"{source}: no such file or folder")
    if source.is_dir():
        if target.is_file():
            raise UserError(f"{target}: is a file, but {source} is a folder: name a folder to write to")
        found = find_pictures(source, recursive=True)
        here, results = source.resolve(), target.resolve()
        if here in results.parents:  # OUT lies inside IN: what is in it are results
            found = [path for path in found if results not in path.resolve().parents]
        if not found:
            raise UserError(f"{source}: no pictures in it (looked for {', '.join(sorted(set(READABLE)))})")
        jobs = [(path, target / path.relative_to(source)) for path in found]
    else:
        # OUT is a folder unless it is written like a picture.
        to_folder = target.is_dir() or target.suffix.lower() not in {*READABLE, *WRITABLE}
        jobs = [(source, target / source.name if to_folder else target)]
    inputs = {path.resolve() for path, _ in jobs}
    for _, result in jobs:
        if result.resolve() in inputs:
            raise UserError(f"{result}: is an input, which is never overwritten: name another place to write to")
    _check_folder(jobs[0][1].parent if not source.is_dir() else target)
    existing = [result for _, result in jobs if result.exists()]
    if existing and not (request.overwrite or request.skip_existing):
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        it = "it" if len(existing) == 1 else "them"
        raise UserError(
            f"{existing[0]}{more}: already there: --overwrite replaces {it}, --skip-existing leaves {it} alone"
        )
    return jobs


def _check_folder(folder: Path) -> None:
    """Raises UserError where `folder` cannot be written to, without making it: a refusal leaves nothing behind."""
    place = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not place.is_dir():
        raise UserError(f"{folder}: cannot be a folder, since {place} is a file: name another place to write to")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written to: no permission in {place}")


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise Failed(f"{folder}: this folder cannot be made: {error.strerror}") from None
