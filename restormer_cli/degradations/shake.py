"""Blur by movement while the shutter is open: the camera's, of a scene with depth, and of things by themselves."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from restormer_cli.degradations.scene import Layer, object_mask, smooth_mask, split, unclipped
from restormer_cli.degradations.tone import PLAIN

Image = NDArray[np.float32]
Poses = NDArray[np.float64]
"""Homographies (instants, 3, 3) of a plane, near the identity, in pixels from the picture's middle."""
_MOMENTS = 256


def shake(
    image: Image,
    rng: np.random.Generator,
    *,
    extent: float,
    path: float = 0,
    layers: float = 1,
    moving: float = 0,
    frames: float = 0,
    highlights: float = 1,
) -> Image:
    """Move the camera, or things, while the picture is exposed: (h, w, c) -> (h, w, c), in [0, 1], borders mirrored.

    Light is added up in linear values over 8 to 33 instants, at each of which every layer of the scene is seen
    through a homography of its own (rotation; translation by nearness). Then highlights are cut off, as in a camera.
    `extent`: of the longest path of any point, in pixels (0 to 100); paths are centred on the clean picture.
    `path`: 0 a hand's tremor, 1 nearly straight, 2 in strokes with corners between. `layers`: depths, 1 to 4, from
    smooth random masks. `moving`: 0 the camera moves, 1 one thing moves over a still background (a region
    found in the picture), 2 both. `frames`: 0, or an average of so many sharp frames (2 to 64), as data sets that
    are made of videos have it. `highlights`: how many times as bright as white the brightest were (1 to 20).
    """
    if extent < 0.1:
        return np.clip(image, 0, 1)
    colour = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    light = unclipped(PLAIN.linear(np.clip(colour, 0, 1)), highlights)
    height, width, _ = light.shape
    depths = [*np.sort(rng.uniform(0.2, 1, int(layers)))]
    shares = np.sort(rng.uniform(0.1, 0.7, int(layers) - 1))[::-1]
    masks = [smooth_mask(height, width, rng, share) for share in shares]
    if moving:
        masks.append(object_mask(light, rng))
        depths.append(depths[-1])
    scene = split(light, masks, depths)
    own = rng.uniform(0.3, 0.7) if moving == 2 else float(moving)
    course = _draw_course(int(path), rng).at_instants(
        int(frames) or min(33, max(8, math.ceil(1.6 * extent))), own, bool(frames)
    )
    camera = _draw_camera(rng, max(height, width))
    places = np.array([[y, x, 1] for y in (-height / 2, 0, height / 2) for x in (-width / 2, 0, width / 2)])
    poses = [np.tile(np.eye(3), (len(course.weights), 1, 1))] * len(scene)
    if own < 1:
        poses = _scaled(lambda size: [camera.poses(course, size, d) for d in depths], (1 - own) * extent, places)
    if own > 0:
        middle = _middle(masks[-1])
        (by_itself,) = _scaled(lambda size: [_thing_poses(course, size, middle)], own * extent, places)
        poses = [*poses[:-1], poses[-1] @ by_itself]
    blurred = PLAIN.encoded(_exposed(scene, poses, course.weights, extent))
    return blurred if image.shape[2] == 3 else blurred[..., :1].copy()


# --- Paths --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class _Course:
    """Movements while the shutter is open; every mean is zero, every farthest point 1 away."""

    turn: NDArray[np.float64]
    """Turn of the camera, to the side and up: (instants, 2)."""
    move: NDArray[np.float64]
    """Shift of the camera: (instants, 2)."""
    roll: NDArray[np.float64]
    """Roll of the camera about its axis, and its way forward: (instants, 2)."""
    thing: NDArray[np.float64]
    """Shift of the moving object: (instants, 2)."""
    spin: NDArray[np.float64]
    """Rotation of the moving object about its centre: (instants, 1)."""
    weights: NDArray[np.float64]
    """How long each instant stands for: (instants,), the sum is 1."""

    def at_instants(self, count: int, own: float, even: bool) -> "_Course":
        """At fewer instants: `even` ones in time, as frames are, or as far from each other in space."""
        speed = (1 - own) * _lengths(self.turn) + own * _lengths(self.thing)
        way = np.arange(len(self.weights)) if even else np.concatenate([[0], np.cumsum(speed + 1e-9)])
        part = np.minimum((way / way[-1] * count).astype(int), count - 1)
        share = np.bincount(part, minlength=count)
        present = share > 0

        def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
            return np.stack([np.bincount(part, v, count)[present] / share[present] for v in values.T], axis=1)

        if even:  # a frame is sharp: the middle of its time, not the mean over it
            middle = ((np.arange(count) + 0.5) / count * len(way)).astype(int)

            def mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
                return values[middle] - values[middle].mean(axis=0)

        return _Course(
            turn=mean(self.turn),
            move=mean(self.move),
            roll=mean(self.roll),
            thing=mean(self.thing),
            spin=mean(self.spin),
            weights=share[present] / share.sum(),
        )


