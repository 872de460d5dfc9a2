"""A lens out of focus, as scenes with depth have it: every layer by its distance, the near ones before the far ones."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from restormer_cli.degradations.scene import object_mask, smooth_mask, split, unclipped
from restormer_cli.degradations.tone import PLAIN

Image = NDArray[np.float32]


@dataclass(frozen=True)
class Aperture:
    """The shape of a point out of focus."""

    blades: int
    """Corners of the polygon; 0: a disc."""
    turned: float
    """Rotation of the polygon, in radians."""
    rounded: float
    """0: straight edges; 1: a circle's."""
    rim: float
    """How much brighter the rim is than the middle, in parts of it; below 0 darker."""
    cut: float
    """How far the barrel's two ends are shifted against each other at the frame's edge: 0 to 1 of the radius."""

    def kernel(self, radius: float, y: float, x: float) -> Image:
        """At a place of the frame, -1 to 1 down and across: (k, k), k odd, anti-aliased, sum 1; radius in pixels."""
        radius = max(radius, 0.5)  # a disc within one pixel is that pixel
        reach = math.ceil(radius - 0.5)
        size = 2 * reach + 1
        fine = 4 if radius < 6 else 2
        cells = (np.arange(fine * size) + 0.5) / fine - size / 2
        down, across = cells[:, None], cells
        distance = np.hypot(down, across)
        edge: float | NDArray[np.float64] = radius
        if self.blades:
            sector = 2 * np.pi / self.blades
            angle = (np.arctan2(down, across) + self.turned) % sector - sector / 2
            edge = radius * (self.rounded + (1 - self.rounded) * math.cos(sector / 2) / np.cos(angle))
        covered = np.clip(fine * (edge - distance) + 0.5, 0, 1) * (1 + self.rim * (distance / radius) ** 2)
        shift = self.cut * radius / 2
        if shift * math.hypot(y, x) > 0.05:
            for end in (-shift, shift):  # both ends, so that the point stays where it is
                barrel = np.hypot(down - end * y, across - end * x)
                covered *= np.clip(fine * (radius - barrel) + 0.5, 0, 1)
        coverage = covered.reshape(size, fine, size, fine).sum(axis=(1, 3))
        return (coverage / coverage.sum()).astype(np.float32)


@dataclass(frozen=True)
class _Frame:
    """Which part of the lens' picture this one is: how large the whole is by it, and where the middle lies in it."""

    size: float
    down: float
    across: float

    def place(self, y: float, x: float) -> tuple[float, float]:
        """A place of the picture, -1 to 1 down and across -> the same of the frame."""
        return self.down + y / self.size, self.across + x / self.size


def lens(
    image: Image,
    rng: np.random.Generator,
    *,
    radius: float,
    layers: float = 1,
    blades: float = 0,
    cut: float = 0,
    fringe: float = 0,
    highlights: float = 1,
) -> Image:
    """Put the picture out of focus by its depths: (h, w, c) -> (h, w, c), in [0, 1], borders mirrored.

    In linear light; a scene of layers at 1 to 4 depths (a region found in the picture in front, or smooth random
    masks), each blurred by its distance from the plane of focus, with what it hides and lets see.
    `radius`: of the layer that is the farthest out of focus, in pixels (0 to 50). `layers`: 1 blurs all alike.
    `blades`: of the aperture (5 to 11: a polygon of round edges; below 5: a disc). `cut`: how far
    points are cut to cat's eyes in the frame's corners (0 to 1; the picture may be a part of the frame). `fringe`:
    by how many pixels red points are larger and blue ones smaller, or the other way before the plane of focus (0 to
    2). `highlights`: how many times as bright as white the brightest were (1 to 20); they are cut off after the blur.
    """
    if radius < 0.3:
        return np.clip(image, 0, 1)
    colour = np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image
    light = unclipped(PLAIN.linear(np.clip(colour, 0, 1)), highlights)
    height, width, _ = light.shape
    aperture = Aperture(
        int(blades) if blades >= 5 else 0, rng.uniform(0, 2 * np.pi), rng.uniform(0, 0.6), rng.uniform(-0.3, 0.6), cut
    )
    size = 10 ** rng.uniform(0, 0.8)
    frame = _Frame(size, *(rng.uniform(-1, 1, 2) * (1 - 1 / size)))
    depths = np.sort(rng.uniform(0, 1, int(layers)))
    # Mostly something is in focus, and mostly what is in front.
    focus = float(rng.choice(depths)) if len(depths) > 1 and rng.random() < 0.7 else float(rng.uniform(-0.5, 1.5))
    away = depths - focus
    blur = away / np.abs(away).max() * radius
    shares = np.sort(rng.uniform(0.15, 0.7, max(0, int(layers) - 1)))[::-1]
    masks = [smooth_mask(height, width, rng, share) for share in shares]
    if masks and rng.random() < 0.6:
        masks[-1] = object_mask(light, rng)
    result = np.zeros((3, height, width), np.float32)
    for layer, out in zip(split(light, masks, [*depths]), blur, strict=True):
        planes = np.concatenate([layer.light.transpose(2, 0, 1) * layer.opacity, layer.opacity[None]])
        seen = _seen(
            planes, replace(aperture, turned=aperture.turned + (np.pi if out < 0 else 0)), frame, float(out), fringe
        )
        result *= 1 - seen[3]
        result += seen[:3]
    blurred = PLAIN.encoded(np.ascontiguousarray(result.transpose(1, 2, 0)))
    return blurred if image.shape[2] == 3 else blurred[..., :1].copy()


