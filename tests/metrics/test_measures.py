"""Measures against scikit-image where the definitions coincide, and against figures worked out by hand."""

import math

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from restormer_cli.metrics.measures import luma8, mae, psnr, ssim_gaussian, ssim_uniform, ssim_volume
from restormer_cli.pixels import round8


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """A picture with structure, and itself with noise: float64 (41, 57, 3) in [0, 1]."""
    rng = np.random.default_rng(0)
    y, x, c = np.ogrid[0:1:41j, 0:1:57j, 0:3]
    clean = 0.5 + 0.3 * np.sin(9 * x + c) * np.cos(7 * y)
    return np.clip(clean + rng.normal(0, 0.1, (41, 57, 3)), 0, 1), clean


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_psnr_is_scikit_images(pair, peak):
    noisy, clean = (peak * picture for picture in pair)
    assert psnr(noisy, clean, peak=peak) == pytest.approx(
        peak_signal_noise_ratio(clean, noisy, data_range=peak), abs=1e-9
    )


def by_windows(image: np.ndarray, reference: np.ndarray, peak: float, weights: np.ndarray, unbias: float) -> float:
    """SSIM as its paper has it: one window after the other, wholly inside the picture."""
    windows = [np.lib.stride_tricks.sliding_window_view(x, weights.shape, axis=(0, 1)) for x in (image, reference)]
    mean_x, mean_y = ((window * weights).sum((-2, -1)) for window in windows)
    x, y = windows[0] - mean_x[..., None, None], windows[1] - mean_y[..., None, None]
    var_x, var_y, both = (unbias * (product * weights).sum((-2, -1)) for product in (x * x, y * y, x * y))
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
    return float((luminance * (2 * both + c2) / (var_x + var_y + c2)).mean())


@pytest.mark.parametrize("peak", [1.0, 255.0])
@pytest.mark.parametrize("shape", [(41, 57), (11, 12)])
def test_gaussian_ssim_is_that_of_windows_one_by_one(pair, peak, shape):
    noisy, clean = (peak * picture[: shape[0], : shape[1]] for picture in pair)
    bell = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    weights = np.outer(bell, bell) / bell.sum() ** 2
    assert ssim_gaussian(noisy, clean, peak=peak) == pytest.approx(
        by_windows(noisy, clean, peak, weights, 1), abs=1e-12
    )


@pytest.mark.parametrize("peak", [1.0, 255.0])
def test_uniform_ssim_is_that_of_windows_one_by_one(pair, peak):
    noisy, clean = (peak * picture for picture in pair)
    expected = by_windows(noisy, clean, peak, np.full((7, 7), 1 / 49), 49 / 48)
    assert ssim_uniform(noisy, clean, peak=peak) == pytest.approx(expected, abs=1e-12)


def test_volume_ssim_is_scikit_images_in_the_interior():
    """On a real volume: scikit-image mirrors and crops its border, MATLAB replicates and keeps it."""
    rng = np.random.default_rng(1)
    noisy, clean = rng.uniform(0, 255, (2, 13, 14, 15))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255, "full": True}
    theirs = np.asarray(structural_similarity(noisy, clean, **options)[1])

    def padded(volume: np.ndarray) -> np.ndarray:
        return np.pad(volume, 5, mode="edge")

    replicated = np.asarray(structural_similarity(padded(noisy), padded(clean), **options)[1])
    ours = ssim_volume(noisy, clean, peak=255)
    assert ours == pytest.approx(replicated[5:-5, 5:-5, 5:-5].mean(), abs=1e-9)
    assert ours != pytest.approx(theirs.mean(), abs=1e-4)  # so the border does matter


def test_mae_is_the_mean_of_absolute_differences():
    assert mae(np.array([[[0.0, 1.0]]]), np.array([[[0.5, 0.25]]])) == 0.625


# --- Constant, black, and a single pixel ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [0, 128, 255])
def test_identical_constant_pictures_are_perfect(value):
    picture = np.full((16, 16, 3), value, np.uint8)
    assert psnr(picture, picture, peak=255) == math.inf
    for ssim in (ssim_gaussian, ssim_uniform, ssim_volume):
        assert ssim(picture, picture, peak=255) == 1.0
    assert mae(picture, picture) == 0


