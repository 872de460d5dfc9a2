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
    weight = weight.detach().to(torch.float32)
    whole = weight.shape[-2] // _panel() * _panel()
    parts = []
    for part, size in ((weight[..., :whole, :], _panel()), (weight[..., whole:, :], _lanes())):
        filled = F.pad(part, (0, 0, 0, -part.shape[-2] % size))
        if filled.numel():
            parts.append(filled.unflatten(-2, (-1, size)).mT.flatten(-3))
    return torch.cat(parts, -1).contiguous()


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


def _panel() -> int:
    kernels = library()
    assert kernels is not None
    return kernels.panel()
