"""Patch, batch and rate of every iteration are those of the published schedule (facts.md §2)."""

import itertools
from typing import Any

import numpy as np
import pytest

from restormer_cli.errors import UserError
from restormer_cli.recipe import Recipe, Schedule, Stage
from restormer_cli.training.schedule import cosine_split, learning_rate, split_batch, stage_at

ROWS = [(92, 128, 64), (64, 160, 40), (48, 192, 32), (36, 256, 16), (36, 320, 8), (24, 384, 8)]


def recipe(rows: list[tuple[int, int, int]], **tables: Any) -> Recipe:
    stages = [{"iterations": n, "patch": patch, "batch": batch} for n, patch, batch in rows]
    data = {"train": {"degraded": "a", "clean": "b"}}
    return Recipe.model_validate({"task": "defocus", "data": data, "stage": stages, **tables})


PAPER = recipe([(1000 * n, patch, batch) for n, patch, batch in ROWS])


def test_every_iteration_is_in_the_published_stage() -> None:
    iterations = np.arange(1, 300_002)
    ends = np.array([92_000, 156_000, 204_000, 240_000, 276_000, 300_000])
    expected = np.minimum((iterations[:, None] > ends).sum(1), 5)
    got = [stage_at(int(t), PAPER.stage) for t in iterations]
    assert np.array_equal([index for index, _ in got], expected)
    patches, batches = np.array([128, 160, 192, 256, 320, 384]), np.array([64, 40, 32, 16, 8, 8])
    assert np.array_equal([row.patch for _, row in got], patches[expected])
    assert np.array_equal([row.batch for _, row in got], batches[expected])


@pytest.mark.parametrize(
    ("iteration", "index"),
    [(1, 0), (92_000, 0), (92_001, 1), (156_000, 1), (156_001, 2), (276_001, 5), (300_001, 5), (10**9, 5)],
)
def test_the_last_iteration_of_a_stage_belongs_to_it(iteration: int, index: int) -> None:
    assert stage_at(iteration, PAPER.stage) == (index, PAPER.stage[index])


def test_one_stage_is_all_there_is() -> None:
    only = (Stage(iterations=3, patch=8, batch=1),)
    assert [stage_at(t, only)[0] for t in (1, 3, 4, 99)] == [0, 0, 0, 0]


def published(iteration: int) -> float:
    """The restart schedule of two periods, at iteration - 1: constant 3e-4, then a cosine from 3e-4 to 1e-6."""
    step = iteration - 1
    if step <= 92_000:
        return 3e-4
    return 1e-6 + (3e-4 - 1e-6) * 0.5 * (1 + np.cos(np.pi * min(1.0, (step - 92_000) / 208_000)))


def test_the_rate_at_the_knots() -> None:
    assert [learning_rate(t, PAPER) for t in (1, 2, 92_000, 92_001)] == [3e-4] * 4
    assert 3e-4 * (1 - 1e-9) < learning_rate(92_002, PAPER) < 3e-4
    assert learning_rate(196_001, PAPER) == pytest.approx((3e-4 + 1e-6) / 2, rel=1e-12)
    assert 1e-6 < learning_rate(300_000, PAPER) < 1e-6 * (1 + 1e-6)
    assert [learning_rate(t, PAPER) for t in (300_001, 300_002, 10**7)] == [1e-6] * 3


def test_the_rate_is_the_published_one_everywhere() -> None:
    for iteration in [*range(1, 300_003, 97), 92_000, 92_001, 92_002, 300_000, 300_001]:
        assert learning_rate(iteration, PAPER) == pytest.approx(published(iteration), rel=1e-12), iteration


def test_the_rate_never_rises() -> None:
    rates = [learning_rate(t, PAPER) for t in range(91_990, 300_010, 10)]
    assert all(later <= earlier for earlier, later in itertools.pairwise(rates))


@pytest.mark.parametrize(
    ("total", "schedule", "split"),
    [
        (300_000, {}, (92_000, 208_000)),
        (100_000, {}, (30_667, 69_333)),
        (3000, {}, (920, 2080)),
        (1, {}, (0, 1)),
        (3000, {"constant": 100}, (100, 2900)),
        (3000, {"cosine": 100}, (2900, 100)),
        (3000, {"constant": 100, "cosine": 50}, (100, 50)),
        (3000, {"constant": 4000}, (4000, 0)),
        (3000, {"cosine": 4000}, (0, 4000)),
        (3000, {"constant": 0}, (0, 3000)),
    ],
)
def test_a_shortened_recipe_keeps_the_papers_shape(
    total: int, schedule: dict[str, int], split: tuple[int, int]
) -> None:
    short = recipe([(total, 8, 1)], schedule=schedule)
    assert cosine_split(short) == split
    constant, cosine = split
    assert learning_rate(constant + 1, short) == 3e-4
    assert learning_rate(constant + cosine + 1, short) == (1e-6 if cosine else 3e-4)
    assert learning_rate(constant + cosine + 2, short) == 1e-6


def test_an_own_rate_and_floor() -> None:
    own = recipe([(10, 8, 1)], optimizer={"lr": 1e-3}, schedule={"constant": 4, "lr_min": 1e-5})
    assert own.schedule == Schedule(constant=4, lr_min=1e-5)
    rates = [learning_rate(t, own) for t in range(1, 13)]
    assert rates[:5] == [1e-3] * 5
    assert rates[7] == pytest.approx((1e-3 + 1e-5) / 2)
    assert rates[10:] == [1e-5] * 2


# --- How a batch is shared out --------------------------------------------------------------------------------


def test_a_batch_that_splits_evenly() -> None:
    split = split_batch(64, 8, None)
    assert split.shares == tuple((range(8 * device, 8 * device + 8),) for device in range(8))
    assert (split.even, split.accumulation, str(split)) == (True, 1, "8 × 8 × 1")
    accumulated = split_batch(64, 2, 8)
    assert accumulated.shares[1] == (range(32, 40), range(40, 48), range(48, 56), range(56, 64))
    assert (accumulated.even, accumulated.accumulation, str(accumulated)) == (True, 4, "8 × 2 × 4")


def test_a_share_that_micro_batches_do_not_divide_is_cut_nearly_alike() -> None:
    assert split_batch(7, 1, 3).shares == ((range(0, 3), range(3, 5), range(5, 7)),)
    assert split_batch(5, 1, 99).shares == ((range(0, 5),),)


@pytest.mark.parametrize(("batch", "devices", "cure"), [(10, 4, "make it 8 or 12"), (9, 2, "make it 8 or 10")])
def test_an_uneven_batch_is_refused_unless_allowed(batch: int, devices: int, cure: str) -> None:
    with pytest.raises(
        UserError, match=rf"batch of {batch} .*evenly over {devices} devices: {cure}, .*run\.uneven=true"
    ):
        split_batch(batch, devices, None)
    split = split_batch(batch, devices, None, uneven=True)
    assert not split.even
    assert [row for share in split.shares for rows in share for row in rows] == list(range(batch))
    sizes = [sum(map(len, share)) for share in split.shares]
    assert max(sizes) - min(sizes) == 1


def test_a_device_without_a_picture_is_refused_even_where_uneven_is_allowed() -> None:
    with pytest.raises(UserError, match=r"batch of 3 on 4 devices .*at most 3"):
        split_batch(3, 4, None, uneven=True)
