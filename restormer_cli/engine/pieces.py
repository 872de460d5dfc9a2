"""How a map is cut into pieces, a thread each: rectangles, so many that no core waits long for another."""

from dataclasses import dataclass
from itertools import pairwise

COLUMNS = 64
"""Columns of a piece at most: three of its rows, widened, are to fit the cache of a core."""
JOINED = 16
"""Rows of level 2 that are joined with the level-1 skip at a time."""
LEAST = 8
"""Rows or columns that a piece has at least where the map has them: what a pixel's neighbours cost is 2 in so many."""
MANY = 4
"""Pieces for each thread, at the most, that cuts across the rows are tried for."""


@dataclass(frozen=True)
class Piece:
    """The rows [first, end) and columns [first, end) of a map."""

    rows: tuple[int, int]
    columns: tuple[int, int]


def halo_pixels(piece: Piece, reach: int) -> int:
    """Pixels around a piece, so many wide."""
    (top, bottom), (left, right) = piece.rows, piece.columns
    return 2 * reach * (right - left + 2 * reach) + 2 * reach * (bottom - top)


def cut(height: int, width: int, columns: int, threads: int) -> list[Piece]:
    """Pieces of at most `columns` columns, so cut that the busiest of the threads has the least to do.

    A piece costs its pixels and those around it, which are computed twice.
    """
    across = -(-width // columns)
    shapes = {
        (down, wide)
        for wide in range(across, max(across, min(width // LEAST, across + threads)) + 1)
        for down in range(1, max(1, min(height // LEAST, -(-MANY * threads // wide))) + 1)
    }

    def cost(shape: tuple[int, int]) -> tuple[float, int]:
        down, wide = shape
        rounds = -(-down * wide // threads)
        return rounds * (-(-height // down) + 2) * (-(-width // wide) + 2), down * wide

    down, wide = min(shapes, key=cost)
    return [Piece(rows, across) for rows in _spans(height, down) for across in _spans(width, wide)]


def _spans(side: int, count: int) -> list[tuple[int, int]]:
    borders = [round(index * side / count) for index in range(count + 1)]
    return list(pairwise(borders))
