"""Weights in the order in which the kernels read them: panels of so many outputs, in float32 or in bf16."""

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


def panels(weight: Tensor, bf16: bool = False) -> Tensor:
    """(…, outputs, inputs) -> (…, outputs up to whole vectors · inputs), in the order of `products`.

    In bf16 inputs lie in pairs, the last one beside a zero where they are odd.
    """
    kernels = library(bf16=bf16)
    assert kernels is not None
    many, (outputs, inputs) = weight.shape[:-2], weight.shape[-2:]
    each = weight.detach().to(torch.float32).reshape(-1, outputs, inputs)
    size = (outputs + -outputs % kernels.lanes()) * (inputs + inputs % 2 if bf16 else inputs)
    laid = torch.empty(*many, size, dtype=torch.bfloat16 if bf16 else torch.float32)
    step, output_step, input_step = each.stride()
    kernels.lay_panels(pointer(each), len(each), step, outputs, output_step, inputs, input_step, pointer(laid))
    return laid


def convolution_panels(weight: Tensor, bf16: bool = False) -> Tensor:
    """A 3×3 convolution's (…, outputs, inputs, 3, 3) -> `panels`, its taps in the order of the pixels' memory."""
    return panels(_of_rows(weight, bf16).flatten(-2), bf16)


def few_rows(weight: Tensor, bf16: bool = False) -> Tensor:
    """The same of few outputs: (outputs, inputs, 3, 3) -> (outputs, 3, whole vectors), zeros behind the inputs."""
    rows = _of_rows(weight, bf16)
    rows = F.pad(rows, (0, -rows.shape[-1] % (_lanes() * (2 if bf16 else 1))))
    return rows.to(torch.bfloat16 if bf16 else torch.float32).contiguous()


def _of_rows(weight: Tensor, bf16: bool) -> Tensor:
    """(…, outputs, inputs, 3, 3) -> (…, outputs, 3, 3 · inputs): of each row of the kernel three pixels' inputs."""
    taps = weight.detach().movedim(-3, -1)
    if bf16:  # every pixel's inputs lie in pairs
        taps = F.pad(taps, (0, taps.shape[-1] % 2))
    return taps.flatten(-2)


def pointer(tensor: Tensor | None) -> int | None:
    """What C takes; the tensor must be kept as long."""
    return None if tensor is None else tensor.data_ptr()


def _lanes() -> int:
    kernels = library()
    assert kernels is not None
    return kernels.lanes()
