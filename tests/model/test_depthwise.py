"""The depth-wise convolution with its gradients; the kernels run in Triton's interpreter, where that can."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from restormer_cli.model import depthwise as module
from restormer_cli.model.depthwise import depthwise

SHAPES = [(2, 5, 7, 6), (1, 1, 1, 3), (2, 9, 11, 13), (1, 1, 6, 4), (1, 6, 1, 4)]


def compare(shape: tuple[int, ...]) -> float:
    """The largest difference of result and both gradients from PyTorch's."""
    torch.manual_seed(0)
    channels = shape[3]
    x, weight = torch.randn(shape), torch.randn(channels, 1, 3, 3)
    ours = x.clone().requires_grad_(), weight.clone().requires_grad_()
    theirs = x.clone().requires_grad_(), weight.clone().requires_grad_()
    result = depthwise(*ours)
    planes = F.conv2d(theirs[0].permute(0, 3, 1, 2), theirs[1], padding=1, groups=channels)
    grad = torch.randn_like(result)
    result.backward(grad)
    planes.permute(0, 2, 3, 1).backward(grad)
    pairs = [(result, planes.permute(0, 2, 3, 1)), *((a.grad, b.grad) for a, b in zip(ours, theirs, strict=True))]
    return max(float((one.detach() - other.detach()).abs().max()) for one, other in pairs)  # pyright: ignore


@pytest.mark.parametrize("shape", SHAPES)
def test_without_triton_it_is_pytorchs(shape: tuple[int, ...]) -> None:
    assert compare(shape) < 1e-5


def test_a_bias_is_added() -> None:
    x, weight, bias = torch.randn(1, 4, 5, 3), torch.randn(3, 1, 3, 3), torch.randn(3)
    expected = F.conv2d(x.permute(0, 3, 1, 2), weight, bias, padding=1, groups=3).permute(0, 2, 3, 1)
    assert torch.allclose(depthwise(x, weight, bias), expected, atol=1e-6)


def test_the_kernels_compute_the_same_in_the_interpreter() -> None:
    pytest.importorskip("triton")
    if tuple(map(int, np.__version__.split(".")[:2])) >= (2, 4):
        pytest.skip("Triton's interpreter needs a NumPy before 2.4")
    script = (
        "import os; os.environ['TRITON_INTERPRET'] = '1'\n"
        f"import runpy; test = runpy.run_path({__file__!r})\n"
        f"import sys; sys.path.append({str(Path(__file__).parents[1])!r}); import interpreter\n"
        "from restormer_cli.model import depthwise\n"
        "depthwise._on_triton, depthwise.RUN, depthwise.SHORT_RUN, depthwise.ROWS = lambda x: True, 64, 64, 4\n"
        "print(max(test['compare'](shape) for shape in test['SHAPES']))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-800:]
    assert float(done.stdout) < 1e-4
    assert module.RUN == 512
