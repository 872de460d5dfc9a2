"""Which picture becomes which file: every refusal that needs no look inside a picture, before any work."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restormer_cli.commands.restore.earlier import is_earlier_out, recorded
from restormer_cli.errors import UserError
from restormer_cli.files import check_folder
from restormer_cli.images.formats.table import READABLE, WRITABLE, missing_extra
from restormer_cli.images.listing import find_files, find_pictures, is_picture, is_video_of_folder
from restormer_cli.images.video import can_open_videos, is_video
from restormer_cli.images.video_writer import WRITABLE_VIDEOS

if TYPE_CHECKING:
    from restormer_cli.commands.restore.types import Request

STANDARD = Path("-")
"""Standard input as a source, standard output as a target."""
MAX_NAME = 255
"""Bytes; the same on every file system in common use."""


@dataclass(frozen=True)
class Job:
    """One picture or video to restore: where from, where to, and its second view for dual-pixel weights."""

    source: Path
    target: Path
    right: Path | None = None
    trouble: str | None = None
    """Known before the work: why this one cannot be done."""
    mask: Path | None = None
    """The picture that says where to restore."""

    @property
    def video(self) -> bool:
        """Whether it is a video, by its name."""
        return is_video(self.source)

    def to_json(self) -> list[str | None]:
        """For another process; `from_json` reads it back."""
        paths = (self.source, self.target, self.right, self.mask)
        source, target, right, mask = (path and str(path) for path in paths)
        return [source, target, right, self.trouble, mask]

    @classmethod
    def from_json(cls, values: list[str | None]) -> "Job":
        """The inverse of `to_json`."""
        source, target, right, trouble, mask = values
        second, where = (Path(path) if path else None for path in (right, mask))
        return cls(Path(str(source)), Path(str(target)), second, trouble, where)


@dataclass(frozen=True)
class Names:
    """Which files of a folder are taken, and how their results are called.

    extension, video_extension: of results, such as ".png"; None keeps each one's own. suffix: appended to each name,
    before the extension. videos: whether videos are taken.
    """

    extension: str | None = None
    video_extension: str | None = None
    suffix: str = ""
    videos: bool = False

    def takes(self, path: Path) -> bool:
        """Whether a file of a folder is restored with it."""
        return is_picture(path) or (self.videos and is_video_of_folder(path))

    def of(self, source: Path) -> str:
        """The name of a result: `photo.jpg` with "_restored" and ".png" becomes `photo_restored.png`."""
        if is_video(source):
            kept = source.suffix if source.suffix.lower() in WRITABLE_VIDEOS else ".mkv"
            return f"{source.stem}{self.suffix}{self.video_extension or kept}"
        written = READABLE.get(source.suffix.lower()) != "dng" or source.suffix.lower() == ".dng"
        kept = source.suffix if written else ".dng"  # no program writes a camera's own
        return f"{source.stem}{self.suffix}{self.extension or kept}"


def names_of(request: "Request") -> Names:
    """What a request makes of names. Raises UserError for a format that is not written, and for an odd suffix."""
    if "/" in request.suffix or "\0" in request.suffix:
        raise UserError(f"--suffix {request.suffix}: becomes part of file names, which hold no slash")
    names = Names(suffix=request.suffix, videos=request.right is None and can_open_videos())
    if request.extension == "same":
        return names
    extension = "." + request.extension.lower().removeprefix(".")
    if extension in WRITABLE_VIDEOS and names.videos:
        return replace(names, video_extension=extension)
    if extension not in WRITABLE:
        known = ", ".join(name[1:] for name in WRITABLE)
        raise UserError(f"--ext {request.extension}: not a format that can be written; choose same, {known}")
    if extra := missing_extra(WRITABLE[extension]):
        raise UserError(f"--ext {request.extension}: needs a package: pip install 'restormer-cli[{extra}]'")
    return replace(names, extension=extension)


def find_jobs(
    source: Path | Sequence[Path],
    target: Path,
    *,
    right: str | None = None,
    mask: Path | None = None,
    may_exist: bool = False,
    **naming: Any,
) -> list[Job]:
    """The pictures (and videos) of a file, a folder or standard input, and their targets, in natural order.

    source: several are what shells make of `*.jpg`; of several, a folder becomes a folder of its name in `target`.
    right: a folder with the second views under the same names, or "LEFT=RIGHT", what to replace in a name.
    mask: a picture that says where to restore, or a folder with one for each picture under its name.
    may_exist: whether targets may be there already. naming: the fields of `Names`.

    Raises UserError for everything that can be refused before a picture is read.
    """
    sources = [source] if isinstance(source, Path) else list(source)
    several, names = len(sources) > 1, Names(**naming)
    if several:
        check_several(sources, target)
    jobs: list[Job] = []
    only_results: OnlyResults | None = None
    for one in sources:
        try:
            found = _jobs_of(one, target, names, several)
        except NoPictures as error:
            if not several:
                raise
            only_results = error if isinstance(error, OnlyResults) else only_results
            continue
        if right is not None:
            found = _with_second_views(found, one, right)
        if mask is not None:
            found = _with_masks(found, one, mask)
        jobs += found
    if not jobs and only_results is not None:
        raise only_results
    if not jobs:
        raise NoPictures(f"no pictures in {', '.join(map(str, sources))} (looked for {', '.join(sorted(READABLE))})")
    jobs = _apart(jobs, names)
    _check_targets(jobs, may_exist, names)
    if jobs[0].target != STANDARD:
        check_folder(target if several or sources[0].is_dir() else jobs[0].target.parent)
    return jobs


class NoPictures(UserError):
    """A folder without a picture."""


class OnlyResults(NoPictures):
    """A folder whose pictures are all results of earlier runs."""


def check_several(sources: Sequence[Path], target: Path) -> None:
    """Raises UserError where several inputs have no folder to go to, or cannot stand beside each other."""
    if STANDARD in (*sources, target):
        raise UserError("- is one picture: name it alone, with one file to write to")
    if target.is_file() or (not target.is_dir() and target.suffix.lower() in {*READABLE, *WRITABLE}):
        raise UserError(
            f"{target}: {len(sources)} inputs need a folder to write to, and the last name is a file's: "
            "end the line with a folder, such as out/"
        )
    check_named(target)


def _jobs_of(source: Path, target: Path, names: Names, several: bool) -> list[Job]:
    """One input's."""
    extension = names.extension
    if STANDARD in (source, target):
        return _standard(source, target, names)
    if not source.exists():
        raise UserError(_missing(source))
    if source.is_dir():
        return _in_folder(source, target / source.resolve().name if several else target, target, names)
    check_named(target)
    named_as_file = not target.is_dir() and target.suffix.lower() in {*READABLE, *WRITABLE}
    if named_as_file and (names.suffix or (extension and WRITABLE.get(target.suffix.lower()) != WRITABLE[extension])):
        raise UserError(f"{target}: --ext and --suffix make names in a folder; name a folder to write to")
    return [Job(source, target if named_as_file else target / names.of(source))]


