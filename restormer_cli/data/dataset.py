"""Training pairs, cut to exactly the size that a stage asks for.

A batch is a pure function of (seed, iteration): which pictures, where the crops lie, how they are turned and
degraded. So a run resumes bit-exactly from an iteration number alone, and several processes share a batch by
taking rows of it.
"""

from collections import deque
from collections.abc import Callable, Generator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TypeVar

import numpy as np

from restormer_cli.data.degrade import Degradation, parse_degradation
from restormer_cli.data.images import find_pictures, read_picture
from restormer_cli.errors import UserError
from restormer_cli.recipe import Pairs, Recipe

SKIMAGE_PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png",
    "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg",
)  # fmt: skip
"""The photographs that scikit-image's wheel carries in its `data` folder (some other pictures there are not)."""

CACHE_BYTES = 6 << 30
"""Decoded pictures are kept in memory until so much is used; later ones are decoded at every use."""

T = TypeVar("T")


@dataclass(frozen=True)
class Pair:
    """A clean picture and where its degraded twin is (None: made on the fly)."""

    name: str
    clean: Path
    degraded: Path | None


def find_pairs(where: Pairs, *, role: str) -> list[Pair]:
    """The pairs of a [data] row, in natural order. Raises UserError listing what is missing."""
    problems = missing_folders(where)
    if problems:
        raise UserError(f"[data] {role}: missing {', '.join(problems)}")
    clean = _pictures(where.clean, where)
    if not clean:
        raise UserError(f"[data] {role}: no pictures in {where.clean}")
    if where.degraded is None:
        return [Pair(path.stem, path, None) for path in clean]
    twins = {path.stem: path for path in _pictures(where.degraded, where)}
    lonely = [path.name for path in clean if path.stem not in twins]
    stems = {path.stem for path in clean}
    lonely += [path.name for stem, path in twins.items() if stem not in stems]
    if lonely:
        raise UserError(
            f"[data] {role}: {len(lonely)} without a partner in {where.degraded} and {where.clean}: "
            + ", ".join(lonely[:5])
            + (" …" if len(lonely) > 5 else "")
        )
    return [Pair(path.stem, path, twins[path.stem]) for path in clean]


def missing_folders(where: Pairs) -> list[str]:
    """Folders of a [data] row that are not there."""
    named = [place for place in (where.degraded, where.clean) if place is not None]
    return [place for place in named if not place.startswith("package:") and not Path(place).is_dir()]


def _pictures(place: str, where: Pairs) -> list[Path]:
    if place.startswith("package:"):
        if place != "package:skimage":
            raise UserError(f"{place}: unknown; the photographs in scikit-image are package:skimage")
        spec = find_spec("skimage")  # finds the folder without importing the package
        assert spec is not None
        assert spec.origin is not None
        paths = [Path(spec.origin).parent / "data" / name for name in SKIMAGE_PHOTOGRAPHS]
        paths = [path for path in paths if path.is_file()]
    else:
        paths = find_pictures(place)
    known = {path.stem for path in paths}
    for name in (*where.only, *where.exclude):
        if name not in known:
            raise UserError(f"{place}: no picture named {name!r}")
    return [path for path in paths if (not where.only or path.stem in where.only) and path.stem not in where.exclude]


class Pictures:
    """Decoded pictures by index, each (h, w, c) uint8 or uint16, kept in memory while they fit."""

    def __init__(self, pairs: list[Pair], channels: int) -> None:
        self.pairs = pairs
        self.channels = channels
        self._kept: dict[Path, np.ndarray] = {}
        self._bytes = 0

    def clean(self, index: int) -> np.ndarray:
        """The clean picture in the file's own integers."""
        return self._decode(self.pairs[index].clean)

    def degraded(self, index: int) -> np.ndarray | None:
        """Its degraded twin, or None where it is to be made."""
        path = self.pairs[index].degraded
        return None if path is None else self._decode(path)

    def areas(self) -> np.ndarray:
        """Pixels of each clean picture; also checks that every pair can be read and is of one size."""
        areas = np.zeros(len(self.pairs))
        for index, pair in enumerate(self.pairs):
            clean, degraded = self.clean(index), self.degraded(index)
            if degraded is not None and degraded.shape[:2] != clean.shape[:2]:
                raise UserError(f"{pair.degraded}: {_size(degraded)}, but {pair.clean} is {_size(clean)}")
            areas[index] = clean.shape[0] * clean.shape[1]
        return areas

    def _decode(self, path: Path) -> np.ndarray:
        if path in self._kept:
            return self._kept[path]
        picture = read_picture(path)
        pixels = picture.pixels
        if self.channels == 1 and pixels.shape[2] == 3:
            pixels = pixels @ np.array([[0.299], [0.587], [0.114]], np.float32)  # BT.601 luma, as published
        elif self.channels == 3 and pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        deep = picture.depth > 8
        stored = np.rint(np.clip(pixels, 0, 1) * (65535 if deep else 255)).astype(np.uint16 if deep else np.uint8)
        if self._bytes + stored.nbytes <= CACHE_BYTES:
            self._kept[path] = stored
            self._bytes += stored.nbytes
        return stored


