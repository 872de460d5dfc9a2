"""The answer claims what the scores allow: intervals that hold as often as they say, and verdicts that follow them."""

import re
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from restormer_cli.commands.ablate.answer import answer, estimate, trust, verdict
from restormer_cli.commands.ablate.values import Difference, Estimate, Scored, Started


def started(*names: str, **values: Any) -> Started:
    """As much of a Started as the answer looks at."""
    base = {"arms": tuple(SimpleNamespace(name=name) for name in names), "scale": "compact", "equal": "iterations"}
    return cast(Started, SimpleNamespace(**base | {"iterations": 400} | values))


def scored(name: str, table: list[list[float]]) -> list[Scored]:
    rows = []
    for repetition, row in enumerate(table):
        pictures = tuple((f"p{index}", psnr) for index, psnr in enumerate(row))
        rows.append(Scored(name, repetition, 400, 10.0, (), pictures, tuple(0.0 for _ in row), cast(Any, None)))
    return rows


def test_an_interval_by_hand():
    """Two seeds, two pictures: mean squares and degrees of freedom written out."""
    found = estimate(np.array([[1.0, 2.0], [2.0, 5.0]]), 0.95)
    seeds, pictures = 2 * 2.0, 2 * 2.0  # rows' means 1.5, 3.5 and columns' 1.5, 3.5: variance 2, times 2
    assert found.mean == 2.5
    assert found.error == pytest.approx(((seeds + pictures) / 4) ** 0.5)
    assert found.freedom == pytest.approx((seeds + pictures) ** 2 / (seeds**2 + pictures**2))
    assert found.high == pytest.approx(2.5 + 4.30265 * 2**0.5, rel=1e-4)  # Student's t for 2 degrees of freedom
    assert found.low == pytest.approx(2.5 - 4.30265 * 2**0.5, rel=1e-4)


@pytest.mark.parametrize(("between_seeds", "between_pictures"), [(1.0, 0.0), (0.0, 1.0), (1.0, 1.0), (0.2, 0.0)])
def test_intervals_hold_at_least_as_often_as_they_say(between_seeds, between_pictures):
    """2,000 made-up ablations without any true difference: at most about 5 % may be called decided."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(2000):
        table = rng.normal(0, 0.5, (3, 5))
        table += rng.normal(0, 1, (3, 1)) * between_seeds + rng.normal(0, 1, (1, 5)) * between_pictures
        wrong += estimate(table, 0.95).decided
    assert wrong / 2000 < 0.06


def test_pictures_alone_never_decide():
    """Every picture agrees to the last digit, but the seeds do not: nothing is decided."""
    assert not estimate(np.array([[0.5] * 100, [-0.3] * 100]), 0.95).decided
    assert estimate(np.array([[0.50] * 100, [0.51] * 100]), 0.95).decided


def test_one_picture_and_equal_scores_are_no_obstacle():
    one = estimate(np.array([[1.0], [1.2], [1.1]]), 0.95)
    assert one.freedom == 2
    assert one.decided
    same = estimate(np.zeros((2, 3)), 0.95)
    assert (same.low, same.high, same.decided) == (0, 0, False)


@pytest.mark.parametrize("arms", [2, 3])
def test_one_seed_is_always_undecided(arms):
    names = ["a", "b", "c"][:arms]
    rows = [row for index, name in enumerate(names) for row in scored(name, [[30.0 - 5 * index] * 4])]
    finished = answer(started(*names), (), tuple(rows))
    assert finished.verdict.startswith(
        "undecided between a and b: +5.00 dB with one seed, which says nothing of chance"
    )
    assert "better" not in finished.verdict
    assert finished.trust.startswith("One seed cannot tell")
    assert all(row.estimate.low is None for row in finished.differences)


def test_the_verdict_says_who_is_better_and_by_how_much():
    rows = scored("a", [[28.0, 30.0], [28.01, 30.02]]) + scored("b", [[28.5, 30.5], [28.52, 30.51]])
    finished = answer(started("a", "b"), (), tuple(rows))
    assert finished.differences[0].estimate.mean == pytest.approx(-0.5)
    scope = "At compact scale, after 400 iterations, by 2 seeds and 2 pictures: "
    assert re.fullmatch(scope + r"b is better than a by 0\.4\d to 0\.5\d dB \(95 % interval\)\.", finished.verdict)


def test_an_interval_around_zero_is_undecided():
    rows = scored("a", [[28.0, 30.0], [28.3, 30.2]]) + scored("b", [[28.1, 30.0], [28.0, 30.1]])
    finished = answer(started("a", "b"), (), tuple(rows))
    assert "undecided between a and b: +0.08 dB, but the 95 % interval, " in finished.verdict
    assert "includes no difference" in finished.verdict
    assert re.search(
        "A difference below [0-9.]+ dB could not have been seen with 2 seeds and 2 pictures", finished.trust
    )


def test_several_comparisons_share_the_error():
    rows = [row for name in "abc" for row in scored(name, [[1.0, 2.0], [2.0, 5.0 + ord(name)]])]
    finished = answer(started("a", "b", "c"), (), tuple(rows))
    assert [row.estimate.confidence for row in finished.differences] == [0.975, 0.975]
    assert [(row.first, row.other) for row in finished.differences] == [("a", "b"), ("a", "c")]


def test_a_seed_that_not_every_arm_has_completed_does_not_count():
    rows = scored("a", [[1.0, 2.0], [1.5, 2.5], [9.0, 9.0]]) + scored("b", [[1.1, 2.0], [1.5, 2.6]])
    finished = answer(started("a", "b"), (), tuple(rows))
    assert finished.repetitions == 2
    assert dict(finished.means)["a"].mean == pytest.approx(1.75)


def test_equal_time_is_said():
    wide = Difference("a", "b", Estimate(0.1, 0.1, 1.0, -0.2, 0.4, 0.95))
    rows = scored("a", [[1.0, 2.0]] * 2) + scored("b", [[1.1, 2.0]] * 2)
    assert "equal time" in answer(started("a", "b", equal="time"), (), tuple(rows)).verdict
    assert "0.30 dB" in trust((wide,), 2, 4)
    assert verdict((wide,), "here").startswith("Here: undecided")
