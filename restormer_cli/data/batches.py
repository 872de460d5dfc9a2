"""Training pairs, cut to exactly the size that a stage asks for.

A batch is a pure function of (seed, iteration): which pictures, where the crops lie, how they are turned,
degraded and mixed. So a run resumes bit-exactly from an iteration number alone, and several processes share a
batch by taking rows of it.
"""

from collections import deque
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np

from restormer_cli.data.cache import PictureCache
from restormer_cli.data.pairs import complain, find_pairs
from restormer_cli.data.patches import PatchLocation, Places, cut_patch, find_places, shrunk, texture
from restormer_cli.data.pictures import Note, Pictures, Reading, read_pictures, to_float
from restormer_cli.degradations.spec import Degradation, parse_degradation
from restormer_cli.recipe import Augment, Recipe, Stage

T = TypeVar("T")
MIXTURE = 1
"""Sets the mixture's generator apart from those of the samples."""


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
            if texture(another, other, patch) > texture(picture, spot, patch):
                spot, picture = other, another
        turn, mirror = (int(rng.integers(4)), bool(rng.integers(2))) if self.augment.flips else (0, False)
        light = self._light(rng, picture.shape[2]) if self.augment.balance else None

        def cut(picture: np.ndarray, margin: int = 0) -> np.ndarray:
            crop = cut_patch(picture, spot.top, spot.left, spot.scale * patch, spot.scale * margin)
            crop = np.rot90(crop, turn)
            pixels = shrunk(to_float(crop[:, ::-1] if mirror else crop), spot.scale)
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

    def _spot(self, rng: np.random.Generator, patch: int) -> PatchLocation:
        index, top, left, height, width = self.places.draw(rng)
        half = bool(self.augment.shrink) and rng.random() < self.augment.shrink and min(height, width) >= 2 * patch
        scale = 2 if half else 1
        top += int(rng.integers(max(1, height - scale * patch + 1)))
        return PatchLocation(index, top, left + int(rng.integers(max(1, width - scale * patch + 1))), scale)


def training_batches(recipe: Recipe) -> Generator[Reading | Note, None, TrainingBatches]:
    """Check and open the training data of a recipe. Raises UserError, listing everything that is wrong with them."""
    data = recipe.data
    decoded = PictureCache(recipe.model.out_channels, data.cache, data.cache_gb)
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


class ValidationPictures(Sequence[tuple[np.ndarray, np.ndarray]]):
    """(degraded, clean) float32 (h, w, c), cut at the centre, each made when it is asked for: none is held as floats.

    Degradations are seeded by the picture's place.
    """

    def __init__(self, pictures: Pictures, crop: int, degradation: Degradation | None) -> None:
        self._pictures, self._crop, self._degradation = pictures, crop, degradation

    def __len__(self) -> int:
        return len(self._pictures.pairs)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if not 0 <= index < len(self):
            raise IndexError(index)
        clean = to_float(_centre(self._pictures.clean(index), self._crop))
        views = [to_float(_centre(view, self._crop)) for view in self._pictures.views(index)]
        if views:
            return np.concatenate(views, axis=2), clean
        assert self._degradation is not None  # the recipe sees to it
        return self._degradation.pair(clean, np.random.default_rng(index))


def validation_pictures(recipe: Recipe) -> Sequence[tuple[np.ndarray, np.ndarray]]:
    """The recipe's; none where it names none. They are used once in a while: none is kept in memory, which every
    process would do for itself; a cache on disk is one for all."""
    where, data = recipe.data.validate_, recipe.data
    if where is None:
        return []
    decoded = PictureCache(recipe.model.out_channels, "disk" if data.cache == "disk" else "off", data.cache_gb)
    reading = read_pictures(find_pairs(where, role="validate"), decoded, role="validate", workers=data.workers)
    pictures = _finish(reading)
    decoded.close()
    small = [pair.clean for index, pair in enumerate(pictures.pairs) if min(pictures.size(index)) < 8]
    complain([f"validate: {path}: is less than 8 pixels high or wide: leave it out" for path in small])
    steps = recipe.validation.degrade or recipe.degrade.steps
    degradation = parse_degradation(steps) if steps else None
    return ValidationPictures(pictures, recipe.validation.crop, degradation)


def _finish(reading: Generator[object, None, T]) -> T:
    """Return a generator's return value and ignore its events."""
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value


def _centre(picture: np.ndarray, crop: int) -> np.ndarray:
    """The centre crop (0: all of it), cut to multiples of 8, which is what the bare network takes."""
    h, w = (min(side, crop or side) // 8 * 8 for side in picture.shape[:2])
    top, left = (picture.shape[0] - h) // 2, (picture.shape[1] - w) // 2
    return picture[top : top + h, left : left + w]


def prefetched(
    make: Callable[[int], T], first: int, last: int, *, depth: int, workers: int = 1
) -> Generator[T, None, None]:
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
