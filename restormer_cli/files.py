"""Files that appear whole or not at all."""

import errno
import hashlib
import math
import os
import platform
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import platformdirs

from restormer_cli.errors import AlreadyThere, Failed, NoRoom, UserError

try:
    import fcntl
except ImportError:  # Windows, where an open file cannot be deleted anyway
    fcntl = None

TEMPORARY = re.compile(r"\.restormer-[0-9a-f]{12}\.(part|claim)")
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any], *, new: bool = False) -> None:
    """Write through a temporary name in the same folder, fsync, rename; a failure leaves nothing behind.

    Raises Failed, naming the file and the system's reason; NoRoom where other files would fail as well;
    AlreadyThere where the file must be `new` and is not.
    """
    with replacing(path, new=new) as stream:
        write(stream)


@contextmanager
def replacing(path: Path, *, new: bool = False) -> Iterator[IO[bytes]]:
    """`write_atomically` for a file that is written bit by bit: it gets its name when the block ends well."""
    temporary, stream = path, None
    try:
        while stream is None:
            # The name does not contain the file's own, which may be as long as names can be.
            temporary = path.with_name(f".restormer-{secrets.token_hex(6)}.part")
            stream = temporary.open("w+b")
            if fcntl is not None:
                with suppress(OSError):  # a file system without locks
                    fcntl.flock(stream, fcntl.LOCK_EX)
                if not _is_open_as(stream.fileno(), temporary):  # swept away between opening and locking
                    stream.close()
                    stream = None
        with stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        if new:
            _link(temporary, path)
        else:
            temporary.replace(path)
    except (OSError, RuntimeError) as error:  # torch.save raises RuntimeError on a full disk
        number = getattr(error, "errno", None)
        kind = NoRoom if number in NO_ROOM else Failed
        raise kind(f"{path}: cannot be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        with suppress(OSError):  # never there, or a folder that is none: the first error is the one to tell
            temporary.unlink()


def _link(temporary: Path, path: Path) -> None:
    """Give the file its name in one step that fails where the name is taken. Raises AlreadyThere."""
    try:
        os.link(temporary, path)
        return
    except FileExistsError:
        pass
    except (OSError, NotImplementedError):  # a file system without links: what can be done there
        if not os.path.lexists(path):
            temporary.replace(path)
            return
    raise AlreadyThere(f"{path}: appeared while this ran, and is left as it is")


def sweep(folder: Path) -> None:
    """Delete the temporary files and claims that killed runs left in a folder; those in use are locked, and stay."""
    if fcntl is None:
        return
    with suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if TEMPORARY.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                with suppress(OSError), open(entry.path, "rb") as stream:
                    fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # raises while somebody writes it
                    os.unlink(entry.path)


@contextmanager
def locked(path: Path, refuse: Callable[[str], Exception]) -> Iterator[None]:
    """Hold a lock file, with this process's id and host in it, for as long as the block lasts.

    Raises what `refuse` makes of the holder's "process N on HOST" where another process holds it. A killed process
    holds nothing. Where there are no locks (Windows, some network file systems) nothing is held.
    """
    descriptor, tries = -1, 0
    try:
        while fcntl is not None and descriptor < 0:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                pid, _, host = os.read(descriptor, 300).decode(errors="replace").partition(" ")
                os.close(descriptor)
                descriptor, tries = -1, tries + 1
                if tries < 5:  # `sweep` holds what it looks at for an instant
                    time.sleep(0.01)
                    continue
                raise refuse(f"process {pid} on {host}" if host else "another process") from None
            if not _is_open_as(descriptor, path):  # its holder has just deleted it: what we hold has no name
                os.close(descriptor)
                descriptor = -1
        if descriptor >= 0:
            os.ftruncate(descriptor, 0)
            os.write(descriptor, f"{os.getpid()} {platform.node()}".encode())
    except OSError:
        pass  # no locks here
    try:
        yield
    finally:
        if descriptor >= 0:
            with suppress(OSError):
                path.unlink()
            os.close(descriptor)


def _is_open_as(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), os.stat(path))
    except FileNotFoundError:
        return False


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
    """Folder of fetched weights and decoded pictures: RESTORMER_CACHE, else `restormer` in the user's cache folder."""
    chosen = os.environ.get("RESTORMER_CACHE")
    return Path(chosen) if chosen else platformdirs.user_cache_path("restormer", appauthor=False)


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def finite(value: float | None) -> float | None:
    """A number for JSON, which has no NaN and no infinity (the PSNR of identical pictures): None for these."""
    return value if value is not None and math.isfinite(value) else None


def config_folder() -> Path:
    """Folder of what the user has set up: RESTORMER_CONFIG, else `restormer` in the user's configuration folder."""
    chosen = os.environ.get("RESTORMER_CONFIG")
    return Path(chosen) if chosen else platformdirs.user_config_path("restormer", appauthor=False, roaming=True)