class TrainingBatches:
    """Batches of (degraded, clean), each (batch, h, w, c) float32 in [0, 1], as a pure function of the iteration."""

    def __init__(
        self, pictures: Pictures, degradation: Degradation | None, *, seed: int, flips: bool, textured: bool
    ) -> None:
        self.pictures = pictures
        self.degradation = degradation
        self.seed = seed
        self.flips = flips
        self.textured = textured
        # In proportion to area: every part of every photograph is equally likely.
        areas = pictures.areas()
        self.share = np.cumsum(areas / areas.sum())

    def batch(self, iteration: int, patch: int, rows: range) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the global batch of an iteration."""
        pairs = [self._sample(iteration, row, patch) for row in rows]
        degraded, clean = zip(*pairs, strict=True)
        return np.stack(degraded), np.stack(clean)

    def _sample(self, iteration: int, row: int, patch: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, iteration, row])
        index, top, left = self._place(rng, patch)
        if self.textured:
            other = self._place(rng, patch)
            if self._gradient(*other, patch) > self._gradient(index, top, left, patch):
                index, top, left = other
        turn, mirror = (int(rng.integers(4)), bool(rng.integers(2))) if self.flips else (0, False)

        def cut(picture: np.ndarray) -> np.ndarray:
            crop = np.rot90(to_float(_crop(picture, top, left, patch)), turn)
            return np.ascontiguousarray(crop[:, ::-1] if mirror else crop)

        clean, twin = cut(self.pictures.clean(index)), self.pictures.degraded(index)
        if twin is not None:
            return cut(twin), clean
        assert self.degradation is not None
        return self.degradation(clean, rng), clean

    def _place(self, rng: np.random.Generator, patch: int) -> tuple[int, int, int]:
        index = min(int(np.searchsorted(self.share, rng.random(), side="right")), len(self.share) - 1)
        h, w = self.pictures.clean(index).shape[:2]
        return index, int(rng.integers(max(1, h - patch + 1))), int(rng.integers(max(1, w - patch + 1)))

    def _gradient(self, index: int, top: int, left: int, patch: int) -> float:
        crop = self.pictures.clean(index)[top : top + patch : 2, left : left + patch : 2, 0].astype(np.int32)
        differences = (np.abs(np.diff(crop, axis=axis)) for axis in (0, 1))
        return float(sum(d.mean() for d in differences if d.size))  # a picture one pixel high has none


@dataclass(frozen=True)
class Reading:
    """How many training pictures are checked and decoded; told about once a second while that goes on."""

    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """Something that the user should know, in words."""

    text: str


def training_batches(recipe: Recipe) -> Generator[Reading | Note, None, TrainingBatches]:
    """Check and open the training data of a recipe. Raises UserError, listing everything that is wrong with them."""
    yield from ()
    return TrainingBatches(
        Pictures(find_pairs(recipe.data.train, role="train"), recipe.model.out_channels),
        parse_degradation(recipe.degrade.steps) if recipe.degrade.steps else None,
        seed=recipe.seed,
        flips=recipe.augment.flips,
        textured=recipe.data.textured,
    )


def validation_pictures(recipe: Recipe) -> list[tuple[np.ndarray, np.ndarray]]:
    """(degraded, clean) float32 (h, w, c), cut at the centre; degradations are seeded by the picture's place."""
    if recipe.data.validate_ is None:
        return []
    steps = recipe.validation.degrade or recipe.degrade.steps
    degradation = parse_degradation(steps) if steps else None
    pictures = Pictures(find_pairs(recipe.data.validate_, role="validate"), recipe.model.out_channels)
    pictures.areas()
    pairs = []
    for index in range(len(pictures.pairs)):
        clean, degraded = (
            None if picture is None else to_float(_centre(picture, recipe.validation.crop))
            for picture in (pictures.clean(index), pictures.degraded(index))
        )
        assert clean is not None
        if degraded is None:
            assert degradation is not None
            degraded = degradation(clean, np.random.default_rng(index))
        pairs.append((degraded, clean))
    return pairs


def _centre(picture: np.ndarray, crop: int) -> np.ndarray:
    """The centre crop (0: all of it), cut to multiples of 8, which is what the bare network takes."""
    h, w = (min(side, crop or side) // 8 * 8 for side in picture.shape[:2])
    top, left = (picture.shape[0] - h) // 2, (picture.shape[1] - w) // 2
    return picture[top : top + h, left : left + w]


def ahead(make: Callable[[int], T], first: int, last: int, *, depth: int, workers: int = 1) -> Generator[T, None, None]:
    """make(first), …, make(last), in order, computed up to `depth` ahead of use in background threads."""
    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="batches") as pool:
        waiting: deque[Future[T]] = deque()
        try:
            for iteration in range(first, last + 1):
                while len(waiting) <= depth and iteration + len(waiting) <= last:
                    waiting.append(pool.submit(make, iteration + len(waiting)))
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def to_float(stored: np.ndarray) -> np.ndarray:
    """uint8 or uint16 -> float32 in [0, 1]."""
    return stored.astype(np.float32) / np.float32(65535 if stored.dtype == np.uint16 else 255)


def _crop(picture: np.ndarray, top: int, left: int, patch: int) -> np.ndarray:
    """(h, w, c) -> (patch, patch, c); smaller pictures are reflected at the right and bottom, as published."""
    crop = picture[top : top + patch, left : left + patch]
    down, right = patch - crop.shape[0], patch - crop.shape[1]
    return np.pad(crop, ((0, down), (0, right), (0, 0)), mode="reflect") if down or right else crop


def _size(pixels: np.ndarray) -> str:
    return f"{pixels.shape[1]}×{pixels.shape[0]}"
