"""The same network, exactly, strip by strip: whole-picture inference that stays in the cache.

Inside a block only MDTA's sums see more than a 3×3 neighbourhood, and sums over pixels add up over any partition of
them (docs/how-it-works.md). So a block is two walks:

1. `gather`: `project` a strip to q, k, v; add its `gram`; keep v (or drop it, to save memory).
2. `finish`: `mix` the strip in place by the matrix built from the sums, and feed it forward in place.

A walk goes down the rows of a piece of the map, a strip of a few rows at a time: the wide intermediates of a strip
never leave the cache, and no full-size temporary exists beyond x and v. On a CPU every core walks pieces of its own
(pieces.py). In float32 the same two walks are functions in C where a compiler is (native/), and in bf16 where the
processor has what makes them faster.
A 3×3 convolution needs a pixel around: `LineBuffer` carries two rows from strip to strip, and a piece reads one pixel
of each neighbour, from its `Halo` where x is already being changed. The result is the textbook network's up to rounding
(test_strips_equal_the_whole_image).
"""

from functools import partial

import torch
from torch import Tensor

from restormer_cli.engine.allocations import SKIP_BYTES, STRIP_BYTES, Allocations
from restormer_cli.engine.bands import BAND, BlockPasses, Halo
from restormer_cli.engine.native.blocks import NativeBlock, NativePasses, Workspace, supports
from restormer_cli.engine.native.transitions import NativeTransitions
from restormer_cli.engine.packed import PackedBlock, PackedLinear
from restormer_cli.engine.pieces import COLUMNS, Piece, cut
from restormer_cli.engine.progress import FIRST_PASS, Meter, Progress, silent
from restormer_cli.engine.tlc import Cells
from restormer_cli.engine.transitions import StripTransitions, whole_rows
from restormer_cli.hardware import in_large_pages
from restormer_cli.model.restormer import Block, Level, Restormer
from restormer_cli.native.build import library, multiplies_pairs
from restormer_cli.native.workers import WorkerPool

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


def by_kernels(model: Restormer, dtype: torch.dtype) -> bool:
    """Whether a model runs by the kernels in C: on a CPU, in float32 where there is a compiler, in bf16 where products
    of pairs are faster besides."""
    if next(model.parameters()).device.type != "cpu":
        return False
    fast = dtype is torch.float32 or (dtype is torch.bfloat16 and multiplies_pairs())
    return fast and library() is not None


