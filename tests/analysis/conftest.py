"""scikit-image's photographs as float32 in [0, 1], and what is done to them."""

from collections.abc import Callable

import numpy as np
import pytest
import skimage.data
from scipy.ndimage import convolve, gaussian_filter

from restormer_cli.degradations.spec import parse_degradation

Image = np.ndarray


def _photograph(name: str, *, soft: bool = False) -> Image:
    """(h, w, 1 or 3); astronaut and coffee at half size, which have grain; `soft`: blurred by σ 1.5."""
    samples = getattr(skimage.data, name)().astype(np.float32) / 255
    pixels = samples if samples.ndim == 3 else samples[..., None]
    if name in ("astronaut", "coffee"):
        height, width = pixels.shape[0] // 2, pixels.shape[1] // 2
        pixels = pixels.reshape(height, 2, width, 2, 3).mean(axis=(1, 3))
    return gaussian_filter(pixels, (1.5, 1.5, 0)) if soft else pixels


def _rounded(pixels: Image) -> Image:
    """Clipped and rounded to 8 bits, as a file does."""
    return (np.rint(np.clip(pixels, 0, 1) * 255) / 255).astype(np.float32)


def _white_noise(shape: tuple[int, ...], sigma: float, seed: int = 0) -> Image:
    return np.random.default_rng(seed).normal(0, sigma / 255, shape)


def _demosaiced(pixels: Image) -> Image:
    """(h, w, 3) through an RGGB mosaic and back, bilinearly."""
    mosaic = pixels[..., 1].copy()
    mosaic[::2, ::2] = pixels[::2, ::2, 0]
    mosaic[1::2, 1::2] = pixels[1::2, 1::2, 2]
    red, blue = np.zeros_like(mosaic), np.zeros_like(mosaic)
    red[::2, ::2], blue[1::2, 1::2] = mosaic[::2, ::2], mosaic[1::2, 1::2]
    tent = np.array([[1, 2, 1], [2, 4, 2], [1, 2, 1]]) / 4
    cross = np.array([[0, 1, 0], [1, 4, 1], [0, 1, 0]]) / 4
    planes = [convolve(red, tent), convolve(mosaic - red - blue, cross), convolve(blue, tent)]
    return np.stack(planes, axis=2).astype(np.float32)


def _degraded(name: str, spec: str, seed: int = 0) -> Image:
    return _rounded(parse_degradation(spec)(_photograph(name), np.random.default_rng(seed)))


@pytest.fixture(scope="session")
def photograph() -> Callable[..., Image]:
    """`photograph(name, soft=False)` -> (h, w, 1 or 3)."""
    return _photograph


@pytest.fixture(scope="session")
def degraded() -> Callable[..., Image]:
    """`degraded(name, spec, seed=0)`: a photograph degraded by a spec, in 8 bits."""
    return _degraded


@pytest.fixture(scope="session")
def rounded() -> Callable[[Image], Image]:
    return _rounded


@pytest.fixture(scope="session")
def white_noise() -> Callable[..., Image]:
    """`white_noise(shape, sigma, seed=0)`, sigma of 255."""
    return _white_noise


@pytest.fixture(scope="session")
def demosaiced() -> Callable[[Image], Image]:
    return _demosaiced
