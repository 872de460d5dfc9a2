"""Channels, views, ensemble and strength, held against what they mean."""

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from skimage import data

from restormer_cli.engine.adapter import restore_pixels
from restormer_cli.engine.memory_plan import Plan
from restormer_cli.engine.positions import ALL, UPRIGHT, positions_of
from restormer_cli.engine.restorer import Restorer
from restormer_cli.errors import Failed, UserError
from restormer_cli.metrics.measures import psnr
from restormer_cli.model.weights import load_weights
from restormer_cli.pixels import LUMA


def noise(channels: int, height: int = 16, width: int = 24, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random((height, width, channels), dtype=np.float32)


class Stub:
    """A stand-in for a Restorer that applies a function to the pixels."""

    precision = "fp32"
    positions = ALL

    def __init__(self, channels: int, function, dual_pixel: bool = False, together: int = 1, tile=None) -> None:
        self.tile = tile
        self.config = SimpleNamespace(in_channels=channels, dual_pixel=dual_pixel)
        self.function = function
        self.together = together
        self.batches: list[int] = []

    def plan(self, height: int, width: int) -> Plan:
        return Plan("whole", True, self.tile, None, "fp32", 0, together=self.together)

    def __call__(self, pixels: np.ndarray, notice: object = None, progress: object = None) -> np.ndarray:
        return self.several([pixels])[0]

    def several(self, pictures: list[np.ndarray], notice: object = None, progress: object = None) -> list[np.ndarray]:
        assert all(pixels.shape == (*pictures[0].shape[:2], self.config.in_channels) for pixels in pictures)
        assert all(pixels.flags["C_CONTIGUOUS"] for pixels in pictures)
        self.batches.append(len(pictures))
        return [self.function(pixels) for pixels in pictures]


def stub(channels: int, function, dual_pixel: bool = False, together: int = 1) -> Restorer:
    return cast(Any, Stub(channels, function, dual_pixel, together))


@pytest.fixture(scope="module")
def colour(tiny_network) -> Restorer:
    return Restorer(tiny_network(), device="cpu")


@pytest.fixture(scope="module")
def gray(tiny_network) -> Restorer:
    return Restorer(tiny_network(in_channels=1, out_channels=1), device="cpu")


@pytest.fixture(scope="module")
def dual(tiny_network) -> Restorer:
    return Restorer(tiny_network(in_channels=6, dual_pixel=True), device="cpu")


# --- Channels -------------------------------------------------------------------------------------------------


def test_channels_that_fit_go_straight_through(colour, gray):
    for restorer, picture in ((colour, noise(3)), (gray, noise(1))):
        np.testing.assert_array_equal(restore_pixels(restorer, picture), restorer(picture))


def test_gray_through_colour_weights_is_gray(colour):
    picture = noise(1)
    restored = restore_pixels(colour, picture)
    assert restored.shape == picture.shape
    np.testing.assert_allclose(restored[..., 0], colour(picture.repeat(3, axis=2)).mean(axis=2), rtol=1e-6)


def test_colour_through_gray_weights_keeps_its_chroma(gray):
    picture = noise(3)
    restored = restore_pixels(gray, picture)
    luma = (picture @ LUMA)[..., None]
    np.testing.assert_allclose((restored @ LUMA)[..., None], gray(luma), atol=1e-6)
    for blue_or_red in (0, 2):  # Cb and Cr are these differences, scaled
        kept, had = (image[..., blue_or_red] - image @ LUMA for image in (restored, picture))
        np.testing.assert_allclose(kept, had, atol=1e-6)
    assert np.abs(restored - picture).mean() > 0.01


def test_two_views_go_into_dual_pixel_weights_left_first(dual):
    left, right = noise(3), noise(3, seed=1)
    wanted = dual(np.concatenate([left, right], axis=2))
    np.testing.assert_array_equal(restore_pixels(dual, left, right), wanted)
    swapped = restore_pixels(dual, right, left)
    assert np.abs(swapped - wanted).max() > 1e-3


def test_two_gray_views_come_back_gray(dual):
    left, right = noise(1), noise(1, seed=1)
    wanted = dual(np.concatenate([left.repeat(3, axis=2), right.repeat(3, axis=2)], axis=2)).mean(axis=2, keepdims=True)
    np.testing.assert_allclose(restore_pixels(dual, left, right), wanted, rtol=1e-6)


def test_views_that_do_not_fit_are_refused(dual, colour):
    with pytest.raises(UserError, match="take two views of a scene: name the second by --right"):
        restore_pixels(dual, noise(3))
    with pytest.raises(UserError, match=r"its views differ: 24 × 16 × 3 and 25 × 16 × 3: give two views"):
        restore_pixels(dual, noise(3), noise(3, width=25))
    with pytest.raises(UserError, match="these weights take one picture: leave --right out"):
        restore_pixels(colour, noise(3), noise(3))
    with pytest.raises(UserError, match="has 3 channels, these weights take 4"):
        restore_pixels(stub(4, np.copy), noise(3))


# --- Ensemble -------------------------------------------------------------------------------------------------


def test_the_ensemble_undoes_every_turn():
    """A network that leaves pixels where they are, but sees where they are, comes out averaged over 8 places."""
    picture = noise(3, 8, 12)
    np.testing.assert_allclose(restore_pixels(stub(3, np.copy), picture, ensemble=True), picture, atol=1e-6)

    def corner(pixels):  # marks its own top left corner
        result = np.zeros_like(pixels)
        result[0, 0] = 8
        return result

    marked = restore_pixels(stub(3, corner), picture, ensemble=True)[..., 0]
    wanted = np.zeros((8, 12))
    wanted[[0, 0, -1, -1], [0, -1, 0, -1]] = 2  # eight turns, four corners
    np.testing.assert_allclose(marked, wanted)


def test_the_ensemble_runs_through_the_network(colour):
    picture = noise(3)
    calls = []

    def count(pixels):
        calls.append(pixels.shape)
        return colour(pixels)

    restored = restore_pixels(stub(3, count), picture, ensemble=True)
    assert sorted(calls) == [(16, 24, 3)] * 4 + [(24, 16, 3)] * 4
    assert 0 < np.abs(restored - colour(picture)).max() < 1


@pytest.mark.parametrize("together", [1, 4])
def test_rain_that_falls_is_never_shown_lying(together):
    seen = []

    def look(pixels):
        seen.append(pixels)
        return pixels

    picture = noise(3, 8, 12)
    restorer = Stub(3, look, together=together)
    restorer.positions = UPRIGHT
    restored = restore_pixels(cast(Any, restorer), picture, ensemble=True)
    np.testing.assert_allclose(restored, picture, atol=1e-6)
    wanted = [picture, picture[::-1, ::-1], picture[:, ::-1], picture[::-1]]
    for view, expected in zip(seen, wanted, strict=True):
        np.testing.assert_array_equal(view, expected)


@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({"degrade": {"steps": ["rainfall:1-12,kind=0-2|clip", "gaussian:0-3"]}}, UPRIGHT),
        ({"degrade": {"steps": ["gaussian:3", "clip|rain:0.1"]}}, UPRIGHT),
        ({"degrade": {"steps": ["gaussian:0-50|sensor:100-800", "round8"]}}, ALL),
        ({"degrade": {"steps": []}}, ALL),  # pairs of photographs, turned together
        ({"degrade": {"steps": [3, None]}}, ALL),
        ({"degrade": "rain"}, ALL),
        (None, ALL),
    ],
)
def test_positions_are_those_that_training_showed(recipe, expected):
    assert positions_of(recipe) == expected


