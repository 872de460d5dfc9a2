"""A block in two walks over the pieces of a map, a thread each: bands of columns, rows that are kept, halos."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from restormer_cli.engine.packed import PackedBlock, PackedConv, PackedLinear
from restormer_cli.engine.pieces import Piece
from restormer_cli.engine.tlc import Cells
from restormer_cli.model.restormer import Gram

BAND = 128
"""Columns of a piece at most, where there are that many: so that a strip of several rows fits the cache."""


@dataclass(frozen=True)
class Band:
    """The columns [left, right) of a map that has the columns [0, width)."""

    left: int
    right: int
    width: int

    @property
    def own(self) -> slice:
        """Its columns."""
        return slice(self.left, self.right)

    @cached_property
    def around(self) -> "Band":
        """The band with a column more on either side, also where the map ends."""
        return Band(self.left - 1, self.right + 1, self.width)

    @cached_property
    def inside(self) -> "Band":
        """What of it lies on the map."""
        return Band(max(self.left, 0), min(self.right, self.width), self.width)

    def within(self, other: "Band") -> slice:
        """Its columns as `other` counts them."""
        return slice(self.left - other.left, self.right - other.left)

    def clear(self, rows: Tensor) -> None:
        """Zeros where rows of the band, (n, columns, c), lie beyond the map."""
        inside = self.inside.within(self)
        rows[:, : inside.start] = 0
        rows[:, inside.stop :] = 0

    def read(self, x: Tensor, a: int, b: int) -> Tensor:
        """Rows a to b of the band from a map, (b - a, columns, c); zeros beyond it."""
        if self.inside == self:
            return x[a:b, self.own]
        rows = x.new_empty((b - a, self.right - self.left, x.shape[2]))
        self.clear(rows)
        rows[:, self.inside.within(self)] = x[a:b, self.inside.own]
        return rows


@dataclass(frozen=True)
class BlockPasses:
    """The two walks of one block down the pieces of the map x (h, w, c), in place, `rows` rows at a time."""

    block: PackedBlock
    x: Tensor
    v: Tensor | None
    """Where v is kept; None: computed again in the second walk."""
    cells: Cells
    rows: int

    def gather(self, piece: Piece) -> dict[int, Gram]:
        """The first walk: the sums of every cell in the piece; fills v."""
        block, c, band = self.block, self.block.channels, self._band(piece)
        rolling = LineBuffer(block.qkv, block.qkv_dwconv, piece.rows, band, self)
        sums: dict[int, Gram] = {}
        for a, b in self._strips(piece, 1):
            parts, first, end = rolling.push(block.norm1(band.around.read(self.x, a, b)), a, b)
            if first == end:
                continue
            qkv = parts[0]
            if self.v is not None:
                self.v[first:end, band.own] = qkv[..., 2 * c :]
            for cell, rows, columns in self.cells.pieces(first, end, band.left, band.right):
                part = block.gram(qkv[rows, columns])
                if cell in sums:
                    part = Gram(*(total.add_(more) for total, more in zip(sums[cell], part, strict=True)))
                sums[cell] = part
        return sums

    def matrices(self, sums: Sequence[dict[int, Gram]]) -> list[PackedLinear]:
        """The pieces' sums -> M of every cell, prepared."""
        down, across = self.cells.shape
        parts = [[piece[cell] for piece in sums if cell in piece] for cell in range(down * across)]
        cells = [Gram(*(torch.stack(terms).sum(0) for terms in zip(*cell, strict=True))) for cell in parts]
        totals = Gram(*(torch.cat(terms) for terms in zip(*cells, strict=True)))
        matrices = self.cells.means(self.block.matrix(self.cells.windows(totals)))
        return [PackedLinear(matrix, self.block.project_out_bias, self.x.dtype) for matrix in matrices]

    def finish(self, surrounded: tuple[Piece, "Halo"], matrices: list[PackedLinear]) -> None:
        """The second walk: mix, then feed forward, each strip in place."""
        piece, halo = surrounded
        block, x, band = self.block, self.x, self._band(piece)
        outer = band.around
        wider = max(piece.rows[0] - 1, 0), min(piece.rows[1] + 1, x.shape[0])
        recalled = LineBuffer(block.v, block.v_dwconv, wider, outer, self) if self.v is None else None
        feed = LineBuffer(block.ffn_in, block.ffn_dwconv, piece.rows, band, self)
        for a, b in self._strips(piece, 1 if recalled is None else 2):
            if recalled is None:
                assert self.v is not None
                v = outer.read(self.v, a, b)
            else:
                parts, a, b = recalled.push(block.norm1(halo.read(outer.around, a, b)), a, b)
                if a == b:
                    continue
                v = parts[0]
            mixed = self._mix(halo.read(outer, a, b), v, a, b, outer, matrices)
            own = slice(max(a, piece.rows[0]), min(b, piece.rows[1]))
            x[own, band.own] = mixed[own.start - a : own.stop - a, band.within(outer)]
            parts, first, end = feed.push(block.norm2(mixed), a, b)
            if first < end:
                self._add(x[first:end, band.own], block.ffn_out, block.gate(parts))

    def _mix(self, x: Tensor, v: Tensor, a: int, b: int, band: Band, matrices: list[PackedLinear]) -> Tensor:
        """x + M v, with every cell's own M."""
        if len(matrices) == 1:
            return matrices[0](v, onto=x)
        for cell, rows, columns in self.cells.pieces(a, b, band.left, band.right):
            x[rows, columns] = matrices[cell](v[rows, columns].contiguous(), onto=x[rows, columns].contiguous())
        return x

    def _add(self, x: Tensor, product: PackedLinear, rows: Tensor) -> None:
        """x += product(rows), rounded once."""
        if x.dtype.itemsize >= 4:
            x += product(rows)
        else:
            x.copy_(product(rows, onto=x.contiguous()))

    def _band(self, piece: Piece) -> Band:
        return Band(*piece.columns, self.x.shape[1])

    def _strips(self, piece: Piece, reach: int) -> Iterator[tuple[int, int]]:
        """The rows of a piece and so many more on either side, as far as the map goes."""
        end = min(piece.rows[1] + reach, self.x.shape[0])
        for a in range(max(piece.rows[0] - reach, 0), end, self.rows):
            yield a, min(a + self.rows, end)


