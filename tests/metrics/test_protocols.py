"""Each protocol's rules, one by one, on pictures where breaking a rule shows."""

import math

import numpy as np
import pytest

from restormer_cli.benchmark.networks import find_network
from restormer_cli.benchmark.published import published
from restormer_cli.errors import UserError
from restormer_cli.metrics.align import align, find_homography
from restormer_cli.metrics.measures import psnr, ssim_gaussian, ssim_uniform, ssim_volume
from restormer_cli.metrics.protocols import BY_TASK, PROTOCOLS, find_protocol
from restormer_cli.model.config import ModelConfig

EIGHT_BIT = ("plain", "gaussian", "rain-y", "gopro")
FLOAT = ("dpdd", "sidd")


def picture(seed: int = 0, height: int = 32, width: int = 40) -> np.ndarray:
    """Smooth structure in the middle of the range: float32 (h, w, 3)."""
    rng = np.random.default_rng(seed)
    y, x, c = np.ogrid[0 : 1 : height * 1j, 0 : 1 : width * 1j, 0:3]
    waves = [np.sin(rng.uniform(2, 25) * x + rng.uniform(2, 25) * y + c) for _ in range(9)]
    return (0.5 + 0.04 * np.sum(waves, axis=0)).astype(np.float32)


@pytest.mark.parametrize("name", EIGHT_BIT)
def test_8_bit_protocols_do_not_see_what_rounding_hides(name):
    clean = np.rint(picture() * 255).astype(np.float32) / 255
    assert PROTOCOLS[name].score(clean + 0.4 / 255, clean).psnr == math.inf
    assert PROTOCOLS[name].score(clean + 3 / 255, clean).psnr < 50


@pytest.mark.parametrize("name", FLOAT)
def test_float_protocols_do(name):
    clean = picture()
    assert PROTOCOLS[name].score(clean + 0.1 / 255, clean).psnr == pytest.approx(20 * math.log10(2550), abs=0.01)


@pytest.mark.parametrize("name", [*EIGHT_BIT, *FLOAT, "realblur"])
def test_results_are_clamped_first(name):
    clean = np.zeros((24, 24, 3), np.float32)
    clean[12:] = 1
    assert PROTOCOLS[name].score(np.where(clean > 0, 7.0, -7.0).astype(np.float32), clean).psnr == math.inf


def test_rain_is_scored_on_luma_which_is_blind_to_some_colour():
    clean = np.full((16, 16, 3), 100 / 255, np.float32)
    result = clean.copy()
    result[..., 2] += 4 / 255  # blue weighs 24.966 / 255: 0.39 of a step
    assert PROTOCOLS["rain-y"].score(result, clean).psnr == math.inf
    assert PROTOCOLS["plain"].score(result, clean).psnr == pytest.approx(10 * math.log10(255**2 / (16 / 3)))


def test_rain_by_hand():
    """Gray 100 -> 16 + 219 · 100 / 255 = 101.88 -> 102; 110 -> 110.47 -> 110: 8 steps apart."""
    clean, result = (np.full((16, 16, 3), value / 255, np.float32) for value in (100, 110))
    assert PROTOCOLS["rain-y"].score(result, clean).psnr == pytest.approx(20 * math.log10(255 / 8))


def test_gray_pictures_have_no_luma_protocol():
    gray = np.zeros((16, 16, 1), np.float32)
    with pytest.raises(UserError, match=r"rain-y.*these are gray: use plain"):
        PROTOCOLS["rain-y"].score(gray, gray)


@pytest.mark.parametrize(
    ("name", "ssim", "peak"),
    [
        ("plain", ssim_gaussian, 255),
        ("gaussian", ssim_gaussian, 255),
        ("gopro", ssim_volume, 255),
        ("dpdd", ssim_uniform, 1),
        ("sidd", ssim_volume, 1),
    ],
)
def test_each_has_its_own_ssim(name, ssim, peak):
    clean = picture()
    result = np.clip(clean + np.random.default_rng(1).normal(0, 0.05, clean.shape), 0, 1).astype(np.float32)
    pair = (np.rint(255 * p).astype(np.uint8) if peak == 255 else p for p in (result, clean))
    assert PROTOCOLS[name].score(result, clean).ssim == pytest.approx(ssim(*pair, peak=peak))


def test_every_task_has_a_protocol_that_exists():
    assert set(BY_TASK.values()) <= set(PROTOCOLS)
    with pytest.raises(UserError, match="--protocol magic: unknown; choose from plain, gaussian"):
        find_protocol("magic")


# --- Alignment ------------------------------------------------------------------------------------------------


