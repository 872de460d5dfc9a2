"""The same network laid out for graph runtimes (ONNX Runtime, OpenVINO, Inductor): planes, and only plain operators.

Runtimes that take a graph are fast at (b, c, h, w) convolutions whose channels come in blocks of 16, and slow at
cutting one result into two. So q, k, v, gate and value each get a convolution of their own, and the feed-forward's
odd hidden widths (127, 255 …) are filled up with zero channels: the same sums, in ONNX Runtime 1.4 times as fast as
the textbook's graph and in less than half the memory (docs/export.md). Attention is folded into one matrix per
picture, as in `model.restormer`.

Sums are products with ones: pnnx, which makes ncnn's networks of such graphs, loses the axes of ONNX's reductions
where they are inputs, as in today's opsets (findings/pnnx-onnx-sums-nothing.sh). It costs no time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restormer_cli.model.restormer import GDFN, MDTA, Block, LayerNorm, Level, Restormer

BLOCK = 16
"""Channels that a vector register holds (AVX-512), the granule of the runtimes' blocked layouts."""


class Branch(nn.Module):
    """Some output channels of a 1×1 convolution and of the depth-wise one behind it, filled up to `width`."""

    def __init__(self, point: nn.Conv2d, depth: nn.Conv2d | None, rows: slice, width: int) -> None:
        super().__init__()
        self.point = _convolution(_fill(point.weight[rows], width), _fill_bias(point.bias, rows, width))
        self.depth = None
        if depth is not None:
            self.depth = _convolution(_fill(depth.weight[rows], width), _fill_bias(depth.bias, rows, width), width)

    def forward(self, x: Tensor) -> Tensor:
        x = self.point(x)
        return x if self.depth is None else self.depth(x)


class Attention(nn.Module):
    """MDTA in planes: x + W_out · A v, with W_out · A built first, (b, c, c)."""

    def __init__(self, attention: MDTA) -> None:
        super().__init__()
        channels, heads = attention.project_out.weight.shape[0], attention.heads
        self.heads = heads
        self.q, self.k, self.v = (
            Branch(attention.qkv, attention.qkv_dwconv, slice(i * channels, (i + 1) * channels), channels)
            for i in range(3)
        )
        self.temperature = nn.Parameter(attention.temperature.detach().clone())
        out = attention.project_out.weight.detach().reshape(channels, heads, channels // heads)
        self.out = nn.Parameter(out.transpose(0, 1).contiguous())  # (heads, c, c/heads)
        bias = attention.project_out.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone()[:, None, None])

    def forward(self, x: Tensor, normed: Tensor) -> Tensor:
        channels = x.shape[1]
        # In fp32 whatever the weights are: the sums over a picture's pixels overflow fp16.
        q, k = (part(normed).flatten(2).float().unflatten(1, (self.heads, -1)) for part in (self.q, self.k))
        ones = q.new_ones(q.shape[-1], 1)
        lengths = (q.square() @ ones) * (k.square() @ ones).transpose(-2, -1)
        products = (q @ k.transpose(-2, -1)) * lengths.clamp_min(1e-24).rsqrt()
        attention = torch.softmax(products * self.temperature, dim=-1).to(x.dtype)
        matrix = (self.out @ attention).transpose(1, 2).reshape(-1, channels, channels)
        mixed = (matrix @ self.v(normed).flatten(2)).reshape(x.shape)
        return x + (mixed if self.bias is None else mixed + self.bias)


