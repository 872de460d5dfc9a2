"""Decoded pictures, kept: in files that all processes map into memory, in this process, or nowhere.

The files are in `cache_folder()`: `pictures/` holds one .npy for each content (named by a hash of the picture
file's bytes), `index/` remembers which content a path had, so that nothing is read twice to be hashed. All of
it is written whole or not at all, two processes may write the same, and anything may be removed at any time:
what is missing is decoded again. What was used longest ago goes first when the bound is reached.
"""

import json
import mmap
import os
import shutil
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b, file_digest
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from restormer_cli.errors import RestormerError
from restormer_cli.files import cache_folder, write_atomically
from restormer_cli.images.io import read_picture
from restormer_cli.pixels import LUMA

GB = 10**9
MOST_GB = {"disk": 100.0, "memory": 6.0, "off": 0.0}
VERSION = 1
"""Version of `decode`: raised when its results change, so that older entries are not used."""
SPARE = 2 * GB
"""Bytes that the disk cache leaves free on its disk: a checkpoint must still fit."""
OPEN_MAPS = 200
"""Files mapped at once; each holds a descriptor, and a process may have 1024."""
HEADER = 128
"""Bytes in front of the pixels in an entry: a .npy header, padded."""
"""BT.601, as the published gray training data are made."""


def decode(path: Path, channels: int) -> np.ndarray:
    """A picture file -> (h, w, channels) uint8, or uint16 where it is deeper than 8 bits. Raises UserError.

    Colour becomes luma for 1 channel, gray is repeated for 3; transparency is dropped; floats are clipped to [0, 1].
    """
    picture = read_picture(path)
    pixels = picture.pixels
    if channels == 1 and pixels.shape[2] == 3:
        pixels = pixels @ LUMA[:, None]
    elif channels == 3 and pixels.shape[2] == 1:
        pixels = np.repeat(pixels, 3, axis=2)
    deep = picture.depth > 8
    return np.rint(np.clip(pixels, 0, 1) * (65535 if deep else 255)).astype(np.uint16 if deep else np.uint8)


class Entry(NamedTuple):
    """Index entry of a path: the file's state, and its decoded picture."""

    state: tuple[int, int, int]
    """Bytes, and the times of the last change of contents and of the inode, in ns."""
    content: str
    shape: tuple[int, int, int]
    deep: bool


class PictureCache:
    """Decoded pictures by path, each (h, w, channels) uint8 or uint16; see `decode`. Threads may share it."""

    def __init__(
        self, channels: int, kind: Literal["disk", "memory", "off"] = "memory", limit_gb: float | None = None
    ) -> None:
        self.channels = channels
        self.kind = kind
        limit = (MOST_GB[kind] if limit_gb is None else limit_gb) * GB
        self._files = DiskCache(channels, limit) if kind == "disk" else None
        self._memory = limit if kind == "memory" else 0.0
        self._bytes = 0
        self._sizes: dict[Path, tuple[int, int]] = {}
        self._kept: dict[Path, np.ndarray] = {}
        self._uncached: set[Path] = set()
        self._lock = threading.Lock()

    def read(self, path: Path) -> tuple[int, int]:
        """Make sure that a picture is sound, and keep it as far as there is room: its (h, w). Raises UserError."""
        if path not in self._sizes:
            entry = self._files.find(path) if self._files else None
            self._sizes[path] = entry.shape[:2] if entry else self._keep(path).shape[:2]
        return self._sizes[path]

    def size(self, path: Path) -> tuple[int, int]:
        """(h, w) of a picture that has been read."""
        return self._sizes[path]

    def __getitem__(self, path: Path) -> np.ndarray:
        """The picture, read-only; from a file mapped into memory where that is where it is kept."""
        kept = self._kept.get(path)
        if kept is None and self._files:
            kept = self._files.get(path)
        return self._keep(path) if kept is None else kept

    def derived(self, path: Path, what: str, make: Callable[[np.ndarray], np.ndarray]) -> np.ndarray:
        """`make` of a picture, kept beside it on disk under the name `what`."""
        return self._files.derived(path, what, lambda: make(self[path])) if self._files else make(self[path])

    def close(self) -> str | None:
        """End of reading: remember on disk what was learnt. Returns a note where something could not be kept."""
        if self._files:
            self._files.write_index()
        trouble = self._files.trouble if self._files else None
        uncached = len(self._uncached)
        if self.kind == "off" or (trouble is None and not uncached):
            return None
        rest = f"{uncached:,} pictures have no room in it and are decoded at every use, which is slow"
        if trouble:
            return f"{trouble}; pictures are kept in memory instead" + (f", but {rest}" if uncached else "")
        return f"the cache is full: {rest}; raise data.cache_gb"

    def _keep(self, path: Path) -> np.ndarray:
        """Decode, and keep where there is room."""
        pixels = decode(path, self.channels)
        if path in self._uncached or (self._files and self._files.add(path, pixels)):
            return pixels
        with self._lock:
            if self._files and self._files.trouble:
                self._memory = MOST_GB["memory"] * GB
            if self._bytes + pixels.nbytes <= self._memory:
                self._bytes += pixels.nbytes
                self._kept[path] = pixels
            else:
                self._uncached.add(path)
        return pixels