def test_three_equal_channels_stay_equal():
    gray = noise(1)
    tinted = stub(3, lambda pixels: pixels * np.array([1, 0.9, 0.8], np.float32))
    restored = restore_pixels(tinted, np.repeat(gray, 3, axis=2), strength=0.5)
    np.testing.assert_array_equal(restored, np.repeat(restore_pixels(tinted, gray, strength=0.5), 3, axis=2))
    np.testing.assert_allclose(restored, np.repeat(0.95 * gray, 3, axis=2), rtol=1e-6)


@pytest.mark.parametrize("task", ["denoise", "denoise-fast"])
def test_the_bundled_denoisers_know_noise_without_colours(task):
    """Three equal channels have equal noise, which networks that only met independent noise take for texture."""
    clean = data.camera()[200:296, 180:276, None].astype(np.float32) / 255
    noisy = clean + np.float32(25 / 255) * np.random.default_rng(0).standard_normal(clean.shape, dtype=np.float32)
    restored = restore_pixels(Restorer(load_weights(task), device="cpu"), noisy)
    assert psnr(restored, clean, peak=1) > psnr(noisy, clean, peak=1) + 5


def test_the_bundled_derainer_knows_rain_that_falls():
    assert Restorer(load_weights("derain"), device="cpu").positions == UPRIGHT
    assert Restorer(load_weights("denoise"), device="cpu").positions == ALL


