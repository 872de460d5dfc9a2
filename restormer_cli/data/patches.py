"""Where the published preparations cut their crops, and which of them they keep (facts: DPDD, GoPro, SIDD, DFWB).

The crops themselves are never written: a patch is drawn from one of these places, so that every part of every
picture is as likely as it is in the published training sets.
"""

import numpy as np

from restormer_cli.data.cache import LUMA
from restormer_cli.recipe import Cut


def places(height: int, width: int, cut: Cut) -> np.ndarray:
    """Top, left, height, width of the crops of a picture: (n, 4)."""
    if min(height, width) <= cut.above:
        return np.array([[0, 0, height, width]])
    tops, lefts = (starts(side, cut) for side in (height, width))
    tall, wide = min(cut.side, height), min(cut.side, width)
    return np.array([[top, left, tall, wide] for top in tops for left in lefts])


def starts(length: int, cut: Cut) -> list[int]:
    """Where crops begin along a side: every side - overlap pixels, the last one moved back to the border."""
    last = max(0, length - cut.side)
    return [*range(0, last, cut.side - cut.overlap), last]


KERNELS = (3, 7, 11, 15)


def edges(pixels: np.ndarray, crops: np.ndarray) -> np.ndarray:
    """The mean Sobel magnitude of each crop (n, 4) of a picture's luma, with each of four kernels: (n, 4)."""
    peak = np.float32(np.iinfo(pixels.dtype).max)
    gray = (pixels if pixels.shape[2] == 1 else pixels @ LUMA).astype(np.float32)[..., 0] / peak
    result = np.empty((len(crops), len(KERNELS)))
    for column, size in enumerate(KERNELS):
        response = _sobel(gray, size)
        for row, (top, left, height, width) in enumerate(crops):
            result[row, column] = response[top : top + height, left : left + width].mean(dtype=np.float64)
    return result


def keep_sharpest(responses: list[np.ndarray], share: float) -> list[np.ndarray]:
    """Which crops of each picture belong to the sharpest `share` of all: `edges` of each -> a mask (n,) of each.

    Each kernel's responses are normalised to 0 … 1 over all crops; a crop's sharpness is their product. Crops as
    sharp as the last that is kept are kept too.
    """
    everything = np.concatenate(responses)
    low, high = everything.min(axis=0), everything.max(axis=0)
    scores = ((everything - low) / np.maximum(high - low, 1e-12)).prod(axis=1)
    threshold = np.sort(scores)[len(scores) - max(1, round(share * len(scores)))]
    return np.split(scores >= threshold, np.cumsum([len(part) for part in responses])[:-1])


def _sobel(gray: np.ndarray, size: int) -> np.ndarray:
    """The magnitude of the Sobel gradient, with kernels of size × size: (h, w) -> (h, w)."""
    from scipy.ndimage import correlate1d  # only the defocus recipes need it

    smooth, slope = _sobel_kernels(size)
    squares = [
        correlate1d(correlate1d(gray, slope, axis, mode="mirror"), smooth, 1 - axis, mode="mirror") ** 2
        for axis in (0, 1)
    ]
    return np.sqrt(squares[0] + squares[1])


def _sobel_kernels(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Binomial smoothing, and the difference of a binomial one degree lower, each (size,) and scaled to sum |·| 1."""
    binomial = np.array([1.0])
    for _ in range(size - 2):
        binomial = np.convolve(binomial, [1, 1])
    smooth, slope = np.convolve(binomial, [1, 1]), np.convolve(binomial, [-1, 1])
    return (smooth / smooth.sum()).astype(np.float32), (slope / np.abs(slope).sum()).astype(np.float32)