class DiskCache:
    """The disk side: decoded pictures by content, at most `limit` bytes of them."""

    def __init__(self, channels: int, limit: float) -> None:
        self.channels = channels
        self.limit = limit
        self.trouble: str | None = None
        """Why nothing more is written, in words."""
        self._folder = cache_folder()
        self._known: dict[Path, Entry] = {}
        self._hashes: dict[Path, str] = {}
        self._indexes: dict[Path, dict[str, Entry]] = {}
        self._maps: OrderedDict[Path, np.ndarray] = OrderedDict()
        self._lock = threading.RLock()
        self._used, self._unseen = 0.0, float("inf")  # bytes in the folder; bytes written since they were counted

    def find(self, path: Path) -> Entry | None:
        """Entry of a picture, by the index or by its contents, if its decoded file is there."""
        state = _state(path)
        if state is None:
            return None
        with self._lock:
            entry = self._index(path.parent).get(path.name)
        if entry is None or entry.state != state:
            content = self._hashes[path] = _hash(path)
            header = self._header(content)
            entry = None if header is None else Entry(state, content, *header)
        elif not self._file(entry.content).is_file():
            entry = None
        if entry is not None:
            with suppress(OSError):
                os.utime(self._file(entry.content))  # used now: others go first
            self._remember(path, entry)
        return entry

    def get(self, path: Path) -> np.ndarray | None:
        """The decoded picture, mapped, or None where it is not (or no longer) there."""
        entry = self._known.get(path)
        if entry is None:
            return None
        with self._lock:
            if path in self._maps:
                self._maps.move_to_end(path)
                return self._maps[path]
        pixels = _map(self._file(entry.content), entry.shape, entry.deep)
        if pixels is not None:
            with self._lock:
                self._maps[path] = pixels
                if len(self._maps) > OPEN_MAPS:
                    self._maps.popitem(last=False)
        return pixels

    def add(self, path: Path, pixels: np.ndarray) -> bool:
        """Keep a decoded picture; False where there is no room."""
        state, content = _state(path), self._hashes.pop(path, None) or _hash(path)
        if state is None or not self._write(self._file(content), pixels):
            return False
        shape = (pixels.shape[0], pixels.shape[1], pixels.shape[2])
        self._remember(path, Entry(state, content, shape, pixels.dtype == np.uint16))
        return True

    def derived(self, path: Path, what: str, make: Callable[[], np.ndarray]) -> np.ndarray:
        """`make()`, kept beside the decoded picture under the name `what`."""
        entry = self._known.get(path)
        if entry is None:
            return make()
        file = self._file(entry.content).with_suffix(f".{what}.npy")
        with suppress(OSError, ValueError):
            return np.load(file, allow_pickle=False)
        result = make()
        self._write(file, result)
        return result

    def write_index(self) -> None:
        """Remember the contents of the paths that were met."""
        for folder, entries in self._indexes.items():
            file = self._index_file(folder)
            merged = self._load_index(file) | entries  # another process may have added some
            text = json.dumps({"folder": str(folder), "files": merged})
            with suppress(RestormerError, OSError):
                file.parent.mkdir(parents=True, exist_ok=True)
                write_atomically(file, lambda stream, text=text: stream.write(text.encode()))

    def _remember(self, path: Path, entry: Entry) -> None:
        with self._lock:
            self._known[path] = entry
            self._index(path.parent)[path.name] = entry

    def _file(self, content: str) -> Path:
        return self._folder / "pictures" / content[:2] / f"{content}-{self.channels}-v{VERSION}.npy"

    def _index_file(self, folder: Path) -> Path:
        name = blake2b(
            f"{folder.resolve()}\n{self.channels}\n{VERSION}".encode(errors="surrogateescape"), digest_size=16
        )
        return self._folder / "index" / f"{name.hexdigest()}.json"

    def _index(self, folder: Path) -> dict[str, Entry]:
        if folder not in self._indexes:
            self._indexes[folder] = self._load_index(self._index_file(folder))
        return self._indexes[folder]

    def _load_index(self, file: Path) -> dict[str, Entry]:
        try:
            files = json.loads(file.read_bytes())["files"]
            return {
                name: Entry((state[0], state[1], state[2]), str(content), (shape[0], shape[1], shape[2]), bool(deep))
                for name, (state, content, shape, deep) in files.items()
            }
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return {}  # none yet, or not ours: everything is hashed again

    def _header(self, content: str) -> tuple[tuple[int, int, int], bool] | None:
        """Shape and depth of what is kept under a content."""
        try:
            pixels = np.load(self._file(content), mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            return None
        return (pixels.shape[0], pixels.shape[1], pixels.shape[2]), pixels.dtype == np.uint16

    def _write(self, file: Path, array: np.ndarray) -> bool:
        """Write an array whole, where there is room for it."""
        if self.trouble is not None or not self._make_room(array.nbytes + HEADER):
            return False
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(file, lambda stream: np.save(stream, array))
        except (RestormerError, OSError) as error:
            reason = str(error) if isinstance(error, RestormerError) else f"{file}: {error.strerror}"
            self.trouble = f"the cache cannot be written ({reason}; RESTORMER_CACHE names another folder)"
            return False
        with self._lock:
            self._used += array.nbytes + HEADER
            self._unseen += array.nbytes + HEADER
        return True

    def _make_room(self, size: int) -> bool:
        """Whether so many bytes may be written; what this run does not use goes first, the oldest of it."""
        with self._lock:
            if self._unseen > GB:  # others write too
                self._count()
            if self._used + size > self.limit:
                mine = {self._file(entry.content) for entry in self._known.values()}
                self._evict(size, mine)
            if self._used + size > self.limit:
                return False
            existing = next(place for place in (self._folder, *self._folder.resolve().parents) if place.exists())
            short = size + SPARE - shutil.disk_usage(existing).free
            if short > 0:  # the disk is what is short: old entries go here too
                self._count()
                self._evict(size, {self._file(entry.content) for entry in self._known.values()}, self._used - short)
        if shutil.disk_usage(existing).free < size + SPARE:
            self.trouble = f"the disk of {self._folder} is nearly full: {SPARE / GB:g} GB are left free"
            return False
        return True

    def _count(self) -> None:
        self._used = float(sum(status.st_size for _, status in self._entries()))
        self._unseen = 0.0

    def _evict(self, size: int, mine: set[Path], most: float = float("inf")) -> None:
        """Delete what was used longest ago, but none of `mine`, until `size` more fit the limit, `most` at the most."""
        self._count()
        for file, status in sorted(self._entries(), key=lambda entry: entry[1].st_mtime_ns):
            if self._used + size <= self.limit and self._used <= most:
                return
            if file not in mine:
                with suppress(OSError):
                    file.unlink()
                    self._used -= status.st_size

    def _entries(self) -> list[tuple[Path, os.stat_result]]:
        """The files of the cache; what a killed process left half-written an hour ago goes."""
        found = []
        for file in self._folder.glob("pictures/*/*"):
            with suppress(OSError):
                status = file.stat()
                if file.suffix == ".part" and time.time() - status.st_mtime > 3600:
                    file.unlink()
                else:
                    found.append((file, status))
        return found


def _state(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def _hash(path: Path) -> str:
    """Hash of a file's bytes; of nothing where it cannot be read, which decoding reports."""
    try:
        with path.open("rb") as stream:
            return file_digest(stream, lambda: blake2b(digest_size=16)).hexdigest()
    except OSError:
        return "unreadable"


def _map(file: Path, shape: tuple[int, int, int], deep: bool) -> np.ndarray | None:
    """A .npy file's pixels, mapped read-only; None where it is not there or not of this size.

    np.load takes 100 µs for this, mostly to parse a header whose content the index knows.
    """
    dtype = np.dtype(np.uint16 if deep else np.uint8)
    size = shape[0] * shape[1] * shape[2]
    try:
        with file.open("rb", buffering=0) as stream:
            view = mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)
    except (OSError, ValueError):
        return None
    if len(view) != HEADER + size * dtype.itemsize:
        return None
    return np.frombuffer(view, dtype, size, HEADER).reshape(shape)
