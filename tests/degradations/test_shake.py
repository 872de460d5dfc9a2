"""`shake` moves the camera and things as light does: the sum is kept, paths have their extent, what is near hides."""

import math

import numpy as np
import pytest
from skimage import data

from restormer_cli.degradations import shake as module
from restormer_cli.degradations.scene import filled, object_mask, smooth_mask, split
from restormer_cli.degradations.shake import shake
from restormer_cli.degradations.spec import parse_degradation


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photograph(side: int = 128) -> np.ndarray:
    return data.astronaut()[60 : 60 + side, 150 : 150 + side].astype(np.float32) / 255


def dots(side: int = 129, every: int = 32) -> np.ndarray:
    """White pixels on black."""
    image = np.zeros((side, side, 1), np.float32)
    image[every::every, every::every] = 1
    return image


def spread(blurred: np.ndarray, at: tuple[int, int], reach: int = 15) -> float:
    """How long the trace of a dot is, in pixels."""
    y, x = at
    lit = np.argwhere(blurred[y - reach : y + reach + 1, x - reach : x + reach + 1, 0] > 0.02)
    return float(np.linalg.norm(lit[:, None] - lit[None], axis=2).max())


@pytest.mark.parametrize("extent", [6, 20, 35])
@pytest.mark.parametrize("path", [0, 1, 2])
def test_no_point_moves_farther_than_the_extent_and_some_do_so_far(extent: float, path: int):
    longest = []
    for seed in range(5):
        blurred = shake(dots(161, 20), generator(seed), extent=extent, path=path)[..., 0]
        lit = np.argwhere(blurred[60:101, 60:101] > 0)
        assert len(lit)
        whole = shake(dots(161, 80), generator(seed), extent=extent, path=path)[..., 0]
        places = np.argwhere(whole[50:111, 50:111] > 1e-3)
        longest.append(np.linalg.norm(places[:, None] - places[None], axis=2).max())
    assert max(longest) < extent + 2
    assert max(longest) > 0.4 * extent


@pytest.mark.parametrize("parameters", [{}, {"layers": 3}, {"moving": 1}, {"moving": 2, "layers": 2}, {"frames": 7}])
def test_flat_pictures_stay_and_light_is_kept(parameters: dict[str, float]):
    flat = np.full((67, 83, 3), 0.4, np.float32)
    assert np.abs(shake(flat, generator(), extent=15, path=1, **parameters) - flat).max() < 1e-3
    image = photograph()
    blurred = shake(image, generator(1), extent=9, path=0, **parameters)
    before, after = ((p[20:-20, 20:-20] ** 2.2).mean() for p in (image, blurred))
    assert after == pytest.approx(before, rel=0.05)


def test_light_is_added_up_not_the_values_of_a_file():
    """An edge of black and white, blurred, is at a half of the light in its middle: 0.73 of white."""
    edge = np.zeros((65, 65, 1), np.float32)
    edge[:, 33:] = 1
    blurred = shake(edge, generator(3), extent=12, path=1)
    middle = blurred[32, 28:38, 0]
    assert np.interp(0.5, np.sort(middle) ** 2.2, np.sort(middle)) == pytest.approx(0.5 ** (1 / 2.2), abs=0.02)
    assert ((middle > 0.6) & (middle < 0.85)).any()


def test_highlights_are_cut_off_after_the_blur():
    plain, bright = (shake(dots(), generator(5), extent=12, path=1, highlights=h) for h in (1, 20))
    assert bright.max() <= 1
    lit = (plain > 0.1) & (bright < 1)
    assert (bright[lit] > 2 * plain[lit]).mean() > 0.8


def test_the_blur_is_not_the_same_all_over_the_picture():
    image = np.zeros((257, 257, 1), np.float32)
    image[20:250:24, 20:250:24] = 1
    different = []
    for seed in range(4):
        blurred = shake(image, generator(seed), extent=14, path=0)[..., 0]
        one, other = (blurred[y - 11 : y + 12, x - 11 : x + 12] for y, x in ((44, 44), (212, 212)))
        different.append(np.abs(one - other).sum() / (one.sum() + other.sum()))
    assert max(different) > 0.3


