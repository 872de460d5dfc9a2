"""From scores to an answer that claims no more than they allow.

Trainings (seeds) and pictures are both samples: another seed, or other photographs, would have given other numbers. So
the paired differences d(seed, picture) are taken as a two-way table. The mean has two standard errors, one from how the
seeds' means scatter and one from how the pictures' means do. The interval's half-width is

    sqrt((t_seeds · error_seeds)² + (t_pictures · error_pictures)²)

with Student's t of each one's own degrees of freedom. It counts the residual scatter twice, which errs on the side of
"undecided" (test_intervals_hold_at_least_as_often_as_they_say; Satterthwaite's pooled degrees of freedom did not hold).
With several comparisons each interval is widened (Bonferroni), so that together they hold with 95 %.
"""

import numpy as np
from scipy.special import stdtrit

from restormer_cli.commands.ablate.types import Difference, Estimate, Finished, InferenceCost, Scored, Started

CONFIDENCE = 0.95


def answer(started: Started, prices: tuple[InferenceCost, ...], scored: tuple[Scored, ...]) -> Finished:
    """The answer from the repetitions that every arm has completed (there must be one)."""
    complete = _complete(started, scored)
    tables = {arm.name: _table(complete, arm.name) for arm in started.arms}
    first, *others = started.arms
    confidence = 1 - (1 - CONFIDENCE) / len(others)
    differences = tuple(
        Difference(first.name, other.name, estimate(tables[first.name] - tables[other.name], confidence))
        for other in others
    )
    means = tuple((name, estimate(table, CONFIDENCE)) for name, table in tables.items())
    seeds, pictures = tables[first.name].shape
    return Finished(
        started, prices, complete, means, differences,
        verdict=verdict(differences, scope(started, seeds, pictures)),
        trust=trust(differences, seeds, pictures),
    )  # fmt: skip


def estimate(table: np.ndarray, confidence: float) -> Estimate:
    """The mean of a (seeds, pictures) table with its interval; without one after a single seed."""
    mean = float(table.mean())
    errors = [float(axis.std(ddof=1)) / len(axis) ** 0.5 for axis in (table.mean(1), table.mean(0)) if len(axis) > 1]
    error = sum(each**2 for each in errors) ** 0.5 if errors else None
    if len(table) < 2:
        return Estimate(mean, error, None, None, confidence)
    reaches = [
        float(stdtrit(count - 1, (1 + confidence) / 2)) * each  # Student's t; scipy.stats takes a second to import
        for count, each in zip((count for count in table.shape if count > 1), errors, strict=True)
    ]
    reach = sum(each**2 for each in reaches) ** 0.5
    return Estimate(mean, error, mean - reach, mean + reach, confidence)


def scope(started: Started, seeds: int, pictures: int) -> str:
    """For what the answer holds."""
    counts = f"{seeds} seed{'s' * (seeds > 1)} and {pictures} picture{'s' * (pictures > 1)}"
    length = "after equal time" if started.equal == "time" else f"after {started.iterations:,} iterations"
    return f"at {started.scale} scale, {length}, by {counts}"


def verdict(differences: tuple[Difference, ...], where: str) -> str:
    """One sentence."""
    return f"{where[0].upper()}{where[1:]}: {'; '.join(_claim(difference) for difference in differences)}."


def _claim(difference: Difference) -> str:
    first, other, found = difference.first, difference.other, difference.estimate
    if found.low is None or found.high is None:
        return (
            f"undecided between {first} and {other}: {found.mean:+.2f} dB with one seed, which says nothing of chance"
        )
    level = f"{100 * found.confidence:.3g} %"
    if not found.decided:
        return (
            f"undecided between {first} and {other}: {found.mean:+.2f} dB, but the {level} interval, "
            f"{found.low:+.2f} to {found.high:+.2f} dB, includes no difference"
        )
    better, worse = (first, other) if found.mean > 0 else (other, first)
    low, high = sorted((abs(found.low), abs(found.high)))
    return f"{better} is better than {worse} by {low:.2f} to {high:.2f} dB ({level} interval)"


def trust(differences: tuple[Difference, ...], seeds: int, pictures: int) -> str:
    """How far the answer can be trusted."""
    if seeds < 2:
        return "One seed cannot tell a difference between arms from chance in training: give --seeds 3 or more."
    widest = max(differences, key=lambda difference: difference.estimate.error or 0).estimate
    assert widest.low is not None
    assert widest.high is not None
    reach = (widest.high - widest.low) / 2
    more = "; more seeds would help most" if seeds < 5 else ""
    return (
        f"With {pictures} pictures and {seeds} seeds, differences below {reach:.2f} dB cannot be detected{more}. "
        "This holds for these short trainings on such pictures only: longer training or other data may reverse it."
    )


def _complete(started: Started, scored: tuple[Scored, ...]) -> tuple[Scored, ...]:
    names = {arm.name for arm in started.arms}
    whole = [
        repetition
        for repetition in sorted({row.repetition for row in scored})
        if names == {row.arm for row in scored if row.repetition == repetition}
    ]
    return tuple(
        row for repetition in whole for arm in started.arms for row in scored
        if (row.arm, row.repetition) == (arm.name, repetition)
    )  # fmt: skip


def _table(scored: tuple[Scored, ...], arm: str) -> np.ndarray:
    """PSNR, (seeds, pictures)."""
    return np.array([[psnr for _, psnr in row.pictures] for row in scored if row.arm == arm])