def _seen(planes: Image, aperture: Aperture, frame: _Frame, out: float, fringe: float) -> Image:
    """Planes red, green, blue, opacity (4, h, w) through a lens; `out` of focus by so many pixels, before it if > 0.

    Kernels at three places along each side, their results blended, where the picture is a large part of a
    frame whose corners are cut.
    """
    if abs(out) < 0.3:
        return planes
    radii = [max(abs(out) + sign * math.copysign(fringe, out), 0.5) for sign in (1, 0, -1, 0)]
    nodes = 1 if aperture.cut * abs(out) < 0.5 or frame.size > 3 else 3
    places = np.linspace(-1, 1, nodes) if nodes > 1 else np.zeros(1)
    _, height, width = planes.shape
    seen = np.zeros_like(planes)
    for y in places:
        for x in places:
            hats = [
                np.clip(1 - np.abs(np.linspace(-1, 1, side, dtype=np.float32) - here) * (nodes - 1) / 2, 0, 1)
                for side, here in ((height, y), (width, x))
            ]
            rows, columns = map(_extent, hats)
            made = {r: aperture.kernel(r, *frame.place(float(y), float(x))) for r in set(radii)}
            shapes = [made[r] for r in radii]
            part = _convolved(planes, shapes, rows, columns)
            seen[:, rows, columns] += part * hats[0][rows, None] * hats[1][columns]
    return seen


def _extent(weights: NDArray[np.floating]) -> slice:
    """Where weights are more than nothing."""
    some = np.flatnonzero(weights)
    return slice(int(some[0]), int(some[-1]) + 1)


def _convolved(planes: Image, kernels: Sequence[Image], rows: slice, columns: slice) -> Image:
    """Each plane of (4, h, w) with its kernel, in these rows and columns only: (4, rows, columns), borders mirrored."""
    from scipy import fft  # 50 ms that --help should not pay

    reach = max(len(kernel) for kernel in kernels) // 2
    wide = np.pad(planes, ((0, 0), (reach, reach), (reach, reach)), mode="symmetric")
    wide = wide[:, rows.start : rows.stop + 2 * reach, columns.start : columns.stop + 2 * reach]
    shape = [fft.next_fast_len(n, real=True) for n in wide.shape[1:]]
    spectra = np.asarray(fft.rfft2(wide, shape))
    transforms: dict[int, NDArray[np.complex64]] = {}
    for spectrum, kernel in zip(spectra, kernels, strict=True):
        if id(kernel) not in transforms:
            transforms[id(kernel)] = np.asarray(fft.rfft2(kernel, shape))
        spectrum *= transforms[id(kernel)]
    blurred = np.asarray(fft.irfft2(spectra, shape))
    height, width = rows.stop - rows.start, columns.stop - columns.start
    return np.stack(
        [
            plane[start : start + height, start : start + width]
            for plane, start in zip(blurred, (reach + len(kernel) // 2 for kernel in kernels), strict=True)
        ]
    )
