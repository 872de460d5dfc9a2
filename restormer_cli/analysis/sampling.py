"""A picture's sample: enough of it for statistics, whatever its size."""

import numpy as np
from numpy.typing import NDArray

from restormer_cli.pixels import LUMA

Image = NDArray[np.float32]


def sample_tiles(pixels: Image, side: int, most: int) -> Image:
    """Up to `most` square tiles spread evenly: (h, w, c) -> (n, side, side, c), a copy; one tile of a smaller picture.

    Tiles do not overlap where the picture has room for that. A picture smaller than `side` is one tile of its own
    size, (1, h, w, c).
    """
    height, width, _ = pixels.shape
    if height < side or width < side:
        return pixels[None].copy()
    down, across = height / side, width / side
    shrink = min(1.0, (most / (down * across)) ** 0.5)
    rows = _starts(height, side, max(1, int(down * shrink)))
    columns = _starts(width, side, max(1, min(int(across), most // len(rows))))
    return np.stack([pixels[y : y + side, x : x + side] for y in rows for x in columns])


def _starts(length: int, side: int, count: int) -> list[int]:
    if count == 1:
        return [(length - side) // 2]
    return [int(start) for start in np.linspace(0, length - side, count)]


def luma(pixels: Image) -> Image:
    """(h, w, 1 or 3) -> (h, w)."""
    return pixels @ LUMA if pixels.shape[-1] == 3 else pixels[..., 0]
