"""How each task is scored in print: which rounding, channels, windows and range. A PSNR without them means little.

A protocol takes a result and its clean picture, both float (h, w, c) with 0 black and 1 white, the result not
clamped. Its rules are printed beside its figures.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from restormer_cli.errors import UserError
from restormer_cli.metrics.align import align
from restormer_cli.metrics.measures import luma8, mae, psnr, ssim_gaussian, ssim_uniform, ssim_volume
from restormer_cli.pixels import round8


@dataclass(frozen=True)
class Scores:
    """Scores of a protocol: PSNR in dB, SSIM up to 1, mean absolute error with white = 1; None: not measured."""

    psnr: float
    ssim: float | None = None
    mae: float | None = None


@dataclass(frozen=True)
class Protocol:
    """A way of scoring, by name."""

    name: str
    rules: str
    score: Callable[[np.ndarray, np.ndarray], Scores]


def _eight_bit(result: np.ndarray, clean: np.ndarray) -> Scores:
    ours, theirs = round8(result), round8(clean)
    return Scores(psnr(ours, theirs, peak=255), ssim_gaussian(ours, theirs, peak=255), mae(ours, theirs) / 255)


def _rain(result: np.ndarray, clean: np.ndarray) -> Scores:
    if result.shape[2] != 3:
        raise UserError("--protocol rain-y: scores the luma of colour pictures, and these are gray: use plain")
    ours, theirs = luma8(round8(result)), luma8(round8(clean))
    return Scores(psnr(ours, theirs, peak=255), ssim_gaussian(ours, theirs, peak=255), mae(ours, theirs) / 255)


def _gopro(result: np.ndarray, clean: np.ndarray) -> Scores:
    ours, theirs = round8(result), round8(clean)
    return Scores(psnr(ours, theirs, peak=255), ssim_volume(ours, theirs, peak=255), mae(ours, theirs) / 255)


def _realblur(result: np.ndarray, clean: np.ndarray) -> Scores:
    ours, theirs = (round8(picture).astype(np.float64) / 255 for picture in (result, clean))
    aligned = align(ours, theirs)
    return Scores(psnr(aligned.pixels, theirs, peak=1, mask=aligned.mask))


def _dpdd(result: np.ndarray, clean: np.ndarray) -> Scores:
    result = np.clip(result, 0, 1)
    return Scores(psnr(result, clean, peak=1), ssim_uniform(result, clean, peak=1), mae(result, clean))


def _sidd(result: np.ndarray, clean: np.ndarray) -> Scores:
    result = np.clip(result, 0, 1)
    return Scores(psnr(result, clean, peak=1), ssim_volume(result, clean, peak=1), mae(result, clean))


_ROWS = (
    Protocol(
        "plain",
        "results clamped and rounded to 8 bits; PSNR over all channels, peak 255; SSIM with 11×11 Gaussian windows "
        "(σ 1.5) inside the picture, mean over channels",
        _eight_bit,
    ),
    Protocol(
        "gaussian",
        "noise of np.random.seed(0) for every picture, added to [0, 1] and not clipped; results clamped and rounded to "
        "8 bits; PSNR over all channels, peak 255 (the paper gives no SSIM; ours: 11×11 Gaussian windows, mean over "
        "channels)",
        _eight_bit,
    ),
    Protocol(
        "rain-y",
        "results rounded to 8 bits; Y of MATLAB's rgb2ycbcr rounded to 8 bits; PSNR and SSIM (11×11 Gaussian windows, "
        "σ 1.5, inside the picture) on Y, peak 255",
        _rain,
    ),
    Protocol(
        "gopro",
        "results rounded to 8 bits; PSNR in RGB, peak 255; SSIM as MATLAB's of h×w×3 taken as a volume (Gaussian σ 1.5 "
        "along all three axes, border replicated)",
        _gopro,
    ),
    Protocol(
        "realblur",
        "results rounded to 8 bits, then aligned with the clean picture by an ECC homography; PSNR in RGB over the "
        "pixels that stay inside; no SSIM",
        _realblur,
    ),
    Protocol(
        "dpdd",
        "floats in [0, 1], not rounded; PSNR, peak 1; SSIM with 7×7 uniform windows, unbiased variances, mean over "
        "channels; mean absolute error",
        _dpdd,
    ),
    Protocol(
        "sidd",
        "float blocks in [0, 1], not rounded; PSNR, peak 1, mean over blocks; SSIM as MATLAB's of the block taken as a "
        "volume",
        _sidd,
    ),
)
PROTOCOLS = {protocol.name: protocol for protocol in _ROWS}

BY_TASK = {
    "derain": "rain-y",
    "motion-deblur": "gopro",
    "defocus": "dpdd",
    "defocus-dual-pixel": "dpdd",
    "denoise-real": "sidd",
}
"""Which protocol a task's weights are scored by unless told otherwise."""


def find_protocol(name: str) -> Protocol:
    """A protocol by name. Raises UserError listing them."""
    if name not in PROTOCOLS:
        raise UserError(f"--protocol {name}: unknown; choose from {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
