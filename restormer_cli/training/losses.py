"""Losses of training: (output, target), each (b, c, h, w) in [0, 1] or so, -> a mean over the pictures."""

import torch
import torch.nn.functional as F
from torch import Tensor

SPECTRUM_SHARE = 0.1
"""Weight of the spectrum beside the pixels, in the range that multi-scale deblurring networks use."""
PSNR_FLOOR = 1e-5
"""Added to a picture's mean squared error: beyond 50 dB nothing is left to gain, so clean inputs do not take over."""


def l1(output: Tensor, target: Tensor) -> Tensor:
    """The mean of |e|: the paper's (section 4)."""
    return F.l1_loss(output, target)


def charbonnier(output: Tensor, target: Tensor) -> Tensor:
    """The mean of sqrt(e² + ε²) with ε = 1e-3: |e| with a smooth floor (Charbonnier et al., ICIP 1994)."""
    return ((output - target).square() + 1e-6).sqrt().mean()


def fft(output: Tensor, target: Tensor) -> Tensor:
    """|e| plus a tenth of |spectrum of e|, real and imaginary parts apart, of an orthonormal 2-D transform."""
    error = output - target
    spectrum = torch.view_as_real(torch.fft.rfft2(error, norm="ortho"))
    return error.abs().mean() + SPECTRUM_SHARE * spectrum.abs().mean()


def psnr(output: Tensor, target: Tensor) -> Tensor:
    """The mean over pictures of 10 log10(mean e² + 1e-5), in dB: what a table of PSNR judges.

    Against `l1`, edges weigh more within a picture, and lightly spoilt pictures as much as badly spoilt ones.
    """
    return 10 * ((output - target).square().mean(dim=(1, 2, 3)) + PSNR_FLOOR).log10().mean()


LOSSES = {"l1": l1, "charbonnier": charbonnier, "fft": fft, "psnr": psnr}
