"""From a Bayer mosaic to colours, by three methods: (h, w) float32, red at (0, 0), h and w even -> (3, h, w)."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Plane = NDArray[np.floating]


@dataclass(frozen=True)
class _Around:
    """Neighbours of each pixel, (h, w) each; opposite borders count as neighbours."""

    beside: Plane
    """The sum of the two to the left and the right."""
    above: Plane
    """The sum of the two above and below."""
    corners: Plane
    """The sum of the four across corners."""


def _around(plane: Plane) -> _Around:
    beside = np.roll(plane, 1, 1) + np.roll(plane, -1, 1)
    above = np.roll(plane, 1, 0) + np.roll(plane, -1, 0)
    return _Around(beside, above, np.roll(beside, 1, 0) + np.roll(beside, -1, 0))


def bilinear(raw: Plane) -> Plane:
    """The mean of the nearest two or four of each colour."""
    near = _around(raw)
    return _assemble(raw, (near.beside + near.above) / 4, near.beside / 2, near.above / 2, near.corners / 4)


def malvar(raw: Plane) -> Plane:
    """Bilinear, corrected by the known colour's second derivative (Malvar, He and Cutler 2004, figure 2)."""
    near = _around(raw)
    across = np.roll(raw, 2, 1) + np.roll(raw, -2, 1)
    along = np.roll(raw, 2, 0) + np.roll(raw, -2, 0)
    far = across + along
    middle = 5 * raw - near.corners
    return _assemble(
        raw,
        green=(4 * raw + 2 * (near.beside + near.above) - far) / 8,
        beside=(middle + 4 * near.beside - across + along / 2) / 8,
        above=(middle + 4 * near.above - along + across / 2) / 8,
        opposite=(6 * raw + 2 * near.corners - 1.5 * far) / 8,
    )


def directed(raw: Plane) -> Plane:
    """Green along the direction of the smaller change (Hamilton and Adams 1997), then colour differences."""
    near = _around(raw)
    curve_x = 2 * raw - np.roll(raw, 2, 1) - np.roll(raw, -2, 1)
    curve_y = 2 * raw - np.roll(raw, 2, 0) - np.roll(raw, -2, 0)
    step_x = np.abs(np.roll(raw, 1, 1) - np.roll(raw, -1, 1)) + np.abs(curve_x)
    step_y = np.abs(np.roll(raw, 1, 0) - np.roll(raw, -1, 0)) + np.abs(curve_y)
    green_x, green_y = near.beside / 2 + curve_x / 4, near.above / 2 + curve_y / 4
    found = np.where(step_x < step_y, green_x, np.where(step_y < step_x, green_y, (green_x + green_y) / 2))
    green = raw.copy()
    for corner in (slice(None, None, 2), slice(1, None, 2)):
        green[corner, corner] = found[corner, corner]
    difference = raw - green  # of red and of blue from green, zero at green's own places
    near = _around(difference)
    colours = _assemble(difference, green, near.beside / 2, near.above / 2, near.corners / 4)
    colours[::2] += green
    colours[1] = green
    return colours


def _assemble(raw: Plane, green: Plane, beside: Plane, above: Plane, opposite: Plane) -> Plane:
    """The three colours; `green` holds at red and blue places, `beside` where the wanted colour lies to the left
    and the right, `above` where above and below, `opposite` at the other one of red and blue."""
    colours = np.tile(raw, (3, 1, 1))
    even, odd = slice(None, None, 2), slice(1, None, 2)
    for place in ((even, even), (odd, odd)):
        colours[1, *place] = green[place]
    for channel, own, other in ((0, even, odd), (2, odd, even)):
        colours[channel, own, other] = beside[own, other]
        colours[channel, other, own] = above[other, own]
        colours[channel, other, other] = opposite[other, other]
    return colours


DEMOSAICERS = (bilinear, malvar, directed)
