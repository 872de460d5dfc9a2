"""Classical methods: each helps on what it is made for, is told what it needs, and is tuned fairly."""

from importlib.util import find_spec

import numpy as np
import pytest

from restormer_cli.benchmark.classical import METHODS, Hints, estimate_sigma, hints_for, tune
from restormer_cli.degradations.operators import published_gaussian
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.errors import UserError
from restormer_cli.metrics.measures import psnr

PACKAGES = {"bm3d": "bm3d", "wavelet": "pywt"}


def clean_picture(channels: int = 3) -> np.ndarray:
    y, x, c = np.ogrid[0:48, 0:56, 0:channels]
    return (0.5 + 0.25 * np.sin(x / 7 + c) * np.cos(y / 6) + 0.1 * (x > 30)).astype(np.float32)


def score(result: np.ndarray, clean: np.ndarray) -> float:
    return psnr(result, clean, peak=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", sorted({*METHODS} - {"richardson-lucy", "opening", "unsharp"}))
def test_denoisers_denoise(name, channels):
    if find_spec(PACKAGES.get(name, "numpy")) is None:
        pytest.skip(f"pip install {PACKAGES[name]}")
    clean = clean_picture(channels)
    noisy = published_gaussian(clean, 25)
    result = METHODS[name].prepare(Hints(sigma=25 / 255))(noisy)
    assert (result.shape, result.dtype) == (clean.shape, np.float32)
    assert score(result, clean) > score(noisy, clean) + 3


@pytest.mark.parametrize("name", ["wiener", "richardson-lucy"])
@pytest.mark.parametrize("spec", ["defocus:2", "motion:7,angle=20"])
def test_deblurrers_undo_a_known_blur(name, spec):
    clean = clean_picture()
    degradation = parse_degradation(spec)
    blurred = degradation(clean, np.random.default_rng(0))
    hints = hints_for(degradation, [blurred])
    strength, best = tune(name, hints, [(blurred, clean)], score)
    assert strength in METHODS[name].grid(hints)
    assert best > score(blurred, clean) + 2


def test_an_unsharp_mask_sharpens_and_leaves_flat_parts_alone():
    clean = clean_picture()
    blurred = parse_degradation("defocus:2")(clean, np.random.default_rng(0))
    assert score(METHODS["unsharp"].run(blurred, Hints(), 0.5), clean) > score(blurred, clean) + 1
    flat = np.full((16, 16, 3), 0.3, np.float32)
    np.testing.assert_allclose(METHODS["unsharp"].run(flat, Hints(), 2.0), flat, atol=1e-6)


def test_an_opening_takes_upright_streaks_away_and_leaves_wider_things():
    clean = clean_picture()
    clean[:, 20:28] += 0.1
    wet = clean.copy()
    wet[5:30, [10, 35, 50]] += 0.3
    assert score(METHODS["opening"].run(clean, Hints(), 3), clean) > 38
    assert score(METHODS["opening"].run(wet, Hints(), 3), clean) > score(wet, clean) + 15
    across = [np.swapaxes(picture, 0, 1) for picture in (wet, clean)]
    assert score(METHODS["opening"].run(across[0], Hints(), 3), across[1]) < score(*across) + 1


def test_a_guided_filter_keeps_edges_above_its_strength():
    edge = np.zeros((24, 24, 1), np.float32)
    edge[:, 12:] = 1
    assert np.abs(METHODS["guided"].run(edge, Hints(), 0.06) - edge).max() < 0.02
    assert np.abs(METHODS["guided"].run(edge * 0.05, Hints(), 0.25) - edge * 0.05).max() > 0.02


def test_deconvolution_without_a_kernel_is_refused():
    with pytest.raises(UserError, match="known blur: use it with --degrade defocus:3"):
        METHODS["richardson-lucy"].prepare(Hints())


def test_what_is_fixed_is_told_and_what_is_not_is_estimated():
    clean = clean_picture()
    told = hints_for(parse_degradation("defocus:3+gaussian:10"), [clean])
    assert told.sigma == 10 / 255
    assert told.kernel is not None
    assert told.kernel.sum() == pytest.approx(1)
    for spec in ("gaussian:0-50", "gaussian:25@0.5", "gaussian:25|jpeg:50", "defocus:1-3", "defocus:3,vary=0.5"):
        hints = hints_for(parse_degradation(spec), [published_gaussian(clean, 20)])
        assert hints.kernel is None
        assert hints.sigma == pytest.approx(20 / 255, rel=0.15)


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_noise_is_estimated_from_the_picture(sigma):
    assert estimate_sigma(published_gaussian(clean_picture(), sigma)) == pytest.approx(sigma / 255, rel=0.15)


def test_tuning_takes_the_best_strength_over_all_pairs():
    clean = clean_picture()
    pairs = [(published_gaussian(clean, 25, seed), clean) for seed in (0, 1)]
    strength, best = tune("tv", Hints(), pairs, score)
    means = {
        s: np.mean([score(METHODS["tv"].run(bad, Hints(), s), good) for bad, good in pairs])
        for s in METHODS["tv"].strengths
    }
    assert strength == max(means, key=means.__getitem__)
    assert best == pytest.approx(means[strength])
