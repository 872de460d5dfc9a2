"""Traces of what happened to a picture after the sensor, and in front of it: JPEG blocks, lost light, rain."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import uniform_filter1d

from restormer_cli.analysis.detectors import RAIN
from restormer_cli.analysis.sampling import Image, luma, sample_tiles

BLOCK = 8
"""Side of a JPEG's blocks."""
SIDE, TILES = 256, 12
"""The pieces that are searched for rain, in pixels, and how many at the most."""
TILTS = np.arange(-40, 41, 5)
"""Directions of streaks that are tried, in degrees from vertical."""
STREAK = 13
"""Rows over which a streak must hold."""
PLACE = 60
"""Side of a place, in pixels: each has its say, so that one fence does not decide."""
FLOOR = 0.1
"""In 1/255²: what is weaker says nothing."""
BESIDE = 3
"""Pixels to the left and to the right of a streak, where it must be darker."""


@dataclass(frozen=True)
class Clipping:
    """Shares of the picture's pixels, 0 to 1."""

    white: float
    """A channel is at white."""
    black: float
    """All channels are at black."""


@dataclass(frozen=True)
class Rain:
    """Signs of bright, thin, upright streaks all over a picture; all zeros say nothing."""

    bias: float
    """Log of the energy of bright streaks over that of dark ones: the middle of all places. Near 0 without rain."""
    peak: float
    """By how much that log is higher in one direction than in others: the mean of all places. Near 0 without rain."""
    colour: float
    """Log of the streaks' energy in the channel in which they are weakest over that in the strongest: 0 is gray."""
    tilt: float
    """That direction, in degrees from vertical, positive to the right."""
    low: float = 0.0
    """`bias` in the lower fifth of places: rain is everywhere."""
    agreement: float = 0.0
    """Share of places in which streaks are brightest in that direction, within 5°."""
    height: float = 0.0
    """Log of the streaks' energy in that direction, in the lower fifth of places."""
    contrast: float = 0.0
    """By how much bright streaks alone are stronger in that direction than in others: the middle of all places."""

    @property
    def signs(self) -> dict[str, float]:
        """What tells rain from a scene's own lines."""
        return {
            "bias": min(self.bias, 3.0),
            "peak": self.peak,
            "colour": self.colour,
            "low": self.low,
            "agreement": self.agreement,
            "height": self.height,
            "contrast": self.contrast,
        }

    @property
    def score(self) -> float:
        """Above 0: it rains for sure."""
        return RAIN.score(self.signs)


def estimate_blocks(pixels: Image) -> float:
    """How much larger differences across a grid of 8 × 8 blocks are than the others: 0 none, 0.1 visible, 1 coarse.

    float32 (h, w, 1 or 3) in [0, 1]. After Wang, Bovik and Evans (2000) and Wang, Sheikh and Bovik (2002), who compare
    both for a known grid; here the grid may begin anywhere, as in a cropped picture. Below 3 blocks a side: 0.
    """
    if min(pixels.shape[:2]) < 3 * BLOCK:
        return 0.0
    height, width = (min(length, 2048) // BLOCK * BLOCK + 1 for length in pixels.shape[:2])
    plane = luma(pixels[:height, :width])
    found = []
    for steps in (np.abs(np.diff(plane, axis=0)).mean(axis=1), np.abs(np.diff(plane, axis=1)).mean(axis=0)):
        phases = np.array([np.median(steps[phase::BLOCK]) for phase in range(BLOCK)])
        grid = int(phases.argmax())
        found.append(phases[grid] / (np.median(np.delete(phases, grid)) + 0.02 / 255) - 1)
    return float(np.clip(min(found), 0, 10))  # both ways: a fence has steps in one


def estimate_clipping(pixels: Image) -> Clipping:
    """Shares of pixels at white and at black: float32 (h, w, 1 or 3) in [0, 1]; on a megapixel at most."""
    step = max(1, round((pixels.shape[0] * pixels.shape[1] / 2**20) ** 0.5))
    brightest = pixels[::step, ::step].max(axis=2)
    white = (brightest >= 254.5 / 255).mean()
    black = (brightest <= 0.5 / 255).mean()
    return Clipping(float(white), float(black))


def estimate_rain(pixels: Image) -> Rain:
    """Signs of rain in float32 (h, w, 1 or 3) in [0, 1]: streaks brighter than both their sides, in all channels alike.

    What all published detectors rest on: rain is brighter than what it hides, neutral, and falls in one direction
    (Garg and Nayar 2007; Barnum, Narasimhan and Kanade 2010). Scenes have dark lines as often as bright ones, and noise
    has no direction. All zeros where there is too little picture.
    """
    if min(pixels.shape[:2]) < 2 * PLACE:
        return Rain(0.0, 0.0, 0.0, 0.0)
    tiles = sample_tiles(pixels, SIDE, TILES)
    middle = tiles[:, :, BESIDE:-BESIDE]
    left, right = tiles[:, :, : -2 * BESIDE], tiles[:, :, 2 * BESIDE :]
    brighter = np.maximum(middle - np.maximum(left, right), 0)
    bright = brighter.min(axis=3)
    dark = np.maximum(np.minimum(left, right) - middle, 0).min(axis=3)
    logs = np.log(
        np.array([[_along(lines, float(tilt)) for tilt in TILTS] for lines in (bright, dark)]) * 255**2 + FLOOR
    )
    best = int(logs[0].mean(axis=1).argmax())
    difference = logs[0] - logs[1]
    others = np.abs(TILTS - TILTS[best]) >= 20
    peak = difference[best] - difference[others].mean(axis=0)
    tilt = float(TILTS[best])
    colour = logs[0, best] - np.log(_along(brighter.max(axis=3), tilt) * 255**2 + FLOOR)
    return Rain(
        bias=float(np.median(difference[best])),
        peak=float(peak.mean()),
        colour=float(np.median(colour)),
        tilt=tilt,
        low=float(np.quantile(difference[best], 0.2)),
        agreement=float((np.abs(TILTS[logs[0].argmax(axis=0)] - tilt) <= 5).mean()),
        height=float(np.quantile(logs[0, best], 0.2)),
        contrast=float(np.median(logs[0, best] - logs[0][others].mean(axis=0))),
    )


def _along(lines: Image, tilt: float) -> Image:
    """Energy of lines (n, h, w) averaged along a direction, which keeps what holds over STREAK rows: (places,)."""
    height, width = lines.shape[1:]
    shift = np.rint(np.tan(np.radians(tilt)) * np.arange(height)).astype(int)
    columns: NDArray[np.intp] = (np.arange(width)[None] + shift[:, None]) % width
    straight = np.take_along_axis(lines, np.broadcast_to(columns, lines.shape), axis=2)
    held = np.square(uniform_filter1d(straight, STREAK, axis=1))
    rows, across = height // PLACE, width // PLACE
    held = held[:, : rows * PLACE, : across * PLACE].reshape(-1, rows, PLACE, across, PLACE)
    return held.mean(axis=(2, 4)).ravel()
