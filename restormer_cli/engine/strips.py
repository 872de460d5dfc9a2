"""The same network, exactly, strip by strip: whole-picture inference that stays in the cache.

Inside a block only MDTA's sums see more than a 3×3 neighbourhood, and sums over pixels add up over any partition of
them (docs/how-it-works.md). So a block is two walks:

1. `gather`: `project` a strip to q, k, v; add its `gram`; keep v (or drop it, to save memory).
2. `finish`: `mix` the strip in place by the matrix built from the sums, and feed it forward in place.

A walk goes down the rows of a band of columns, a strip of a few rows at a time: the wide intermediates of a strip
never leave the cache, and no full-size temporary exists beyond x and v. On a CPU every core walks a band of its own.
A 3×3 convolution needs a pixel around: `LineBuffer` carries two rows from strip to strip, and a band reads one column
of each neighbour, from `Halos` where x is already being changed. The result is the textbook network's up to rounding
(test_strips_equal_the_whole_image).
"""

from collections.abc import Callable
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor, nn

from restormer_cli.engine.bands import BAND, Band, BlockPasses, Halos, count_bands
from restormer_cli.engine.native.blocks import NativeBlock, NativePasses, Workspace, supports
from restormer_cli.engine.native.build import library
from restormer_cli.engine.packed import PackedBlock, PackedConv, PackedLinear, convolution
from restormer_cli.engine.pieces import cut
from restormer_cli.engine.tlc import Cells
from restormer_cli.engine.workers import WorkerPool
from restormer_cli.model.restormer import Block, Level, Restormer

PIECE = 64
"""Columns of a piece for the kernels: three of its rows, widened, are to fit the cache of a core."""
STRIP_BYTES = {"cpu": 4 << 20, "cuda": 512 << 20, "mps": 128 << 20}
"""Size of the widest intermediate of a strip: what the caches of a core hold, or enough to fill a GPU."""

LEVEL = {
    "encoder_level1": 1,
    "encoder_level2": 2,
    "encoder_level3": 3,
    "latent": 4,
    "decoder_level3": 3,
    "decoder_level2": 2,
    "decoder_level1": 1,
    "refinement": 1,
}