def test_black_against_white_is_zero_decibels():
    """A range taken from the data would divide by zero, or call this something else."""
    black, white = np.zeros((16, 16, 3), np.uint8), np.full((16, 16, 3), 255, np.uint8)
    assert psnr(black, white, peak=255) == 0
    c1 = (0.01 * 255) ** 2
    assert ssim_gaussian(black, white, peak=255) == pytest.approx(c1 / (255**2 + c1))  # the luminance term alone


def test_a_single_pixel_that_differs_by_one():
    """One sample of 10·10·3 off by one: 10 log10(255² · 300)."""
    clean = np.zeros((10, 10, 3), np.uint8)
    wrong = clean.copy()
    wrong[4, 5, 1] = 1
    assert psnr(wrong, clean, peak=255) == pytest.approx(10 * math.log10(255**2 * 300))
    assert psnr(wrong, clean, peak=1) == pytest.approx(10 * math.log10(300))


def test_integers_do_not_wrap_around():
    one, other = np.full((1, 1, 1), 10, np.uint8), np.full((1, 1, 1), 20, np.uint8)
    assert psnr(one, other, peak=255) == pytest.approx(10 * math.log10(255**2 / 100))
    assert mae(one, other) == 10


def test_only_the_masks_pixels_count():
    clean = np.zeros((2, 2, 3))
    wrong = clean.copy()
    wrong[0] = 0.5
    assert psnr(wrong, clean, peak=1, mask=np.array([[True, True], [False, False]])) == pytest.approx(
        10 * math.log10(1 / 0.25)
    )
    assert psnr(wrong, clean, peak=1, mask=np.array([[False, False], [True, True]])) == math.inf


@pytest.mark.parametrize("shape", [(1, 1, 3), (5, 5, 1), (3, 40, 3), (11, 11, 3)])
def test_pictures_smaller_than_the_window_have_an_ssim(shape):
    rng = np.random.default_rng(2)
    one, other = rng.uniform(size=(2, *shape))
    for ssim in (ssim_gaussian, ssim_uniform, ssim_volume):
        assert ssim(one, one, peak=1) == pytest.approx(1)
        assert -1 <= ssim(one, other, peak=1) < 1


def test_what_is_missing_of_a_window_is_mirrored():
    """A picture of 4 × 30: its middle two rows, as they lie in the picture mirrored at its border rows."""
    one, other = np.random.default_rng(3).uniform(size=(2, 4, 30, 3))
    padded = [np.pad(picture, ((4, 4), (0, 0), (0, 0)), mode="reflect") for picture in (one, other)]
    assert ssim_gaussian(one, other, peak=1) == pytest.approx(ssim_gaussian(*padded, peak=1), abs=1e-12)


def test_shapes_that_differ_are_an_error():
    for measure in (psnr, ssim_gaussian, ssim_uniform, ssim_volume):
        with pytest.raises(ValueError, match="shapes differ"):
            measure(np.zeros((2, 2, 1)), np.zeros((2, 2, 3)), peak=1)


# --- Luma and rounding ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rgb", "luma"),
    [
        ((0, 0, 0), 16),
        ((255, 255, 255), 235),
        ((255, 0, 0), 81),  # 16 + 65.481 = 81.481
        ((0, 255, 0), 145),  # 16 + 128.553 = 144.553
        ((0, 0, 255), 41),  # 16 + 24.966 = 40.966
        ((10, 200, 30), 122),  # 16 + (654.81 + 25710.6 + 748.98) / 255 = 122.331
    ],
)
def test_luma_is_matlabs_by_hand(rgb, luma):
    result = luma8(np.array([[rgb]], np.uint8))
    assert result.dtype == np.uint8
    assert result.tolist() == [[[luma]]]


def test_luma_takes_8_bit_colour_only():
    for picture in (np.zeros((2, 2, 3)), np.zeros((2, 2, 1), np.uint8)):
        with pytest.raises(ValueError, match="luma8 takes uint8"):
            luma8(picture)


def test_rounding_to_8_bits_clamps_and_goes_to_the_nearest():
    values = np.array([-0.2, 0.0, 0.4999 / 255, 0.5001 / 255, 254.6 / 255, 1.0, 1.7])
    assert round8(values).tolist() == [0, 0, 0, 1, 255, 255, 255]
