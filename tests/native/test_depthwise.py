"""The depth-wise convolution in C and its gradients against PyTorch's."""

import pytest
import torch
import torch.nn.functional as F

from restormer_cli.native.build import library
from restormer_cli.native.depthwise import depthwise

pytestmark = pytest.mark.skipif(library() is None, reason="no compiler here")


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("shape", [(1, 1, 1, 8), (2, 5, 7, 5), (1, 40, 33, 42), (3, 32, 16, 64)])
def test_result_and_gradients_are_pytorchs(shape, threads):
    torch.manual_seed(1)
    x = torch.randn(shape, requires_grad=True)
    weight = torch.randn(shape[3], 1, 3, 3, requires_grad=True)
    bias = torch.randn(shape[3], requires_grad=True)
    above = torch.randn(shape)
    exact = [tensor.detach().double().requires_grad_() for tensor in (x, weight, bias)]
    planes = F.conv2d(exact[0].permute(0, 3, 1, 2), exact[1], exact[2], padding=1, groups=shape[3])
    planes.permute(0, 2, 3, 1).backward(above.double())
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        result = depthwise(x, weight, bias)
        result.backward(above)
    finally:
        torch.set_num_threads(before)
    torch.testing.assert_close(result.double(), planes.permute(0, 2, 3, 1), atol=1e-5, rtol=1e-5)
    for ours, truth in zip((x, weight, bias), exact, strict=True):
        assert ours.grad is not None
        assert truth.grad is not None
        torch.testing.assert_close(ours.grad.double(), truth.grad, atol=2e-5, rtol=1e-4)


def test_a_view_and_a_gradient_with_strides_are_taken():
    x = torch.randn(1, 6, 8, 9).permute(0, 3, 1, 2).requires_grad_()  # (1, 9, 6, 8), not contiguous
    weight = torch.randn(8, 1, 3, 3)
    depthwise(x, weight).sum().backward()  # the gradient of a sum has strides of 0
    assert x.grad is not None
    expected = F.conv2d(torch.ones(1, 8, 9, 6), weight.flip(2, 3), padding=1, groups=8)
    torch.testing.assert_close(x.grad, expected.permute(0, 2, 3, 1))