def test_the_ensemble_of_two_views_never_turns_and_swaps_when_it_mirrors():
    left, right = noise(3), noise(3, seed=1)
    seen = []

    def look(pixels):
        seen.append(pixels)
        return pixels[..., :3]

    restored = restore_pixels(stub(6, look, dual_pixel=True), left, right, ensemble=True)
    assert [pixels.shape for pixels in seen] == [(16, 24, 6)] * 4
    np.testing.assert_array_equal(seen[1], np.concatenate([right, left], axis=2)[:, ::-1])
    np.testing.assert_array_equal(seen[2], np.concatenate([left, right], axis=2)[::-1])
    np.testing.assert_allclose(restored, (left + right) / 2, atol=1e-6)


@pytest.mark.parametrize(("together", "batches"), [(1, [1] * 8), (2, [2] * 4), (4, [4, 4]), (8, [4, 4])])
def test_as_many_turns_as_the_plan_says_go_together(together, batches):
    def uneven(pixels):
        return pixels * np.linspace(0, 1, pixels.shape[1], dtype=np.float32)[:, None]

    picture = noise(3, 8, 12)
    restorer = stub(3, uneven, together=together)
    heard: list[float] = []
    restored = restore_pixels(restorer, picture, ensemble=True, progress=heard.append)
    np.testing.assert_allclose(restored, restore_pixels(stub(3, uneven), picture, ensemble=True), atol=1e-6)
    assert cast(Any, restorer).batches == batches


def test_turns_of_a_large_picture_in_tiles_go_one_by_one():
    """Its tiles go together; eight such pictures at once are in no plan."""
    restorer = Stub(3, np.copy, together=4, tile=8)
    restore_pixels(cast(Any, restorer), noise(3), ensemble=True)
    assert restorer.batches == [1] * 8


@pytest.mark.parametrize(("together", "batches"), [(1, [1] * 4), (2, [2, 2]), (8, [4])])
def test_and_so_do_the_mirrored_views(together, batches):
    def right(pixels):
        return pixels[..., 3:]

    views = noise(3), noise(3, seed=1)
    restorer = stub(6, right, dual_pixel=True, together=together)
    restored = restore_pixels(restorer, *views, ensemble=True)
    alone = restore_pixels(stub(6, right, dual_pixel=True), *views, ensemble=True)
    np.testing.assert_array_equal(restored, alone)
    assert cast(Any, restorer).batches == batches


# --- Strength -------------------------------------------------------------------------------------------------


def test_strength_blends_between_the_input_and_the_answer(colour):
    picture = noise(3)
    full = restore_pixels(colour, picture)
    np.testing.assert_array_equal(restore_pixels(colour, picture, strength=0), picture)
    np.testing.assert_allclose(restore_pixels(colour, picture, strength=0.25), 0.75 * picture + 0.25 * full, atol=1e-6)


def test_strength_0_does_not_ask_the_network():
    def never(_):
        raise AssertionError

    restore_pixels(stub(3, never), noise(3), strength=0)


# --- What can go wrong ----------------------------------------------------------------------------------------


def test_a_result_that_is_not_finite_names_the_cure():
    broken = stub(3, lambda pixels: pixels * np.float32(np.nan))
    with pytest.raises(Failed, match="not finite: these weights cannot restore it"):
        restore_pixels(broken, noise(3))
    cast(Any, broken).precision = "bf16"
    with pytest.raises(Failed, match="not finite: try --precision fp32"):
        restore_pixels(broken, noise(3))
