"""The same network, exactly, a whole map at a time: inference on a GPU, where the picture fits.

A block is few calls, each over everything at once: products by the vendor's library, the rest by `kernels`. What is
wide (q, k and v; the feed-forward network's hidden channels) is made in pieces of whole rows, small enough to stay in
the GPU's cache between the calls that write and read them, and so that no full-size map is wider than x. Gram sums
add up over pieces, and attention and projection are one matrix M (docs/how-it-works.md).

Where there is no Triton, or where it fails, `Plain` does the same by PyTorch's own calls. From the second picture of
a size on, all launches are one CUDA graph.
"""

import math
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from restormer_cli.engine.progress import Progress, silent
from restormer_cli.engine.strips import LEVEL
from restormer_cli.engine.tlc import Cells
from restormer_cli.hardware import as_current
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import GDFN, MDTA, Block, Level, Restormer

PIECE_BYTES = 32 << 20
"""Of the wide maps of a piece: what a large GPU's cache holds (50 MB on an H100)."""
LOOSE_BYTES = 256 << 20
"""The same without a graph, where every launch costs the host as much as 20 MB take the GPU."""
GRAPHS = 4
"""Sizes whose graphs are kept."""
PAD = 16
"""Hidden widths are multiples of it; channels of zeros change nothing."""
SLOTS = 128
"""At most so many partial sums of a map's q and k, added up in the end, always in the same order."""


SUMS_BYTES = 64 << 20
"""At most so much for them, as far as one sum a cell is not more."""
CELLS = 400
"""Of TLC's windows; where there are more, strips have fewer launches."""


def fits(config: ModelConfig) -> bool:
    """Whether this schedule knows the network: the paper's, with any norm and biases."""
    return config.attention == "mdta" and config.feed_forward == "gdfn"


def has_few_cells(height: int, width: int, window: int | None) -> bool:
    """Whether TLC's windows cut a picture into few enough cells."""
    return math.prod(Cells.of(height, width, window).shape) <= CELLS


def predicted_bytes(
    config: ModelConfig, height: int, width: int, itemsize: int, count: int = 1, window: int | None = None
) -> int:
    """The most that `WholeMap.run` holds at once beyond the pictures it is given: as its `_run` reads."""
    pixels = count * height * width
    level1 = pixels * config.dim * itemsize
    decoder = 2 * level1 if config.concat else level1
    hidden = config.hidden(config.level1_channels) + PAD
    row = count * width * 3 * max(3 * hidden, 5 * config.level1_channels) * itemsize  # the least that a piece takes
    channels_last = 4 * pixels * config.in_channels
    result = 4 * pixels * config.out_channels
    at_the_decoder = 3 * decoder  # x, what is normed, v
    joining = level1 + level1 // 2 + level1 + decoder  # the skip, x, x raised, both
    pieces = min(LOOSE_BYTES, 3 * pixels * hidden * itemsize) + row
    embedded = level1 if config.dual_pixel else 0
    windows = 0 if window is None else max(_window_bytes(config, n, height, width, window) * count for n in range(1, 5))
    return max(at_the_decoder + pieces, joining) + embedded + channels_last + 2 * result + windows + LIBRARIES


