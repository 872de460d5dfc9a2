"""Which pictures a folder holds."""

import os
import re
from collections import Counter, deque
from pathlib import Path

from restormer_cli.errors import UserError, one_line
from restormer_cli.images.formats.table import READABLE

IGNORED = frozenset({"thumbs.db", "desktop.ini"})  # hidden files and ._* begin with a dot


def find_pictures(
    folder: str | Path, *, recursive: bool = False, unlisted: list[tuple[Path, str]] | None = None
) -> list[Path]:
    """The pictures in a folder, in natural order (2 before 10), by extension only; hidden ones are left out.

    Links to folders are followed, each real folder once (under the first of its names, shallow ones first), so
    that loops end. Raises UserError when a folder cannot be listed; with `unlisted`, a folder below the first goes
    there with the reason instead.
    """
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
            elif path.suffix.lower() in READABLE and path.is_file():
                found.append(path)
    return sorted(found, key=lambda path: [natural(part) for part in path.relative_to(root).parts])


CURES = {
    ".heic": "convert it to PNG or TIFF", ".heif": "convert it to PNG or TIFF",
    ".gif": "convert it to PNG", ".psd": "export it as TIFF", ".jp2": "convert it to TIFF",
    **dict.fromkeys((".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf", ".orf", ".rw2", ".pef"), "develop it to TIFF"),
}  # fmt: skip
"""Extensions of pictures that are not read, and what to do with them."""


def left_out(folder: Path, videos: frozenset[str]) -> str | None:
    """Describe the files below a folder that are not restored with it: "3 left out: 2 .heic (…), 1 .mp4 (…)"."""
    counts: Counter[str] = Counter()
    for here, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            suffix = Path(here, name).suffix.lower()
            if not name.startswith(".") and suffix not in READABLE and (suffix in CURES or suffix in videos):
                counts[suffix] += 1
    if not counts:
        return None
    cures = {suffix: CURES.get(suffix, "a video: name it on its own") for suffix in counts}
    rows = ", ".join(f"{count} {suffix} ({cures[suffix]})" for suffix, count in sorted(counts.items()))
    return f"{counts.total()} left out: {rows}"


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