class Halo:
    """The map as it was before the second walk began to change it: `reach` pixels around a piece."""

    def __init__(self, x: Tensor, piece: Piece, reach: int) -> None:
        (top, bottom), (left, right) = piece.rows, piece.columns
        height, width = x.shape[:2]
        above, below = max(top - reach, 0), min(bottom + reach, height)
        before, behind = max(left - reach, 0), min(right + reach, width)
        sides = ((above, top, before, behind), (bottom, below, before, behind))
        sides += ((top, bottom, before, left), (top, bottom, right, behind))
        self.x = x
        self.parts = [((top, bottom, left, right), x[top:bottom, left:right])]
        """Rectangles and what is on them: the piece as it is now, the rest as it was."""
        self.parts += [((a, b, c, d), x[a:b, c:d].clone()) for a, b, c, d in sides if a < b and c < d]

    def read(self, outer: Band, a: int, b: int) -> Tensor:
        """Rows a to b of `outer`, at most `reach` beyond the piece; zeros beyond the map; contiguous."""
        rows = self.x.new_empty((b - a, outer.right - outer.left, self.x.shape[2]))
        outer.clear(rows)
        for (top, bottom, left, right), values in self.parts:
            first, end = max(top, a), min(bottom, b)
            start, stop = max(left, outer.left), min(right, outer.right)
            if first < end and start < stop:
                rows[first - a : end - a, start - outer.left : stop - outer.left] = values[
                    first - top : end - top, start - left : stop - left
                ]
        return rows


class LineBuffer:
    """A product and depth-wise 3×3 convolutions, fed strip after strip: rows in, the rows that are then complete out.

    `rows` are those that are wanted; what is fed begins a row before them and ends a row after, where the map does not.
    The last two rows are carried over, so each is computed once; the product writes where the convolutions read. The
    channels may be split over several convolutions. Without a convolution there is but the product.
    """

    def __init__(
        self,
        product: PackedLinear,
        layers: tuple[PackedConv, ...] | None,
        rows: tuple[int, int],
        band: Band,
        walk: BlockPasses,
    ) -> None:
        self.product = product
        self.layers = layers
        self.band = band
        self.height = walk.x.shape[0]
        self.done, self.end = rows
        self.filled = 1 if self.done == 0 else 0  # with the row of zeros above the map
        columns = band.right - band.left + 2
        self.spaces = [walk.x.new_empty((walk.rows + 4, columns, layer.outputs)) for layer in layers or ()]
        for space in self.spaces:
            space[: self.filled] = 0

    def push(self, rows: Tensor, first: int, end: int) -> tuple[list[Tensor], int, int]:
        """Rows `first` to `end` of the map, (n, columns around the band, c) -> the band's complete rows, first, end."""
        start = self.done
        around = self.band.around
        if self.layers is None:
            self.done = max(start, min(end, self.end))
            own = rows[start - first : self.done - first, self.band.within(around)]
            return self.product.parts(own) if start < self.done else [], start, self.done
        used = self.filled + rows.shape[0]
        targets = [space[self.filled : used] for space in self.spaces]
        self.product.into(rows, targets)
        for target in targets:
            around.clear(target)
        if end == self.end == self.height:
            for space in self.spaces:
                space[used] = 0
            used += 1
        complete = used - 2
        if complete > 0:
            results = [layer(space[:used]) for layer, space in zip(self.layers, self.spaces, strict=True)]
            for space in self.spaces:
                space[:2] = space[complete:used].clone()
            self.filled = 2
            self.done += complete
        else:
            results = []
            self.filled = used
        return results, start, self.done
