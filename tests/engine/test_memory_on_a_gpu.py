"""Plans for CUDA and MPS, whose arithmetic needs no GPU: they follow the picture's size."""

import pytest
import torch

from restormer_cli.engine import memory_plan
from restormer_cli.engine.memory_plan import Plan, plan
from restormer_cli.model.config import ModelConfig

GB = 10**9
ITEM = {"fp32": 4, "tf32": 4, "bf16": 2, "fp16": 2}


def planned(monkeypatch, free: float, height: int, width: int, precision: str, device: str = "cuda") -> Plan:
    monkeypatch.setattr(memory_plan, "held", lambda device: 0)
    monkeypatch.setattr(memory_plan, "free", lambda device: free * GB)
    options = {"tile": None, "window": None, "budget": None, "whole_map": device == "cuda"}
    size = {"precision": precision, "itemsize": ITEM[precision]}
    return plan(ModelConfig(), height, width, device=torch.device(device), **size, **options)


@pytest.mark.parametrize("free", [4, 8, 12, 24, 80])
@pytest.mark.parametrize("precision", ITEM)
def test_small_pictures_run_whole_on_every_card(monkeypatch, free, precision):
    for side in (64, 256, 512, 1024):
        chosen = planned(monkeypatch, free, side, side, precision)
        assert (chosen.kind, chosen.whole_map) == ("whole", True)
        assert chosen.bytes <= 0.7 * free * GB
    assert planned(monkeypatch, free, 64, 64, precision).bytes < 0.15 * GB


@pytest.mark.parametrize(
    ("free", "precision", "kind"), [(80, "fp32", "whole"), (12, "bf16", "whole"), (4, "bf16", "tiles")]
)
def test_twelve_megapixels(monkeypatch, free, precision, kind):
    assert planned(monkeypatch, free, 3000, 4000, precision).kind == kind


def test_strips_take_what_the_picture_needs_on_mps(monkeypatch):
    assert planned(monkeypatch, 4, 64, 64, "fp32", "mps").bytes < 0.15 * GB
    assert planned(monkeypatch, 4, 512, 512, "fp32", "mps").kind == "whole"


@pytest.mark.parametrize(
    ("free", "size", "together"),
    [(80, (512, 512), 1), (80, (360, 360), 2), (80, (256, 256), 4), (80, (96, 128), 8), (0.35, (256, 256), 1)],
)
def test_small_pictures_go_together_where_there_is_room(monkeypatch, free, size, together):
    assert planned(monkeypatch, free, size[0], size[1], "bf16").together == together


def test_small_tiles_go_together_and_their_memory_is_counted(monkeypatch):
    def tiles(free: float) -> Plan:
        monkeypatch.setattr(memory_plan, "held", lambda device: 0)
        monkeypatch.setattr(memory_plan, "free", lambda device: int(free * GB))
        where = torch.device("cuda")
        return plan(
            ModelConfig(), 900, 1200, device=where, precision="bf16", itemsize=2, tile=256, window=None, budget=None,
            whole_map=True,
        )  # fmt: skip

    roomy, tight = tiles(80), tiles(0.5)
    assert (roomy.kind, roomy.tile, roomy.together) == ("tiles", 256, 4)
    assert tight.together < 4
    assert tight.bytes < roomy.bytes


def test_nowhere_else(monkeypatch):
    assert planned(monkeypatch, 80, 64, 64, "fp32", "mps").together == 1
    assert planned(monkeypatch, 80, 64, 64, "fp32", "cpu").together == 1