def check_named(target: Path) -> None:
    """Raises UserError for a target that is named as a file of a kind that is not written, as in `a.heic`, `a.pgn`."""
    suffix = target.suffix.lower()
    if suffix in READABLE or target.exists() or not FILE_LIKE.fullmatch(suffix):
        return
    near = get_close_matches(suffix, WRITABLE, n=1)
    hint = f"did you mean {near[0]}? " if near else ""
    known = ", ".join(WRITABLE)
    raise UserError(
        f'{target}: cannot write "{suffix}"; {hint}use one of {known}; for a folder of that name, make it first'
    )


FILE_LIKE = re.compile(r"\.(?:[a-z]{2,5}|jp2|j2k|cr2|cr3|rw2|mp4|3gp|m2ts)")
"""Pattern of a file's extension; a folder's dot is followed by numbers or long words."""


def _missing(source: Path) -> str:
    """Error of a missing path: the similar name beside it, or the part of the path that exists."""
    folder = next(parent for parent in source.absolute().parents if parent.is_dir())
    if folder != source.absolute().parent:
        return f"{source}: no such file or folder: {folder} is there, but nothing of that name in it"
    names = sorted(path.name for path in folder.iterdir()) if os.access(folder, os.R_OK) else []
    near = get_close_matches(source.name, names, n=1)
    hint = f"did you mean {source.with_name(near[0])}?" if near else "name a picture, a folder of them, a video, or -"
    return f"{source}: no such file or folder: {hint}"


