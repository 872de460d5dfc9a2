"""Noise of known strength is found within 15 %: white and correlated, weak and strong, in sharp and soft pictures."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage.restoration import estimate_sigma

from restormer_cli.analysis.noise import estimate_noise


@pytest.mark.parametrize("sigma", [3, 8, 25, 60])
@pytest.mark.parametrize("soft", [False, True])
@pytest.mark.parametrize("name", ["astronaut", "coffee", "rocket", "camera"])
def test_white_noise(name, soft, sigma, photograph, rounded, white_noise):
    clean = photograph(name, soft=soft)
    noise = estimate_noise(rounded(clean + white_noise(clean.shape, sigma)))
    assert noise.sigma == pytest.approx((sigma,) * clean.shape[2], rel=0.15)
    assert noise.correlation < 0.15


@pytest.mark.parametrize("sigma", [5, 20])
@pytest.mark.parametrize("name", ["coffee", "rocket"])
def test_noise_that_was_blurred_after_it_arose(name, sigma, photograph, rounded, white_noise):
    clean = photograph(name)
    white = gaussian_filter(white_noise(clean.shape, 1), (0.7, 0.7, 0))
    noise = estimate_noise(rounded(clean + white * (sigma / 255 / white.std())))
    assert noise.mean == pytest.approx(sigma, rel=0.15)
    assert noise.correlation == pytest.approx(np.exp(-1 / (4 * 0.7**2)), abs=0.1)
    assert noise.length == pytest.approx(1.4, abs=0.3)


def test_demosaiced_noise_which_others_take_for_texture(photograph, rounded, white_noise, demosaiced):
    clean = photograph("coffee")
    noisy = demosaiced(clean + white_noise(clean.shape, 25))
    true = 255 * (noisy - demosaiced(clean)).std()
    assert estimate_noise(rounded(noisy)).mean == pytest.approx(true, rel=0.15)
    assert np.mean(estimate_sigma(noisy, channel_axis=2)) * 255 < 0.5 * true


def test_each_channel_has_its_own(photograph, rounded, white_noise):
    clean = photograph("coffee")
    noise = estimate_noise(rounded(clean + white_noise(clean.shape, 1) * [4, 8, 16]))
    assert noise.sigma == pytest.approx((4, 8, 16), rel=0.15)


@pytest.mark.parametrize(("peak", "read", "growth"), [(100, 1, 1.0), (1e9, 12, 0.0)])
def test_growth_with_brightness(peak, read, growth, photograph, rounded, white_noise):
    clean = photograph("camera")
    rng = np.random.default_rng(1)
    noise = estimate_noise(rounded(rng.poisson(clean * peak) / peak + white_noise(clean.shape, read)))
    assert noise.growth == pytest.approx(growth, abs=0.2)
    assert noise.mean == pytest.approx(np.sqrt(clean.mean() / peak * 255**2 + read**2), rel=0.15)


def test_noise_that_was_clipped_at_black(photograph, rounded, white_noise):
    dark = photograph("coffee") * 0.12
    assert estimate_noise(rounded(dark + white_noise(dark.shape, 30))).mean == pytest.approx(30, rel=0.15)


def test_none_is_found_where_there_is_none(photograph):
    assert estimate_noise(photograph("rocket", soft=True)).mean < 0.5
    flat = estimate_noise(np.full((64, 80, 3), 0.4, np.float32))
    assert flat.mean < 0.1
    assert estimate_noise(np.ones((40, 40, 1), np.float32)).mean < 0.1


@pytest.mark.parametrize("shape", [(1, 1, 3), (15, 200, 1), (16, 16, 3), (17, 300, 3)])
def test_small_pictures_have_an_answer(shape, rounded, white_noise):
    noise = estimate_noise(rounded(0.5 + white_noise(shape, 10)))
    assert len(noise.sigma) == shape[2]
    assert 0 <= noise.mean < 20


def test_noise_is_told_from_what_looks_like_it(photograph, rounded, white_noise):
    clean = photograph("rocket", soft=True)
    assert estimate_noise(rounded(clean + white_noise(clean.shape, 8))).score > 0
    grass = gaussian_filter(white_noise((*clean.shape[:2], 1), 1), (0.9, 0.9, 0))  # the same in all channels
    y, x = np.indices(clean.shape[:2])[..., None]
    lattice = np.sin(x * 2 * np.pi / 5) * np.sin(y * 2 * np.pi / 5)  # as a perforated sheet
    for texture in (grass, lattice):
        found = estimate_noise(rounded(clean + texture * (8 / 255 / texture.std())))
        assert found.score < 0
        assert found.coupling > 0.9