class Strips:
    """A Restormer prepared for inference: `run(picture)` gives what the network gives, faster and in less memory.

    `dtype` is that of products and features (float32, bfloat16, float16, float64); sums and softmax are float32
    or better. The model is read, never changed.
    `window` is TLC's, in pixels of the picture; None is the network as it was trained, with global attention.
    `threads` walk as many bands side by side on a CPU; None: PyTorch's number.
    `compiled` fuses what torch.compile can fuse: for GPUs.
    """

    def __init__(
        self,
        model: Restormer,
        dtype: torch.dtype = torch.float32,
        *,
        window: int | None = None,
        strip_bytes: int | None = None,
        band: int | None = None,
        threads: int | None = None,
        compiled: bool = False,
        native: bool | None = None,
    ) -> None:
        self.config = model.config
        self.dtype = dtype
        self.window = window
        self.device = next(model.parameters()).device
        on_cpu = self.device.type == "cpu"
        self.compiled = compiled
        self.strip_bytes = strip_bytes or STRIP_BYTES.get(self.device.type, 2 << 20)
        self.band = band or (BAND if on_cpu else 1 << 30)
        self.threads = threads if on_cpu and not compiled else 1
        self.workers = WorkerPool(self.threads)
        self.workspace = Workspace()
        self.native = native if native is not None else on_cpu and dtype is torch.float32 and library() is not None
        layers = dict(model.named_children())
        with torch.inference_mode():
            self.blocks = {
                name: [self._block(block) for block in level]  # type: ignore[arg-type]
                for name, level in layers.items()
                if isinstance(level, Level)
            }
            self.reductions = {
                name: PackedLinear(layer.weight.flatten(1), layer.bias, dtype)
                for name, layer in layers.items()
                if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1)
            }
            wide = torch.promote_types(dtype, torch.float32)  # what meets the picture itself is not rounded
            self.embed = convolution(layers["patch_embed"].get_submodule("proj"), wide)
            self.output = convolution(layers["output"], wide)
            self.resample = {
                name: convolution(layer.get_submodule("body.0"), dtype)
                for name, layer in layers.items()
                if name.startswith(("down", "up"))
            }

    @torch.inference_mode()
    def run(self, picture: Tensor, keep_v: bool = True) -> Tensor:
        """(1, in_channels, h, w), h and w multiples of 8 -> (1, out_channels, h, w) in float32 (or float64).

        `keep_v`: whether v of the level-1 decoder is kept, or computed twice, which saves its memory.
        """
        pixels = picture[0].permute(1, 2, 0).contiguous()  # (h, w, c), from here to the end
        (height, width, _), c = pixels.shape, self.config.dim

        # One buffer is the level-1 decoder's map in the end. Until then its back half is the level-1 skip, and its
        # front half is room for every v and for the maps of level 3 and 4. `_join` turns one into the other.
        buffer = torch.empty((2, height, width, c), dtype=self.dtype, device=self.device)
        spare, level1 = buffer[0].flatten(), buffer[1]
        self._convolve(self.embed, pixels, level1)
        embedded = level1.clone() if self.config.dual_pixel else None
        self._level("encoder_level1", level1, spare)
        level2 = self._down("down1_2", level1, level1.new_empty(height * width * c // 2))
        self._level("encoder_level2", level2, spare)
        level3 = self._down("down2_3", level2, spare[spare.numel() // 2 :])  # v of the deeper levels comes before
        self._level("encoder_level3", level3, spare)
        level4 = self._down("down3_4", level3, spare[spare.numel() * 3 // 4 :])
        self._level("latent", level4, spare)

        # Each skip becomes its decoder, in place.
        self._reduce("up4_3", level4, level3, "reduce_chan_level3")
        self._level("decoder_level3", level3, spare)
        self._reduce("up3_2", level3, level2, "reduce_chan_level2")
        self._level("decoder_level2", level2, spare)
        if self.config.concat:
            decoded = self._join("up2_1", level2, level1, buffer.view(height, width, 2 * c))
            spare = buffer.new_empty(buffer.numel() if keep_v else 0)
        else:
            decoded = self._reduce("up2_1", level2, level1, "reduce_chan_level1")
        del level2
        self._level("decoder_level1", decoded, spare)
        self._level("refinement", decoded, spare)
        if embedded is not None:
            skip = self.reductions["skip_conv"]
            for a, b in self._strips(decoded, decoded.shape[2]):
                decoded[a:b] = skip(embedded[a:b], onto=decoded[a:b])
        result = pixels.new_empty((height, width, self.config.out_channels))
        self._convolve(self.output, decoded, result)
        if not self.config.dual_pixel:
            result += pixels
        return result.permute(2, 0, 1)[None]

    def _level(self, name: str, x: Tensor, spare: Tensor) -> None:
        """The blocks of a level, in place: (h, w, c). `spare` is memory for v; where it is too small v is not kept."""
        height, width, channels = x.shape
        level = LEVEL[name]
        v = spare[: x.numel()].view(x.shape) if spare.numel() >= x.numel() else None
        cells = Cells.of(height, width, None if self.window is None else max(1, self.window >> (level - 1)))
        for block in self.blocks[name]:
            if isinstance(block, NativeBlock):
                pieces = cut(height, width, PIECE, self.workers.size)
                NativePasses(x, v, cells, pieces, self.workers, self.workspace).run(block)
                continue
            bands = self._bands(width)
            rows = min(height, self._rows(bands, max(3 * channels, block.ffn_width)))
            walk = BlockPasses(block, x, v, cells, rows)
            matrices = walk.matrices(self.workers.map(walk.gather, bands))
            edges = Halos(x, bands, 1 if v is not None else 2)
            self.workers.map(partial(walk.finish, edges=edges, matrices=matrices), bands)

    def _block(self, block: Block) -> NativeBlock | PackedBlock:
        if self.native and supports(block):
            return NativeBlock(block)
        return PackedBlock(block, self.dtype, self.compiled)

    def _bands(self, width: int) -> list["Band"]:
        """Bands as even as can be, of at most `band` columns."""
        count = count_bands(width, self.band, self.workers.size)
        borders = [round(index * width / count) for index in range(count + 1)]
        return [Band(left, right, width) for left, right in pairwise(borders)]

    def _rows(self, bands: list["Band"], channels: int) -> int:
        """Rows of a strip whose intermediate of so many channels fits `strip_bytes`."""
        columns = max(band.right - band.left for band in bands)
        return max(1, self.strip_bytes // (columns * channels * self.dtype.itemsize))

    def _strips(self, x: Tensor, channels: int) -> list[tuple[int, int]]:
        """Ranges of whole rows, each even but for the last, whose intermediate of so many channels is bounded."""
        height, width = x.shape[:2]
        rows = max(1, 2 * self.strip_bytes // (width * channels * self.dtype.itemsize))
        rows += rows % 2
        return [(a, min(a + rows, height)) for a in range(0, height, rows)]

    def _convolved(self, layer: PackedConv, x: Tensor, take: Callable[[int, int, Tensor], None]) -> None:
        """A 3×3 convolution of the whole map, (h, w, c): `take` gets the first row, the end, and (rows, w, c')."""
        height, width, channels = x.shape

        for a, b in self._strips(x, max(channels, layer.outputs)):
            top, bottom = max(a - 1, 0), min(b + 1, height)
            space = torch.empty((b - a + 2, width + 2, channels), dtype=layer.dtype, device=self.device)
            space[:, 0] = space[:, -1] = 0
            if top == a:
                space[0] = 0
            if bottom == b:
                space[-1] = 0
            space[top - a + 1 : bottom - a + 1, 1:-1] = x[top:bottom]
            take(a, b, layer(space))

    def _convolve(self, layer: PackedConv, x: Tensor, result: Tensor) -> None:
        """(h, w, c) -> `result`, (h, w, c')."""

        def take(a: int, b: int, rows: Tensor) -> None:
            result[a:b] = rows

        self._convolved(layer, x, take)

    def _down(self, name: str, x: Tensor, memory: Tensor) -> Tensor:
        """Convolve and pixel-unshuffle: (h, w, c) -> (h/2, w/2, 2c), at the beginning of `memory`."""
        height, width, channels = x.shape
        result = memory[: x.numel() // 2].view(height // 2, width // 2, 2 * channels)
        # (h/2, y, w/2, x, c/2) seen through the result's (h/2, w/2, c/2, y, x); strips begin and end at even rows.
        spread = result.unflatten(2, (channels // 2, 2, 2)).permute(0, 3, 1, 4, 2)

        def take(a: int, b: int, rows: Tensor) -> None:
            spread[a // 2 : b // 2] = rows.unflatten(1, (width // 2, 2)).unflatten(0, ((b - a) // 2, 2))

        self._convolved(self.resample[name], x, take)
        return result

    def _up(self, name: str, x: Tensor, take: Callable[[int, int, Tensor], None]) -> None:
        """Convolve and pixel-shuffle, (h, w, c) -> (2h, 2w, c/2): `take` gets the first row, the end, and a view of
        shape (rows / 2, 2, w, 2, c/2)."""

        def shuffle(a: int, b: int, rows: Tensor) -> None:
            take(2 * a, 2 * b, rows.unflatten(2, (-1, 2, 2)).permute(0, 3, 1, 4, 2))

        self._convolved(self.resample[name], x, shuffle)

    def _reduce(self, name: str, x: Tensor, skip: Tensor, reduce: str) -> Tensor:
        """Up, join the skip, and reduce to the skip's place: (h, w, c) and (2h, 2w, c/2) -> the latter."""
        product = self.reductions[reduce]

        def take(a: int, b: int, raised: Tensor) -> None:
            below = skip[a:b]
            below.copy_(product(_joined(raised, below, below.new_empty((*below.shape[:2], 2 * below.shape[2])))))

        self._up(name, x, take)
        return skip

    def _join(self, name: str, x: Tensor, skip: Tensor, canvas: Tensor) -> Tensor:
        """Up, and join the skip: (h, w, c) and (2h, 2w, c/2) -> `canvas`, (2h, 2w, c).

        The skip is the back half of the canvas' memory. Going down, what is written never reaches what is yet to be
        read: y rows of the canvas are as long as 2y rows of the skip, and its row y comes after 2h + y of them.
        """

        def take(a: int, b: int, raised: Tensor) -> None:
            _joined(raised, skip[a:b].clone(), canvas[a:b])

        self._up(name, x, take)
        return canvas


def _joined(raised: Tensor, skip: Tensor, result: Tensor) -> Tensor:
    """(h/2, 2, w/2, 2, c) and (h, w, c) -> `result`, (h, w, 2c)."""
    half = skip.shape[2]
    result[..., :half].unflatten(1, (-1, 2)).unflatten(0, (-1, 2)).copy_(raised)
    result[..., half:] = skip
    return result
