"""A block's weights as the kernels want them, and its two passes over the pieces of a map."""

import ctypes
import threading
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from restormer_cli.engine.pieces import Piece, halo_pixels
from restormer_cli.engine.tlc import Cells
from restormer_cli.model.restormer import GDFN, MDTA, Block, Gram, folded
from restormer_cli.native.build import library
from restormer_cli.native.layouts import padded, padded_halves, panels, pointer
from restormer_cli.native.workers import WorkerPool

POINTERS = (
    *("qkv", "v_only", "mix", "widen", "narrow"),
    *("qkv_bias", "v_only_bias", "mix_bias", "widen_bias", "narrow_bias"),
    *("qkv_taps", "qkv_taps_bias", "v_taps", "v_taps_bias", "widen_taps", "widen_taps_bias"),
)
NUMBERS = ("height", "width", "channels", "heads", "hidden", "inner", "centred1", "centred2")


class BlockStruct(ctypes.Structure):
    """`Block` of kernels.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in (*NUMBERS, "cell_rows", "cell_columns")),
        *((name, ctypes.c_void_p) for name in ("row_borders", "column_borders", "x", "v", *POINTERS)),
    )


class PieceStruct(ctypes.Structure):
    """`Piece` of kernels.c."""

    _fields_ = (
        *((name, ctypes.c_int64) for name in ("top", "bottom", "left", "right")),
        ("halo", ctypes.c_void_p),
        *((name, ctypes.c_int64) for name in ("cell_top", "cell_left", "cells_across")),
        *((name, ctypes.c_void_p) for name in ("qk", "qq", "kk", "scratch")),
    )


def supports(block: Block) -> bool:
    """Whether the kernels know this block: MDTA and GDFN as the paper has them, with or without biases."""
    attention, feed = block.attn, block.ffn
    return (
        isinstance(attention, MDTA)
        and isinstance(feed, GDFN)
        and attention.qkv_dwconv is not None
        and feed.dwconv is not None
        and feed.gated
    )


class NativeBlock:
    """A block's weights, laid out for the kernels; the norms' own are part of the products after them.

    `bf16`: products' weights, and what they multiply, are rounded to it; all else is float32.
    """

    @torch.no_grad()
    def __init__(self, block: Block, bf16: bool = False) -> None:
        kernels = library(bf16=bf16)
        assert kernels is not None
        self.kernels, self.bf16 = kernels, bf16
        attention, feed = block.attn, block.ffn
        assert isinstance(attention, MDTA)
        assert isinstance(feed, GDFN)
        assert attention.qkv_dwconv is not None
        assert feed.dwconv is not None
        self.attention = attention
        self.channels = c = attention.qkv.in_channels
        self.heads = attention.heads
        self.inner = feed.project_out.in_channels
        self.hidden = self.inner + -self.inner % kernels.lanes()

        weight, bias = folded(block.norm1, attention.qkv, torch.float64)
        taps, taps_bias = attention.qkv_dwconv.weight.flatten(1), attention.qkv_dwconv.bias
        self.tensors: dict[str, Tensor | None] = {
            "qkv": panels(weight, bf16),
            "qkv_bias": optional(padded, bias),
            "qkv_taps": padded(taps.mT),
            "qkv_taps_bias": optional(padded, taps_bias),
            "v_only": panels(weight[2 * c :], bf16),
            "v_only_bias": optional(lambda rows: padded(rows[2 * c :]), bias),
            "v_taps": padded(taps[2 * c :].mT),
            "v_taps_bias": optional(lambda rows: padded(rows[2 * c :]), taps_bias),
            "mix_bias": optional(padded, attention.project_out.bias),
        }
        weight, bias = folded(block.norm2, feed.project_in, torch.float64)
        taps, taps_bias = feed.dwconv.weight.flatten(1), feed.dwconv.bias
        self.tensors |= {
            "widen": panels(padded_halves(weight.mT).mT, bf16),
            "widen_bias": optional(padded_halves, bias),
            "widen_taps": padded_halves(taps.mT),
            "widen_taps_bias": optional(padded_halves, taps_bias),
            "narrow": panels(feed.project_out.weight.flatten(1), bf16),
            "narrow_bias": optional(padded, feed.project_out.bias),
        }
        self.struct = BlockStruct(
            channels=c,
            heads=self.heads,
            hidden=self.hidden,
            inner=self.inner,
            centred1=block.norm1.body.bias is not None,
            centred2=block.norm2.body.bias is not None,
            **{name: pointer(tensor) for name, tensor in self.tensors.items()},
        )


def optional(lay_out: Callable[[Tensor], Tensor], tensor: Tensor | None) -> Tensor | None:
    """A bias laid out, where there is one."""
    return None if tensor is None else lay_out(tensor)


class Workspace(threading.local):
    """A thread's rows, kept from piece to piece."""

    room: Tensor | None = None

    def pointer(self, floats: int) -> int:
        """Memory for so many floats."""
        if self.room is None or self.room.numel() < floats:
            self.room = None  # first, so that both are never held
            self.room = torch.empty(floats)
        return self.room.data_ptr()


