"""Restormer (Zamir et al., CVPR 2022), on one page.

Activations are channels-last, (b, h, w, c): a 1×1 convolution is then one matrix product and LayerNorm runs over
the last axis, with nothing rearranged. Parameters keep the names and shapes of the published state dict.
"""

from contextvars import ContextVar
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from restormer_cli.model import halves
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.depthwise import depthwise, has_triton
from restormer_cli.native.build import library, multiplies_pairs

BLOCK_BYTES = 20 << 20
"""On a CPU a batch is trained a few pictures at a time, so that no tensor is larger than this: the C library hands
blocks over 32 MiB back at once, and the kernel then clears each page anew (half of the step's time otherwise)."""


KERNELS = ContextVar("KERNELS", default=True)
"""False where blocks are to train by PyTorch's operators although the kernels are there."""


class Gram(NamedTuple):
    """Attention's sums over pixels of q and k; those of two regions add up."""

    qk: Tensor
    """Σ q kᵀ over pixels: (b, heads, c/heads, c/heads)."""
    qq: Tensor
    """Σ q² over pixels: (b, heads, c/heads)."""
    kk: Tensor
    """Σ k² over pixels: (b, heads, c/heads)."""


def pointwise(layer: nn.Conv2d, x: Tensor) -> Tensor:
    """A 1×1 convolution as a matrix product: (b, h, w, c) -> (b, h, w, c')."""
    return _product(x, layer.weight, layer.bias)


def convolve(layer: nn.Module, x: Tensor) -> Tensor:
    """A 3×3 convolution: (b, h, w, c) -> (b, h, w, c'); the permutations are views, no copies."""
    if x.is_cuda and isinstance(layer, nn.Conv2d) and layer.groups > 1 and has_triton():
        return depthwise(x, layer.weight, layer.bias)
    return layer(x.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b over the last axis, for a 1×1 convolution's weight (c', c, 1, 1)."""
    if trains_on_cpu(x) and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu"):
        # oneDNN's convolution: forward and backward about twice as fast as MKL's product (docs/training.md).
        return F.conv2d(x.permute(0, 3, 1, 2), weight, bias).permute(0, 2, 3, 1)
    return F.linear(x, weight.flatten(1), bias)


def trains_on_cpu(x: Tensor) -> bool:
    """Whether gradients will be wanted on a CPU, where what is fast differs from a GPU and from inference."""
    return torch.is_grad_enabled() and x.device.type == "cpu" and not torch.compiler.is_compiling()


class Conv2d(nn.Conv2d):
    """PyTorch's, without initial values on the meta device: a third of what loading the paper's network takes there."""

    def reset_parameters(self) -> None:
        if not self.weight.is_meta:
            super().reset_parameters()


class LayerNorm(nn.Module):
    """Normalise each pixel over its channels; named so that keys read `norm1.body.weight`."""

    class Body(nn.Module):
        def __init__(self, channels: int, with_bias: bool) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(channels))
            self.bias = nn.Parameter(torch.zeros(channels)) if with_bias else None

    def __init__(self, channels: int, norm: str) -> None:
        super().__init__()
        self.body = self.Body(channels, with_bias=norm == "with-bias")

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.body.weight, self.body.bias
        if bias is not None:
            return F.layer_norm(x, weight.shape, weight, bias)
        # Not centred: released weights expect x / σ (test_bias_free_norm_is_not_centred).
        return x * torch.rsqrt(x.var(-1, correction=0, keepdim=True) + 1e-5) * weight


class MDTA(nn.Module):
    """Multi-Dconv head transposed attention (section 3.1): attends across channels, so cost is linear in pixels.

    Three steps, because only the second looks beyond a 3×3 neighbourhood, and it is a sum over pixels:
    `project` pixels to q, k, v; `gram` sums over pixels; `mix` channels by the matrix built from the sums.
    """

    def __init__(self, channels: int, heads: int, config: ModelConfig) -> None:
        super().__init__()
        self.heads = heads
        self.temperature = nn.Parameter(torch.ones(heads, 1, 1))
        self.qkv = Conv2d(channels, 3 * channels, 1, bias=config.bias)
        self.qkv_dwconv = _depthwise(3 * channels, config.bias) if config.attention == "mdta" else None
        self.project_out = Conv2d(channels, channels, 1, bias=config.bias)

    def forward(self, x: Tensor, normed: Tensor) -> Tensor:
        """x + attention(normed): (b, h, w, c) -> (b, h, w, c)."""
        q, k, v = self.project(normed)
        return self.mix(x, v, self.matrix(self.gram(q, k)))

    def project(self, normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(b, h, w, c) -> q, k, v, each (b, h, w, c): local, a halo of one row."""
        qkv = pointwise(self.qkv, normed)
        if self.qkv_dwconv is not None:
            qkv = convolve(self.qkv_dwconv, qkv)
        q, k, v = qkv.chunk(3, dim=-1)
        return q, k, v

    def gram(self, q: Tensor, k: Tensor) -> Gram:
        """q, k (b, h, w, c) -> their sums over pixels."""
        q, k = (rearrange(t, "b h w (heads c) -> b heads (h w) c", heads=self.heads) for t in (q, k))
        return Gram(*(_Sums.apply(q, k) if trains_on_cpu(q) else _sums(q, k)))  # pyright: ignore[reportGeneralTypeIssues]

    def matrix(self, gram: Gram) -> Tensor:
        """The sums -> M = W_out · blockdiag(A_1 … A_heads), (b, c, c): attention and projection as one matrix.

        A = softmax(τ · q̂ k̂ᵀ), with q̂ and k̂ of unit length over pixels (equation 1).
        """
        scale = _inverse_norm(gram.qq)[..., :, None] * _inverse_norm(gram.kk)[..., None, :]
        attention = torch.softmax(gram.qk * scale * self.temperature, dim=-1)
        out = rearrange(self.project_out.weight, "o (heads c) 1 1 -> heads o c", heads=self.heads)
        return rearrange(out @ attention, "b heads o c -> b o (heads c)")

    def mix(self, x: Tensor, v: Tensor, matrix: Tensor) -> Tensor:
        """x + M v (+ bias): (b, h, w, c) -> (b, h, w, c)."""
        mixed = (v.flatten(1, 2) @ matrix.mT).unflatten(1, v.shape[1:3])
        return x + (mixed if self.project_out.bias is None else mixed + self.project_out.bias)