def _standard(source: Path, target: Path, names: Names) -> list[Job]:
    if source != STANDARD and source.is_dir():
        raise UserError(f"{source}: is a folder; only one picture fits through standard output: name a folder instead")
    if source != STANDARD and not source.exists():
        raise UserError(_missing(source))
    if target != STANDARD and (target.is_dir() or target.suffix.lower() not in {*READABLE, *WRITABLE}):
        raise UserError(f"{target}: a picture from standard input has no name: name a file such as restored.png")
    if names.suffix or (names.extension and target != STANDARD):
        raise UserError("--ext and --suffix make names in a folder: leave them out, or name a folder to write to")
    return [Job(source, target)]


def _in_folder(source: Path, target: Path, out: Path, names: Names) -> list[Job]:
    """target: where this folder's results go; out: the OUT that was named, which may lie above."""
    if target.is_file():
        raise UserError(f"{target}: is a file, but {source} is a folder: name a folder to write to")
    unlisted: list[tuple[Path, str]] = []
    found = find_files(source, names.takes, recursive=True, unlisted=unlisted)
    here, results = source.resolve(), out.resolve()
    if here in results.parents:  # OUT lies inside IN: what is in it are results
        found = [path for path in found if results not in _location(path).parents]
    inputs = without_results(found, source)
    if found and not inputs and not unlisted:
        raise OnlyResults(f"{source}: nothing in it but results of earlier runs: name the files to restore them again")
    if not found and not unlisted:
        raise NoPictures(f"{source}: no pictures in it (looked for {', '.join(sorted(READABLE))})")
    jobs = [Job(path, target / path.relative_to(source).parent / names.of(path)) for path in inputs]
    return jobs + [Job(path, target / path.relative_to(source), trouble=reason) for path, reason in unlisted]


def without_results(found: list[Path], source: Path) -> list[Path]:
    """The pictures without what earlier runs made of them: comparisons, folders below that were an OUT, and what the
    records of their folders name."""
    there = set(found)
    outs = {folder: is_earlier_out(folder) for path in found for folder in _between(source, path)}
    names = {folder: recorded(folder) for folder in {path.parent for path in found}}

    def result(path: Path) -> bool:
        if path.stem.endswith(COMPARED) and path.with_name(path.stem.removesuffix(COMPARED) + path.suffix) in there:
            return True
        return path.name in names[path.parent] or any(outs[folder] for folder in _between(source, path))

    return [path for path in found if not result(path)]


def _between(source: Path, path: Path) -> list[Path]:
    """The folders below `source` that lead to `path`."""
    return [folder for folder in path.parents if source in folder.parents]


COMPARED = ".compare"
"""Behind the name of what `--compare` writes beside a result."""


def jobs_of_folder(request: "Request") -> list[Job]:
    """Jobs of a watched folder now: no refusals, since one file must not end the watch for others."""
    source, target = request.source, request.target
    names = names_of(request)
    try:
        found = find_files(source, names.takes, recursive=True, unlisted=[])
    except UserError:  # gone between two looks
        return []
    results, jobs, taken = target.resolve(), [], set()
    found = without_results(found, source)
    for job in _apart([Job(path, target / path.relative_to(source).parent / names.of(path)) for path in found], names):
        inside = source.resolve() in results.parents and results in _location(job.source).parents
        if not inside and job.target not in taken and not _places(job.target) & _places(job.source):
            taken.add(job.target)
            jobs.append(job)
    if request.mask is not None and request.mask.is_file():
        jobs = [replace(job, mask=request.mask) for job in jobs]
    return jobs


# --- Second views -------------------------------------------------------------------------------------------


def _with_second_views(jobs: Sequence[Job], source: Path, right: str) -> list[Job]:
    """Each left picture with its right one; pictures that are the right view of another are no jobs."""
    if source == STANDARD:
        raise UserError("--right: standard input is one picture: name two files")
    left_text, equals, right_text = right.partition("=")
    if not equals:
        folder = Path(right)
        if not folder.exists():
            raise UserError(f"--right {right}: no such folder; or give LEFT=RIGHT, as in --right _L=_R")
        base = source if source.is_dir() else source.parent
        alone = folder.is_file() and len(jobs) == 1
        return [_paired(job, folder if alone else folder / job.source.relative_to(base)) for job in jobs]
    if not left_text or left_text == right_text:
        raise UserError(f"--right {right}: say what to replace in a left name and by what, as in --right _L=_R")
    views = {job.source: _swapped(job.source, left_text, right_text) for job in jobs}
    seconds = {view for view in views.values() if view is not None}
    firsts = [job for job in jobs if views[job.source] is not None or job.source not in seconds]
    return [_paired(job, views[job.source], f'"{left_text}" is not in its name') for job in firsts]


