"""Training pairs, cut to exactly the size that a stage asks for.

A batch is a pure function of (seed, iteration): which pictures, where the crops lie, how they are turned,
degraded and mixed. So a run resumes bit-exactly from an iteration number alone, and several processes share a
batch by taking rows of it.
"""

import os
import time
from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from restormer_cli.data.cache import Decoded
from restormer_cli.data.cuts import edges, keep_sharpest, places
from restormer_cli.data.degrade import Degradation, parse_degradation
from restormer_cli.data.pairs import Pair, complain, find_pairs
from restormer_cli.errors import UserError
from restormer_cli.recipe import Augment, Cut, Data, Recipe, Stage

T = TypeVar("T")
MIXTURE = 1
"""Sets the mixture's generator apart from those of the samples."""


@dataclass(frozen=True)
class Reading:
    """How many training pictures are checked and decoded; told about once a second while that goes on."""

    done: int
    total: int


@dataclass(frozen=True)
class Note:
    """Something that the user should know, in words."""

    text: str


# --- Pictures -----------------------------------------------------------------------------------------------


class Pictures:
    """The pictures of some pairs, by index, each (h, w, c) uint8 or uint16. Open them by `read_pictures`."""

    def __init__(self, pairs: list[Pair], decoded: Decoded) -> None:
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
    pairs: list[Pair], decoded: Decoded, *, role: str, workers: int = 1
) -> Generator[Reading, None, Pictures]:
    """Decode every picture once, and keep it as `decoded` does, while telling how far it is.

    Raises UserError listing every picture that cannot be read, and every pair of different sizes.
    """
    paths = list(dict.fromkeys(path for pair in pairs for path in pair.paths))
    start = os.getpid() * 7919 % len(paths)  # processes that share a cache also share the work
    troubles: dict[Path, str] = {}
    yield from _in_threads([*paths[start:], *paths[:start]], decoded.read, troubles, workers)
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