def _window_bytes(config: ModelConfig, level: int, height: int, width: int, window: int) -> int:
    """Of a level's sums and matrices where TLC's windows have their own."""
    cells = Cells.at(level, height >> (level - 1), width >> (level - 1), window)
    channels = max(config.dim << (level - 1), config.level1_channels if level == 1 else 0)
    sums = 4 * channels * (channels // config.heads[level - 1] + 2)
    many = math.prod(cells.shape)
    windows = len(cells.rows.starts) * len(cells.columns.starts)
    return max(SUMS_BYTES, many * sums) + (many + windows) * (sums + 8 * channels**2)


LIBRARIES = 40 << 20
"""The workspaces of products and convolutions."""


@contextmanager
def tensor_float_32(allowed: bool) -> Iterator[None]:
    """Whether CUDA's products and convolutions may round float32 to TF32's 10 bits; as it was, afterwards."""
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    matmul.allow_tf32 = cudnn.allow_tf32 = allowed  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before  # pyright: ignore[reportAttributeAccessIssue]


class Piece(NamedTuple):
    """Whole rows of one picture, or whole pictures."""

    pictures: slice
    first: int
    end: int
    """Its rows."""
    top: int
    bottom: int
    """And those that a 3×3 convolution reads, as far as there are any."""

    @property
    def rows(self) -> tuple[slice, slice]:
        """Where its rows are in a map (b, h, w, c)."""
        return self.pictures, slice(self.first, self.end)

    @property
    def around(self) -> tuple[slice, slice]:
        """Where the rows are that it reads."""
        return self.pictures, slice(self.top, self.bottom)

    @property
    def offset(self) -> int:
        """Its first row, as counted from the first one that it reads."""
        return self.first - self.top

    def at(self, borders: Sequence[int], height: int) -> Iterator["Piece"]:
        """The pieces that rows cut it into, the first of which is 0 and the last `height`."""
        for a, b in pairwise(borders):
            first, end = max(a, self.first), min(b, self.end)
            if first < end:
                yield Piece(self.pictures, first, end, max(first - 1, 0), min(end + 1, height))


def cut(count: int, height: int, row: int, limit: int) -> Iterator[Piece]:
    """Pieces of at most `limit` bytes, of `count` pictures whose rows take so many; at least one row each."""
    if height * row <= limit:
        several = max(1, limit // max(1, height * row))
        for first in range(0, count, several):
            yield Piece(slice(first, min(first + several, count)), 0, height, 0, height)
        return
    pieces = -(-height // max(1, limit // row))
    borders = [round(index * height / pieces) for index in range(pieces + 1)]
    for picture in range(count):
        for first, end in pairwise(borders):
            yield Piece(slice(picture, picture + 1), first, end, max(first - 1, 0), min(end + 1, height))


class Plain:
    """What `kernels` does, by PyTorch's own calls."""

    @staticmethod
    def layer_norm(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """LayerNorm over the last axis, or the bias-free one: (…, c) -> the same."""
        wide = x.to(weight.dtype)
        if bias is not None:
            return F.layer_norm(wide, weight.shape, weight, bias).to(x.dtype)
        return (wide * torch.rsqrt(wide.var(-1, correction=0, keepdim=True) + 1e-5) * weight).to(x.dtype)

    @staticmethod
    def depthwise(x: Tensor, weight: Tensor, bias: Tensor | None, qk: Tensor, v: Tensor, offset: int) -> None:
        """A depth-wise 3×3 convolution by (9, c) of x (b, rows, w, c), zeros around it; from row `offset` on."""
        result = _depthwise(x, weight, bias)[:, offset : offset + qk.shape[1]]
        qk.copy_(result[..., : qk.shape[3]])
        v.copy_(result[..., qk.shape[3] :])

    @staticmethod
    def gate(x: Tensor, weight: Tensor, bias: Tensor | None, out: Tensor, offset: int) -> None:
        """GELU of one half of x's depth-wise convolution times the other: (b, rows, w, 2h) -> `out`, (b, n, w, h)."""
        one, other = _depthwise(x, weight, bias)[:, offset : offset + out.shape[1]].chunk(2, dim=-1)
        out.copy_(F.gelu(one) * other)

    @staticmethod
    def gram(qk: Tensor, sums: Tensor, first: int, again: bool) -> None:
        """Sums of q and k, (b, n, w, 2c), to the first slot of pictures `first`… of `sums`; the others are zeroed."""
        batch, heads, width = qk.shape[0], sums.shape[2], sums.shape[4]
        q, k = qk.flatten(1, 2).to(sums.dtype).unflatten(2, (2, heads, width)).permute(2, 0, 3, 1, 4)
        total = torch.cat([q.mT @ k, q.square().sum(2, keepdim=True), k.square().sum(2, keepdim=True)], dim=2)
        target = sums[first : first + batch]
        if again:
            target[:, 0] += total
        else:
            target.zero_()
            target[:, 0] = total

    @staticmethod
    def matrix(sums: Tensor, temperature: Tensor, project: Tensor, dtype: torch.dtype) -> Tensor:
        """The sums, (b, heads, c/heads + 2, c/heads), τ (heads) and W_out (c, c) -> M, (b, c, c)."""
        heads, width = sums.shape[1], sums.shape[3]
        qk, qq, kk = sums[:, :, :width], sums[:, :, width], sums[:, :, width + 1]
        scale = qq.clamp_min(1e-24).rsqrt()[..., :, None] * kk.clamp_min(1e-24).rsqrt()[..., None, :]
        attention = torch.softmax(qk * scale * temperature[:, None, None], dim=-1)
        out = project.unflatten(1, (heads, width)).transpose(0, 1)  # (heads, c, c/heads)
        return (out @ attention).transpose(1, 2).flatten(2).to(dtype)

    @staticmethod
    def embed(pictures: Tensor, weight: Tensor, out: Tensor) -> None:
        """A 3×3 convolution by (9, inputs, c) of pictures (b, inputs, h, w) -> `out`, (b, h, w, c)."""
        planes, kernel = _planes(pictures), _kernel(weight)
        count, _, height, width = pictures.shape
        for piece in cut(count, height, width * sum(weight.shape[1:]) * weight.itemsize, LOOSE_BYTES):
            rows = planes[piece.pictures, :, piece.top : piece.bottom]
            result = F.conv2d(rows, kernel, padding=1).permute(0, 2, 3, 1)
            out[piece.rows] = result[:, piece.offset : piece.offset + piece.end - piece.first]

    @staticmethod
    def output(x: Tensor, weight: Tensor, bias: Tensor | None, pictures: Tensor, out: Tensor, residual: bool) -> None:
        """A 3×3 convolution by (9, c, outputs) of x (b, h, w, c), with the `pictures` added where `residual` says so:
        -> `out`, (b, outputs, h, w) in float32."""
        kernel, (count, height, width, _) = _kernel(weight), x.shape
        for piece in cut(count, height, width * sum(weight.shape[1:]) * weight.itemsize, LOOSE_BYTES):
            rows = x[piece.around].to(weight.dtype).permute(0, 3, 1, 2)
            result = F.conv2d(rows, kernel, bias, padding=1)
            result = result[:, :, piece.offset : piece.offset + piece.end - piece.first]
            out[piece.pictures, :, piece.first : piece.end] = result
        if residual:
            out += pictures


def _planes(pictures: Tensor) -> Tensor:
    return pictures.contiguous(memory_format=torch.channels_last)


def _kernel(weight: Tensor) -> Tensor:
    """(9, c, c') -> (c', c, 3, 3), channels last."""
    return _planes(weight.permute(2, 1, 0).unflatten(2, (3, 3)))


def _depthwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    channels = x.shape[3]
    kernel = weight.mT.reshape(channels, 1, 3, 3).to(x.dtype)
    planes = F.conv2d(x.permute(0, 3, 1, 2), kernel, None if bias is None else bias.to(x.dtype), 1, 1, 1, channels)
    return planes.permute(0, 2, 3, 1)


def kernels(device: torch.device) -> Any:
    """Triton's kernels where they can be had, else `Plain`."""
    if device.type != "cuda":
        return Plain
    try:
        from restormer_cli.engine import kernels
    except Exception:  # no Triton, or none that fits this PyTorch
        return Plain
    return kernels


class WholeMap:
    """A Restormer prepared for inference on a GPU: `run(pictures)` gives what the network gives.

    `dtype` is that of products and features (bfloat16, float16, float32; float64 with `Plain`); sums and softmax are
    float32 or better. The model is read, never changed. `window` is TLC's, in pixels of the picture. `tf32`: whether
    float32 products may be rounded to TF32.
    `operations` are those of `kernels` or `Plain`; None chooses. `graphs`: whether to use CUDA graphs.
    `piece_bytes`: how much the wide maps of a piece may take; None: what suits the GPU's cache.
    `notes` says what did not work, and was done otherwise.
    """

    def __init__(
        self,
        model: Restormer,
        dtype: torch.dtype = torch.float32,
        *,
        window: int | None = None,
        tf32: bool = False,
        operations: Any = None,
        graphs: bool = True,
        piece_bytes: int | None = None,
    ) -> None:
        assert fits(model.config)
        self.config = model.config
        self.window = window
        self.dtype = dtype
        self.wide = torch.promote_types(dtype, torch.float32)
        self.device = next(model.parameters()).device
        self.tf32 = tf32
        self.piece_bytes = piece_bytes
        self.notes: list[str] = []
        layers = dict(model.named_children())
        with torch.inference_mode():
            self.levels = {
                name: [PackedBlock(block, dtype) for block in level]  # type: ignore[arg-type]
                for name, level in layers.items()
                if isinstance(level, Level)
            }
            self.reductions = {
                name: _linear(layer, dtype)
                for name, layer in layers.items()
                if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
            }
            self.embed = _convolution(layers["patch_embed"].get_submodule("proj"), self.wide)
            self.output = _convolution(layers["output"], self.wide)
            self.resample = {
                name: _spread(layer.get_submodule("body.0"), dtype, up=name.startswith("up"))
                for name, layer in layers.items()
                if name.startswith(("down", "up"))
            }
        self.operations = operations or kernels(self.device)
        self.graphs = Graphs() if graphs and self.device.type == "cuda" else None
        self.captured = False
        if operations is None and self.operations is not Plain:
            self._check()

    @torch.inference_mode()
    def run(self, pictures: Tensor, keep_v: bool = True, progress: Progress = silent) -> Tensor:
        """(b, in_channels, h, w), h and w multiples of 8 -> (b, out_channels, h, w) in float32 (or float64).

        `keep_v` and `progress`, which hears nothing, are for the sake of `StripNetwork`, whose `run` this is otherwise.
        """
        pictures = pictures.to(self.wide).contiguous()
        with tensor_float_32(self.tf32), as_current(self.device):
            if self.graphs is not None:
                try:
                    result = self.graphs.run(pictures, self._captured)
                except Exception as error:  # whatever a capture meets, it can be done without
                    self.notes.append(f"without CUDA graphs: {error}")
                    self.graphs = result = None
                    torch.cuda.synchronize(self.device)
                    torch.cuda.empty_cache()
                if result is not None:
                    return result
            return self._sound(pictures)

    def _captured(self, pictures: Tensor) -> Tensor:
        """What a graph is made of: smaller pieces."""
        self.captured = True
        try:
            return self._run(pictures)
        finally:
            self.captured = False

    def _sound(self, pictures: Tensor) -> Tensor:
        """`_run`, by PyTorch's own calls from where Triton fails."""
        try:
            return self._run(pictures)
        except Exception as error:
            if self.operations is Plain or isinstance(error, torch.OutOfMemoryError):
                raise
            self.notes.append(f"without Triton's kernels: {type(error).__name__}: {error}")
            self.operations = Plain
        return self._run(pictures)

    def _check(self) -> None:
        """Give up Triton's kernels where a small map tells that they do not work here."""
        with torch.inference_mode(), tensor_float_32(self.tf32), as_current(self.device):
            block = next(blocks[0] for blocks in self.levels.values() if blocks)
            channels = block.qkv[0].shape[1]
            generator = torch.Generator().manual_seed(0)
            map_ = torch.rand(1, 20, 24, channels, generator=generator).to(self.device, self.dtype)
            pictures = torch.rand(1, self.config.in_channels, 20, 24, generator=generator).to(self.device, self.wide)
            ours, ways = self.operations, []
            try:
                for self.operations in (ours, Plain):
                    ways.append(map_.clone())
                    self._block(block, ways[-1], Cells.of(20, 24, None if self.window is None else 16))
                    embedded = map_.new_empty((1, 20, 24, self.config.dim))
                    self.operations.embed(pictures, self.embed[0], embedded)
                    ways[-1] = torch.cat([ways[-1], embedded], dim=-1)
                one, other = (way.to(self.wide) for way in ways)
                change, rounding = (1e-3, 1e-5) if self.dtype == torch.float32 and not self.tf32 else (0.05, 0.01)
                before = torch.cat([map_, torch.zeros_like(embedded)], dim=-1).to(self.wide)
                allowed = change * (other - before).norm() + rounding * before.norm()
                sound = bool((one - other).norm() <= allowed)
                problem = "another answer than PyTorch's"
            except Exception as error:
                sound, problem = False, f"{type(error).__name__}: {error}"
            self.operations = ours if sound else Plain
            if not sound:
                self.notes.append(f"without Triton's kernels: {problem}")

    def _run(self, pictures: Tensor) -> Tensor:
        config = self.config
        count, _, height, width = pictures.shape
        x = torch.empty((count, height, width, config.dim), dtype=self.dtype, device=pictures.device)
        self.operations.embed(pictures, self.embed[0], x)
        embedded = x.clone() if config.dual_pixel else None
        level1 = self._level("encoder_level1", x)
        level2 = self._level("encoder_level2", self._down("down1_2", level1))
        level3 = self._level("encoder_level3", self._down("down2_3", level2))
        x = self._level("latent", self._down("down3_4", level3))
        x = self._reduce("reduce_chan_level3", self._join("up4_3", x, level3))
        del level3
        x = self._reduce("reduce_chan_level2", self._join("up3_2", self._level("decoder_level3", x), level2))
        del level2
        x = self._join("up2_1", self._level("decoder_level2", x), level1)
        del level1
        if not config.concat:
            x = self._reduce("reduce_chan_level1", x)
        x = self._level("refinement", self._level("decoder_level1", x))
        if embedded is not None:
            x += _multiplied(embedded, *self.reductions["skip_conv"])
        result = pictures.new_empty((count, config.out_channels, height, width))
        self.operations.output(x, *self.output, pictures, result, not config.dual_pixel)
        return result

    def _level(self, name: str, x: Tensor) -> Tensor:
        """The blocks of a level, in place: (b, h, w, c)."""
        cells = Cells.at(LEVEL[name], x.shape[1], x.shape[2], self.window)
        for block in self.levels[name]:
            self._block(block, x, cells)
        return x

    def _block(self, block: "PackedBlock", x: Tensor, cells: Cells) -> None:
        ops = self.operations
        v, normed = torch.empty_like(x), ops.layer_norm(x, *block.norm1)
        matrices = self._matrices(block, normed, v, cells)
        del normed
        if len(matrices) == 1:
            _add(x, v, matrices[0], block.project_bias)
        else:
            _add_by_cells(x, v, matrices, block.project_bias, cells)
        del v
        normed = ops.layer_norm(x, *block.norm2)
        for piece in self._cut(x, 3 * block.hidden):
            wide = _multiplied(normed[piece.around], *block.ffn_in)
            part = x[piece.rows]
            gated = part.new_empty((*part.shape[:3], block.hidden))
            ops.gate(wide, *block.ffn_dwconv, gated, piece.offset)
            _add(part, gated, *block.ffn_out)
            del wide, gated  # before the next ones are made

    def _matrices(self, block: "PackedBlock", normed: Tensor, v: Tensor, cells: Cells) -> Tensor:
        """M of every cell, (cells, b, c, c), from the normed map; v is written: (b, h, w, c) each."""
        ops, (count, _, width, channels) = self.operations, v.shape
        pieces = [
            part for piece in self._cut(v, 5 * channels) for part in piece.at(cells.rows.borders, normed.shape[1])
        ]
        many, heads, size = math.prod(cells.shape), block.heads, channels // block.heads
        most = max((piece.end - piece.first) * width for piece in pieces) // cells.shape[1]
        each = many * count * heads * (size + 2) * size * self.wide.itemsize
        slots = max(1, min(SLOTS, most // 128, SUMS_BYTES // each))
        sums = torch.empty((many * count, slots, heads, size + 2, size), dtype=self.wide, device=v.device)
        for piece in pieces:
            qkv = _multiplied(normed[piece.around], *block.qkv)
            part = v[piece.rows]
            qk = part.new_empty((*part.shape[:3], 2 * channels))
            ops.depthwise(qkv, *block.qkv_dwconv, qk, part, piece.offset)
            for cell, rows, columns in cells.pieces(piece.first, piece.end, 0, width):
                begun = piece.first > cells.rows.borders[cell // cells.shape[1]]  # in an earlier piece
                assert rows == slice(0, piece.end - piece.first)
                ops.gram(qk[:, :, columns].contiguous(), sums, cell * count + piece.pictures.start, begun)
            del qkv, qk  # before the next ones are made
        total = sums.sum(1)
        if many == 1:
            return ops.matrix(total, block.temperature, block.project, self.dtype)[None]
        windows = cells.gather(total.unflatten(0, (many, count)))
        matrices = ops.matrix(windows.flatten(0, 1).contiguous(), block.temperature, block.project, self.wide)
        return cells.means(matrices.unflatten(0, (-1, count))).to(self.dtype)

    def _cut(self, x: Tensor, channels: int) -> Iterator[Piece]:
        """Pieces of a map, (b, h, w, …), for so many channels."""
        count, height, width = x.shape[:3]
        limit = self.piece_bytes or (PIECE_BYTES if self.captured else LOOSE_BYTES)
        return cut(count, height, width * channels * self.dtype.itemsize, limit)

    def _down(self, name: str, x: Tensor) -> Tensor:
        """Convolve and pixel-unshuffle: (b, h, w, c) -> (b, h/2, w/2, 2c)."""
        rows = F.conv2d(x.permute(0, 3, 1, 2), self.resample[name], padding=1).permute(0, 2, 3, 1)
        halves = rows.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # (b, h/2, y, w/2, x, c/2)
        return halves.permute(0, 1, 3, 5, 2, 4).reshape(*x.shape[:1], x.shape[1] // 2, x.shape[2] // 2, -1)

    def _join(self, name: str, x: Tensor, skip: Tensor) -> Tensor:
        """Convolve and pixel-shuffle, and join the skip: (b, h, w, c) and (b, 2h, 2w, c/2) -> (b, 2h, 2w, c)."""
        raised = F.conv2d(x.permute(0, 3, 1, 2), self.resample[name], padding=1).permute(0, 2, 3, 1)
        half = skip.shape[3]
        joined = skip.new_empty((*skip.shape[:3], 2 * half))
        # The convolution's channels are (y, x, c): what comes of a pixel lies together.
        spread = raised.unflatten(3, (2, 2, half)).permute(0, 1, 3, 2, 4, 5)  # (b, h, y, w, x, c)
        joined[..., :half].unflatten(2, (-1, 2)).unflatten(1, (-1, 2)).copy_(spread)
        joined[..., half:] = skip
        return joined

    def _reduce(self, name: str, x: Tensor) -> Tensor:
        return _multiplied(x, *self.reductions[name])


class PackedBlock:
    """A block's weights: in the run's type for products, in float32 or better for everything else."""

    def __init__(self, block: Block, dtype: torch.dtype) -> None:
        attention, feed = block.attn, block.ffn
        assert isinstance(attention, MDTA)
        assert isinstance(feed, GDFN)
        wide = torch.promote_types(dtype, torch.float32)
        self.norm1 = _typed(block.norm1.body.weight, wide), _typed(block.norm1.body.bias, wide)
        self.norm2 = _typed(block.norm2.body.weight, wide), _typed(block.norm2.body.bias, wide)
        self.heads = attention.heads
        self.temperature = attention.temperature.detach().flatten().to(wide)
        self.qkv = _linear(attention.qkv, dtype)
        assert attention.qkv_dwconv is not None
        assert feed.dwconv is not None
        self.qkv_dwconv = _taps(attention.qkv_dwconv.weight, wide), _typed(attention.qkv_dwconv.bias, wide)
        self.project = attention.project_out.weight.detach().flatten(1).to(wide).contiguous()
        self.project_bias = _typed(attention.project_out.bias, dtype)

        hidden = feed.project_out.in_channels
        spare = -hidden % PAD
        self.hidden = hidden + spare

        def padded(tensor: Tensor | None) -> Tensor | None:
            if tensor is None or not spare:
                return tensor
            return torch.cat([F.pad(part, [0, 0] * (part.ndim - 1) + [0, spare]) for part in tensor.chunk(2)])

        weight, taps = padded(feed.project_in.weight.flatten(1)), padded(feed.dwconv.weight)
        assert weight is not None
        assert taps is not None
        self.ffn_in = _typed(weight, dtype), _typed(padded(feed.project_in.bias), dtype)
        self.ffn_dwconv = _taps(taps, wide), _typed(padded(feed.dwconv.bias), wide)
        out = F.pad(feed.project_out.weight.flatten(1), (0, spare))
        self.ffn_out = _typed(out, dtype), _typed(feed.project_out.bias, dtype)


class Graphs:
    """CUDA graphs by the pictures' shape: a size is captured when it comes for the second time."""

    def __init__(self, limit: int = GRAPHS) -> None:
        self.limit = limit
        self.seen: OrderedDict[tuple[int, ...], Any] = OrderedDict()

    def run(self, pictures: Tensor, network: Callable[[Tensor], Tensor]) -> Tensor | None:
        """The answer, or None where the shape is new. Raises whatever a capture meets."""
        shape = tuple(pictures.shape)
        if shape not in self.seen:
            while len(self.seen) >= self.limit:
                self.seen.popitem(last=False)
            self.seen[shape] = None
            return None
        self.seen.move_to_end(shape)
        if self.seen[shape] is None:
            self.seen[shape] = self._capture(pictures, network)
        graph, source, target = self.seen[shape]
        source.copy_(pictures)
        graph.replay()
        return target.clone()

    def _capture(self, pictures: Tensor, network: Callable[[Tensor], Tensor]) -> tuple[Any, Tensor, Tensor]:
        source = pictures.clone()
        aside = torch.cuda.Stream(pictures.device)
        aside.wait_stream(torch.cuda.current_stream(pictures.device))
        with torch.cuda.stream(aside):  # libraries choose and load what they need before the capture
            network(source)
        torch.cuda.current_stream(pictures.device).wait_stream(aside)
        torch.cuda.synchronize(pictures.device)
        torch.cuda.empty_cache()
        graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream(pictures.device)
        with torch.cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            target = network(source)
        return graph, source, target


def _typed(tensor: Tensor | None, dtype: torch.dtype) -> Any:
    return None if tensor is None else tensor.detach().to(dtype).contiguous()


def _taps(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """A depth-wise kernel (c, 1, 3, 3) -> (9, c)."""
    return weight.detach().flatten(1).mT.to(dtype).contiguous()


def _linear(layer: nn.Conv2d, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    return _typed(layer.weight.flatten(1), dtype), _typed(layer.bias, dtype)


def _convolution(layer: nn.Module, dtype: torch.dtype) -> tuple[Tensor, Tensor | None]:
    """A dense 3×3 layer's weight, (c', c, 3, 3) -> (9, c, c'), and bias."""
    assert isinstance(layer, nn.Conv2d)
    return _typed(layer.weight.flatten(2).permute(2, 1, 0), dtype), _typed(layer.bias, dtype)


def _spread(layer: nn.Module, dtype: torch.dtype, *, up: bool) -> Tensor:
    """The weight of a resampling convolution; upwards with outputs (c, y, x) reordered to (y, x, c)."""
    assert isinstance(layer, nn.Conv2d)
    weight = layer.weight.detach()
    if up:
        weight = weight.unflatten(0, (-1, 4)).transpose(0, 1).flatten(0, 1)
    return weight.to(dtype).contiguous(memory_format=torch.channels_last)


def _multiplied(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """x Wᵀ + b over the last axis: (b, h, w, c) -> (b, h, w, c')."""
    return F.linear(x, weight, bias)


def _add(x: Tensor, more: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """x += more · Wᵀ + b over the last axis, W (c, c') or one of each picture's own, (b, c, c'); rounded once."""
    if weight.ndim == 3 and weight.shape[0] > 1:
        x.flatten(1, 2).baddbmm_(more.flatten(1, 2), weight.mT)
    else:
        x.view(-1, x.shape[3]).addmm_(more.view(-1, more.shape[3]), weight.reshape(weight.shape[-2:]).mT)
    if bias is not None:
        x += bias


def _add_by_cells(x: Tensor, more: Tensor, weight: Tensor, bias: Tensor | None, cells: Cells) -> None:
    """`_add` with a matrix for each cell of each picture: W (cells, b, c', c)."""
    for picture in range(x.shape[0]):
        for cell, rows, columns in cells:
            part, of = x[picture, rows, columns], more[picture, rows, columns]
            part.baddbmm_(of, weight[cell, picture].mT.expand(len(part), -1, -1))
    if bias is not None:
        x += bias
