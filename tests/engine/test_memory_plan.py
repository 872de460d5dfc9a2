"""The plan: what runs within a budget, and what its prediction is made of."""

import numpy as np
import pytest
import torch

from restormer_cli.engine import memory_plan
from restormer_cli.engine import restorer as restorer_module
from restormer_cli.engine.memory_plan import Plan, plan
from restormer_cli.engine.restorer import Restorer
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.errors import UserError
from restormer_cli.hardware import parse_memory
from restormer_cli.model.config import ModelConfig

GB = 10**9


@pytest.fixture(autouse=True)
def _empty_process(monkeypatch):
    monkeypatch.setattr(memory_plan, "held", lambda device: 0)
    monkeypatch.setattr(memory_plan, "free", lambda device: 20 * GB)


def paper(height: int, width: int, budget: int | None, **more) -> Plan:
    options = {"precision": "fp32", "itemsize": 4, "tile": None, "window": None, **more}
    return plan(ModelConfig(), height, width, device=torch.device("cpu"), budget=budget, **options)


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("6GB", 6 * GB),
        ("1.6gb", 1_600_000_000),
        ("800 MB", 800_000_000),
        ("2GiB", 2 << 30),
        ("512m", 512_000_000),
        ("1234567", 1_234_567),
        (123_456, 123_456),
    ],
)
def test_amounts(text, amount):
    assert parse_memory(text) == amount


@pytest.mark.parametrize("text", ["", "GB", "six", "-1GB", "0", "6XB", "6 GB more", "1e400", "nan"])
def test_what_is_no_amount_is_told(text):
    with pytest.raises(UserError, match="write it like 6GB"):
        parse_memory(text)


def test_plans_grow_more_frugal_as_the_budget_shrinks():
    plans = [paper(3000, 4000, budget) for budget in (20 * GB, 8 * GB, 7 * GB, 2 * GB)]
    assert [chosen.kind for chosen in plans] == ["whole", "recompute", "recompute", "tiles"]
    assert [chosen.keep_v for chosen in plans] == [True, False, False, True]
    assert all(chosen.bytes <= budget for chosen, budget in zip(plans, (20 * GB, 8 * GB, 7 * GB, 2 * GB), strict=True))


def test_the_whole_of_a_12_megapixel_picture_fits_the_promised_budgets():
    assert paper(3000, 4000, 7 * GB).kind == "recompute"
    assert paper(3000, 4000, 4 * GB, precision="bf16", itemsize=2).kind == "recompute"


def test_a_tile_that_was_asked_for_is_kept_and_a_smaller_picture_needs_none():
    assert paper(3000, 4000, None, tile=512).tile == 512
    assert paper(500, 400, None, tile=512).kind == "whole"


def test_a_hopeless_budget_is_told_with_what_it_takes():
    with pytest.raises(UserError, match=r"--memory 0\.01GB: too little .* needs 0\.\d+GB"):
        paper(1000, 1000, GB // 100)


def test_the_default_is_most_of_what_is_free(monkeypatch):
    assert paper(3000, 4000, None).kind == "whole"
    monkeypatch.setattr(memory_plan, "free", lambda device: 10 * GB)
    assert paper(3000, 4000, None).kind == "recompute"
    monkeypatch.setattr(memory_plan, "free", lambda device: 0)
    assert paper(3000, 4000, None).tile == 64


def test_windows_take_memory_too():
    assert paper(1024, 1024, None, window=64).bytes > paper(1024, 1024, None).bytes


def test_the_kernels_load_no_libraries_of_products():
    assert memory_plan.LIBRARIES - memory_plan.KERNELS > 40 << 20
    operators, kernels = (paper(64, 64, None, native=native) for native in (False, True))
    assert operators.bytes - kernels.bytes >= memory_plan.LIBRARIES - memory_plan.KERNELS


def test_plans_read_like_sentences():
    assert str(paper(64, 64, None)) == "whole picture"
    assert str(paper(3000, 4000, 7 * GB)) == "whole picture, v recomputed"
    assert str(paper(3000, 4000, 2 * GB, window=384)).endswith(", window 384")


def test_the_restorer_plans_as_it_was_told(tiny_network):
    restorer = Restorer(tiny_network(), device="cpu", tile=20, overlap=4, window=16, memory="1GB")
    chosen = restorer.plan(100, 100)
    assert (chosen.kind, chosen.tile, chosen.window, chosen.precision) == ("tiles", 24, 16, "fp32")


def test_the_same_size_gets_the_same_plan_in_any_place_of_a_folder(monkeypatch, tiny_network):
    """Buffers of earlier pictures that the allocator keeps are not counted a second time."""
    for module in (memory_plan, restorer_module):  # whatever this process holds of other tests
        monkeypatch.setattr(module, "held", lambda device: 300_000_000)
    restorer = Restorer(tiny_network(), device="cpu", memory="1GB")
    first = restorer.plan(2000, 3000)
    monkeypatch.setattr(memory_plan, "held", lambda device: 900_000_000)
    assert restorer.plan(2000, 3000) == first


def test_pictures_that_wait_are_counted(monkeypatch, tiny_network):
    for module in (memory_plan, restorer_module):
        monkeypatch.setattr(module, "held", lambda device: 300_000_000)
    restorer = Restorer(tiny_network(), device="cpu", memory="2GB")
    alone = restorer.plan(500, 500).bytes
    restorer.waiting = 10_000_000
    assert restorer.plan(500, 500).bytes == alone + 10_000_000


def test_a_second_network_leaves_the_room_that_the_first_one_leaves(monkeypatch, tiny_network):
    for module in (memory_plan, restorer_module):
        monkeypatch.setattr(module, "held", lambda device: 300_000_000)
    first = Restorer(tiny_network(), device="cpu", memory="2GB")
    first.waiting = 10_000_000
    monkeypatch.setattr(restorer_module, "held", lambda device: 304_000_000)  # a part of what waits
    second = Restorer(tiny_network(), device="cpu", memory="2GB")
    second.share_room(first)
    assert second.plan(500, 500).bytes == first.plan(500, 500).bytes


def test_how_a_picture_ran_is_known_after_memory_ran_out(monkeypatch, tiny_network):
    restorer = Restorer(tiny_network(), device="cpu")
    run = StripNetwork.run
    asked = []

    def short_of_memory(strips, picture, keep_v=True, *rest):
        asked.append(keep_v)
        if keep_v:
            raise MemoryError
        return run(strips, picture, keep_v)

    monkeypatch.setattr(StripNetwork, "run", short_of_memory)
    restorer(np.zeros((64, 64, 3), np.float32))
    assert restorer.done is not None
    assert (restorer.done.kind, asked) == ("recompute", [True, False])


def test_several_processes_on_one_machine_share_what_is_free(monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    assert paper(3000, 4000, None).kind == "tiles"
    assert paper(3000, 4000, None).bytes <= 0.7 * 20 * GB / 4