class GDFN(nn.Module):
    """Gated-Dconv feed-forward network (section 3.2), or one of the paper's plainer ones (Table 7)."""

    def __init__(self, channels: int, config: ModelConfig) -> None:
        super().__init__()
        hidden = config.hidden(channels)
        self.gated = config.feed_forward in ("gdfn", "gfn")
        wide = 2 * hidden if self.gated else hidden
        self.project_in = Conv2d(channels, wide, 1, bias=config.bias)
        self.dwconv = _depthwise(wide, config.bias) if config.feed_forward in ("gdfn", "dfn") else None
        self.project_out = Conv2d(hidden, channels, 1, bias=config.bias)

    def forward(self, x: Tensor, normed: Tensor) -> Tensor:
        """x + feed-forward(normed): (b, h, w, c) -> (b, h, w, c)."""
        if self.gated:
            gate, value = self._halves(normed) if trains_on_cpu(normed) else self._widen(normed).chunk(2, dim=-1)
            wide = F.gelu(gate) * value
        else:
            wide = F.gelu(self._widen(normed))
        return x + pointwise(self.project_out, wide)

    def _widen(self, normed: Tensor) -> Tensor:
        wide = pointwise(self.project_in, normed)
        return wide if self.dwconv is None else convolve(self.dwconv, wide)

    def _halves(self, normed: Tensor) -> list[Tensor]:
        """The two halves of `_widen`, each by itself and so contiguous: GELU is then eight times faster on a CPU."""
        halves = []
        for part in (0, 1):
            half = _product(normed, *_half(self.project_in, part))
            if self.dwconv is not None:
                weight, bias = _half(self.dwconv, part)
                half = F.conv2d(half.permute(0, 3, 1, 2), weight, bias, padding=1, groups=weight.shape[0])
                half = half.permute(0, 2, 3, 1)
            halves.append(half)
        return halves


