"""The answer claims what the scores allow: intervals that hold as often as they say, and verdicts that follow them."""

import re
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from restormer_cli.commands.ablate.types import Difference, Estimate, Scored, Started
from restormer_cli.commands.ablate.verdict import answer, estimate, trust, verdict


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
    """Two seeds, three pictures: both errors and Student's t for 1 and 2 degrees of freedom written out."""
    found = estimate(np.array([[1.0, 2.0, 3.0], [2.0, 5.0, 5.0]]), 0.95)
    seeds = 1.0  # means 2 and 4: variance 2, over 2
    means = [1.5, 3.5, 4.0]
    pictures = (sum((mean - 3) ** 2 for mean in means) / 2 / 3) ** 0.5
    assert found.mean == 3.0
    assert found.error == pytest.approx((seeds**2 + pictures**2) ** 0.5)
    reach = ((12.70620 * seeds) ** 2 + (4.302653 * pictures) ** 2) ** 0.5
    assert found.high == pytest.approx(3 + reach, rel=1e-5)
    assert found.low == pytest.approx(3 - reach, rel=1e-5)


@pytest.mark.parametrize("seeds", [2, 3])
@pytest.mark.parametrize(("between_seeds", "between_pictures"), [(1, 0), (0, 1), (1, 1), (0.2, 0)])
def test_intervals_hold_at_least_as_often_as_they_say(seeds, between_seeds, between_pictures):
    """1,000 made-up ablations without any true difference: at most about 5 % may be called decided."""
    rng = np.random.default_rng(0)
    wrong = 0
    for _ in range(1000):
        table = rng.normal(0, 0.5, (seeds, 5))
        table += rng.normal(0, 1, (seeds, 1)) * between_seeds + rng.normal(0, 1, (1, 5)) * between_pictures
        wrong += estimate(table, 0.95).decided
    assert wrong / 1000 < 0.06


def test_pictures_alone_never_decide():
    """Every picture agrees to the last digit, but the seeds do not: nothing is decided."""
    assert not estimate(np.array([[0.5] * 100, [-0.3] * 100]), 0.95).decided
    assert estimate(np.array([[0.50] * 100, [0.51] * 100]), 0.95).decided


def test_one_picture_and_equal_scores_are_no_obstacle():
    one = estimate(np.array([[1.0], [1.2], [1.1]]), 0.95)
    assert one.error == pytest.approx(0.1 / 3**0.5)
    assert one.decided
    same = estimate(np.zeros((2, 3)), 0.95)
    assert (same.low, same.high, same.decided) == (0, 0, False)


@pytest.mark.parametrize("arms", [2, 3])
def test_one_seed_is_always_undecided(arms):
    names = ["a", "b", "c"][:arms]
    rows = [row for index, name in enumerate(names) for row in scored(name, [[30.0 - 5 * index] * 4])]
    finished = answer(started(*names), (), tuple(rows))
    assert "by 1 seed and 4 pictures: undecided between a and b: +5.00 dB with one seed, which" in finished.verdict
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
    assert "undecided between a and b: +0.07 dB, but the 95 % interval, " in finished.verdict
    assert "includes no difference" in finished.verdict
    assert re.search(
        "With 2 pictures and 2 seeds, differences below [0-9.]+ dB cannot be detected; more seeds", finished.trust
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
    wide = Difference("a", "b", Estimate(0.1, 0.1, -0.2, 0.4, 0.95))
    rows = scored("a", [[1.0, 2.0]] * 2) + scored("b", [[1.1, 2.0]] * 2)
    assert "equal time" in answer(started("a", "b", equal="time"), (), tuple(rows)).verdict
    assert "0.30 dB" in trust((wide,), 2, 4)
    assert verdict((wide,), "here").startswith("Here: undecided")
