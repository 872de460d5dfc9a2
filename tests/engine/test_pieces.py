"""Pieces cover the map once, and are so cut that no core waits long for another."""

import pytest
import torch

from restormer_cli.engine import strips
from restormer_cli.engine.bands import BAND
from restormer_cli.engine.pieces import COLUMNS, cut
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer


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


def critical_path(height: int, width: int, threads: int, columns: int) -> float:
    """The busiest thread's pixels, neighbours included, over an even share of the map."""
    loads = [0] * threads
    sizes = [
        (piece.rows[1] - piece.rows[0] + 2) * (piece.columns[1] - piece.columns[0] + 2)
        for piece in cut(height, width, columns, threads)
    ]
    for size in sizes:  # the next piece goes to whoever is free first, as in a pool
        loads[loads.index(min(loads))] += size
    return max(loads) * threads / (height * width)


BLOCKS = {1: 4 + 4 + 4, 2: 12, 3: 12, 4: 8}
"""Blocks of the paper's network by level, decoder and refinement included; each level's cost a pixel grows fourfold
while its pixels shrink to a quarter, so that a block costs the same everywhere."""


@pytest.mark.parametrize("columns", [COLUMNS, BAND], ids=["kernels", "operators"])  # bf16 runs by operators
@pytest.mark.parametrize(("threads", "bound"), [(2, 1.15), (4, 1.15), (8, 1.15), (16, 1.15), (32, 1.3), (64, 1.3)])
def test_all_cores_have_as_much_to_do(threads, bound, columns):
    """A picture of one megapixel by the paper's network: time over ideal time, all levels together."""
    paths = {level: critical_path(1024 >> (level - 1), 1024 >> (level - 1), threads, columns) for level in BLOCKS}
    assert sum(paths[level] * count for level, count in BLOCKS.items()) / sum(BLOCKS.values()) <= bound


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_the_operators_cut_rows_as_well_as_columns(monkeypatch, precision):
    """As many pieces as threads at every level of 256 × 64 pixels, whose columns alone would not suffice."""
    counts: dict[tuple[int, int], set[int]] = {}
    halo = strips.Halo

    def counted(x, piece, reach):
        counts.setdefault(x.shape[:2], set()).add(hash(piece))
        return halo(x, piece, reach)

    monkeypatch.setattr(strips, "Halo", counted)
    model = Restormer(ModelConfig(dim=8, blocks=(1, 1, 1, 1), heads=(1, 2, 4, 8), refinement=0)).eval()
    StripNetwork(model, precision, threads=4, native=False).run(torch.rand(1, 3, 256, 64))
    assert {tuple(size): len(pieces) for size, pieces in counts.items()} == dict.fromkeys(
        ((256, 64), (128, 32), (64, 16), (32, 8)), 4
    )