class StripNetwork:
    """A Restormer prepared for inference: `run(picture)` gives what the network gives, faster and in less memory.

    `dtype` is that of products and features (float32, bfloat16, float16, float64); sums and softmax are float32
    or better, and so are features by the kernels in C. The model is read, never changed.
    `window` is TLC's, in pixels of the picture; None is the network as it was trained, with global attention.
    `threads` walk as many pieces side by side on a CPU; None: PyTorch's number.
    `compiled` fuses what torch.compile can fuse: for GPUs.
    `native`: by the kernels in C, float32 or bf16 on a CPU only; None: where `by_kernels` says so.
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
        self.native = by_kernels(model, dtype) if native is None else native
        bf16 = self.native and dtype is torch.bfloat16
        self.features = torch.float32 if bf16 else dtype
        layers = dict(model.named_children())
        with torch.inference_mode():
            self.blocks = {
                name: [self._block(block, bf16) for block in level]  # type: ignore[arg-type]
                for name, level in layers.items()
                if isinstance(level, Level)
            }
            self.transitions = (
                NativeTransitions(model, self.workers, self.workspace, bf16)
                if self.native
                else StripTransitions(model, dtype, self.strip_bytes)
            )
            skip = model.skip_conv
            self.skip = None if skip is None else PackedLinear(skip.weight.flatten(1), skip.bias, self.features)

    @torch.inference_mode()
    def run(self, picture: Tensor, keep_v: bool = True, progress: Progress = silent) -> Tensor:
        """(1, in_channels, h, w), h and w multiples of 8 -> (1, out_channels, h, w) in float32 (or float64).

        `keep_v`: whether v of the level-1 decoder is kept, or computed twice, which saves its memory.
        `progress` hears the share of the work that is done.
        """
        meter = Meter(progress, sum(_work(name, block) for name, blocks in self.blocks.items() for block in blocks))
        pixels = picture[0].permute(1, 2, 0).contiguous()  # (h, w, c), from here to the end
        (height, width, _), c = pixels.shape, self.config.dim
        sizes = Allocations(self.config, height, width, keep_v=keep_v, native=self.native)

        # One buffer is the level-1 decoder's map in the end. Until then its back half is the level-1 skip, and its
        # front half is room for every v and for the maps of level 3 and 4. `join` turns one into the other.
        buffer = self._room(sizes.maps).view(2, height, width, c)
        spare, level1 = buffer[0].flatten(), buffer[1]
        self.transitions.embed(pixels, level1)
        embedded = level1.clone() if self.config.dual_pixel else None
        self._level("encoder_level1", level1, spare, meter)
        level2 = self.transitions.down("down1_2", level1, self._room(sizes.level2))
        self._level("encoder_level2", level2, spare, meter)
        level3 = self.transitions.down(
            "down2_3", level2, spare[spare.numel() // 2 :]
        )  # v of the deeper levels comes before
        self._level("encoder_level3", level3, spare, meter)
        level4 = self.transitions.down("down3_4", level3, spare[spare.numel() * 3 // 4 :])
        self._level("latent", level4, spare, meter)

        # Each skip becomes its decoder, in place.
        self.transitions.reduce("up4_3", level4, level3)
        self._level("decoder_level3", level3, spare, meter)
        self.transitions.reduce("up3_2", level3, level2)
        self._level("decoder_level2", level2, spare, meter)
        beside = None
        if self.config.concat and not sizes.joins:
            assert isinstance(self.transitions, NativeTransitions)
            decoded, beside = self.transitions.up("up2_1", level2, buffer[0]), level1
            del level2
        elif self.config.concat:
            decoded = self.transitions.join("up2_1", level2, level1, buffer.view(height, width, 2 * c))
            del level2
            spare = self._room(sizes.decoder_v)
        else:
            decoded = self.transitions.reduce("up2_1", level2, level1)
            del level2
        self._level("decoder_level1", decoded, spare, meter)
        self._level("refinement", decoded, spare, meter)
        del spare
        if embedded is not None:
            assert self.skip is not None
            for a, b in whole_rows(decoded, decoded.shape[2], SKIP_BYTES // 2):
                decoded[a:b] = self.skip(embedded[a:b], onto=decoded[a:b])
        result = pixels.new_empty((height, width, self.config.out_channels))
        self.transitions.output(decoded, result, None if self.config.dual_pixel else pixels, beside)
        return result.permute(2, 0, 1)[None]

    def _level(self, name: str, x: Tensor, spare: Tensor, meter: Meter) -> None:
        """The blocks of a level, in place: (h, w, c). `spare` is memory for v; where it is too small v is not kept."""
        height, width, channels = x.shape
        v = spare[: x.numel()].view(x.shape) if spare.numel() >= x.numel() else None
        cells = Cells.at(LEVEL[name], height, width, self.window)
        for block in self.blocks[name]:
            work = _work(name, block)
            shares = (FIRST_PASS * work, (1 - FIRST_PASS) * work)
            if isinstance(block, NativeBlock):
                pieces = cut(height, width, COLUMNS, self.workers.size)
                done = [meter.each(share, len(pieces)) for share in shares]
                NativePasses(x, v, cells, pieces, self.workers, self.workspace).run(block, done)
                continue
            pieces = cut(height, width, self.band, self.workers.size)
            done = [meter.each(share, len(pieces)) for share in shares]
            rows = min(height, self._rows(pieces, max(3 * channels, block.ffn_width)))
            walk = BlockPasses(block, x, v, cells, rows)
            sums = self.workers.map(walk.gather, pieces, done[0])
            matrices = self.workers.alone(partial(walk.matrices, sums))
            surrounded = [(piece, Halo(x, piece, 1 if v is not None else 2)) for piece in pieces]
            self.workers.map(partial(walk.finish, matrices=matrices), surrounded, done[1])

    def _room(self, numbers: int) -> Tensor:
        """Memory for maps."""
        return in_large_pages(torch.empty(numbers, dtype=self.features, device=self.device))

    def _block(self, block: Block, bf16: bool) -> NativeBlock | PackedBlock:
        if self.native and supports(block):
            return NativeBlock(block, bf16)
        return PackedBlock(block, self.features, self.compiled)

    def _rows(self, pieces: list[Piece], channels: int) -> int:
        """Rows of a strip whose intermediate of so many channels fits `strip_bytes`."""
        columns = max(piece.columns[1] - piece.columns[0] for piece in pieces)
        return max(1, self.strip_bytes // (columns * channels * self.features.itemsize))


def _work(name: str, block: NativeBlock | PackedBlock) -> float:
    """About what a block costs, against other blocks: products, and what is done to every number besides."""
    return block.channels * (block.channels + 40) / 4 ** (LEVEL[name] - 1)
