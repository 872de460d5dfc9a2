"""Training pictures, decoded once and kept, by index."""

import os
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TypeVar

import numpy as np

from restormer_cli.data.cache import PictureCache
from restormer_cli.data.pairs import Pair, complain
from restormer_cli.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Reading:
    """How many training pictures are checked and decoded; told about once a second while that goes on."""

    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """Something that the user should know, in words."""

    text: str


class Pictures:
    """The pictures of some pairs, by index, each (h, w, c) uint8 or uint16. Open them by `read_pictures`."""

    def __init__(self, pairs: list[Pair], decoded: PictureCache) -> None:
        self.pairs = pairs
        self.decoded = decoded

    def clean(self, index: int) -> np.ndarray:
        """The clean picture in the file's own integers."""
        return self.decoded[self.pairs[index].clean]

    def views(self, index: int) -> list[np.ndarray]:
        """Its degraded twin, or a dual-pixel camera's two, left and right; none where it is to be made."""
        return [self.decoded[path] for path in self.pairs[index].paths[1:]]

    def size(self, index: int) -> tuple[int, int]:
        """(h, w)."""
        return self.decoded.size(self.pairs[index].clean)


def read_pictures(
    pairs: list[Pair], decoded: PictureCache, *, role: str, workers: int = 1
) -> Generator[Reading, None, Pictures]:
    """Decode every picture once, and keep it as `decoded` does, while telling how far it is.

    Raises UserError listing every picture that cannot be read, and every pair of different sizes.
    """
    paths = list(dict.fromkeys(path for pair in pairs for path in pair.paths))
    start = os.getpid() * 7919 % len(paths)  # processes that share a cache also share the work
    troubles: dict[Path, str] = {}
    yield from in_threads([*paths[start:], *paths[:start]], decoded.read, troubles, workers)
    problems = [f"{role}: {troubles[path]}" for path in paths if path in troubles]
    for pair in pairs:
        sizes = {path: decoded.size(path) for path in pair.paths if path not in troubles}
        if pair.clean in sizes:
            problems += [
                f"{role}: {path} is {_size(size)}, but {pair.clean} is {_size(sizes[pair.clean])}"
                for path, size in sizes.items()
                if size != sizes[pair.clean]
            ]
    complain(problems)
    return Pictures(pairs, decoded)


def in_threads(
    items: Sequence[T], work: Callable[[T], object], troubles: dict[T, str], workers: int
) -> Generator[Reading, None, None]:
    """Work on every item, in threads; yields how far it is once a second, and notes each item's UserError."""
    told = time.monotonic()
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="reading") as pool:
        futures = {pool.submit(work, item): item for item in items}
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                try:
                    future.result()
                except UserError as error:
                    troubles[futures[future]] = str(error)
                if time.monotonic() - told > 1:
                    told = time.monotonic()
                    yield Reading(done, len(items))
        finally:
            for future in futures:
                future.cancel()


def as_picture(degraded: np.ndarray, channels: int) -> np.ndarray:
    """Visible picture of the input: (h, w, views · c) -> (h, w, c), two views averaged."""
    h, w, c = degraded.shape
    return degraded if c == channels else degraded.reshape(h, w, -1, channels).mean(axis=2)


def to_float(stored: np.ndarray) -> np.ndarray:
    """uint8 or uint16 -> float32 in [0, 1], in one piece."""
    result = np.empty(stored.shape, np.float32)
    return np.divide(stored, np.float32(65535 if stored.dtype == np.uint16 else 255), out=result, dtype=np.float32)


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"


def manifest_hash(pictures: Pictures, role: str, workers: int = 4) -> str:
    """SHA-256 over a line for each file, `role/name WIDTHxHEIGHT SHA-256 of its pixels`, sorted.

    It is what `scripts/photographs.py` prints for a role of the prepared photographs. A degraded twin's name ends in
    `:1`, a second view's in `:2`. With a cache on disk each picture's hash is kept beside it.
    """
    files = [
        (f"{pair.name}:{view}" if view else pair.name, path)
        for pair in pictures.pairs
        for view, path in enumerate(pair.paths)
    ]

    def line(entry: tuple[str, Path]) -> str:
        name, path = entry
        height, width = pictures.decoded.size(path)
        digest = pictures.decoded.derived(path, "sha256", _digest)
        return f"{role}/{name} {width}x{height} {digest.tobytes().hex()}\n"

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="hashing") as pool:
        return sha256("".join(sorted(pool.map(line, files))).encode()).hexdigest()


def _digest(pixels: np.ndarray) -> np.ndarray:
    """SHA-256 of the pixels (h, w, c), row by row: (32,) uint8."""
    return np.frombuffer(sha256(np.ascontiguousarray(pixels).data).digest(), np.uint8)
