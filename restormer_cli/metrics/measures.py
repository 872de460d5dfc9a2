"""Measures of quality; the range is always explicit, never guessed from the data.

Pictures are (h, w, c) of one shape; `peak` is the largest value that could occur: 1 for floats, 255 for 8 bits.
Every function of two pictures raises ValueError where their shapes differ.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter1d

Blur = Callable[[np.ndarray], np.ndarray]


def psnr(image: np.ndarray, reference: np.ndarray, *, peak: float, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB, of the pixels of `mask` (h, w) where given; infinity where nothing differs."""
    first, second = _checked(image, reference)
    squares = np.square(first - second)
    error = float(squares.mean() if mask is None else squares[mask].mean())
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)


def mae(image: np.ndarray, reference: np.ndarray) -> float:
    """Mean absolute error, in the units of the pictures."""
    first, second = _checked(image, reference)
    return float(np.abs(first - second).mean())


def ssim_gaussian(image: np.ndarray, reference: np.ndarray, *, peak: float) -> float:
    """Structural similarity (Wang et al., 2004): 11×11 Gaussian window, σ 1.5, windows inside the picture only;
    the mean over channels. Where the picture is smaller than the window, it is mirrored."""
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return _ssim_inside(image, reference, peak, 11, **options)


def ssim_uniform(image: np.ndarray, reference: np.ndarray, *, peak: float) -> float:
    """Structural similarity with 7×7 uniform windows inside the picture and unbiased variances, as scikit-image has
    it by default; the mean over channels. Small pictures: as above."""
    return _ssim_inside(image, reference, peak, 7)


def _ssim_inside(image: np.ndarray, reference: np.ndarray, peak: float, window: int, **options: Any) -> float:
    from skimage.metrics import structural_similarity

    sides = [side - 2 * min(window // 2, (side - 1) // 2) for side in image.shape[:2]]  # of the map of similarities
    missing = [(window - 1 + kept - side) // 2 for kept, side in zip(sides, image.shape[:2], strict=True)]
    pad = ((missing[0],) * 2, (missing[1],) * 2, (0, 0))
    first, second = (np.pad(picture, pad, mode="reflect") for picture in _checked(image, reference))
    mean: Any = structural_similarity(first, second, win_size=window, data_range=peak, channel_axis=2, **options)
    return float(mean)


def ssim_volume(image: np.ndarray, reference: np.ndarray, *, peak: float) -> float:
    """Structural similarity of h × w × c taken as a volume: Gaussian window, σ 1.5, radius 5, along all three axes,
    border replicated, the mean over all of it; what MATLAB's `ssim` does with a colour picture."""
    first, second = _checked(image, reference)

    def blur(x: np.ndarray) -> np.ndarray:
        for axis in range(3):
            x = gaussian_filter1d(x, 1.5, axis, mode="nearest", radius=5)
        return x

    return float(_ssim(first, second, peak, blur).mean())


def luma8(image: np.ndarray) -> np.ndarray:
    """Y of MATLAB's rgb2ycbcr, rounded to 8 bits: uint8 (h, w, 3) -> uint8 (h, w, 1), values 16 to 235."""
    if image.dtype != np.uint8 or image.shape[2] != 3:
        raise ValueError(f"{image.dtype} picture of shape {image.shape}: luma8 takes uint8 (h, w, 3)")
    luma = 16 + image.astype(np.float64) @ (np.array([65.481, 128.553, 24.966]) / 255)
    return np.floor(luma + 0.5).astype(np.uint8)[..., None]


def _ssim(x: np.ndarray, y: np.ndarray, peak: float, blur: Blur) -> np.ndarray:
    """The map of local similarities, K1 = 0.01, K2 = 0.03."""
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = (blur(t * t) - mean * mean for t, mean in ((x, mean_x), (y, mean_y)))
    both = blur(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return luminance * (2 * both + c2) / (var_x + var_y + c2)


def _checked(image: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    if image.shape != reference.shape:
        raise ValueError(f"shapes differ: {image.shape} and {reference.shape}")
    return image.astype(np.float64), reference.astype(np.float64)
