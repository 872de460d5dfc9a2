"""TLC's windows and the cells that their borders cut."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.engine.tlc import Cells, WindowAxis


@given(side=st.integers(1, 300), window=st.integers(1, 300))
def test_windows_cover_every_pixel_and_cells_tile_the_side(side, window):
    axis = WindowAxis(side, min(window, side))
    covered = [sum(start <= pixel < start + axis.window for start in axis.starts) for pixel in range(side)]
    assert min(covered) >= 1
    assert axis.starts[0] == 0
    assert axis.starts[-1] == side - axis.window
    assert all(0 <= start <= side - axis.window for start in axis.starts)
    assert (axis.borders[0], axis.borders[-1]) == (0, side)
    for cell, (first, end) in enumerate(zip(axis.borders, axis.borders[1:], strict=False)):
        assert {covered[pixel] for pixel in range(first, end)} == {int(axis.covers[:, cell].sum())}


def test_the_published_rule():
    assert WindowAxis(1280, 384).starts == (0, 299, 598, 896)
    assert WindowAxis(720, 384).starts == (0, 336)
    assert WindowAxis(384, 384).starts == (0,)


@given(first=st.integers(0, 90), length=st.integers(1, 90))
def test_pieces_tile_any_range(first, length):
    axis, end = WindowAxis(180, 48), min(first + length, 180)
    pieces = list(axis.pieces(first, end))
    assert [pixel for _, a, b in pieces for pixel in range(a, b)] == list(range(first, end))
    assert all(axis.borders[cell] <= a < b <= axis.borders[cell + 1] for cell, a, b in pieces)


def test_means_weigh_the_windows_over_a_cell_equally():
    cells = Cells.of(6, 10, 4)  # windows at rows 0 and 2, columns 0, 3 and 6
    matrices = torch.arange(6.0)[:, None, None]
    means = cells.means(matrices)[:, 0, 0].unflatten(0, cells.shape)
    assert cells.rows.borders == (0, 2, 4, 6)
    assert cells.columns.borders == (0, 3, 4, 6, 7, 10)
    assert means[0, 0] == 0
    assert means[1, 1] == (0 + 1 + 3 + 4) / 4
    assert means[2, 4] == 5
