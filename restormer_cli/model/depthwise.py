"""The depth-wise 3×3 convolution on a GPU, channels-last, with its gradients: three passes over memory and no more.

In (b, h, w, c) a row of the picture is one run of w·c numbers in which the neighbour to the right is c further on. So a
kernel needs no notion of channels but for the weight, which repeats every c numbers, and reads and writes whole runs.
cuDNN has no fast depth-wise convolution in this layout. Elsewhere, and without Triton, PyTorch's own is used.
"""

# Triton's decorators have no types that a checker understands.
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false, reportIndexIssue=false

from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

RUN = 512
"""Numbers of a row that one program works on."""
ROWS = 16
"""Rows of the picture that one program goes down, keeping the ones above in registers."""
SHORT_RUN = 256
"""The same where nine sums of each number are held in registers."""
GROUPS = 32
"""Sums that the gradient of a weight is split into, so that many programs have a share of it."""


@cache
def has_triton() -> bool:
    """Whether Triton can be imported; PyTorch's builds for CUDA bring it along."""
    try:
        import triton  # noqa: F401
    except ImportError:
        return False
    return True


def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """A depth-wise 3×3 convolution with zeros around: (b, h, w, c), weight (c, 1, 3, 3) -> (b, h, w, c).

    Differentiable once. The result has x's type (autocast's, where that is on); sums are float32.
    """
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    result = torch.ops.restormer.depthwise(x.contiguous(), weight)
    return result if bias is None else result + bias.to(result.dtype)


@torch.library.custom_op("restormer::depthwise", mutates_args=())
def _depthwise(x: Tensor, weight: Tensor) -> Tensor:
    return _convolved(x, weight.to(torch.float32).flatten(1))


@torch.library.custom_op("restormer::depthwise_backward", mutates_args=())
def _depthwise_backward(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    # The gradient of x is the same convolution, of the gradient, with the weight turned by half a turn.
    of_x = _convolved(grad, weight.to(torch.float32).flatten(1).flip(1))
    return of_x, _of_weight(grad, x).view(weight.shape).to(weight.dtype)


@_depthwise.register_fake
def _(x: Tensor, weight: Tensor) -> Tensor:
    return torch.empty_like(x)


@_depthwise_backward.register_fake
def _(grad: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight)


def _remember(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _gradients(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
    return torch.ops.restormer.depthwise_backward(grad.contiguous(), *ctx.saved_tensors)


_depthwise.register_autograd(_gradients, setup_context=_remember)


def _convolved(x: Tensor, taps: Tensor) -> Tensor:
    """(b, h, w, c), (c, 9) float32 -> (b, h, w, c)."""
    b, h, w, c = x.shape
    if not _on_triton(x):
        planes = F.conv2d(x.permute(0, 3, 1, 2), taps.view(c, 1, 3, 3).to(x.dtype), padding=1, groups=c)
        return planes.permute(0, 2, 3, 1).contiguous()
    from restormer_cli.model.depthwise_kernels import convolve_runs

    result = torch.empty_like(x)
    grid = (-(-w * c // RUN), -(-h // ROWS), b)
    convolve_runs[grid](x, taps.t().contiguous(), result, h, w * c, c, RUN=RUN, ROWS=ROWS, num_warps=4)
    return result


def _of_weight(grad: Tensor, x: Tensor) -> Tensor:
    """The gradient of the taps, (c, 9) float32: Σ over pixels of grad times x, shifted by each tap."""
    b, h, w, c = x.shape
    if not _on_triton(x):
        planes, sides = x.permute(0, 3, 1, 2), (c, 1, 3, 3)
        return torch.nn.grad.conv2d_weight(planes, sides, grad.permute(0, 3, 1, 2), padding=1, groups=c).float()
    from restormer_cli.model.depthwise_kernels import correlate_runs

    groups = min(GROUPS, b * h)
    sums = torch.empty((groups, 9, w * c), dtype=torch.float32, device=x.device)
    lines = -(-b * h // groups)
    grid = (-(-w * c // SHORT_RUN), groups)
    correlate_runs[grid](grad, x, sums, b * h, h, w * c, c, lines, RUN=SHORT_RUN, num_warps=2)
    return sums.view(groups, 9, w, c).sum((0, 2)).t().contiguous()


def _on_triton(x: Tensor) -> bool:
    return x.is_cuda and has_triton()