def test_a_thing_that_moves_leaves_the_background_alone():
    image = photograph(160)
    moved = shake(image, generator(4), extent=12, path=1, moving=1)
    same = np.abs(moved - image).max(axis=2) < 2e-3
    assert 0.3 < same.mean() < 0.99
    assert not np.abs(shake(image, generator(4), extent=12, path=1) - image).max(axis=2)[40:-40, 40:-40].max() < 0.02


def test_a_few_frames_are_ghosts_of_each_other():
    """A dot on seven frames is seven dots."""
    image = np.zeros((129, 129, 1), np.float32)
    image[64, 64] = 1
    blurred = shake(image, generator(8), extent=40, path=1, frames=7, highlights=1)[..., 0] ** 2.2
    assert blurred.sum() == pytest.approx(1, rel=0.15)
    assert 5 <= (blurred > 0.05).sum() <= 7
    steady = shake(image, generator(8), extent=40, path=1)[..., 0] ** 2.2
    assert (steady > 0.005).sum() > 20


def test_paths_are_centred_on_the_clean_picture():
    for kind in (0, 1, 2):
        course = module._draw_course(kind, generator(kind))
        for even in (False, True):
            few = course.at_instants(13, 0, even)
            assert few.weights.sum() == pytest.approx(1)
            np.testing.assert_allclose(few.weights @ few.turn, 0, atol=0.02)


def test_no_light_comes_from_beyond_the_reach():
    degradation = parse_degradation("shake:0-30,layers=1,moving=0,highlights=1")
    image = photograph(120)
    reach = degradation.reach
    for seed in range(6):
        whole = degradation(image, generator(seed))
        window = np.zeros_like(image)
        near = slice(56 - reach, 64 + reach)
        window[near, near] = image[near, near]
        part = degradation(window, generator(seed))
        np.testing.assert_allclose(part[56:64, 56:64], whole[56:64, 56:64], atol=1e-5)


def test_nothing_changes_without_movement():
    assert np.array_equal(shake(photograph(), generator(), extent=0), photograph())


# --- Scenes -------------------------------------------------------------------------------------------------


def test_layers_on_one_another_are_the_picture():
    light = (photograph() ** 2.2).astype(np.float32)
    masks = [smooth_mask(128, 128, generator(seed), 0.4) for seed in (1, 2)] + [object_mask(light, generator(3))]
    result = np.zeros_like(light)
    for layer in split(light, masks, [0.1, 0.2, 0.3, 0.4]):
        result += layer.opacity[..., None] * (layer.light - result)
    clear = np.all([mask * (1 - mask) == 0 for mask in masks], axis=0)
    assert clear.mean() > 0.5
    assert np.abs(result - light)[clear].max() < 2e-3
    assert np.abs(result - light).mean() < 0.01


def test_what_is_hidden_is_made_up_from_around():
    light = np.full((64, 64, 3), 0.5, np.float32)
    light[16:48, 16:48] = 0
    hidden = np.zeros((64, 64), np.float32)
    hidden[14:50, 14:50] = 1
    assert np.abs(filled(light, hidden) - 0.5).max() < 0.01


def test_masks_cover_about_as_much_as_they_are_asked_for():
    shares = [smooth_mask(90, 120, generator(seed), 0.3).mean() for seed in range(12)]
    assert np.mean(shares) == pytest.approx(0.3, abs=0.06)


def test_things_are_regions_of_the_picture():
    image = np.full((120, 120, 3), 0.8, np.float32)
    y, x = np.mgrid[:120, :120]
    disc = (y - 50) ** 2 + (x - 70) ** 2 < 20**2
    image[disc] = (0.1, 0.2, 0.5)
    found = [object_mask(image, generator(seed)) for seed in range(3)]
    assert max(((mask > 0.5) & disc).sum() / ((mask > 0.5) | disc).sum() for mask in found) > 0.85
    assert all(math.isclose(mask.max(), 1, abs_tol=0.01) for mask in found)
