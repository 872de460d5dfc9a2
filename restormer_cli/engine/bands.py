"""Bands of columns that are computed at once, a thread each; a block in two walks over its rows; rows that are kept."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from restormer_cli.engine.packed import PackedBlock, PackedConv, PackedLinear
from restormer_cli.engine.tlc import Cells
from restormer_cli.model.restormer import Gram

BAND = 128
"""Columns of a band, where there are that many: so that a strip of several rows fits the cache."""


def count_bands(width: int, band: int, threads: int) -> int:
    """How many bands of at most `band` columns: as many for each thread, unless that more than halves their width."""
    count = -(-width // band)
    even = -(-count // threads) * threads
    return even if width >= even * max(1, band // 2) else count


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
    """The two walks of one block down the map x (h, w, c), in place, `rows` rows at a time."""

    block: PackedBlock
    x: Tensor
    v: Tensor | None
    """Where v is kept; None: computed again in the second walk."""
    cells: Cells
    rows: int

    def gather(self, band: Band) -> dict[int, Gram]:
        """The first walk: the sums of every cell in the band; fills v."""
        block, c = self.block, self.block.channels
        rolling = LineBuffer(block.qkv, block.qkv_dwconv, band, self)
        sums: dict[int, Gram] = {}
        for a, b in self._strips():
            parts, first, end = rolling.push(block.norm1(band.around.read(self.x, a, b)), b)
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
        """The bands' sums -> M of every cell, prepared."""
        down, across = self.cells.shape
        parts = [[band[cell] for band in sums if cell in band] for cell in range(down * across)]
        cells = [Gram(*(torch.stack(terms).sum(0) for terms in zip(*cell, strict=True))) for cell in parts]
        totals = Gram(*(torch.cat(terms) for terms in zip(*cells, strict=True)))
        matrices = self.cells.means(self.block.matrix(self.cells.windows(totals)))
        return [PackedLinear(matrix, self.block.project_out_bias, self.x.dtype) for matrix in matrices]

    def finish(self, band: Band, edges: "Halos", matrices: list[PackedLinear]) -> None:
        """The second walk: mix, then feed forward, each strip in place."""
        block, x, outer = self.block, self.x, band.around
        recalled = LineBuffer(block.v, block.v_dwconv, outer, self) if self.v is None else None
        feed = LineBuffer(block.ffn_in, block.ffn_dwconv, band, self)
        for a, b in self._strips():
            if recalled is None:
                assert self.v is not None
                v = outer.read(self.v, a, b)
            else:
                parts, a, b = recalled.push(block.norm1(edges.read(band, outer.around, a, b)), b)
                if a == b:
                    continue
                v = parts[0]
            mixed = self._mix(edges.read(band, outer, a, b), v, a, b, outer, matrices)
            x[a:b, band.own] = mixed[:, band.within(outer)]
            parts, first, end = feed.push(block.norm2(mixed), b)
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

    def _strips(self) -> Iterator[tuple[int, int]]:
        for a in range(0, self.x.shape[0], self.rows):
            yield a, min(a + self.rows, self.x.shape[0])


class Halos:
    """The map as it was before the second walk began to change it, around the borders between bands."""

    def __init__(self, x: Tensor, bands: list[Band], reach: int) -> None:
        self.x = x
        self.reach = reach
        self.kept = {band.right: x[:, max(band.right - reach, 0) : band.right + reach].clone() for band in bands[:-1]}

    def read(self, band: Band, outer: Band, a: int, b: int) -> Tensor:
        """Rows a to b of `outer`: `band`'s own columns as they are now, its neighbours' as they were, zeros beyond
        the map; contiguous."""
        rows = self.x.new_empty((b - a, outer.right - outer.left, self.x.shape[2]))
        outer.clear(rows)
        rows[:, band.within(outer)] = self.x[a:b, band.own]
        inside = outer.inside
        for border, left, right in ((band.left, inside.left, band.left), (band.right, band.right, inside.right)):
            if left < right:
                start = max(border - self.reach, 0)
                rows[:, left - outer.left : right - outer.left] = self.kept[border][a:b, left - start : right - start]
        return rows


class LineBuffer:
    """A product and depth-wise 3×3 convolutions, fed strip after strip: rows in, the rows that are then complete out.

    The last two rows are carried over, so each is computed once; the product writes where the convolutions read. The
    channels may be split over several convolutions. Without a convolution there is but the product.
    """

    def __init__(
        self, product: PackedLinear, layers: tuple[PackedConv, ...] | None, band: Band, walk: BlockPasses
    ) -> None:
        self.product = product
        self.layers = layers
        self.band = band
        self.height = walk.x.shape[0]
        self.done = 0
        self.filled = 1  # with the row of zeros above the map
        columns = band.right - band.left + 2
        self.spaces = [walk.x.new_empty((walk.rows + 4, columns, layer.outputs)) for layer in layers or ()]
        for space in self.spaces:
            space[0] = 0

    def push(self, rows: Tensor, end: int) -> tuple[list[Tensor], int, int]:
        """(n, columns around the band, c), up to row `end` of the map -> the band's complete rows, first, end."""
        start = self.done
        around = self.band.around
        if self.layers is None:
            self.done = end
            return self.product.parts(rows[:, self.band.within(around)]), start, end
        used = self.filled + rows.shape[0]
        targets = [space[self.filled : used] for space in self.spaces]
        self.product.into(rows, targets)
        for target in targets:
            around.clear(target)
        if end == self.height:
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
