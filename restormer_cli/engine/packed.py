"""A network's weights as inference wants them: reordered once, in the precision of the run, padded to whole registers.

Each layer here is one call on a strip of rows, (rows, columns, channels). On a CPU the products and convolutions go
through oneDNN with weights reordered beforehand, by operators that PyTorch keeps for its own compiler; where those
are missing or slower, through the public functions (test_hidden_operators_change_nothing).
"""

from collections.abc import Callable, Sequence
from functools import cache
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restormer_cli.engine.products import kept
from restormer_cli.model.restormer import GDFN, MDTA, Block, Gram, LayerNorm

Pointwise = Callable[..., Tensor]

NOTHING, GELU = ("none", [], ""), ("gelu", [], "none")
"""What oneDNN's operators do with their result: nothing, or GELU ("none": by the error function, not by tanh)."""

TRIAL = 1 << 17
"""Elements of the wider side of the product that is timed: an eighth of a strip's, for the sake of a quick start."""

REGISTER = 8 if torch.backends.cpu.get_cpu_capability() == "AVX2" else 16
"""Floats of a vector register, and what hidden widths are rounded up to."""


class PackedLinear:
    """x Wᵀ + b over the last axis, by the fastest product that this processor has for the shape.

    `widths`: `into` will spread the outputs over several tensors, so many channels each.
    """

    def __init__(
        self,
        weight: Tensor,
        bias: Tensor | None,
        dtype: torch.dtype,
        widths: Sequence[int] = (),
        *,
        packed: bool | None = None,
    ) -> None:
        self.widths = tuple(widths) or weight.shape[:1]
        on_cpu = weight.device.type == "cpu"
        self.packed = on_cpu and prefers_onednn(*weight.shape, dtype, tuple(widths)) if packed is None else packed
        weight = weight.detach().to(dtype)
        self.bias = bias = None if bias is None else bias.detach().to(dtype)
        if self.packed:
            self.weight = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous())
            return
        # (c, c'): BLAS multiplies by it faster than by its transpose.
        self.weights = [part.mT.contiguous() for part in weight.split(self.widths)]
        self.biases = [None] * len(self.weights) if bias is None else list(bias.split(self.widths))

    def __call__(self, x: Tensor, onto: Tensor | None = None) -> Tensor:
        """(rows, columns, c) -> (rows, columns, c'); `onto` is added before the one rounding to the result's type."""
        if self.packed and onto is not None:
            return torch.ops.mkldnn._linear_pointwise.binary(x, onto, self.weight, self.bias, "add")
        if self.packed:
            return torch.ops.mkldnn._linear_pointwise(x, self.weight, self.bias, *NOTHING)
        pixels, (weight,) = x.flatten(0, 1), self.weights
        if onto is None:
            return _multiply(pixels, weight, self.bias).unflatten(0, x.shape[:2])
        summed = torch.addmm(onto.flatten(0, 1), pixels, weight).view(onto.shape)
        return summed if self.bias is None else summed.add_(self.bias)

    def parts(self, x: Tensor) -> list[Tensor]:
        """(rows, columns, c) -> one (rows, columns, width) for each of the widths."""
        if self.packed:
            return list(self(x).split(self.widths, dim=-1))
        pixels = x.flatten(0, 1)
        products = (_multiply(pixels, *layer) for layer in zip(self.weights, self.biases, strict=True))
        return [product.unflatten(0, x.shape[:2]) for product in products]

    def into(self, x: Tensor, targets: Sequence[Tensor]) -> None:
        """As `parts`, written into dense tensors."""
        if self.packed:
            for target, part in zip(targets, self.parts(x), strict=True):
                target.copy_(part)
            return
        pixels = x.flatten(0, 1)
        for target, weight, bias in zip(targets, self.weights, self.biases, strict=True):
            _multiply(pixels, weight, bias, out=target.flatten(0, 1))


def _multiply(pixels: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor | None = None) -> Tensor:
    """(pixels, c) by (c, c')."""
    return torch.mm(pixels, weight, out=out) if bias is None else torch.addmm(bias, pixels, weight, out=out)


class PackedConv:
    """A 3×3 convolution of complete rows and columns: (rows + 2, columns + 2, c) -> (rows, columns, c').

    `gelu`: and GELU of it, in oneDNN while the result is still in registers.
    """

    def __init__(
        self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype, *, depthwise: bool, gelu: bool = False
    ) -> None:
        self.gelu = gelu
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
            how = ([0, 0], [1, 1], [1, 1], self.groups, *(GELU if self.gelu else NOTHING))
            planes = torch.ops.mkldnn._convolution_pointwise(planes, self.weight, self.bias, *how)
        else:
            planes = F.conv2d(planes, self.weight, self.bias, groups=self.groups)
            if self.gelu:
                planes = F.gelu(planes)
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


