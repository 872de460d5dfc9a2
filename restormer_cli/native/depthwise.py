"""The depth-wise 3×3 convolution on a CPU, channels-last, with its gradients: several times faster than PyTorch's."""

import ctypes
import threading
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from restormer_cli.native.build import library
from restormer_cli.native.workers import WorkerPool

LEAST = 16
"""Rows of a job at least: the rows around them are read twice."""

_pool = WorkerPool()
_rooms = threading.local()


class DepthwiseStruct(ctypes.Structure):
    """`Depthwise` of kernels.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("height", "width", "channels", "first", "end")),
        *((name, ctypes.c_void_p) for name in ("x", "taps", "grad", "out", "sums", "scratch")),
    )


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A depth-wise 3×3 convolution with zeros around: float32 (b, h, w, c), weight (c, 1, 3, 3) -> (b, h, w, c).

    Differentiable once. Needs `library()`.
    """
    result = _Depthwise.apply(x.contiguous(), weight)
    assert isinstance(result, Tensor)
    return result if bias is None else result + bias


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _convolved(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        grad = grad.contiguous()
        # The gradient of x is the same convolution, of the gradient, with the weight turned by half a turn.
        of_x = _convolved(grad, weight.flip(2, 3)) if ctx.needs_input_grad[0] else None
        return of_x, _of_weight(grad, x).view_as(weight) if ctx.needs_input_grad[1] else None


def _convolved(x: Tensor, weight: Tensor) -> Tensor:
    kernels = library()
    assert kernels is not None
    channels = x.shape[3]
    taps = F.pad(weight.detach().view(channels, 9).t(), (0, -channels % kernels.lanes())).contiguous()
    out = torch.empty_like(x)

    def job(place: tuple[int, int, int]) -> None:
        picture, first, end = place
        _run(x[picture], first, end, taps=taps.data_ptr(), out=out[picture].data_ptr())

    _pool.map(job, _jobs(x))
    return out


def _of_weight(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of the taps, (c, 9): Σ over pixels of grad times x, shifted by each tap."""
    kernels = library()
    assert kernels is not None
    channels = x.shape[3]
    padded = channels + -channels % kernels.lanes()

    def job(place: tuple[int, int, int]) -> Tensor:
        picture, first, end = place
        sums = torch.zeros(9, padded)
        _run(x[picture], first, end, grad=grad[picture].data_ptr(), sums=sums.data_ptr())
        return sums

    return torch.stack(_pool.map(job, _jobs(x))).sum(0)[:, :channels].t().contiguous()


def _jobs(x: Tensor) -> list[tuple[int, int, int]]:
    """(picture, first row, end): as many as threads, unless they would be short."""
    count, height = x.shape[:2]
    parts = max(1, min(-(-_pool.size // count), height // LEAST))
    borders = [round(index * height / parts) for index in range(parts + 1)]
    return [(picture, a, b) for picture in range(count) for a, b in pairwise(borders)]


def _run(x: Tensor, first: int, end: int, **pointers: int) -> None:
    kernels = library()
    assert kernels is not None
    height, width, channels = x.shape
    struct = DepthwiseStruct(
        height=height, width=width, channels=channels, first=first, end=end, x=x.data_ptr(), **pointers
    )
    floats = kernels.depthwise_scratch_floats(ctypes.byref(struct))
    room = getattr(_rooms, "room", None)
    if room is None or room.numel() < floats:
        room = _rooms.room = torch.empty(floats)
    struct.scratch = room.data_ptr()
    kernels.depthwise_rows(ctypes.byref(struct))
