"""Which pictures a folder holds."""

import os
import re
from pathlib import Path

from restormer_cli.data.codecs import READABLE
from restormer_cli.errors import UserError

IGNORED = frozenset({"thumbs.db", "desktop.ini"})  # hidden files and ._* begin with a dot


def find_pictures(folder: str | Path, *, recursive: bool = False) -> list[Path]:
    """The pictures in a folder, in natural order (2 before 10), by extension only; hidden ones are left out.

    Links to folders are followed, each real folder once, so that loops end. Raises UserError when a folder
    cannot be listed.
    """
    root = Path(folder)
    found: list[Path] = []
    waiting, seen = [root], set()
    while waiting:
        here = waiting.pop()
        for entry in _listing(here, seen):
            if entry.name.startswith(".") or entry.name.lower() in IGNORED:
                continue
            if entry.is_dir():
                if recursive:
                    waiting.append(here / entry.name)
            elif Path(entry.name).suffix.lower() in READABLE and entry.is_file():
                found.append(here / entry.name)
    return sorted(found, key=lambda path: [natural(part) for part in path.relative_to(root).parts])


def _listing(folder: Path, seen: set[tuple[int, int]]) -> list["os.DirEntry[str]"]:
    """The entries of a folder; none when it was seen before under another name."""
    try:
        status = folder.stat()
        identity = (status.st_dev, status.st_ino)
        if identity in seen:
            return []
        seen.add(identity)
        with os.scandir(folder) as entries:
            return list(entries)
    except FileNotFoundError:
        raise UserError(f"{folder}: no such folder; check the path") from None
    except NotADirectoryError:
        raise UserError(f"{folder}: is not a folder") from None
    except OSError as error:
        raise UserError(f"{folder}: cannot be listed ({error.strerror}); check its permissions") from error


def natural(name: str) -> tuple[list[str | int], str]:
    """A sort key that counts: "img2" before "img10", capitals beside small letters."""
    parts = re.split(r"([0-9]+)", name.casefold())
    return [int(part) if part.isdigit() and part.isascii() else part for part in parts], name