class PackedBlock:
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
        self.qkv = PackedLinear(weight, bias, dtype, (3 * channels,))
        self.v = PackedLinear(weight[2 * channels :], rows(bias, 2 * channels), dtype, (channels,))
        self.qkv_dwconv = self.v_dwconv = None
        if attention.qkv_dwconv is not None:
            weight, bias = attention.qkv_dwconv.weight, attention.qkv_dwconv.bias
            self.qkv_dwconv = (PackedConv(weight, bias, dtype, depthwise=True),)
            self.v_dwconv = (PackedConv(weight[2 * channels :], rows(bias, 2 * channels), dtype, depthwise=True),)
        self.project_out_bias = attention.project_out.bias

        # Hidden widths like 255 fall between vector registers; channels of zeros change nothing.
        hidden = feed.project_out.in_channels
        spare = -hidden % REGISTER
        parts = 2 if feed.gated else 1
        widths = (hidden + spare,) * parts  # gate and value by themselves, so that they come out as two dense strips
        self.ffn_width = sum(widths)

        def padded(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or not spare:
                return tensor
            return torch.cat([F.pad(part, [0, 0] * (part.ndim - 1) + [0, spare]) for part in tensor.chunk(parts)])

        weight = padded(feed.project_in.weight.flatten(1))
        assert weight is not None
        self.ffn_in = PackedLinear(weight, padded(feed.project_in.bias), dtype, widths)
        self.ffn_dwconv = None
        if feed.dwconv is not None:
            weight, bias = padded(feed.dwconv.weight), padded(feed.dwconv.bias)
            assert weight is not None
            biases = (None,) * parts if bias is None else bias.chunk(parts)
            # On a GPU torch.compile fuses GELU with the product of gate and value instead.
            self.ffn_dwconv = tuple(
                PackedConv(part, more, dtype, depthwise=True, gelu=place == 0 and not compiled)
                for place, (part, more) in enumerate(zip(weight.chunk(parts), biases, strict=True))
            )
        self.ffn_out = PackedLinear(F.pad(feed.project_out.weight.flatten(1), (0, spare)), feed.project_out.bias, dtype)
        self.gate = multiply if self.ffn_dwconv and not compiled else _compiled(gate) if compiled else gate

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


def multiply(parts: list[Tensor]) -> Tensor:
    """The gate, GELU of which has been taken, times the value; overwrites the gate."""
    return parts[0] if len(parts) == 1 else parts[0].mul_(parts[1])


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
        torch.ops.mkldnn._linear_pointwise(x, packed, None, *NOTHING)
        torch.ops.mkldnn._linear_pointwise.binary(x, x, packed, None, "add")
        planes, kernel = torch.ones(1, 8, 3, 3, dtype=dtype), torch.ones(8, 1, 3, 3, dtype=dtype)
        once = [1, 1]
        packed = torch.ops.mkldnn._reorder_convolution_weight(kernel, [0, 0], once, once, 8, [1, 8, 3, 3])
        torch.ops.mkldnn._convolution_pointwise(planes, packed, None, [0, 0], once, once, 8, *GELU)
    except (AttributeError, RuntimeError):
        return False
    return True


@kept(possible=lambda outputs, inputs, dtype, widths=(): has_onednn(dtype))
def prefers_onednn(outputs: int, inputs: int, dtype: torch.dtype, widths: tuple[int, ...] = ()) -> bool:
    """Whether oneDNN's reordered product beats BLAS for this shape and use, by a short measurement."""
    if not has_onednn(dtype):
        return False
    rows = max(256, TRIAL // max(outputs, inputs))
    x, weight = torch.randn(1, rows, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    targets = [x.new_empty(1, rows, width) for width in widths]

    def trial(packed: bool) -> Callable[[], object]:
        product = PackedLinear(weight, None, dtype, widths, packed=packed)
        return (lambda: product.into(x, targets)) if widths else (lambda: product(x))

    ways = trial(True), trial(False)
    seconds: tuple[list[float], list[float]] = [], []
    for _ in range(6):  # in turn, and the best of each: another process may take the processor at any moment
        for way, taken in zip(ways, seconds, strict=True):
            taken.append(_seconds(way))
    ours, plain = map(min, seconds)
    return ours < plain


def _seconds(work: Callable[[], object]) -> float:
    begun = perf_counter()
    work()
    return perf_counter() - begun


def convolution(layer: nn.Module, dtype: torch.dtype) -> PackedConv:
    """The prepared form of a dense 3×3 layer."""
    assert isinstance(layer, nn.Conv2d)
    return PackedConv(layer.weight, layer.bias, dtype, depthwise=False)