class NativePasses:
    """The two passes of blocks over one map (height, width, channels), in place; v is kept where there is room."""

    def __init__(
        self,
        x: Tensor,
        v: Tensor | None,
        cells: Cells,
        pieces: Sequence[Piece],
        workers: WorkerPool,
        workspace: Workspace,
    ) -> None:
        self.x, self.v, self.cells, self.pieces, self.workers = x, v, cells, pieces, workers
        self.workspace = workspace
        self.borders = [torch.tensor(axis.borders) for axis in (cells.rows, cells.columns)]

    def run(self, block: NativeBlock, done: Sequence[Callable[[], None] | None] = (None, None)) -> None:
        """One block; `done` hears of every piece, in the first pass and in the second."""
        struct = BlockStruct.from_buffer_copy(block.struct)
        struct.height, struct.width = self.x.shape[:2]
        struct.cell_rows, struct.cell_columns = self.cells.shape
        struct.row_borders, struct.column_borders = (border.data_ptr() for border in self.borders)
        struct.x, struct.v = self.x.data_ptr(), pointer(self.v)
        sums = self._gather(block, struct, done[0])
        mix = self.workers.alone(lambda: self._mix(block, sums))
        struct.mix = mix.data_ptr()
        self._apply(block, struct, done[1])

    def _gather(
        self, block: NativeBlock, struct: BlockStruct, done: Callable[[], None] | None
    ) -> list[tuple[tuple[slice, slice], Gram]]:
        """The first pass: every piece's cells and their sums, (rows, columns, …), in float64."""
        heads, d = block.heads, block.channels // block.heads

        def job(piece: Piece) -> tuple[tuple[slice, slice], Gram]:
            rows, columns = (
                slice(cells[0][0], cells[-1][0] + 1)
                for axis, ends in ((self.cells.rows, piece.rows), (self.cells.columns, piece.columns))
                if (cells := list(axis.pieces(*ends)))
            )
            count = rows.stop - rows.start, columns.stop - columns.start
            shapes = (heads, d, d), (heads, d), (heads, d)
            sums = Gram(*(torch.zeros(*count, *shape, dtype=torch.float64) for shape in shapes))
            part = self._struct(piece)
            part.cell_top, part.cell_left, part.cells_across = rows.start, columns.start, count[1]
            part.qk, part.qq, part.kk = (tensor.data_ptr() for tensor in sums)
            self._call(block, "gather", struct, part)
            return (rows, columns), sums

        return self.workers.map(job, self.pieces, done)

    def _mix(self, block: NativeBlock, parts: list[tuple[tuple[slice, slice], Gram]]) -> Tensor:
        """M of every cell, for the kernels: from the pieces' sums, which are added up in float32 and let go."""
        totals = Gram(*(torch.zeros(*self.cells.shape, *sums.shape[2:]) for sums in parts[0][1]))
        while parts:
            place, own = parts.pop(0)
            for total, more in zip(totals, own, strict=True):
                total[place] += more
        del own, more
        totals = Gram(*(total.flatten(0, 1) for total in totals))
        matrices = self.cells.means(block.attention.matrix(self.cells.windows(totals)))
        return panels(matrices, block.bf16)

    def _apply(self, block: NativeBlock, struct: BlockStruct, done: Callable[[], None] | None) -> None:
        """The second pass: every piece keeps what lies around it, then changes what is its own."""
        parts = [self._struct(piece) for piece in self.pieces]
        reach = 1 if self.v is not None else 2
        floats = [halo_pixels(piece, reach) * block.channels for piece in self.pieces]
        halos = torch.empty(sum(floats)).split(floats)
        for part, halo in zip(parts, halos, strict=True):
            part.halo = halo.data_ptr()
            block.kernels.save_halo(ctypes.byref(struct), ctypes.byref(part))
        self.workers.map(lambda part: self._call(block, "apply", struct, part), parts, done)

    def _struct(self, piece: Piece) -> PieceStruct:
        return PieceStruct(top=piece.rows[0], bottom=piece.rows[1], left=piece.columns[0], right=piece.columns[1])

    def _call(self, block: NativeBlock, name: str, struct: BlockStruct, part: PieceStruct) -> None:
        floats = block.kernels.scratch_floats(ctypes.byref(struct), ctypes.byref(part))
        part.scratch = self.workspace.pointer(floats)
        getattr(block.kernels, name)(ctypes.byref(struct), ctypes.byref(part))