def scene(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A smooth scene at any place: (…) -> (…, 3)."""
    waves = 0.5 + 0.15 * np.sin(x / 5 + y / 9) + 0.15 * np.cos(y / 4 - x / 13) + 0.1 * np.sin(x * y / 300)
    return np.stack([waves, waves**2, 1 - waves], axis=-1)


@pytest.mark.parametrize("contrast", [1.0, 0.3])
def test_a_shifted_turned_picture_is_moved_back_whatever_its_contrast(contrast):
    truth = np.array([[1.004, 0.012, 1.7], [-0.012, 0.997, -1.3], [1e-5, -2e-5, 1.0]])
    y, x = np.mgrid[0:72, 0:96].astype(float)
    inverse = np.linalg.inv(truth)
    across, down, depth = np.tensordot(inverse, np.stack([x, y, np.ones_like(x)]), axes=1)
    seen, target = scene(down / depth, across / depth), scene(y, x)
    faint = 0.4 + contrast * seen.mean(axis=2)
    assert np.abs(find_homography(faint, target.mean(axis=2), iterations=12) - truth).max() < 0.05
    aligned = align(seen, target)
    before = psnr(seen, target, peak=1)
    after = psnr(aligned.pixels, target, peak=1, mask=aligned.mask)
    assert before < 30
    assert after > 45
    assert 0.8 < aligned.mask.mean() < 1


def test_realblur_scores_after_alignment_within_the_mask():
    y, x = np.mgrid[0:64, 0:80].astype(float)
    clean, moved = scene(y, x).astype(np.float32), scene(y + 1.5, x - 2).astype(np.float32)
    assert PROTOCOLS["realblur"].score(moved, clean).psnr > PROTOCOLS["plain"].score(moved, clean).psnr + 10
    assert PROTOCOLS["realblur"].score(clean, clean).psnr > 60


@pytest.mark.parametrize("shape", [(20, 20, 3), (1, 1, 3), (3, 50, 1)])
def test_a_flat_picture_is_not_moved(shape):
    flat = np.full(shape, 0.5)
    aligned = align(flat, flat)
    assert np.array_equal(aligned.homography, np.eye(3))
    assert np.allclose(aligned.pixels, flat)


# --- The paper's figures --------------------------------------------------------------------------------------


@pytest.fixture
def official(tmp_path, monkeypatch):
    """A network as found in an official file of a name, of the paper's shape unless told otherwise."""

    def make(name: str, **changes):
        network = find_network("paper")
        object.__setattr__(network, "path", tmp_path / name)
        object.__setattr__(network, "config", ModelConfig(**changes))
        return network

    return make


@pytest.mark.parametrize(
    ("weights", "protocol", "dataset", "sigma", "psnr_"),
    [
        ("deraining.pth", "rain-y", "Rain100L", None, 38.99),
        ("motion_deblurring.pth", "gopro", "GoPro", None, 32.92),
        ("motion_deblurring.safetensors", "realblur", "RealBlur_J", None, 28.96),
        ("single_image_defocus_deblurring.pth", "dpdd", "DPDD", None, 25.98),
        ("single_image_defocus_deblurring.pth", "dpdd", "indoor", None, 28.87),
        ("gaussian_color_denoising_blind.pth", "gaussian", "CBSD68", 25.0, 31.78),
        ("gaussian_color_denoising_sigma25.pth", "gaussian", "cbsd-68", 25.0, 31.79),
        ("gaussian_gray_denoising_sigma50.pth", "gaussian", "Urban100", 50.0, 28.29),
        ("official/motion-deblur.safetensors", "gopro", "GoPro", None, 32.92),  # fetched by name
        ("official/denoise-gray-50.safetensors", "gaussian", "Urban100", 50.0, 28.29),
    ],
)
def test_the_papers_figure_where_everything_matches(official, weights, protocol, dataset, sigma, psnr_):
    figure = published(official(weights), protocol, dataset, sigma)
    assert figure is not None
    assert figure.psnr == psnr_


@pytest.mark.parametrize(
    ("weights", "protocol", "dataset", "sigma"),
    [
        ("deraining.pth", "plain", "Rain100L", None),
        ("deraining.pth", "rain-y", "mine", None),
        ("mine.pth", "rain-y", "Rain100L", None),
        ("derain.safetensors", "rain-y", "Rain100L", None),
        ("official/mine.safetensors", "rain-y", "Rain100L", None),
        ("gaussian_color_denoising_sigma25.pth", "gaussian", "CBSD68", 15.0),
        ("gaussian_color_denoising_blind.pth", "gaussian", "CBSD68", 30.0),
        ("gaussian_color_denoising_blind.pth", "gaussian", "CBSD68", None),
        ("gaussian_color_denoising_blind.pth", "plain", "CBSD68", 25.0),
    ],
)
def test_no_figure_where_something_does_not(official, weights, protocol, dataset, sigma):
    assert published(official(weights), protocol, dataset, sigma) is None


def test_no_figure_for_another_network_of_the_same_name(official):
    assert published(official("deraining.pth", dim=32), "rain-y", "Rain100L") is None
