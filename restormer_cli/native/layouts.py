"""Weights in the order in which the kernels read them: float32, in panels of so many outputs."""

import torch
import torch.nn.functional as F
from torch import Tensor

from restormer_cli.native.build import library


def padded(rows: Tensor) -> Tensor:
    """(…, channels) -> channels of zeros added, up to whole vectors."""
    return F.pad(rows.detach().to(torch.float32), (0, -rows.shape[-1] % _lanes())).contiguous()


def padded_halves(rows: Tensor) -> Tensor:
    """(…, gate and value) -> each of the two padded by itself."""
    return torch.cat([padded(half) for half in rows.chunk(2, -1)], -1).contiguous()


def panels(weight: Tensor) -> Tensor:
    """(…, outputs, inputs) -> (…, outputs up to whole vectors · inputs), in the order of `products`."""
    kernels = library()
    assert kernels is not None
    many, (outputs, inputs) = weight.shape[:-2], weight.shape[-2:]
    each = weight.detach().to(torch.float32).reshape(-1, outputs, inputs)
    laid = torch.empty(*many, (outputs + -outputs % kernels.lanes()) * inputs)
    step, output_step, input_step = each.stride()
    kernels.lay_panels(pointer(each), len(each), step, outputs, output_step, inputs, input_step, pointer(laid))
    return laid


def convolution_panels(weight: Tensor) -> Tensor:
    """A 3×3 convolution's (…, outputs, inputs, 3, 3) -> `panels`, its taps in the order of the pixels' memory."""
    return panels(weight.movedim(-3, -1).flatten(-3))


def pointer(tensor: Tensor | None) -> int | None:
    """What C takes; the tensor must be kept as long."""
    return None if tensor is None else tensor.data_ptr()


def _lanes() -> int:
    kernels = library()
    assert kernels is not None
    return kernels.lanes()