class Block(nn.Module):
    """x + MDTA(norm(x)), then x + GDFN(norm(x)): (b, h, w, c) -> (b, h, w, c)."""

    def __init__(self, channels: int, heads: int, config: ModelConfig) -> None:
        super().__init__()
        self.norm1 = LayerNorm(channels, config.norm)
        self.attn = MDTA(channels, heads, config)
        self.norm2 = LayerNorm(channels, config.norm)
        self.ffn = GDFN(channels, config)

    def forward(self, x: Tensor) -> Tensor:
        if self._has_kernels and _takes_kernels(x):
            return self._by_kernels(x)
        x = self.attn(x, self.norm1(x))
        return self.ffn(x, self.norm2(x))

    @property
    def _has_kernels(self) -> bool:
        """Whether this is the paper's block, and not one of the plainer ones of its Table 7."""
        return self.attn.qkv_dwconv is not None and self.ffn.dwconv is not None and self.ffn.gated

    def _by_kernels(self, x: Tensor) -> Tensor:
        """The same, computed in C, with nothing kept for the backward pass but x and what follows its first half."""
        bf16 = torch.is_autocast_enabled("cpu")
        with torch.autocast("cpu", enabled=False):
            return self._in_float32(x.float(), bf16)

    def _in_float32(self, x: Tensor, bf16: bool) -> Tensor:
        attention, feed, c = self.attn, self.ffn, x.shape[3]
        assert attention.qkv_dwconv is not None
        assert feed.dwconv is not None
        weight, bias = folded(self.norm1, attention.qkv)
        first, v = weight.split((2 * c, c))
        taps, v_taps = attention.qkv_dwconv.weight.flatten(1).split((2 * c, c))
        (bias, v_bias), (taps_bias, v_taps_bias) = (
            (None, None) if rows is None else rows.split((2 * c, c)) for rows in (bias, attention.qkv_dwconv.bias)
        )
        centred = self.norm1.body.bias is not None
        sums = halves.attention_sums(x, first, bias, taps, taps_bias, attention.heads, centred, bf16)
        matrix = attention.matrix(Gram(*sums))
        out_bias = attention.project_out.bias
        x = halves.residual_half(x, v, v_bias, v_taps, v_taps_bias, matrix, out_bias, halves.MIX, centred, bf16)
        weight, bias = folded(self.norm2, feed.project_in)
        taps, out = feed.dwconv.weight.flatten(1), feed.project_out
        second = out.weight.flatten(1)[None]
        rest = second, out.bias, halves.GATE, centred, bf16
        return halves.residual_half(x, weight, bias, taps, feed.dwconv.bias, *rest)


class Level(nn.Sequential):
    """The blocks of one level, in order; optionally keeping only their inputs for the backward pass."""

    def __init__(self, count: int, channels: int, heads: int, config: ModelConfig) -> None:
        super().__init__(*(Block(channels, heads, config) for _ in range(count)))
        self.checkpointing = False

    def forward(self, x: Tensor) -> Tensor:
        for block in self:
            x = checkpoint(block, x, use_reentrant=False) if self.checkpointing and self.training else block(x)
        return x


class Downsample(nn.Module):
    """(b, h, w, c) -> (b, h/2, w/2, 2c): halve the channels, then pixel-unshuffle (section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv2d(channels, channels // 2, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(convolve(self.body[0], x), "b (h y) (w x) c -> b h w (c y x)", y=2, x=2)


class Upsample(nn.Module):
    """(b, h, w, c) -> (b, 2h, 2w, c/2): double the channels, then pixel-shuffle (section 3)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(Conv2d(channels, 2 * channels, 3, padding=1, bias=False))

    def forward(self, x: Tensor) -> Tensor:
        return rearrange(convolve(self.body[0], x), "b h w (c y x) -> b (h y) (w x) c", y=2, x=2)


