"""`rainfall` wets as much as it is asked for, in its direction, and shows the sky."""

import numpy as np
import pytest
from scipy import ndimage

from restormer_cli.degradations.rain import rainfall


def rain(image: np.ndarray, seed: int = 0, **parameters: float) -> np.ndarray:
    return rainfall(image.astype(np.float32), np.random.default_rng(seed), **({"amount": 4, "jitter": 0} | parameters))


def black(height: int = 160, width: int = 200) -> np.ndarray:
    return np.zeros((height, width, 1), np.float32)


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_about_as_many_pixels_are_wet_as_asked_for_wherever_the_rain_falls(kind: int):
    for tilt in (0, 60):
        few, many = (
            np.mean([(rain(black(), s, kind=kind, tilt=tilt, amount=a) > 0.1).mean() for s in range(6)]) for a in (2, 6)
        )
        assert 2.2 < many / few < 3.8
        assert 0.005 < few < 0.06
    wet = np.mean([rain(black(), s, kind=kind, amount=10)[..., 0] for s in range(30)], axis=0)
    quarters = wet.reshape(2, 80, 2, 100).mean(axis=(1, 3))
    assert quarters.max() < 1.3 * quarters.min()  # the borders too


@pytest.mark.parametrize("tilt", [-60, -20, 0, 35, 60])
def test_streaks_have_their_direction(tilt: float):
    wet = np.mean([direction(rain(black(), seed, kind=0, tilt=tilt, amount=2)[..., 0]) for seed in range(4)])
    assert wet == pytest.approx(tilt, abs=6)


def direction(wet: np.ndarray) -> float:
    """Of the streaks, in degrees from vertical, by the structure tensor."""
    down, across = np.gradient(ndimage.gaussian_filter(wet, 1.5))
    a, b, c = (down**2).sum(), (down * across).sum(), (across**2).sum()
    return float(np.degrees(-0.5 * np.arctan2(2 * b, c - a)))


def test_jitter_spreads_directions():
    tilts = [
        np.std([direction(rain(black(60, 60), s, kind=0, tilt=10, amount=1, jitter=j)[..., 0]) for s in range(12)])
        for j in (0, 20)
    ]
    assert tilts[1] > 1.5 * tilts[0]


def test_kinds_differ_in_length_and_strength():
    def length(kind: int) -> float:
        """How slowly the picture changes along the streaks."""
        wet = rain(black(), 3, kind=kind, amount=4)[..., 0]
        return float((wet[1:] * wet[:-1]).sum() / (np.abs(np.diff(wet, axis=0)) ** 2).sum())

    assert length(0) > 2 * length(1) > 0
    assert rain(black(), 3, kind=1).max() > rain(black(), 3, kind=2).max()


def test_rain_hides_what_is_behind_and_never_darkens_black_nor_brightens_beyond_the_sky():
    dark, light = rain(black(), 5), rain(black() + 1, 5)
    assert dark.min() >= 0
    assert light.max() <= 1
    covered = dark / dark.max()
    assert np.corrcoef(covered.ravel(), (1 - light).ravel())[0, 1] > 0.9 or light.min() > 0.99
    half = rain(black() + 0.5, 5)
    assert ((half - 0.5)[dark > 0.3] < dark[dark > 0.3]).all()  # the same drop is weaker before what is brighter


def test_opacity_and_veil():
    assert rain(black(), opacity=0.9).max() > 1.7 * rain(black(), opacity=0.45).max()
    misty = rain(black(), amount=0, veil=0.5)
    assert 0.1 < misty.min() < misty.max() < 0.5
    assert np.array_equal(rain(black() + 0.3, amount=0), black() + np.float32(0.3))


def test_the_picture_is_the_same_scene_at_any_size():
    assert rain(np.zeros((1, 1, 3))).shape == (1, 1, 3)
    assert rain(np.zeros((3, 500, 3)), kind=3, tilt=75, jitter=20).shape == (3, 500, 3)
