"""Before and after for a page: the pictures in sizes that a browser bears, and crops of what changed most."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from restormer_cli.images.formats.exif_icc import icc_space
from restormer_cli.images.formats.pillow import encode_8_bits
from restormer_cli.images.formats.raster import peak
from restormer_cli.report.html import data_uri

if TYPE_CHECKING:
    from restormer_cli.images.io import Picture

PAGE_PIXELS = 24_000_000
"""Pixels that a page shows in all, per side: 20 to 60 MB of HTML for photographs with noise at σ 25
(scripts/measure/page_size.py), less for others."""
LEAST_PIXELS = 150_000
MOST_SLIDERS = 300
"""More pictures than this are listed, but not shown: a browser has to hold them all."""
QUALITY, FOR_KNOBS = 90, 95
"""Quality of the JPEGs; the second where the page blends them, which would show what compression did to noise."""
SQUARES = 8  # of the chequerboard under transparency, in pixels


@dataclass(frozen=True)
class Crop:
    """A part of both pictures, pixel by pixel: where it is, and its two sides as data URIs."""

    left: int
    top: int
    width: int
    height: int
    before: str
    after: str
    detail: str | None = None


@dataclass(frozen=True)
class Comparison:
    """Two pictures of one size for the macro `slider`: full size in pixels, both sides as data URIs.

    Large pictures are shown smaller, with a crop where they differ most; without a crop they are whole.
    """

    width: int
    height: int
    before: str
    after: str
    crop: Crop | None = None
    detail: str | None = None
    """With which the page blends: fine luminance that can be given back, 128 for none, in steps of 1/510."""


def share_of_page(pictures: int) -> int:
    """How many pixels each of so many pictures may show."""
    return max(LEAST_PIXELS, PAGE_PIXELS // max(1, min(pictures, MOST_SLIDERS)))


def compare(before: "Picture", after: "Picture", pixels: int = PAGE_PIXELS) -> Comparison | None:
    """Two pictures side over side in at most about `pixels` pixels each; None where their sizes differ."""
    return compare_samples(visible(before), visible(after), pixels, before.icc, after.icc)


def compare_samples(
    before: np.ndarray,
    after: np.ndarray,
    pixels: int = PAGE_PIXELS,
    before_icc: bytes | None = None,
    after_icc: bytes | None = None,
    detail: np.ndarray | None = None,
) -> Comparison | None:
    """`compare` for uint8 (h, w, 1 or 3). Half of the pixels go to a smaller picture, half to a crop at full size,
    unless all of it fits. detail: float32 (h, w), a layer that the page can blend with (engine/control.py)."""
    if before.shape[:2] != after.shape[:2]:
        return None
    height, width = before.shape[:2]
    layer = None if detail is None else np.rint(np.clip(detail * 510 + 128, 0, 255)).astype(np.uint8)[..., None]

    def layer_of(part: tuple[slice, ...], size: tuple[int, int] | None = None) -> str | None:
        return None if layer is None else _jpeg(layer[part], None, size)

    quality, everything = QUALITY if detail is None else FOR_KNOBS, np.s_[:, :]
    if height * width <= pixels:
        sides = _jpeg(before, before_icc, None, quality), _jpeg(after, after_icc, None, quality)
        return Comparison(width, height, *sides, detail=layer_of(everything))
    scale = (0.5 * pixels / (height * width)) ** 0.5
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    left, top, w, h = most_changed(before, after, pixels // 2)
    part = np.s_[top : top + h, left : left + w]
    sides = _jpeg(before[part], before_icc, None, quality), _jpeg(after[part], after_icc, None, quality)
    crop = Crop(left, top, w, h, *sides, layer_of(part))
    sides = _jpeg(before, before_icc, size, quality), _jpeg(after, after_icc, size, quality)
    return Comparison(width, height, *sides, crop, layer_of(everything, size))


def visible(picture: "Picture") -> np.ndarray:
    """A picture as a screen shows it: uint8 (h, w, 1 or 3), transparency over a chequerboard."""
    from restormer_cli.images.io import quantise

    if picture.alpha is None:
        return quantise(picture.pixels, 8)
    alpha = picture.alpha.astype(np.float32) / peak(picture.bits)
    height, width = alpha.shape[:2]
    rows, columns = np.arange(height) // SQUARES, np.arange(width) // SQUARES
    board = np.where((rows[:, None] + columns) % 2, 0.6, 0.8).astype(np.float32)[..., None]
    colour = picture.pixels if picture.premultiplied else picture.pixels * alpha
    return quantise(colour + board * (1 - alpha), 8)


def most_changed(before: np.ndarray, after: np.ndarray, pixels: int) -> tuple[int, int, int, int]:
    """Left, top, width and height of about `pixels` pixels, as square as may be, where two pictures differ most."""
    height, width = before.shape[:2]
    block = 16
    h, w = min(height, round(pixels**0.5)), min(width, round(pixels**0.5))
    h, w = min(height, max(h, pixels // w)), min(width, max(w, pixels // h))
    rows, columns = height // block, width // block
    if not rows or not columns:
        return 0, 0, w, h
    change = np.zeros((rows, columns), np.float64)
    for row in range(rows):  # row by row: a difference of the whole picture would need its memory again
        band = np.s_[row * block : (row + 1) * block, : columns * block, 1 % before.shape[2]]
        after_band = np.s_[row * block : (row + 1) * block, : columns * block, 1 % after.shape[2]]
        difference = np.abs(before[band].astype(np.int16) - after[after_band])
        change[row] = difference.reshape(block, columns, block).mean(axis=(0, 2))
    # Sums over all windows at once, from the sums over all corners.
    sums = np.pad(change.cumsum(0).cumsum(1), ((1, 0), (1, 0)))
    high, wide = max(1, min(rows, h // block)), max(1, min(columns, w // block))
    windows = sums[high:, wide:] - sums[:-high, wide:] - sums[high:, :-wide] + sums[:-high, :-wide]
    top, left = (int(index) * block for index in np.unravel_index(windows.argmax(), windows.shape))
    return min(left, width - w), min(top, height - h), w, h


def _jpeg(samples: np.ndarray, icc: bytes | None, size: tuple[int, int] | None = None, quality: int = QUALITY) -> str:
    """uint8 (h, w, 1 or 3) as a data URI, made smaller where `size` (width, height) says so.

    JPEG at full chroma: what a denoiser changes is chroma noise too, which WebP would blur away.
    """
    gray = samples.shape[2] == 1
    if size is not None:
        from PIL import Image

        picture = Image.fromarray(np.ascontiguousarray(samples[..., 0] if gray else samples))
        samples = np.asarray(picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0))
        samples = samples[..., None] if gray else samples
    profile = icc if icc and icc_space(icc) == ("GRAY" if gray else "RGB") else None
    made = encode_8_bits(samples, "JPEG", quality=quality, subsampling=0, icc_profile=profile)
    return data_uri(made, "image/jpeg")