class Restormer(nn.Module):
    """A degraded picture (b, in_channels, h, w) in [0, 1] -> the restored one (b, out_channels, h, w).

    h and w must be multiples of 8; `engine.restorer.Restorer` takes any size. The output is not clamped.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        c, blocks, heads, level1 = config.dim, config.blocks, config.heads, config.level1_channels
        self.patch_embed = nn.Module()
        self.patch_embed.proj = Conv2d(config.in_channels, c, 3, padding=1, bias=False)

        self.encoder_level1 = Level(blocks[0], c, heads[0], config)
        self.down1_2 = Downsample(c)
        self.encoder_level2 = Level(blocks[1], 2 * c, heads[1], config)
        self.down2_3 = Downsample(2 * c)
        self.encoder_level3 = Level(blocks[2], 4 * c, heads[2], config)
        self.down3_4 = Downsample(4 * c)
        self.latent = Level(blocks[3], 8 * c, heads[3], config)

        self.up4_3 = Upsample(8 * c)
        self.reduce_chan_level3 = Conv2d(8 * c, 4 * c, 1, bias=config.bias)
        self.decoder_level3 = Level(blocks[2], 4 * c, heads[2], config)
        self.up3_2 = Upsample(4 * c)
        self.reduce_chan_level2 = Conv2d(4 * c, 2 * c, 1, bias=config.bias)
        self.decoder_level2 = Level(blocks[1], 2 * c, heads[1], config)
        self.up2_1 = Upsample(2 * c)
        self.reduce_chan_level1 = None if config.concat else Conv2d(2 * c, c, 1, bias=config.bias)
        self.decoder_level1 = Level(blocks[0], level1, heads[0], config)

        self.refinement = Level(config.refinement, level1, heads[0], config)
        self.skip_conv = Conv2d(c, level1, 1, bias=config.bias) if config.dual_pixel else None
        self.output = Conv2d(level1, config.out_channels, 3, padding=1, bias=config.bias)

    def forward(self, picture: Tensor) -> Tensor:
        count, channels, h, w = picture.shape
        if channels != self.config.in_channels or h % 8 or w % 8 or not h or not w:
            raise ValueError(
                f"input of shape {tuple(picture.shape)}: "
                f"needs {self.config.in_channels} channels, h and w multiples of 8"
            )
        if count > 1 and trains_on_cpu(picture):
            width = self.config.hidden(self.config.level1_channels)
            if _takes_kernels(picture):  # which write nothing wide
                width = self.config.level1_channels
            largest = h * w * width * picture.element_size()
            return torch.cat([self._restore(few) for few in picture.split(max(1, BLOCK_BYTES // largest))])
        return self._restore(picture)

    def _restore(self, picture: Tensor) -> Tensor:
        # Contiguous: the convolution's answer, and all that is added to it, would be channels-first otherwise.
        pixels = picture.permute(0, 2, 3, 1).contiguous()
        embedded = convolve(self.patch_embed.proj, pixels)  # pyright: ignore[reportArgumentType]
        level1 = self.encoder_level1(embedded)  # (b, h, w, c)
        level2 = self.encoder_level2(self.down1_2(level1))  # (b, h/2, w/2, 2c)
        level3 = self.encoder_level3(self.down2_3(level2))  # (b, h/4, w/4, 4c)
        x = self.latent(self.down3_4(level3))  # (b, h/8, w/8, 8c)

        x = torch.cat((self.up4_3(x), level3), dim=-1)
        x = self.decoder_level3(pointwise(self.reduce_chan_level3, x))
        x = torch.cat((self.up3_2(x), level2), dim=-1)
        x = self.decoder_level2(pointwise(self.reduce_chan_level2, x))
        x = torch.cat((self.up2_1(x), level1), dim=-1)
        if self.reduce_chan_level1 is not None:
            x = pointwise(self.reduce_chan_level1, x)
        x = self.refinement(self.decoder_level1(x))  # (b, h, w, 2c)

        if self.skip_conv is not None:
            x = x + pointwise(self.skip_conv, embedded)
        residual = convolve(self.output, x).permute(0, 3, 1, 2)
        return residual if self.config.dual_pixel else picture + residual


def _takes_kernels(x: Tensor) -> bool:
    """Whether blocks train by the kernels in C: on a CPU, where they have been compiled; in float32, or by autocast to
    bf16 where that is faster by them."""
    if not trains_on_cpu(x) or not KERNELS.get():
        return False
    if torch.is_autocast_enabled("cpu"):
        bf16 = torch.get_autocast_dtype("cpu") == torch.bfloat16 and x.dtype in (torch.float32, torch.bfloat16)
        return bf16 and multiplies_pairs()
    return x.dtype == torch.float32 and library() is not None


def folded(norm: LayerNorm, layer: nn.Conv2d, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a 1×1 convolution with the norm's before it in them: W (w x̂ + b) = (W w) x̂ + W b.

    Computed in `dtype`, returned in float32; gradients reach both layers.
    """
    weight, bias = layer.weight.flatten(1).to(dtype), None if layer.bias is None else layer.bias.to(dtype)
    if norm.body.bias is not None:
        shift = weight @ norm.body.bias.to(dtype)
        bias = shift if bias is None else bias + shift
    return (weight * norm.body.weight.to(dtype)).float(), None if bias is None else bias.float()


def _depthwise(channels: int, bias: bool) -> nn.Conv2d:
    return Conv2d(channels, channels, 3, padding=1, groups=channels, bias=bias)


def _half(layer: nn.Conv2d, part: int) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the first or second half of a layer's outputs."""
    return layer.weight.chunk(2)[part], None if layer.bias is None else layer.bias.chunk(2)[part]


def _sums(q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Σ q kᵀ, Σ q², Σ k² over the pixels of q, k (b, heads, pixels, c)."""
    return q.transpose(-2, -1) @ k, q.square().sum(-2), k.square().sum(-2)


class _Sums(torch.autograd.Function):
    """`_sums`, whose gradients have the layout of q and k: autograd adds up two that differ in it, ten times slower."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(q, k)
        return _sums(q, k)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, qk: Tensor, qq: Tensor, kk: Tensor) -> tuple[Tensor, Tensor]:
        q, k = ctx.saved_tensors
        of_q = (k @ qk.transpose(-2, -1)).addcmul_(q, qq[..., None, :], value=2)
        return of_q, (q @ qk).addcmul_(k, kk[..., None, :], value=2)


def _inverse_norm(squares: Tensor) -> Tensor:
    # Clamped before the root, so that an all-zero channel has gradient 0, not 0 · ∞.
    return squares.clamp_min(1e-24).rsqrt()