def _swapped(path: Path, left: str, right: str) -> Path | None:
    """The path with the last `left` in its stem replaced; None where there is none."""
    before, found, after = path.stem.rpartition(left)
    return path.with_name(f"{before}{right}{after}{path.suffix}") if found else None


def _paired(job: Job, view: Path | None, missing: str = "") -> Job:
    if view is not None and view.is_file():
        return Job(job.source, job.target, view)
    reason = f"there is no second view {view}" if view is not None else f"there is no second view: {missing}"
    return Job(job.source, job.target, trouble=f"{job.source}: {reason}")


# --- Masks --------------------------------------------------------------------------------------------------


def _with_masks(jobs: Sequence[Job], source: Path, mask: Path) -> list[Job]:
    """Each picture with its mask: one for all, or of a folder the one of the same name, whatever its extension."""
    if not mask.exists():
        raise UserError(f"--mask {mask}: no such file or folder")
    if not mask.is_dir():
        return [replace(job, mask=mask) for job in jobs]
    if source == STANDARD:
        raise UserError("--mask: a picture from standard input has no name: name one mask, not a folder")
    found = {path.relative_to(mask).with_suffix(""): path for path in find_pictures(mask, recursive=True)}
    base = source if source.is_dir() else source.parent
    masked = []
    for job in jobs:
        where = found.get(job.source.relative_to(base).with_suffix(""))
        trouble = None if where else f"{job.source}: there is no mask of its name in {mask}"
        masked.append(replace(job, mask=where, trouble=job.trouble or trouble))
    if not any(job.mask for job in masked):
        raise UserError(f"--mask {mask}: has no mask for {source}: give the mask its picture's name")
    return masked


# --- Targets ------------------------------------------------------------------------------------------------


def _apart(jobs: Sequence[Job], names: Names) -> list[Job]:
    """The jobs, with longer names for results that would be one: `a.avi` becomes `a.avi.mkv` where `a.mkv` is there.

    So do only those whose own format is not written. Where a format was asked for, nobody is renamed.
    """
    counts = Counter(_location(job.target) for job in jobs)

    def longer(job: Job) -> Job:
        asked = names.video_extension if job.video else names.extension
        own, target = job.source.suffix, job.target
        if asked or counts[_location(target)] == 1 or own.lower() == target.suffix.lower():
            return job
        return replace(job, target=target.with_name(f"{target.stem}{own}{target.suffix}"))

    return [longer(job) for job in jobs]


def _check_targets(jobs: Sequence[Job], may_exist: bool, names: Names) -> None:
    """No target is an input or another's target, or there already."""
    inputs = {place for job in jobs for path in (job.source, job.right) if path for place in _places(path)}
    taken: dict[Path, Job] = {}
    existing: list[Path] = []
    for job in jobs:
        if job.target == STANDARD or job.trouble:
            continue
        if not inputs.isdisjoint(_places(job.target)):
            other = "choose another --suffix, or name" if job.target.parent == job.source.parent else "name"
            raise UserError(f"{job.target}: is an input, which is never overwritten: {other} another place to write to")
        first = taken.setdefault(_location(job.target), job)
        if first is not job:
            asked = names.video_extension if job.video else names.extension
            cure = "--ext same keeps them apart" if asked and first.source.name != job.source.name else "rename one"
            raise UserError(
                f"{first.source} and {job.source.name} would both become {job.target}: "
                f"{cure}, or restore them into two folders"
            )
        if len(os.fsencode(job.target.name)) > MAX_NAME:
            raise UserError(
                f"{job.target}: is longer than file names can be: choose a shorter --suffix, or rename the input"
            )
        if not may_exist and job.target.exists():
            existing.append(job.target)
    if existing:
        more = f" and {len(existing) - 1} more" if len(existing) > 1 else ""
        it = "it" if len(existing) == 1 else "them"
        raise UserError(
            f"{existing[0]}{more}: already there: --overwrite replaces {it}, --skip-existing leaves {it} alone"
        )


def _places(path: Path) -> set[Path]:
    """Where a path is and, for a link, where it leads."""
    place = _location(path)
    return {place, place.resolve()} if place.is_symlink() else {place}


def _location(path: Path) -> Path:
    """The path with its folder resolved, the last step not."""
    return Path(os.path.realpath(path.parent), path.name)