def _in_threads(
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


# --- Places -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Places:
    """Where patches come from: rectangles (picture, top, left, height, width), (n, 5), drawn with these chances."""

    rectangles: np.ndarray
    cumulated: np.ndarray
    """Chances, added up: (n,), the last is 1."""

    def draw(self, rng: np.random.Generator) -> tuple[int, int, int, int, int]:
        """One of the rectangles."""
        number = min(int(np.searchsorted(self.cumulated, rng.random(), side="right")), len(self.cumulated) - 1)
        picture, top, left, height, width = (int(value) for value in self.rectangles[number])
        return picture, top, left, height, width


def find_places(pictures: Pictures, data: Data) -> Generator[Reading, None, Places]:
    """The places that [data] asks for: whole pictures, or the published preparation's crops, all alike."""
    sizes = [pictures.size(index) for index in range(len(pictures.pairs))]
    if data.cut is None:
        whole = np.array([[index, 0, 0, *size] for index, size in enumerate(sizes)])
        areas = np.array([float(h * w) if data.draw != "pictures" else 1.0 for h, w in sizes])
        return Places(whole, np.cumsum(areas / areas.sum()))
    crops = [places(*size, data.cut) for size in sizes]
    if data.sharpest < 1:
        responses = yield from _measure(pictures, crops, data.cut, data.workers)
        crops = [c[kept] for c, kept in zip(crops, keep_sharpest(responses, data.sharpest), strict=True)]
    numbers = np.repeat(np.arange(len(crops)), [len(c) for c in crops])
    rectangles = np.column_stack([numbers, np.concatenate(crops)])
    return Places(rectangles, np.arange(1, len(rectangles) + 1) / len(rectangles))


def _measure(
    pictures: Pictures, crops: list[np.ndarray], cut: Cut, workers: int
) -> Generator[Reading, None, list[np.ndarray]]:
    """The `edges` of every picture."""
    found: dict[int, np.ndarray] = {}

    def measure(index: int) -> None:
        path, what = pictures.pairs[index].clean, f"edges-{cut.side}-{cut.overlap}-{cut.above}"
        found[index] = pictures.decoded.derived(path, what, lambda pixels: edges(pixels, crops[index]))

    yield from _in_threads(range(len(crops)), measure, {}, workers)
    return [found[index] for index in range(len(crops))]


@dataclass(frozen=True)
class Spot:
    """Where a sample is cut: `scale` times the patch's side, of a picture, from (top, left)."""

    picture: int
    top: int
    left: int
    scale: int


# --- Batches ------------------------------------------------------------------------------------------------


class TrainingBatches:
    """Batches of (degraded, clean), each (batch, h, w, c) float32 in [0, 1], as a pure function of the iteration.

    Two views of a dual-pixel camera are one degraded picture of twice the channels, the left view's first.
    """

    def __init__(
        self,
        pictures: Pictures,
        places: Places,
        degradation: Degradation | None,
        *,
        seed: int,
        augment: Augment,
        textured: bool = False,
    ) -> None:
        self.pictures = pictures
        self.places = places
        self.degradation = degradation
        self.seed = seed
        self.augment = augment
        self.textured = textured

    def batch(self, iteration: int, stage: Stage, rows: range) -> tuple[np.ndarray, np.ndarray]:
        """Rows of the global batch of an iteration."""
        mixture = self._mixture(iteration, stage.batch) if self.augment.mixup else {}
        wanted = {*rows, *(mixture[row][0] for row in rows if row in mixture)}
        samples = {row: self._sample(iteration, row, stage.patch) for row in sorted(wanted)}
        degraded, clean = (np.stack([samples[row][side] for row in rows]) for side in (0, 1))
        for place, row in enumerate(rows):
            if row in mixture:
                partner, share = mixture[row]
                for side, pixels in enumerate((degraded, clean)):
                    pixels[place] = share * samples[row][side] + (np.float32(1) - share) * samples[partner][side]
        return degraded, clean

    def _mixture(self, iteration: int, batch: int) -> dict[int, tuple[int, np.float32]]:
        """Row -> the row that it is mixed with, and its own share; without the rows that stay as they are.

        Per group: with probability 1/2 nothing, else one share from β(a, a) and one permutation.
        """
        size = batch // self.augment.mixup_groups
        mixture: dict[int, tuple[int, np.float32]] = {}
        for group in range(self.augment.mixup_groups if size > 1 else 0):
            rng = np.random.default_rng([self.seed, iteration, group, MIXTURE])
            if rng.random() < 0.5:
                continue
            share = np.float32(rng.beta(self.augment.mixup, self.augment.mixup))
            for row, partner in enumerate(rng.permutation(size)):
                mixture[group * size + row] = (group * size + int(partner), share)
        return mixture

    def _sample(self, iteration: int, row: int, patch: int) -> tuple[np.ndarray, np.ndarray]:
        rng = np.random.default_rng([self.seed, iteration, row])
        spot = self._spot(rng, patch)
        picture = self.pictures.clean(spot.picture)
        if self.textured:
            other = self._spot(rng, patch)
            another = self.pictures.clean(other.picture)
            if _gradient(another, other, patch) > _gradient(picture, spot, patch):
                spot, picture = other, another
        turn, mirror = (int(rng.integers(4)), bool(rng.integers(2))) if self.augment.flips else (0, False)
        light = self._light(rng, picture.shape[2]) if self.augment.balance else None

        def cut(picture: np.ndarray, margin: int = 0) -> np.ndarray:
            crop = _crop(picture, spot.top, spot.left, spot.scale * patch, spot.scale * margin)
            crop = np.rot90(crop, turn)
            pixels = _shrunk(to_float(crop[:, ::-1] if mirror else crop), spot.scale)
            return pixels if light is None else pixels * light

        if self.degradation is not None and self.pictures.pairs[spot.picture].degraded is None:
            # A blur brings light from outside the patch, as it does anywhere but at a picture's border.
            margin = self.degradation.reach
            around = cut(picture, margin)
            inside = (slice(margin, margin + patch),) * 2
            degraded, clean = self.degradation.pair(around, rng)
            return degraded[inside], clean[inside]
        return np.concatenate([cut(view) for view in self.pictures.views(spot.picture)], axis=2), cut(picture)

    def _light(self, rng: np.random.Generator, channels: int) -> np.ndarray:
        """Factors of the channels, (c,).

        Photographs that were stored with halved colour resolution teach a network that colour is soft; where the
        channels' factors differ, every edge of the brightness is one of the colour.
        """
        return np.float32(1) - self.augment.balance * rng.random() * rng.random(channels, np.float32)

    def _spot(self, rng: np.random.Generator, patch: int) -> Spot:
        index, top, left, height, width = self.places.draw(rng)
        half = bool(self.augment.shrink) and rng.random() < self.augment.shrink and min(height, width) >= 2 * patch
        scale = 2 if half else 1
        top += int(rng.integers(max(1, height - scale * patch + 1)))
        return Spot(index, top, left + int(rng.integers(max(1, width - scale * patch + 1))), scale)


def training_batches(recipe: Recipe) -> Generator[Reading | Note, None, TrainingBatches]:
    """Check and open the training data of a recipe. Raises UserError, listing everything that is wrong with them."""
    data = recipe.data
    decoded = Decoded(recipe.model.out_channels, data.cache, data.cache_gb)
    pairs = find_pairs(data.train, role="train")
    pictures = yield from read_pictures(pairs, decoded, role="train", workers=data.workers)
    where = yield from find_places(pictures, data)
    if note := decoded.close():
        yield Note(note)
    largest = max(stage.patch for stage in recipe.stage)
    small = sum(min(pictures.size(index)) < largest for index in range(len(pairs)))
    if small:
        yield Note(
            f"{small:,} of {len(pairs):,} training pictures are smaller than the largest patch, {largest}: "
            "they are reflected at the right and bottom, as published"
        )
    return TrainingBatches(
        pictures,
        where,
        parse_degradation(recipe.degrade.steps) if recipe.degrade.steps else None,
        seed=recipe.seed,
        augment=recipe.augment,
        textured=data.textured,
    )


def validation_pictures(recipe: Recipe) -> list[tuple[np.ndarray, np.ndarray]]:
    """(degraded, clean) float32 (h, w, c), cut at the centre; degradations are seeded by the picture's place."""
    where, data = recipe.data.validate_, recipe.data
    if where is None:
        return []
    decoded = Decoded(recipe.model.out_channels, data.cache, data.cache_gb)
    reading = read_pictures(find_pairs(where, role="validate"), decoded, role="validate", workers=data.workers)
    pictures = _finish(reading)
    decoded.close()
    steps = recipe.validation.degrade or recipe.degrade.steps
    degradation = parse_degradation(steps) if steps else None
    pairs = []
    for index in range(len(pictures.pairs)):
        clean = to_float(_centre(pictures.clean(index), recipe.validation.crop))
        views = [to_float(_centre(view, recipe.validation.crop)) for view in pictures.views(index)]
        if views:
            degraded = np.concatenate(views, axis=2)
        else:
            assert degradation is not None  # the recipe sees to it
            degraded, clean = degradation.pair(clean, np.random.default_rng(index))
        pairs.append((degraded, clean))
    return pairs


def _finish(reading: Generator[object, None, T]) -> T:
    """What a generator returns, its events left alone."""
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value


def as_picture(degraded: np.ndarray, channels: int) -> np.ndarray:
    """What a person would see of the input: (h, w, views · c) -> (h, w, c), two views averaged."""
    h, w, c = degraded.shape
    return degraded if c == channels else degraded.reshape(h, w, -1, channels).mean(axis=2)


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
    """uint8 or uint16 -> float32 in [0, 1], in one piece."""
    result = np.empty(stored.shape, np.float32)
    return np.divide(stored, np.float32(65535 if stored.dtype == np.uint16 else 255), out=result, dtype=np.float32)


def _crop(picture: np.ndarray, top: int, left: int, patch: int, margin: int = 0) -> np.ndarray:
    """(h, w, c) -> (patch + 2 · margin, the same, c); the margin is mirrored where the picture ends.

    Without a margin smaller pictures are reflected at the right and bottom, as published.
    """
    above, before = max(0, top - margin), max(0, left - margin)
    crop = picture[above : top + patch + margin, before : left + patch + margin]
    side = patch + 2 * margin
    lacks = (above - top + margin, before - left + margin)
    pads = [(lack, side - lack - n) for lack, n in zip(lacks, crop.shape[:2], strict=True)]
    if not any(map(any, pads)):
        return crop
    return np.pad(crop, (*pads, (0, 0)), mode="symmetric" if margin else "reflect")


def _shrunk(pixels: np.ndarray, scale: int) -> np.ndarray:
    """(h, w, c) -> (h / scale, w / scale, c), by means of scale × scale pixels."""
    h, w, c = pixels.shape
    return pixels if scale == 1 else pixels.reshape(h // scale, scale, w // scale, scale, c).mean(axis=(1, 3))


def _gradient(picture: np.ndarray, spot: Spot, patch: int) -> float:
    """The mean absolute difference of neighbours in a patch's first channel, every second one: its texture.

    In steps of 16 bits, whatever the picture has, since pictures of 8 and of 16 bits are compared.
    """
    bottom, right = (start + spot.scale * patch for start in (spot.top, spot.left))
    crop = picture[spot.top : bottom : 2, spot.left : right : 2, 0].astype(np.int32)
    if picture.dtype == np.uint8:
        crop *= 257
    differences = (np.abs(np.diff(crop, axis=axis)) for axis in (0, 1))
    return float(sum(d.mean() for d in differences if d.size))  # a picture one pixel high has none


def _size(size: tuple[int, int]) -> str:
    return f"{size[1]}×{size[0]}"
