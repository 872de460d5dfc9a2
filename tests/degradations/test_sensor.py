"""`sensor` makes pictures as cameras do: noise of their colours, softness and strength, and the clean one besides."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from skimage import data

from restormer_cli.degradations.demosaic import DEMOSAICERS
from restormer_cli.degradations.sensor import Camera, draw_camera, noise_of_large, noise_of_phone
from restormer_cli.degradations.spec import parse_degradation

SIDE = 160


def photograph(name: str, side: int = SIDE) -> np.ndarray:
    """The middle of one of scikit-image's photographs, (side, side, 3) float32 in [0, 1]."""
    picture = getattr(data, name)()[..., :3]
    top, left = ((n - side) // 2 for n in picture.shape[:2])
    return picture[top : top + side, left : left + side].astype(np.float32) / 255


def camera(seed: int = 0, **parameters: float) -> Camera:
    return draw_camera(np.random.default_rng(seed), **({"iso": 1600, "demosaic": seed % 3} | parameters))


def noise_of(shots: list[np.ndarray]) -> np.ndarray:
    """The noise of each of several pictures of one scene, as the collections of real ones measure it."""
    n = len(shots)
    noise = (np.stack(shots) - np.mean(shots, axis=0)) * np.sqrt(n / (n - 1))
    return noise - noise.mean(axis=(1, 2), keepdims=True)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float((a * b).mean() / np.sqrt((a**2).mean() * (b**2).mean()))


def statistics(noise: np.ndarray) -> np.ndarray:
    """σ / 255, correlation with the next pixel and the one after it, and with the next channel: (4, 3)."""
    sigma = noise.std(axis=(0, 1, 2)) * 255
    near = [
        [
            (correlation(c[:, :, step:], c[:, :, :-step]) + correlation(c[:, step:], c[:, :-step])) / 2
            for c in np.moveaxis(noise, 3, 0)
        ]
        for step in (1, 2)
    ]
    across = [correlation(noise[..., k], noise[..., (k + 1) % 3]) for k in range(3)]
    return np.array([sigma, *near, across])


@cache
def finished() -> tuple[np.ndarray, np.ndarray]:
    """`statistics` of finished pictures, half of them JPEG, in the camera's own size, and PSNR of the inputs."""
    spec = parse_degradation("sensor:800-6400,curve=0,scale=1|sensor:800-6400,curve=0,scale=1,jpeg=0")
    found, psnr = [], []
    for seed in range(24):
        scene = photograph(("astronaut", "chelsea", "coffee")[seed % 3])
        operation = spec.steps[0].choices[seed // 3 % 2]
        taken = draw_camera(rng := np.random.default_rng(seed), **operation._draw(rng))
        pairs = [taken.photograph(scene, scene, rng) for _ in range(4)]
        found.append(statistics(noise_of([noisy for noisy, _ in pairs])))
        psnr.append(-10 * np.log10(np.mean((pairs[0][0] - pairs[0][1]) ** 2)))
    return np.array(found), np.array(psnr)


# --- What finished pictures are like ------------------------------------------------------------------------


def test_noise_is_as_strong_as_that_of_real_cameras_and_green_has_least():
    red, green, blue = finished()[0][:, 0].mean(axis=0)
    assert 2.8 < green < 4.8
    assert 1.05 < red / green < 1.65
    assert 1.02 < blue / green < 1.57


def test_noise_of_single_pictures_is_within_the_range_of_real_ones():
    sigma = finished()[0][:, 0]
    assert np.percentile(sigma, 5) > 0.8
    assert np.percentile(sigma, 95) < 12


def test_noise_is_as_soft_as_that_of_real_cameras():
    _, near, far, _ = finished()[0].mean(axis=0)
    assert ((near > 0.55) & (near < 0.77)).all()
    assert near[1] < min(near[0], near[2]) + 0.02  # green is the least soft, or nearly
    assert ((far > 0.2) & (far < 0.5)).all()


def test_noise_of_the_channels_goes_together_as_in_real_cameras():
    across = finished()[0][:, 3].mean(axis=0)
    assert ((across > 0.35) & (across < 0.75)).all()


def test_inputs_are_as_far_from_the_clean_picture_as_real_ones():
    assert 30 < finished()[1].mean() < 41


def test_white_noise_would_fail_all_of_these():
    scene = photograph("coffee")
    shots = [scene + np.random.default_rng(seed).normal(0, 4 / 255, scene.shape) for seed in range(4)]
    assert np.abs(statistics(noise_of(shots))[1:]).max() < 0.03


def test_demosaicing_alone_makes_neighbours_alike():
    for method in range(3):
        taken = camera(demosaic=method)
        scene = np.full((SIDE, SIDE, 3), 0.4, np.float32)
        near = statistics(noise_of([taken.photograph(scene, scene, np.random.default_rng(s))[0] for s in range(4)]))[1]
        assert (near > 0.2).all(), method


# --- Light and noise ----------------------------------------------------------------------------------------


def test_a_photosites_variance_is_a_line_over_the_light():
    taken = replace(camera(), shot=4e-4, read=1e-4, row=0, tail=0.3, bits=14)
    for light in (0.002, 0.05, 0.3, 0.6):
        numbers = taken.expose(np.full((400, 400), light, np.float32), np.random.default_rng(3))
        assert numbers.mean() == pytest.approx(light, abs=1e-4)
        assert numbers.var() == pytest.approx(4e-4 * light + 1e-4, rel=0.04)


def test_few_electrons_are_whole_ones():
    taken = replace(camera(), shot=0.01, read=1e-12, row=0, tail=0, bits=14)
    numbers = taken.expose(np.full((64, 64), 0.03, np.float32), np.random.default_rng(3)) / 0.01
    assert np.abs(numbers - np.rint(numbers)).max() < 0.02
    assert numbers.min() == 0  # three are expected; now and then none comes


def test_missing_light_made_up_for_shows_the_rows():
    rows = []
    for dark in (0, 5):
        scene = np.full((SIDE, SIDE), 0.1, np.float32)
        numbers = replace(camera(dark=dark), shot=1e-7, read=1e-8, tail=0, bits=14, row=2e-4).expose(
            scene, np.random.default_rng(1)
        )
        rows.append(numbers.mean(axis=1).var() - numbers.var(axis=1).mean() / SIDE)
    assert rows[1] == pytest.approx(rows[0] * 2**10, rel=0.2)
    assert rows[1] ** 0.5 == pytest.approx(2e-4 * 2**5, rel=0.2)


def test_more_iso_is_more_noise_and_a_large_sensor_has_less():
    rng = np.random.default_rng
    for family in (noise_of_phone, noise_of_large):
        shot = [np.median([family(rng(seed), iso)[0] for seed in range(200)]) for iso in (100, 400, 1600, 6400, 12800)]
        assert (np.diff(np.log(shot)) > 0.5).all()
    phone, large = (np.median([f(rng(s), 1600) for s in range(200)], axis=0) for f in (noise_of_phone, noise_of_large))
    assert phone[0] > 5 * large[0]
    assert phone[1] > large[1]


def test_the_large_sensors_table_comes_back():
    """At ISO 1600 a tenth, half and nine tenths are below 1.5e-5, 3.5e-5, 1.3e-4, of a mean of 1.5 to 4 photosites."""
    shot = [noise_of_large(np.random.default_rng(seed), 1600)[0] for seed in range(2000)]
    np.testing.assert_allclose(np.percentile(shot, 50) / 3.5e-5, 2.75, rtol=0.15)
    assert 5 < np.percentile(shot, 90) / np.percentile(shot, 10) < 14


def test_noise_is_strongest_in_dark_and_middle_tones():
    sigma = []
    for level in (0.1, 0.35, 0.9):
        scene = np.full((SIDE, SIDE, 3), level, np.float32)
        shots = [
            camera(seed, iso=6400).photograph(scene, scene, np.random.default_rng(9))[0].std() for seed in range(8)
        ]
        sigma.append(np.mean(shots))
    assert sigma[1] > 1.3 * sigma[2]
    assert sigma[0] > sigma[2]


# --- The clean side -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(6))
def test_the_clean_picture_keeps_its_brightness_and_colours(seed: int):
    scene = photograph("coffee", 128)
    clean = camera(seed).photograph(scene, scene, np.random.default_rng(1))[1]
    wide = [np.abs(p.reshape(16, 8, 16, 8, 3).mean(axis=(1, 3))) for p in (scene, clean)]
    assert np.abs(wide[0] - wide[1]).mean() < 0.01


def test_the_noisy_picture_is_the_clean_one_on_average():
    scene = photograph("chelsea", 128)
    taken = camera(3, iso=400, denoise=0.5, chroma=0.8, sharpen=0.7)
    pairs = [taken.photograph(scene, scene, np.random.default_rng(seed)) for seed in range(12)]
    assert all(np.array_equal(clean, pairs[0][1]) for _, clean in pairs)
    mean = np.mean([noisy for noisy, _ in pairs], axis=0)
    assert np.abs(mean - pairs[0][1]).mean() < 1.5 / 255
    assert np.abs((mean - pairs[0][1]).mean()) < 0.3 / 255


def test_sharpening_and_scaling_are_the_clean_sides_too():
    scene = photograph("chelsea", 128)

    def clean(**changed: float) -> np.ndarray:
        return camera(2, **({"demosaic": 0} | changed)).photograph(scene, scene, np.random.default_rng(1))[1]

    sharp, soft = (float(np.abs(np.diff(clean(sharpen=s), axis=1)).mean()) for s in (1, 0))
    assert sharp > 1.1 * soft
    # A picture that was scaled down has had more photosites than pixels: its mosaic has cost it less.
    near, far = (float(np.abs(clean(scale=s) - scene).mean()) for s in (0.5, 1))
    assert near < 0.8 * far


def test_noise_on_an_earlier_blur_leaves_the_clean_picture_sharp():
    scene = photograph("chelsea", 128)
    degraded, clean = parse_degradation("defocus:5+sensor:400,scale=1,demosaic=1,sharpen=0").pair(
        scene, np.random.default_rng(1)
    )
    assert np.abs(np.diff(clean, axis=1)).mean() > 1.5 * np.abs(np.diff(degraded, axis=1)).mean()
    assert -10 * np.log10(np.mean((clean - scene) ** 2)) > 28


@pytest.mark.parametrize("method", DEMOSAICERS)
def test_demosaicers_keep_flat_colours_and_where_things_are(method):
    flat = np.tile(np.array([[0.2, 0.5], [0.5, 0.7]], np.float32), (6, 6))
    assert np.abs(np.moveaxis(method(flat), 0, 2) - [0.2, 0.5, 0.7]).max() < 1e-6
    ramp = np.add.outer(np.arange(16), 2 * np.arange(16)).astype(np.float32)
    inner = slice(3, -3)
    assert np.abs(method(ramp) - ramp)[:, inner, inner].max() < 1e-4


@pytest.mark.parametrize("phase", [(0, 0), (0, 1), (1, 0), (1, 1)])
@pytest.mark.parametrize("size", [(32, 32), (33, 31), (5, 7)])
def test_every_shift_of_the_mosaic_leaves_the_picture_in_place(phase, size):
    y, x = np.mgrid[: size[0], : size[1]]
    scene = np.repeat((0.3 + 0.3 * y / size[0] + 0.2 * x / size[1]).astype(np.float32)[..., None], 3, axis=2)
    clean = replace(camera(demosaic=1), phase=phase).photograph(scene, scene, np.random.default_rng(0))[1]
    assert clean.shape == scene.shape
    assert np.abs(clean - scene)[2:-2, 2:-2].max() < 0.015


def test_gray_pictures_stay_gray_ones():
    scene = photograph("chelsea", 64)[..., :1]
    degraded, clean = parse_degradation("sensor:1600,jpeg=0").pair(scene, np.random.default_rng(1))
    assert degraded.shape == clean.shape == scene.shape
    assert np.abs(clean - scene).mean() < 0.02


def test_the_iso_is_drawn_by_its_logarithm():
    (operation,) = parse_degradation("sensor:100-10000").steps[0].choices
    rng = np.random.default_rng(0)
    isos = [operation._draw(rng)["iso"] for _ in range(400)]
    assert np.mean(np.log10(isos)) == pytest.approx(3, abs=0.06)
    assert min(isos) >= 100
    assert max(isos) <= 10000
