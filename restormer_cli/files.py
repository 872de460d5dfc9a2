"""Files that appear whole or not at all."""

import errno
import os
import re
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from restormer_cli.errors import Failed, NoRoom, UserError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted anyway
    fcntl = None

TEMPORARY = re.compile(r"\.restormer-[0-9a-f]{12}\.part")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> None:
    """Write through a temporary name in the same folder, fsync, rename; a failure leaves nothing behind.

    Raises Failed, naming the file and the system's reason; NoRoom where other files would fail as well.
    """
    with replacing(path) as stream:
        write(stream)


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """`write_atomically` for a file that is written bit by bit: it gets its name when the block ends well."""
    # The name does not contain the file's own, which may be as long as names can be.
    temporary = path.with_name(f".restormer-{secrets.token_hex(6)}.part")
    try:
        with temporary.open("w+b") as stream:
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        number = getattr(error, "errno", None)
        kind = NoRoom if number in NO_ROOM else Failed
        raise kind(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        with suppress(OSError):  # never there, or a folder that is none: the first error is the one to tell
            temporary.unlink()


def sweep(folder: Path) -> None:
    """Delete the temporary files that killed runs left in a folder; those being written are locked, and stay."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), open(entry.path, "rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while somebody writes it
                    os.unlink(entry.path)


def make_folder(folder: Path) -> None:
    """A folder inside the run's. Raises Failed."""
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise Failed(f"{folder}: cannot be made: {error.strerror}") from None


def check_folder(folder: Path) -> None:
    """Raises UserError where `folder` cannot be written to, without making it: a refusal leaves nothing behind."""
    place = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not place.is_dir():
        raise UserError(f"{folder}: cannot be a folder, since {place} is a file: name another place to write to")
    if hasattr(os, "statvfs") and os.statvfs(place).f_flag & os.ST_RDONLY:
        raise UserError(f"{folder}: cannot be written to: {place} is on a read-only file system")
    if not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"{folder}: cannot be written to: no permission in {place}")


def cache_folder() -> Path:
    """Of fetched weights and decoded pictures: RESTORMER_CACHE, else `restormer` in the user's cache folder."""
    if chosen := os.environ.get("RESTORMER_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "restormer"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "restormer"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "restormer"


def config_folder() -> Path:
    """Of what the user has set up: RESTORMER_CONFIG, else `restormer` in the user's folder for that."""
    if chosen := os.environ.get("RESTORMER_CONFIG"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("APPDATA") or Path.home() / "AppData" / "Roaming") / "restormer"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "restormer"
    return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "restormer"
