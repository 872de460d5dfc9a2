"""The test-time local converter (TLC; Chu et al., ECCV 2022), exactly, by cells.

TLC gives every window of the feature map an attention of its own and averages the windows' outputs where they
overlap. All window borders together cut the map into cells. A window's sums are the sums of its cells; and since
the output is linear in v, averaging the outputs at a pixel is applying the mean of the windows' matrices M. So TLC
costs no more pixels than global attention, however much the windows overlap.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import torch
from torch import Tensor

from restormer_cli.model.restormer import Gram


@dataclass(frozen=True)
class WindowAxis:
    """The windows along one side of the map."""

    side: int
    window: int
    """At most `side`."""

    @cached_property
    def starts(self) -> tuple[int, ...]:
        """ceil(side / window) windows at even steps, rounded up; the last one moved back to end at the border."""
        count = -(-self.side // self.window)
        if count == 1:
            return (0,)
        step = -(-(self.side - self.window) // (count - 1))
        return (*(index * step for index in range(count - 1)), self.side - self.window)

    @cached_property
    def borders(self) -> tuple[int, ...]:
        """Where cells begin, and the end."""
        return tuple(sorted({*self.starts, *(start + self.window for start in self.starts)}))

    @cached_property
    def covers(self) -> Tensor:
        """(windows, cells): 1 where the window holds the cell."""
        starts, firsts = torch.tensor(self.starts)[:, None], torch.tensor(self.borders[:-1])[None]
        return ((starts <= firsts) & (firsts < starts + self.window)).double()

    def pieces(self, first: int, end: int) -> Iterator[tuple[int, int, int]]:
        """The cells that meet [first, end): (cell, from, to)."""
        for cell, (a, b) in enumerate(pairwise(self.borders)):
            if a < end and first < b:
                yield cell, max(a, first), min(b, end)


@dataclass(frozen=True)
class Cells:
    """The map cut at all window borders; a single cell where attention is global."""

    rows: WindowAxis
    columns: WindowAxis

    @classmethod
    def of(cls, height: int, width: int, window: int | None) -> "Cells":
        """The cells of a map of height × width pixels; None: one window, the whole map."""
        rows, columns = (WindowAxis(side, side if window is None else min(window, side)) for side in (height, width))
        return cls(rows, columns)

    @classmethod
    def at(cls, level: int, height: int, width: int, window: int | None) -> "Cells":
        """The cells of a level's map of height × width pixels; the window is in pixels of the picture."""
        return cls.of(height, width, None if window is None else max(1, window >> (level - 1)))

    @property
    def shape(self) -> tuple[int, int]:
        """Cells down and across."""
        return len(self.rows.borders) - 1, len(self.columns.borders) - 1

    def windows(self, sums: Gram) -> Gram:
        """The sums of every cell, (cells, …), row by row -> those of every window."""
        return sums if self.shape == (1, 1) else Gram(*(self.gather(cells) for cells in sums))

    def gather(self, sums: Tensor) -> Tensor:
        """One of the sums of every cell, (cells, …), row by row -> that of every window, (windows, …)."""
        rows, columns = (_covers(axis, sums.device, sums.dtype) for axis in (self.rows, self.columns))
        return torch.einsum("rp,cq,pq...->rc...", rows, columns, sums.unflatten(0, self.shape)).flatten(0, 1)

    def means(self, matrices: Tensor) -> Tensor:
        """M of every window, (windows, …) -> the mean M of every cell, (cells, …)."""
        if self.shape == (1, 1):
            return matrices
        rows, columns = (_covers(axis, matrices.device, matrices.dtype) for axis in (self.rows, self.columns))
        rows, columns = rows / rows.sum(0), columns / columns.sum(0)
        windows = matrices.unflatten(0, (rows.shape[0], columns.shape[0]))
        return torch.einsum("rp,cq,rc...->pq...", rows, columns, windows).flatten(0, 1)

    def __iter__(self) -> Iterator[tuple[int, slice, slice]]:
        """Every cell, row by row: its number, its rows, its columns."""
        return self.pieces(0, self.rows.side, 0, self.columns.side)

    def pieces(self, top: int, bottom: int, left: int, right: int) -> Iterator[tuple[int, slice, slice]]:
        """The cells that meet a rectangle: (cell, its rows, its columns), both counted from the rectangle's corner."""
        across = list(self.columns.pieces(left, right))
        for row, a, b in self.rows.pieces(top, bottom):
            for column, c, d in across:
                yield row * self.shape[1] + column, slice(a - top, b - top), slice(c - left, d - left)


@lru_cache(maxsize=64)
def _covers(axis: WindowAxis, device: torch.device, dtype: torch.dtype) -> Tensor:
    """`covers`, kept: a CUDA graph must not copy from the host."""
    return axis.covers.to(device, dtype)