class FeedForward(nn.Module):
    """GDFN, or one of the plainer ones, in planes: x + its output."""

    def __init__(self, layer: GDFN) -> None:
        super().__init__()
        weight = layer.project_out.weight
        hidden = weight.shape[1]
        width = -(-hidden // BLOCK) * BLOCK
        self.gate = Branch(layer.project_in, layer.dwconv, slice(0, hidden), width)
        self.value = Branch(layer.project_in, layer.dwconv, slice(hidden, None), width) if layer.gated else None
        filled = F.pad(weight.detach(), (0, 0, 0, 0, 0, width - hidden))
        self.project_out = _convolution(filled, layer.project_out.bias)

    def forward(self, x: Tensor, normed: Tensor) -> Tensor:
        wide = F.gelu(self.gate(normed))
        if self.value is not None:
            wide = wide * self.value(normed)
        return x + self.project_out(wide)


class ChannelNorm(nn.Module):
    """LayerNorm over the channels of each pixel of (b, c, h, w)."""

    def __init__(self, norm: LayerNorm) -> None:
        super().__init__()
        self.weight = nn.Parameter(norm.body.weight.detach().clone())
        self.bias = None if norm.body.bias is None else nn.Parameter(norm.body.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            normed = F.layer_norm(x.permute(0, 2, 3, 1), self.weight.shape, self.weight, self.bias)
            return normed.permute(0, 3, 1, 2).contiguous()
        wide = x.float()
        mean = wide.new_full((1, len(self.weight), 1, 1), 1 / len(self.weight))
        variance = F.conv2d((wide - F.conv2d(wide, mean)).square(), mean)
        return (wide * torch.rsqrt(variance + 1e-5)).to(x.dtype) * self.weight[:, None, None]


class PlanarBlock(nn.Module):
    def __init__(self, block: Block) -> None:
        super().__init__()
        self.norm1, self.attention = ChannelNorm(block.norm1), Attention(block.attn)
        self.norm2, self.feed_forward = ChannelNorm(block.norm2), FeedForward(block.ffn)

    def forward(self, x: Tensor) -> Tensor:
        x = self.attention(x, self.norm1(x))
        return self.feed_forward(x, self.norm2(x))


class Planar(nn.Module):
    """float32 (b, in_channels, h, w) -> float32 (b, out_channels, h, w); h and w multiples of 8.

    A copy of the model's weights in `dtype`. What must not be rounded stays in float32 whatever `dtype` is: the
    picture, its residual, and attention's sums.
    """

    def __init__(self, model: Restormer, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()

        self.config, self.dtype = model.config, dtype
        encoders = (model.encoder_level1, model.encoder_level2, model.encoder_level3)
        reduce = (model.reduce_chan_level3, model.reduce_chan_level2, model.reduce_chan_level1)
        self.embed = _copy(model.patch_embed.proj)
        self.encoder = nn.ModuleList(_level(x) for x in encoders)
        self.down = nn.ModuleList(_copy(x.body[0]) for x in (model.down1_2, model.down2_3, model.down3_4))
        self.latent = _level(model.latent)
        self.up = nn.ModuleList(_copy(x.body[0]) for x in (model.up4_3, model.up3_2, model.up2_1))
        self.reduce = nn.ModuleList(nn.Identity() if x is None else _copy(x) for x in reduce)
        last = nn.Sequential(*_level(model.decoder_level1), *_level(model.refinement))
        self.decoder = nn.ModuleList((_level(model.decoder_level3), _level(model.decoder_level2), last))
        self.skip = None if model.skip_conv is None else _copy(model.skip_conv)
        self.output = _copy(model.output)
        self.to(dtype).eval().requires_grad_(False)
        for module in self.modules():
            if isinstance(module, Attention):
                module.temperature.data = module.temperature.data.float()

    def forward(self, picture: Tensor) -> Tensor:
        embedded = x = self.embed(picture.to(self.dtype))
        skips = []
        for encode, down in zip(self.encoder, self.down, strict=True):
            skips.append(encode(x))
            x = F.pixel_unshuffle(down(skips[-1]), 2)
        x = self.latent(x)
        for decode, up, reduce in zip(self.decoder, self.up, self.reduce, strict=True):
            x = decode(reduce(torch.cat((F.pixel_shuffle(up(x), 2), skips.pop()), dim=1)))
        if self.skip is not None:
            return self.output(x + self.skip(embedded)).float()
        return picture + self.output(x).float()


class AnySize(nn.Module):
    """A network behind its own padding: (b, c, h, w) of any size, at least 1×1 -> the same size.

    Reflected at the right and bottom up to multiples of 8; edge pixels where a side is too small to reflect.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, picture: Tensor) -> Tensor:
        h, w = picture.shape[-2:]
        padded = picture.index_select(-2, _rows(picture, h)).index_select(-1, _rows(picture, w))
        # By index, not [..., :h, :w]: torch.export cannot prove that a slice of symbolic length fits.
        rows, columns = (torch.arange(side, device=picture.device) for side in (h, w))
        return self.network(padded).index_select(-2, rows).index_select(-1, columns)


def _rows(picture: Tensor, side: int) -> Tensor:
    """Which row stands at each place of the padded picture: 0 … side - 1, then back again (or the last one)."""
    place = torch.arange((side + 7) // 8 * 8, device=picture.device)
    beyond = (place - (side - 1)).clamp_min(0)
    # As arithmetic, not as an `if`: a graph has to hold both cases.
    reflects = (place[-1] < 2 * side - 1).to(place.dtype)
    return place - beyond - beyond * reflects


def _level(blocks: Level) -> nn.Sequential:
    return nn.Sequential(*(PlanarBlock(block) for block in blocks))  # pyright: ignore[reportArgumentType]


def _copy(layer: nn.Module | Tensor) -> nn.Conv2d:
    assert isinstance(layer, nn.Conv2d)
    return _convolution(layer.weight, layer.bias)


def _convolution(weight: Tensor, bias: Tensor | None, groups: int = 1) -> nn.Conv2d:
    outputs, inputs, side, _ = weight.shape
    layer = nn.Conv2d(inputs * groups, outputs, side, padding=side // 2, groups=groups, bias=bias is not None)
    layer.weight = nn.Parameter(weight.detach().clone())
    if bias is not None:
        layer.bias = nn.Parameter(bias.detach().clone())
    return layer


def _fill(rows: Tensor, width: int) -> Tensor:
    """Zero channels after the rows, up to `width` of them."""
    return torch.cat((rows, rows.new_zeros(width - len(rows), *rows.shape[1:])))


def _fill_bias(bias: Tensor | None, rows: slice, width: int) -> Tensor | None:
    return None if bias is None else _fill(bias[rows], width)