def _lengths(walk: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.linalg.norm(np.diff(walk, axis=0), axis=1)


def _draw_course(kind: int, rng: np.random.Generator) -> _Course:
    """All the time, in 256 instants."""
    straight = 1 if kind == 0 else kind  # things do not tremble
    return _Course(
        turn=_walk(kind, rng, 2),
        move=_walk(kind, rng, 2),
        roll=_walk(kind, rng, 2),
        thing=_walk(straight, rng, 2),
        spin=_walk(1, rng, 1),
        weights=np.full(_MOMENTS, 1 / _MOMENTS),
    )


def _walk(kind: int, rng: np.random.Generator, dimensions: int) -> NDArray[np.float64]:
    """A path in time: (256, dimensions)."""
    time = np.linspace(0, 1, _MOMENTS)[:, None]
    if kind == 2:  # strokes: a broken line, each part at its own speed
        parts = int(rng.integers(2, 5))
        knots = np.concatenate([[0], np.sort(rng.uniform(size=parts - 1)), [1]])
        stops = np.cumsum(rng.standard_normal((parts + 1, dimensions)), axis=0)
        walk = np.column_stack([np.interp(time[:, 0], knots, stop) for stop in stops.T])
    else:
        waves = np.arange(1, 7)[:, None, None]
        phase = rng.uniform(0, 2 * np.pi, (6, 1, dimensions))
        strength = rng.standard_normal((6, 1, dimensions)) / waves**1.5
        walk = (strength * np.sin(np.pi * waves * time + phase)).sum(axis=0)
        walk /= walk.std() + 1e-9
        if kind == 1:
            way = rng.standard_normal(dimensions)
            speed = time + rng.uniform(-0.3, 0.3) * np.sin(np.pi * time)
            walk = 0.06 * walk + 3 * speed * way / np.linalg.norm(way)
    walk = walk - walk.mean(axis=0)
    return walk / (np.linalg.norm(walk, axis=1).max() + 1e-9)


@dataclass(frozen=True, eq=False)
class _Camera:
    """How a camera's movement shows in its pictures."""

    side: int
    """The picture's longer one, in pixels."""
    focus: float
    """The focal length, in pixels."""
    turned: float
    """The part that comes from turning, which does not know depth; the rest comes from moving."""
    rolled: NDArray[np.float64]
    """How strongly it rolls and goes ahead, (2,)."""
    centre: NDArray[np.float64]
    """To the axis from the picture's middle: (3, 3)."""

    def poses(self, course: _Course, size: float, nearness: float) -> Poses:
        """Poses of a plane during a movement of `size` pixels."""
        poses = np.tile(np.eye(3), (len(course.weights), 1, 1))
        angle = self.turned * course.turn * size / self.focus
        roll, ahead = (course.roll * self.rolled * size / self.side).T
        poses[:, :2, 2] = angle * self.focus + (1 - self.turned) * nearness * size * course.move
        poses[:, 2, :2] = -angle / self.focus
        poses[:, 0, 1], poses[:, 1, 0] = -roll, roll
        poses[:, 2, 2] += nearness * ahead
        return self.centre @ poses @ np.linalg.inv(self.centre)


def _draw_camera(rng: np.random.Generator, side: int) -> _Camera:
    centre = np.eye(3)
    centre[:2, 2] = rng.normal(0, 0.3 * side, 2)  # a picture may be a part of a larger one
    return _Camera(side, side * rng.uniform(0.7, 2.5), rng.uniform(0.3, 1), rng.normal(0, [0.5, 0.3]), centre)


def _thing_poses(course: _Course, size: float, middle: NDArray[np.float64]) -> Poses:
    """Poses of an object during its own movement of `size` pixels: a shift and a slight rotation about its centre."""
    poses = np.tile(np.eye(3), (len(course.weights), 1, 1))
    poses[:, :2, 2] = course.thing * size
    spin = course.spin[:, 0] * size * 0.002
    poses[:, 0, 1], poses[:, 1, 0] = -spin, spin
    centre = np.eye(3)
    centre[:2, 2] = middle
    return centre @ poses @ np.linalg.inv(centre)


def _middle(mask: Image) -> NDArray[np.float64]:
    """The centre of a mask's mass, (down, across) from the picture's middle."""
    height, width = mask.shape
    down, across = mask.sum(axis=1, dtype=np.float64), mask.sum(axis=0, dtype=np.float64)
    total = max(float(down.sum()), 1e-9)
    return np.array([down @ np.arange(height), across @ np.arange(width)]) / total - [height / 2, width / 2]


def _scaled(make: Callable[[float], list[Poses]], extent: float, places: NDArray[np.float64]) -> list[Poses]:
    """Poses whose longest path of any of the places (n, 3) is `extent` pixels."""
    size = extent / 2
    for _ in range(3):  # nearly a line: the second time is exact to a hundredth
        size *= extent / max(_longest(make(size), places), 1e-6)
    return make(size)


def _longest(poses: Sequence[Poses], places: NDArray[np.float64]) -> float:
    """Twice the farthest that any place (n, 3) is from where it is on the clean picture, in pixels."""
    farthest = 0.0
    for planes in poses:
        seen = np.einsum("tij,nj->tni", planes, places)
        moved = seen[..., :2] / seen[..., 2:] - places[:, :2]
        farthest = max(farthest, float(np.linalg.norm(moved, axis=2).max()))
    return 2 * farthest


# --- Exposure -----------------------------------------------------------------------------------------------


def _exposed(scene: list[Layer], poses: list[Poses], weights: NDArray[np.float64], extent: float) -> Image:
    """The mean over the instants of the layers, each seen through its pose, one before the other: (h, w, 3).

    At each instant a pixel shows one layer. Where a layer covers a part of it, it is seen in as many of the instants.
    """
    height, width, _ = scene[0].light.shape
    # The nearest pixel is near enough where many places are added up, the nearest half one where few are.
    grid = _Grid(height, width, math.ceil(extent / 2) + 2, 1 if extent >= 10 else 2)
    items = np.concatenate([grid.items(layer.light) for layer in scene])
    opacity = [grid.fine(layer.opacity[..., None]).ravel() for layer in scene[1:]]
    fixed = [grid.index(planes[0]) if (planes == planes[0]).all() else None for planes in poses]
    total = np.zeros((height * width, 4), np.float32)
    for instant, weight in enumerate(weights):
        # Thresholds spread evenly over 0 to 1, whatever the number of instants: the golden section's multiples.
        least = (0.5 + instant * 0.6180339887) % 1
        shown: NDArray[np.int32] | None = None
        for number, (planes, at) in enumerate(zip(poses, fixed, strict=True)):
            index = grid.index(planes[instant]) if at is None else at
            if shown is None:
                shown = index
            else:
                covers = opacity[number - 1].take(index, mode="clip") > least
                shown = np.where(covers, index + np.int32(number * grid.size), shown)
        assert shown is not None
        seen = items.take(shown, mode="clip").view(np.float32).reshape(-1, 4)
        seen *= np.float32(weight)
        total += seen
    return total.reshape(height, width, 4)[..., :3]


class _Grid:
    """Where the values of a picture (h, w) lie that is mirrored at its borders, every `1 / finer` pixel one."""

    def __init__(self, height: int, width: int, margin: int, finer: int) -> None:
        self.height, self.width, self.margin, self.finer = height, width, margin, finer
        rows, self.columns = ((side + 2 * margin - 1) * finer + 1 for side in (height, width))
        self.size = rows * self.columns
        self.y = (np.arange(height, dtype=np.float32) - np.float32(height / 2))[:, None]
        self.x = np.arange(width, dtype=np.float32) - np.float32(width / 2)

    def fine(self, picture: Image) -> Image:
        """(h, w, c) -> with its margin, at every place."""
        margin = (self.margin, self.margin)
        picture = np.pad(picture, (margin, margin, (0, 0)), mode="symmetric")
        if self.finer == 1:
            return picture
        rows, columns, channels = picture.shape
        fine = np.empty((2 * rows - 1, 2 * columns - 1, channels), np.float32)
        fine[::2, ::2] = picture
        fine[1::2, ::2] = (picture[1:] + picture[:-1]) / 2
        fine[:, 1::2] = (fine[:, 2::2] + fine[:, :-2:2]) / 2
        return fine

    def items(self, light: Image) -> NDArray[np.complex128]:
        """Three colours as one item, since what is copied together is copied faster: (places,)."""
        light = self.fine(np.dstack([light, np.zeros_like(light[..., :1])]))
        return np.ascontiguousarray(light).reshape(-1, 4).view(np.complex128)[:, 0]

    def index(self, pose: NDArray[np.float64]) -> NDArray[np.int32]:
        """Which place each pixel shows through a homography: (h · w,)."""
        down, right, depth = pose.astype(np.float32)
        scale = np.float32(self.finer) / ((depth[0] * self.y + depth[2]) + depth[1] * self.x)
        places = []
        for row, side in ((down, self.height), (right, self.width)):
            place = (row[0] * self.y + row[2]) + row[1] * self.x
            place *= scale
            place += np.float32((side / 2 + self.margin) * self.finer + 0.5)
            places.append(place.astype(np.int32))
        index = places[0] * np.int32(self.columns)
        index += places[1]
        return index.ravel()
