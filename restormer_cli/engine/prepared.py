"""A network's weights as inference wants them: reordered once, in the precision of the run, padded to whole registers.

Each layer here is one call on a strip of rows, (rows, columns, channels). On a CPU the products and convolutions go
through oneDNN with weights reordered beforehand, by operators that PyTorch keeps for its own compiler; where those
are missing or slower, through the public functions (test_hidden_operators_change_nothing).
"""

from collections.abc import Callable
from functools import cache
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restormer_cli.model.restormer import GDFN, MDTA, Block, Gram, LayerNorm

Pointwise = Callable[..., Tensor]


class Product:
    """x Wᵀ + b over the last axis, by the fastest product that this processor has for the shape."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.outputs = weight.shape[0]
        self.weight = weight.detach().to(dtype)
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.packed = self.weight.device.type == "cpu" and prefers_onednn(*self.weight.shape, dtype)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(self.weight.contiguous())

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """(rows, columns, c) -> (rows, columns, c'); `onto` is added before the one rounding to the result's type."""
        if self.packed and onto is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, onto, self.weight, self.bias, "add")
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, "none", [], "")
        if onto is None:
            return F.linear(x, self.weight, self.bias)
        summed = torch.addmm(onto.flatten(0, 1), x.flatten(0, 1), self.weight.mT).view(onto.shape)
        return summed if self.bias is None else summed.add_(self.bias)


class Convolution:
    """A 3×3 convolution of complete rows and columns: (rows + 2, columns + 2, c) -> (rows, columns, c')."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, depthwise: bool) -> None:
        self.groups = weight.shape[0] if depthwise else 1
        self.inputs = weight.shape[1] * self.groups
        self.outputs = weight.shape[0]
        self.dtype = dtype
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.weight = weight.detach().to(dtype, memory_format=torch.channels_last)
        self.packed = self.weight.device.type == "cpu" and has_onednn(dtype)
        if self.packed:
            shape = [1, self.inputs, 18, 66]  # only a hint: the layout found for it serves every size
            reorder = torch.ops.mkldnn._reorder_convolution_weight
            self.weight = reorder(self.weight, [0, 0], [1, 1], [1, 1], self.groups, shape)

    def __call__(self, rows: Tensor) -> Tensor:
        # A new axis first, then the permutation: so torch sees channels-last, and copies nothing.
        planes = rows[None].permute(0, 3, 1, 2)
        if self.packed:
            convolve = torch.ops.mkldnn._convolution_pointwise
            planes = convolve(planes, self.weight, self.bias, [0, 0], [1, 1], [1, 1], self.groups, "none", [], "")
        else:
            planes = F.conv2d(planes, self.weight, self.bias, groups=self.groups)
        return planes[0].permute(1, 2, 0)


class Norm:
    """LayerNorm of each pixel; statistics in float32 or better whatever the strip's type."""

    def __init__(self, norm: LayerNorm, dtype: torch.dtype, compiled: bool = False) -> None:
        self.weight = norm.body.weight.detach().to(dtype)
        self.bias = None if norm.body.bias is None else norm.body.bias.detach().to(dtype)
        self.scale = _compiled(scale_by_deviation) if compiled else scale_by_deviation

    def __call__(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias)
        return self.scale(x, self.weight)


class PreparedBlock:
    """A block's weights; the steps are named as in `model.restormer`."""

    def __init__(self, block: Block, dtype: torch.dtype, compiled: bool = False) -> None:
        attention, feed = block.attn, block.ffn
        assert isinstance(attention, MDTA)
        assert isinstance(feed, GDFN)
        self.norm1, self.norm2 = Norm(block.norm1, dtype, compiled), Norm(block.norm2, dtype, compiled)
        self.attention = attention
        self.channels = channels = attention.qkv.in_channels
        self.wide = torch.promote_types(dtype, torch.float32)

        def rows(tensor: Tensor | None, first: int) -> Tensor | None:
            return None if tensor is None else tensor[first:]

        weight, bias = attention.qkv.weight.flatten(1), attention.qkv.bias
        self.qkv = Product(weight, bias, dtype)
        self.v = Product(weight[2 * channels :], rows(bias, 2 * channels), dtype)
        self.qkv_dwconv = self.v_dwconv = None
        if attention.qkv_dwconv is not None:
            weight, bias = attention.qkv_dwconv.weight, attention.qkv_dwconv.bias
            self.qkv_dwconv = (Convolution(weight, bias, dtype, depthwise=True),)
            self.v_dwconv = (Convolution(weight[2 * channels :], rows(bias, 2 * channels), dtype, depthwise=True),)
        self.project_out_bias = attention.project_out.bias

        # Hidden widths like 255 fall between vector registers; channels of zeros change nothing.
        hidden = feed.project_out.in_channels
        spare = -hidden % 16
        self.parts = 2 if feed.gated else 1
        self.ffn_width = self.parts * (hidden + spare)

        def padded(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or not spare:
                return tensor
            return torch.cat([F.pad(part, [0, 0] * (part.ndim - 1) + [0, spare]) for part in tensor.chunk(self.parts)])

        weight = padded(feed.project_in.weight.flatten(1))
        assert weight is not None
        self.ffn_in = Product(weight, padded(feed.project_in.bias), dtype)
        self.ffn_dwconv = None
        if feed.dwconv is not None:
            weight, bias = padded(feed.dwconv.weight), padded(feed.dwconv.bias)
            assert weight is not None
            biases = (None,) * self.parts if bias is None else bias.chunk(self.parts)
            # One convolution per part, so that gate and value come out as two dense strips.
            self.ffn_dwconv = tuple(
                Convolution(part, more, dtype, depthwise=True)
                for part, more in zip(weight.chunk(self.parts), biases, strict=True)
            )
        self.ffn_out = Product(F.pad(feed.project_out.weight.flatten(1), (0, spare)), feed.project_out.bias, dtype)
        self.gate = _compiled(gate) if compiled else gate

    def gram(self, qkv: Tensor) -> Gram:
        """A strip's q, k, v (rows, columns, 3c) -> the sums of its q and k, in float32 or better."""
        c, heads = self.channels, self.attention.heads
        qk = qkv[..., : 2 * c].flatten(0, 1).to(self.wide)  # (pixels, 2c)
        q, k = (part.unflatten(1, (heads, -1)).transpose(0, 1) for part in (qk[:, :c], qk[:, c:]))
        squares = qk.square().sum(0).unflatten(0, (2, heads, -1))
        return Gram(qk=torch.bmm(q.mT, k)[None], qq=squares[:1], kk=squares[1:])

    def matrix(self, gram: Gram) -> Tensor:
        """The sums of b regions -> their M, (b, c, c)."""
        return self.attention.matrix(gram)


def gate(parts: list[Tensor]) -> Tensor:
    """GELU of one part times the other, or plain GELU of a single one; overwrites its arguments where it can."""
    if len(parts) == 1:
        return F.gelu(parts[0])
    return F.gelu(parts[0]).mul_(parts[1])


def scale_by_deviation(x: Tensor, weight: Tensor) -> Tensor:
    """The bias-free norm, x / σ · weight: not centred, though σ is about the mean."""
    deviation = torch.native_layer_norm(x, weight.shape, None, None, 1e-5)[2]
    return (x * deviation).to(x.dtype) * weight


@cache
def _compiled(function: Pointwise) -> Pointwise:
    """The same, fused by torch.compile; once per function, for every shape."""
    return torch.compile(function, dynamic=True)


@cache
def has_onednn(dtype: torch.dtype) -> bool:
    """Whether this PyTorch has oneDNN's operators for reordered weights, for the type, on this processor."""
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    try:
        x, weight = torch.ones(8, 8, dtype=dtype), torch.ones(8, 8, dtype=dtype)
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
        torch.ops.mkldnn._linear_pointwise.binary(x, x, packed, None, "add")
        planes, kernel = torch.ones(1, 8, 3, 3, dtype=dtype), torch.ones(8, 1, 3, 3, dtype=dtype)
        once = [1, 1]
        packed = torch.ops.mkldnn._reorder_convolution_weight(kernel, [0, 0], once, once, 8, [1, 8, 3, 3])
        torch.ops.mkldnn._convolution_pointwise(planes, packed, None, [0, 0], once, once, 8, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    return True


@cache
def prefers_onednn(outputs: int, inputs: int, dtype: torch.dtype) -> bool:
    """Whether oneDNN's reordered product beats `F.linear` for this shape, by a short measurement."""
    if not has_onednn(dtype):
        return False
    x, weight = torch.randn(512, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    packed = torch.ops.mkldnn._reorder_linear_weight(weight)
    ours: list[float] = []
    plain: list[float] = []
    for _ in range(6):  # in turn, and the best of each: another process may take the processor at any moment
        ours.append(_seconds(lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")))
        plain.append(_seconds(lambda: F.linear(x, weight)))
    return min(ours) < min(plain)


def _seconds(work: Callable[[], Tensor]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def convolution(layer: nn.Module, dtype: torch.dtype) -> Convolution:
    """The prepared form of a dense 3×3 layer."""
    assert isinstance(layer, nn.Conv2d)
    return Convolution(layer.weight, layer.bias, dtype, depthwise=False)
