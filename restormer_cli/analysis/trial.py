"""Signs of streaks that no statistic of pixels gives: what a network that takes rain away changes on a few pieces.

Fine streaks look like noise or texture. A derainer tells them apart since it learnt nothing else; on a picture without
rain it changes little, or as much to the bright as to the dark. Here is what is looked at; who runs it, is above.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from restormer_cli.analysis.detectors import TRIAL
from restormer_cli.analysis.sampling import Image, luma, sample_tiles

SIDE, PIECES = 256, 2
"""The pieces, in pixels, and how many at the most."""
LEAST = 0.01
"""In 1/255: what changes less says nothing."""


@dataclass(frozen=True)
class Trial:
    """What the derainer changed where it changed least, of the pieces that it was tried on: rain is everywhere."""

    change: float
    """RMS over the pixels, in brightness, in 1/255; about the median, so that mist does not count."""
    darker: float
    """Share of the change's energy that makes darker, 0 to 1: streaks are brighter than what they hide."""

    @property
    def signs(self) -> dict[str, float]:
        """What tells streaks from all else that a derainer may change."""
        return {"change": float(np.log(self.change + LEAST)), "darker": self.darker}

    @property
    def score(self) -> float:
        """Above 0: streaks for sure; 1 more is e times the odds."""
        return TRIAL.score(self.signs)


def try_derainer(pixels: Image, derain: Callable[[Image], Image]) -> Trial:
    """Try `derain`, (h, w, 3) -> the same, sides multiples of 8, on pieces of float32 (h, w, 1 or 3) in [0, 1].

    A picture smaller than 8 pixels shows nothing.
    """
    height, width = (side // 8 * 8 if side < SIDE else side for side in pixels.shape[:2])
    if not height * width:
        return Trial(0.0, 0.0)
    pieces = sample_tiles(pixels[:height, :width], SIDE, PIECES)
    pieces = pieces[:, : pieces.shape[1] // 8 * 8, : pieces.shape[2] // 8 * 8]
    pieces = np.clip(np.nan_to_num(pieces, nan=0.0), 0, 1)
    pieces = np.repeat(pieces, 3 // pieces.shape[3], axis=3)
    tried = [_judged(luma(derain(piece) - piece) * 255) for piece in pieces]
    return Trial(min(change for change, _ in tried), min(darker for _, darker in tried))


def _judged(change: Image) -> tuple[float, float]:
    """RMS about the median, and the share of that which is below."""
    about = (change - np.median(change)).astype(np.float64)
    energy = np.square(about).sum()
    below = np.square(np.minimum(about, 0)).sum()
    return float((energy / about.size) ** 0.5), float(below / max(energy, LEAST**2))
