"""Where patches are cut: anywhere, or where the published preparations cut their crops (DPDD, GoPro, SIDD, DFWB).

The crops themselves are never written: a patch is drawn from one of these places, so that every part of every
picture is as likely as it is in the published training sets.
"""

from collections.abc import Generator
from dataclasses import dataclass

import numpy as np

from restormer_cli.data.pictures import Pictures, Reading, in_threads
from restormer_cli.pixels import LUMA
from restormer_cli.recipe import Cut, Data


def crop_boxes(height: int, width: int, cut: Cut) -> np.ndarray:
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
    gray = (pixels if pixels.shape[2] == 1 else pixels @ LUMA[:, None]).astype(np.float32)[..., 0] / peak
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
    crops = [crop_boxes(*size, data.cut) for size in sizes]
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

    yield from in_threads(range(len(crops)), measure, {}, workers)
    return [found[index] for index in range(len(crops))]


@dataclass(frozen=True)
class PatchLocation:
    """Where a sample is cut: `scale` times the patch's side, of a picture, from (top, left)."""

    picture: int
    top: int
    left: int
    scale: int


def cut_patch(picture: np.ndarray, top: int, left: int, patch: int, margin: int = 0) -> np.ndarray:
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


def shrunk(pixels: np.ndarray, scale: int) -> np.ndarray:
    """(h, w, c) -> (h / scale, w / scale, c), by means of scale × scale pixels."""
    h, w, c = pixels.shape
    return pixels if scale == 1 else pixels.reshape(h // scale, scale, w // scale, scale, c).mean(axis=(1, 3))


def texture(picture: np.ndarray, spot: PatchLocation, patch: int) -> float:
    """The mean absolute difference of neighbours in a patch's first channel, every second one: its texture.

    In steps of 16 bits, whatever the picture has, since pictures of 8 and of 16 bits are compared.
    """
    bottom, right = (start + spot.scale * patch for start in (spot.top, spot.left))
    crop = picture[spot.top : bottom : 2, spot.left : right : 2, 0].astype(np.int32)
    if picture.dtype == np.uint8:
        crop *= 257
    differences = (np.abs(np.diff(crop, axis=axis)) for axis in (0, 1))
    return float(sum(d.mean() for d in differences if d.size))  # a picture one pixel high has none
