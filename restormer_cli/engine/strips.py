"""The same network, exactly, strip by strip: whole-picture inference that stays in the cache.

Inside a block only MDTA's sums see more than a 3×3 neighbourhood, and sums over pixels add up over strips of rows
(docs/how-it-works.md). So a block is two walks down the rows:

1. `project` a strip to q, k, v; add its `gram`; keep v (or drop it, to save memory).
2. `mix` the strip in place by the matrix built from the sums, and feed it forward in place.

The wide intermediates of a strip never leave the cache, and no full-size temporary exists beyond x and v.
A 3×3 convolution needs a row above and below: `Rolling` carries the last two rows from strip to strip, so nothing
is computed twice. The result is the textbook network's up to rounding (test_strips_equal_the_whole_image).
"""

from collections.abc import Callable, Iterator
from functools import cache
from statistics import median
from time import perf_counter

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restormer_cli.model.restormer import GDFN, MDTA, Block, Gram, LayerNorm, Level, Restormer

STRIP_BYTES = {"cpu": 4 << 20, "cuda": 512 << 20, "mps": 128 << 20}
"""Size of the widest intermediate of a strip: a few times the second-level cache, or enough to fill a GPU."""

Rows = Iterator[tuple[int, int]]


class Strips:
    """A Restormer prepared for inference: `run(picture)` gives what the network gives, faster and in less memory.

    `dtype` is that of products and features (float32, bfloat16, float16, float64); sums and softmax are float32
    or better. The model is read, never changed. `keep_v` False recomputes v in the second walk.
    """

    def __init__(
        self,
        model: Restormer,
        dtype: torch.dtype = torch.float32,
        *,
        keep_v: bool = True,
        strip_bytes: int | None = None,
    ) -> None:
        self.model = model
        self.config = model.config
        self.dtype = dtype
        self.keep_v = keep_v
        self.device = next(model.parameters()).device
        self.strip_bytes = strip_bytes or STRIP_BYTES.get(self.device.type, 4 << 20)
        self.blocks = {
            name: [PreparedBlock(block, dtype) for block in level]  # type: ignore[arg-type]
            for name, level in model.named_children()
            if isinstance(level, Level)
        }
        self.products = {
            name: Product(layer.weight.flatten(1), layer.bias, dtype)
            for name, layer in model.named_children()
            if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
        }

    @torch.inference_mode()
    def run(self, picture: Tensor) -> Tensor:
        """(1, in_channels, h, w), h and w multiples of 8 -> (1, out_channels, h, w) in float32 (or float64)."""
        picture = picture[0].permute(1, 2, 0).contiguous()  # (h, w, c), from here to the end
        model, wide = self.model, torch.promote_types(self.dtype, torch.float32)
        embedded = self._convolve(model.patch_embed.get_submodule("proj"), picture)
        kept = embedded.clone() if self.config.dual_pixel else None
        level1 = self._level("encoder_level1", embedded)
        level2 = self._level("encoder_level2", self._down(model.down1_2.body[0], level1))
        level3 = self._level("encoder_level3", self._down(model.down2_3.body[0], level2))
        x = self._level("latent", self._down(model.down3_4.body[0], level3))

        x = self._level("decoder_level3", self._up(model.up4_3.body[0], x, level3, "reduce_chan_level3"))
        del level3
        x = self._level("decoder_level2", self._up(model.up3_2.body[0], x, level2, "reduce_chan_level2"))
        del level2
        x = self._up(model.up2_1.body[0], x, level1, None if self.config.concat else "reduce_chan_level1")
        del level1, embedded
        x = self._level("refinement", self._level("decoder_level1", x))
        if kept is not None:
            for a, b in self._strips(x, x.shape[2]):
                x[a:b] += self.products["skip_conv"](kept[a:b])
        result = self._convolve(model.output, x).to(wide)
        if not self.config.dual_pixel:
            result += picture.to(wide)
        return result.permute(2, 0, 1)[None]

    def _strips(self, x: Tensor, channels: int) -> Rows:
        """Row ranges of strips whose intermediate of so many channels fits `strip_bytes`."""
        height, width = x.shape[:2]
        rows = max(2, self.strip_bytes // (width * channels * x.element_size()))
        for start in range(0, height, rows):
            yield start, min(start + rows, height)

    def _level(self, name: str, x: Tensor) -> Tensor:
        """The blocks of a level, in place: (h, w, c)."""
        v = None
        for block in self.blocks[name]:
            if self.keep_v and v is None:
                v = torch.empty_like(x)
            matrix = self._gather(block, x, v)
            mixed = self._mix_kept(block, x, v, matrix) if v is not None else self._mix_again(block, x, matrix)
            self._feed_forward(block, x, mixed)
        return x

    def _gather(self, block: "PreparedBlock", x: Tensor, v: Tensor | None) -> Tensor:
        """The first walk: the sums over all pixels, and from them M; fills v where it is kept."""
        c = x.shape[2]
        rolling = Rolling(block.qkv_dwconv, x.shape[1], 3 * c, x)
        gram: Gram | None = None

        def take(qkv: Tensor, a: int, b: int) -> None:
            nonlocal gram
            if a == b:
                return
            part = block.gram(qkv[..., :c], qkv[..., c : 2 * c])
            gram = part if gram is None else Gram(*(total + more for total, more in zip(gram, part, strict=True)))
            if v is not None:
                v[a:b] = qkv[..., 2 * c :]

        for a, b in self._strips(x, 3 * c):
            take(*rolling.push(block.qkv(block.norm1(x[a:b]))))
        take(*rolling.finish())
        assert gram is not None
        return block.matrix(gram)

    def _mix_kept(self, block: "PreparedBlock", x: Tensor, v: Tensor, matrix: Tensor) -> Rows:
        """x += M v, in place, a strip at a time; yields the rows that are done."""
        product = Product(matrix, block.project_out_bias, self.dtype)
        for a, b in self._strips(x, block.ffn_width):
            x[a:b] += product(v[a:b])
            yield a, b

    def _mix_again(self, block: "PreparedBlock", x: Tensor, matrix: Tensor) -> Rows:
        """The same with v computed again; rows are read one strip ahead of those that are changed."""
        product = Product(matrix, block.project_out_bias, self.dtype)
        rolling = Rolling(block.v_dwconv, x.shape[1], x.shape[2], x)

        def mix(v: Tensor, a: int, b: int) -> tuple[int, int]:
            if a < b:
                x[a:b] += product(v)
            return a, b

        for a, b in self._strips(x, block.ffn_width):
            yield mix(*rolling.push(block.v(block.norm1(x[a:b]))))
        yield mix(*rolling.finish())

    def _feed_forward(self, block: "PreparedBlock", x: Tensor, mixed: Rows) -> None:
        """x += GDFN(norm(x)), in place, following the rows that `mixed` finishes."""
        rolling = Rolling(block.ffn_dwconv, x.shape[1], block.ffn_width, x)

        def finish(wide: Tensor, a: int, b: int) -> None:
            if a < b:
                x[a:b] += block.ffn_out(block.gate(wide))

        for a, b in mixed:
            if a < b:
                finish(*rolling.push(block.ffn_in(block.norm2(x[a:b]))))
        finish(*rolling.finish())

    def _convolve(self, layer: nn.Module, x: Tensor) -> Tensor:
        """A 3×3 convolution of the whole map: (h, w, c) -> (h, w, c')."""
        result = None
        for a, b, strip in self._convolved(layer, x):
            if result is None:
                result = strip.new_empty((*x.shape[:2], strip.shape[2]))
            result[a:b] = strip
        assert result is not None
        return result

    def _convolved(self, layer: nn.Module, x: Tensor) -> Iterator[tuple[int, int, Tensor]]:
        """The same, strip by strip: yields (first row, end, rows)."""
        assert isinstance(layer, nn.Conv2d)
        weight = layer.weight.to(self.dtype, memory_format=torch.channels_last)
        bias = None if layer.bias is None else layer.bias.to(self.dtype)
        height = x.shape[0]
        for a, b in self._strips(x, max(x.shape[2], weight.shape[0])):
            top, bottom = max(a - 1, 0), min(b + 1, height)
            rows = x[top:bottom].to(self.dtype)[None].permute(0, 3, 1, 2)
            strip = F.conv2d(rows, weight, bias, padding=1)[0].permute(1, 2, 0)
            yield a, b, strip[a - top : strip.shape[0] - (bottom - b)]

    def _down(self, layer: nn.Module, x: Tensor) -> Tensor:
        """Convolve and pixel-unshuffle: (h, w, c) -> (h/2, w/2, 2c)."""
        height, width, channels = x.shape
        result = x.new_empty((height // 2, width // 2, 2 * channels))
        # (h/2, y, w/2, x, c/2) seen through the result's (h/2, w/2, c/2, y, x)
        spread = result.unflatten(2, (channels // 2, 2, 2)).permute(0, 3, 1, 4, 2)
        for a, _, strip in self._convolved(layer, x):
            for y in (0, 1):  # strips may begin at an odd row
                first = a + (a + y) % 2
                rows = strip[first - a :: 2]
                if rows.shape[0]:
                    spread[first // 2 : first // 2 + rows.shape[0], y] = rows.unflatten(1, (width // 2, 2))
        return result

    def _up(self, layer: nn.Module, x: Tensor, skip: Tensor, reduce: str | None) -> Tensor:
        """Convolve, pixel-shuffle, join the skip, reduce: (h, w, c) and (2h, 2w, c/2) -> (2h, 2w, c/2 or c)."""
        half = x.shape[2] // 2
        result = skip.new_empty((*skip.shape[:2], self.products[reduce].outputs if reduce else 2 * half))
        for a, b, strip in self._convolved(layer, x):
            raised = strip.unflatten(2, (half, 2, 2)).permute(0, 3, 1, 4, 2).reshape(2 * (b - a), -1, half)
            if reduce is None:
                result[2 * a : 2 * b, :, :half] = raised
                result[2 * a : 2 * b, :, half:] = skip[2 * a : 2 * b]
            else:
                joined = torch.cat((raised, skip[2 * a : 2 * b]), dim=2)
                result[2 * a : 2 * b] = self.products[reduce](joined)
        return result


class Rolling:
    """A depth-wise 3×3 convolution fed strip after strip: rows in, the rows that are then complete out.

    The last two rows are carried over, so each is computed once. Without a convolution rows pass straight through.
    """

    def __init__(self, layer: "Depthwise | None", width: int, channels: int, like: Tensor) -> None:
        self.layer = layer
        self.done = 0
        self.carried = like.new_zeros((1, width, channels))  # the zero row above the picture
        self.below = like.new_zeros((1, width, channels))

    def push(self, rows: Tensor) -> tuple[Tensor, int, int]:
        """(n, w, c) -> complete rows, their first index and end."""
        if self.layer is None:
            start, self.done = self.done, self.done + rows.shape[0]
            return rows, start, self.done
        rows = torch.cat((self.carried, rows))
        self.carried = rows[-2:].clone()
        start, self.done = self.done, self.done + max(0, rows.shape[0] - 2)
        return self.layer(rows) if start < self.done else self.below[:0], start, self.done

    def finish(self) -> tuple[Tensor, int, int]:
        """The last row, whose lower neighbour is the zero row below the picture."""
        if self.layer is None:
            return self.below[:0], self.done, self.done
        return self.push(self.below)


class Depthwise:
    """A 3×3 depth-wise convolution without padding above and below: (n + 2, w, c) -> (n, w, c)."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.to(dtype)
        self.bias = None if bias is None else bias.to(dtype)

    def __call__(self, rows: Tensor) -> Tensor:
        planes = rows[None].permute(0, 3, 1, 2)  # in this order torch sees channels-last, and copies nothing
        return F.conv2d(planes, self.weight, self.bias, padding=(0, 1), groups=rows.shape[2])[0].permute(1, 2, 0)


class PreparedBlock:
    """A block's weights as inference wants them; the steps are named as in `model.restormer`."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        attention, feed = block.attn, block.ffn
        assert isinstance(attention, MDTA)
        assert isinstance(feed, GDFN)
        channels = attention.qkv.in_channels
        self.norm1, self.norm2 = Norm(block.norm1, dtype), Norm(block.norm2, dtype)
        self.attention = attention
        self.wide = torch.promote_types(dtype, torch.float32)
        weight, bias = attention.qkv.weight.flatten(1), attention.qkv.bias
        self.qkv = Product(weight, bias, dtype)
        self.v = Product(weight[2 * channels :], None if bias is None else bias[2 * channels :], dtype)
        self.qkv_dwconv = self.v_dwconv = None
        if attention.qkv_dwconv is not None:
            weight, bias = attention.qkv_dwconv.weight, attention.qkv_dwconv.bias
            self.qkv_dwconv = Depthwise(weight, bias, dtype)
            self.v_dwconv = Depthwise(weight[2 * channels :], None if bias is None else bias[2 * channels :], dtype)
        self.project_out_bias = attention.project_out.bias

        # Hidden widths like 255 fall between vector registers; channels of zeros change nothing.
        self.gated = feed.gated
        hidden = feed.project_out.in_channels
        spare = -hidden % 16
        parts = 2 if self.gated else 1
        self.ffn_width = parts * (hidden + spare)

        def padded(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or not spare:
                return tensor
            return torch.cat([F.pad(part, [0, 0] * (part.ndim - 1) + [0, spare]) for part in tensor.chunk(parts)])

        weight = padded(feed.project_in.weight.flatten(1))
        assert weight is not None
        self.ffn_in = Product(weight, padded(feed.project_in.bias), dtype)
        self.ffn_dwconv = None
        if feed.dwconv is not None:
            weight = padded(feed.dwconv.weight)
            assert weight is not None
            self.ffn_dwconv = Depthwise(weight, padded(feed.dwconv.bias), dtype)
        self.ffn_out = Product(F.pad(feed.project_out.weight.flatten(1), (0, spare)), feed.project_out.bias, dtype)

    def gram(self, q: Tensor, k: Tensor) -> Gram:
        """A strip's q and k -> its sums, in float32 or better."""
        return self.attention.gram(q[None].to(self.wide), k[None].to(self.wide))

    def matrix(self, gram: Gram) -> Tensor:
        """The sums -> M, (c, c)."""
        return self.attention.matrix(gram)[0]

    def gate(self, wide: Tensor) -> Tensor:
        """GELU of one half times the other, or plain GELU."""
        if not self.gated:
            return F.gelu(wide)
        gate, value = wide.chunk(2, dim=-1)
        return F.gelu(gate).mul_(value)


class Norm:
    """LayerNorm of a strip; statistics in float32 or better whatever the strip's type."""

    def __init__(self, norm: LayerNorm, dtype: torch.dtype) -> None:
        self.weight = norm.body.weight.to(dtype)
        self.bias = None if norm.body.bias is None else norm.body.bias.to(dtype)

    def __call__(self, x: Tensor) -> Tensor:
        if self.bias is not None:
            return F.layer_norm(x, self.weight.shape, self.weight, self.bias)
        _, _, rstd = torch.native_layer_norm(x, self.weight.shape, None, None, 1e-5)
        return (x * rstd).to(x.dtype) * self.weight


class Product:
    """x W^T + b over the last axis, by the fastest product that this processor has for the shape."""

    def __init__(self, weight: Tensor, bias: Tensor | None, dtype: torch.dtype) -> None:
        self.weight = weight.detach().to(dtype).contiguous()
        self.bias = None if bias is None else bias.detach().to(dtype)
        self.outputs = weight.shape[0]
        self.packed = None
        if self.weight.device.type == "cpu" and prefers_onednn(*self.weight.shape, dtype):
            self.packed = torch.ops.mkldnn._reorder_linear_weight(self.weight)

    def __call__(self, x: Tensor) -> Tensor:
        if self.packed is None:
            return F.linear(x, self.weight, self.bias)
        return torch.ops.mkldnn._linear_pointwise(x, self.packed, self.bias, "none", [], "")


@cache
def prefers_onednn(outputs: int, inputs: int, dtype: torch.dtype) -> bool:
    """Whether oneDNN's prepacked product beats `F.linear` for this shape, by a short measurement.

    False where the private operators are missing or do not take the type.
    """
    if dtype not in (torch.float32, torch.bfloat16):
        return False
    x, weight = torch.randn(4096, inputs).to(dtype), torch.randn(outputs, inputs).to(dtype)
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")
    except (AttributeError, RuntimeError):
        return False
    ours: Callable[[], Tensor] = lambda: torch.ops.mkldnn._linear_pointwise(x, packed, None, "none", [], "")  # noqa: E731
    plain: Callable[[], Tensor] = lambda: F.linear(x, weight)  # noqa: E731
    return _seconds(ours) < _seconds(plain)


def _seconds(work: Callable[[], Tensor], times: int = 5) -> float:
    work()
    taken = []
    for _ in range(times):
        begun = perf_counter()
        work()
        taken.append(perf_counter() - begun)
    return median(taken)
