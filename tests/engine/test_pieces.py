"""Pieces cover the map once, and are so cut that no core waits long for another."""

import pytest

from restormer_cli.engine.pieces import COLUMNS, cut


@pytest.mark.parametrize("threads", [1, 2, 5, 16])
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (9, 200), (64, 64), (130, 70), (3, 1000)])
def test_pieces_cover_the_map_once(size, threads):
    height, width = size
    covered = [0] * (height * width)
    for piece in cut(height, width, COLUMNS, threads):
        assert 0 < piece.columns[1] - piece.columns[0] <= COLUMNS
        for y in range(*piece.rows):
            for x in range(*piece.columns):
                covered[y * width + x] += 1
    assert set(covered) == {1}


def critical_path(height: int, width: int, threads: int) -> float:
    """The busiest thread's pixels, neighbours included, over an even share of the map."""
    loads = [0] * threads
    sizes = [
        (piece.rows[1] - piece.rows[0] + 2) * (piece.columns[1] - piece.columns[0] + 2)
        for piece in cut(height, width, COLUMNS, threads)
    ]
    for size in sizes:  # the next piece goes to whoever is free first, as in a pool
        loads[loads.index(min(loads))] += size
    return max(loads) * threads / (height * width)


BLOCKS = {1: 4 + 4 + 4, 2: 12, 3: 12, 4: 8}
"""Blocks of the paper's network by level, decoder and refinement included; each level's cost a pixel grows fourfold
while its pixels shrink to a quarter, so that a block costs the same everywhere."""


@pytest.mark.parametrize(("threads", "bound"), [(2, 1.15), (4, 1.15), (8, 1.15), (16, 1.15), (32, 1.3), (64, 1.3)])
def test_all_cores_have_as_much_to_do(threads, bound):
    """A picture of one megapixel by the paper's network: time over ideal time, all levels together."""
    paths = {level: critical_path(1024 >> (level - 1), 1024 >> (level - 1), threads) for level in BLOCKS}
    assert sum(paths[level] * count for level, count in BLOCKS.items()) / sum(BLOCKS.values()) <= bound
