"""What a derainer changes, as a sign of streaks: with derainers whose answers are known."""

from collections.abc import Callable

import numpy as np
import pytest

from restormer_cli.analysis.sampling import Image
from restormer_cli.analysis.trial import PIECES, SIDE, Trial, try_derainer

PICTURE = np.full((2 * SIDE + 40, SIDE + 20, 3), 0.5, np.float32)


def streaked(piece: Image, by: float) -> Image:
    """Every 16th column otherwise."""
    answer = piece.copy()
    answer[:, ::16] += np.float32(by)
    return answer


def noisy(piece: Image) -> Image:
    return piece + np.random.default_rng(0).normal(0, 0.02, piece.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("derain", "sure"),
    [
        (lambda piece: piece, False),
        (lambda piece: streaked(piece, -0.2), True),
        (lambda piece: streaked(piece, +0.2), False),
        (noisy, False),
        (lambda piece: piece - np.float32(0.1), False),  # mist
        (lambda piece: streaked(piece, -0.2) - np.float32(0.1), True),
    ],
    ids=["nothing", "bright streaks", "dark streaks", "noise", "mist", "streaks in mist"],
)
def test_streaks_are_what_is_bright_and_goes(derain: Callable[[Image], Image], sure: bool) -> None:
    assert (try_derainer(PICTURE, derain).score > 0) == sure


def test_rain_is_everywhere() -> None:
    """A fence in one piece is no rain."""
    asked: list[tuple[int, ...]] = []

    def derain(piece: Image) -> Image:
        asked.append(piece.shape)
        return streaked(piece, -0.2) if len(asked) == 1 else piece

    trial = try_derainer(PICTURE, derain)
    assert asked == [(SIDE, SIDE, 3)] * PIECES
    assert (trial.change, trial.darker) == (0, 0)
    assert trial.score < 0


def test_the_change_is_in_255ths_about_the_median() -> None:
    trial = try_derainer(PICTURE, lambda piece: streaked(piece, -0.2) - np.float32(0.1))
    assert trial.change == pytest.approx(0.2 * 255 / 4, rel=1e-4)
    assert trial.darker == pytest.approx(1)


@pytest.mark.parametrize(("shape", "asked"), [((30, 300, 1), (24, 296, 3)), ((7, 90, 3), None), ((8, 8, 1), (8, 8, 3))])
def test_pictures_of_any_size_and_gray_ones(shape: tuple[int, int, int], asked: tuple[int, int, int] | None) -> None:
    seen: list[tuple[int, ...]] = []
    trial = try_derainer(np.full(shape, np.nan, np.float32), lambda piece: seen.append(piece.shape) or piece)
    assert set(seen) == ({asked} if asked else set())
    assert trial == Trial(0.0, 0.0)
