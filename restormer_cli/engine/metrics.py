"""Measures of quality; the range is always explicit, never guessed from the data."""

import math

import numpy as np


def psnr(image: np.ndarray, reference: np.ndarray, *, peak: float) -> float:
    """Peak signal-to-noise ratio in dB of two arrays of one shape, whose largest possible value is `peak`.

    Identical arrays give infinity. Raises ValueError for different shapes.
    """
    if image.shape != reference.shape:
        raise ValueError(f"shapes differ: {image.shape} and {reference.shape}")
    error = float(np.mean(np.square(image.astype(np.float64) - reference.astype(np.float64))))
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)
