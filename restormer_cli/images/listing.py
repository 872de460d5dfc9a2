"""Which pictures a folder holds."""

import os
import re
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from restormer_cli.errors import UserError, one_line
from restormer_cli.images.formats.table import READABLE, missing_extra
from restormer_cli.images.video import is_video

IGNORED = frozenset({"thumbs.db", "desktop.ini"})  # hidden files and ._* begin with a dot


def find_pictures(
    folder: str | Path, *, recursive: bool = False, unlisted: list[tuple[Path, str]] | None = None
) -> list[Path]:
    """The pictures in a folder, in natural order (2 before 10), by extension only; hidden ones are left out.

    Links to folders are followed, each real folder once (under the first of its names, shallow ones first), so
    that loops end. Raises UserError when a folder cannot be listed; with `unlisted`, a folder below the first goes
    there with the reason instead.
    """
    return find_files(folder, is_picture, recursive=recursive, unlisted=unlisted)


def find_files(
    folder: str | Path,
    wanted: Callable[[Path], bool],
    *,
    recursive: bool = False,
    unlisted: list[tuple[Path, str]] | None = None,
) -> list[Path]:
    """`find_pictures` for the files that are `wanted`."""
    root = Path(folder)
    found: list[Path] = []
    waiting, seen = deque([root]), set()
    while waiting:
        here = waiting.popleft()
        try:
            listing = _listing(here, seen)
        except UserError as error:
            if unlisted is None or here == root:
                raise
            unlisted.append((here, str(error)))
            continue
        for path in listing:
            if path.name.startswith(".") or path.name.lower() in IGNORED:
                continue
            if recursive and path.is_dir():
                waiting.append(path)
            elif wanted(path) and path.is_file():
                found.append(path)
    return sorted(found, key=lambda path: [natural(part) for part in path.relative_to(root).parts])


CURES = {
    ".gif": "convert it to PNG, or name it alone: a video", ".psd": "export it as TIFF", ".jp2": "convert it to TIFF",
    **dict.fromkeys((".j2k", ".exr", ".hdr", ".xcf"), "convert it to TIFF"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm", ".pnm", ".tga", ".ico", ".pcx"), "convert it to PNG"),
}  # fmt: skip
"""Extensions of pictures that are not read, and what to do with them."""


def is_picture(path: Path) -> bool:
    """Whether a name is that of a picture that can be read here."""
    form = READABLE.get(path.suffix.lower())
    return form is not None and missing_extra(form) is None


def is_video_of_folder(path: Path) -> bool:
    """Whether a name is that of a video that is restored with its folder: not a GIF, which is a picture to most."""
    return is_video(path) and path.suffix.lower() not in CURES


def _cure(suffix: str, videos: Mapping[str, str]) -> str:
    """What to do about a kind of file that is left out."""
    if suffix in READABLE:
        return f"pip install 'restormer-cli[{missing_extra(READABLE[suffix])}]'"
    return CURES.get(suffix) or videos[suffix]


def left_out(
    sources: Sequence[Path],
    videos: Mapping[str, str],
    is_earlier_out: Callable[[Path], bool],
    recorded: Callable[[Path], set[str]],
    out: Path,
) -> str | None:
    """What is in folders, deep down, and is not restored with them: "3 left out: 2 .heic (…), 1 .mp4 (…)".

    videos: extensions of videos that are not taken, and what to do with them; is_earlier_out: whether a folder holds
    results; recorded: names of the results beside inputs in a folder; out: where this run's go.
    """
    counts: Counter[str] = Counter()
    folders_of_results = results = 0
    for source in sources:
        if not source.is_dir():
            counts[source.suffix.lower()] += len(sources) > 1 and source.suffix.lower() in videos
            continue
        for here, folders, names in os.walk(source):
            inside = [Path(here, name) for name in folders if not name.startswith(".")]
            earlier = {folder.name for folder in inside if is_earlier_out(folder) and not _same(folder, out)}
            folders_of_results += len(earlier)
            folders[:] = [folder.name for folder in inside if folder.name not in earlier and not _same(folder, out)]
            if not _same(source, out):
                results += len(recorded(Path(here)).intersection(names))
            for name in names:
                suffix = Path(here, name).suffix.lower()
                known = suffix in READABLE or suffix in CURES or suffix in videos
                counts[suffix] += known and not name.startswith(".") and not is_picture(Path(name))
    counts = +counts
    rows = [f"{count} {suffix} ({_cure(suffix, videos)})" for suffix, count in sorted(counts.items())]
    if results:
        rows.append(f"{results} earlier result{'s' * (results > 1)}")
    if folders_of_results:
        rows.append(f"{folders_of_results} folder{'s' * (folders_of_results > 1)} of earlier results")
    return f"{counts.total() + results + folders_of_results} left out: {', '.join(rows)}" if rows else None


def _same(folder: Path, other: Path) -> bool:
    return os.path.realpath(folder) == os.path.realpath(other)


def _listing(folder: Path, seen: set[tuple[int, int]]) -> list[Path]:
    """The entries of a folder, sorted; none when it was seen before under another name."""
    shown = one_line(str(folder))
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            return []
        seen.add(identity)
        return [folder / name for name in sorted(os.listdir(folder))]
    except FileNotFoundError:
        raise UserError(f"{shown}: no such folder; check the path") from None
    except NotADirectoryError:
        raise UserError(f"{shown}: is not a folder") from None
    except OSError as error:
        raise UserError(f"{shown}: cannot be listed ({error.strerror}); check its permissions") from error


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that counts: "img2" before "img10", capitals beside small letters."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if part.isdigit() and part.isascii() else part for part in parts], name
