"""Degradations do the physics that their docstrings promise."""

import math

import numpy as np
import pytest
from scipy import ndimage

from restormer_cli.degradations import operators
from restormer_cli.degradations.spec import KINDS, parse_degradation

RANDOM = [
    "gaussian:25",
    "poisson_gaussian:100,read=2",
    "defocus:3,vary=0.7",
    "motion:9,shake=1",
    "rain:2",
    "jpeg:1-100",
    "sensor:800-6400",
    "shake:20",
    "lens:9,layers=2",
    "rainfall:5",
    "gaussian:5|rain:2",
    "gaussian:5@0.5",
]
FIXED = ["defocus:3", "defocus:0", "motion:9,angle=20", "jpeg:80", "gray:0", "gray:1", "clip", "round8"]


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photograph(height: int = 53, width: int = 67, channels: int = 3) -> operators.Image:
    """Smooth colours with an edge and some texture, float32 (h, w, c) in [0, 1]."""
    y, x, c = np.ogrid[0 : 1 : height * 1j, 0 : 1 : width * 1j, 0:channels]
    waves = 0.5 + 0.3 * np.sin(7 * x + c) * np.cos(5 * y - c) + 0.1 * np.sin(90 * x * y)
    return np.where(x + y > 1.2, waves, 1 - waves).astype(np.float32)


def impulse(size: int = 65) -> operators.Image:
    image = np.zeros((size, size, 1), np.float32)
    image[size // 2, size // 2] = 1
    return image


def moments(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Centroid relative to the middle, as (down, across), and covariance of a kernel (k, k) of sum 1."""
    axis = np.arange(len(kernel)) - len(kernel) // 2
    grid = np.stack(np.meshgrid(axis, axis, indexing="ij"))
    kernel = kernel.astype(np.float64)
    mean = (grid * kernel).sum(axis=(1, 2))
    return mean, np.einsum("iyx,jyx,yx->ij", grid, grid, kernel) - np.outer(mean, mean)


def components(mask: np.ndarray) -> np.ndarray:
    """The connected parts of a mask (h, w), diagonals included, numbered from 1."""
    labels = np.zeros(mask.shape, np.int32)
    ndimage.label(mask, np.ones((3, 3)), output=labels)
    return labels


# --- Every kind ---------------------------------------------------------------------------------------------


def test_every_kind_is_in_the_lists_below():
    listed = {choice.kind for spec in RANDOM + FIXED for s in parse_degradation(spec).steps for choice in s.choices}
    assert listed == set(KINDS)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("spec", RANDOM + FIXED)
def test_the_input_is_untouched_and_the_output_new_float32_of_the_same_shape(spec: str, channels: int):
    image = photograph(channels=channels)
    kept = image.copy()
    image.flags.writeable = False
    out = parse_degradation(spec)(image, generator())
    assert np.array_equal(image, kept)
    assert not np.shares_memory(out, image)
    assert (out.dtype, out.shape) == (np.float32, image.shape)
    assert out.flags.c_contiguous


@pytest.mark.parametrize("spec", RANDOM + FIXED)
def test_equal_generators_give_equal_pictures(spec: str):
    degradation = parse_degradation(spec)
    np.random.seed(1)  # the global generator has no say
    first = degradation(photograph(), generator(3))
    np.random.seed(2)
    assert np.array_equal(first, degradation(photograph(), generator(3)))


@pytest.mark.parametrize("spec", RANDOM)
def test_different_generators_give_different_pictures(spec: str):
    degradation = parse_degradation(spec)
    results = [degradation(photograph(), generator(seed)) for seed in range(8)]
    assert any(not np.array_equal(results[0], other) for other in results[1:])


@pytest.mark.parametrize("spec", FIXED)
def test_what_needs_no_chance_takes_none_from_the_generator(spec: str):
    rng = generator(5)
    parse_degradation(spec)(photograph(), rng)
    assert rng.bit_generator.state == generator(5).bit_generator.state


@pytest.mark.parametrize(
    "spec",
    ["defocus:3", "defocus:3,vary=1", "motion:9,shake=1", "rain:2", "shake:9", "lens:5,fringe=0", "jpeg:50", "round8"],
)
def test_gray_stays_gray(spec: str):
    gray = np.repeat(photograph(channels=1), 3, axis=2)
    out = parse_degradation(spec)(gray, generator())
    assert not np.array_equal(out, gray)
    np.testing.assert_allclose(out, np.repeat(out[..., :1], 3, axis=2), atol=1e-6)


@pytest.mark.parametrize("shape", [(5, 7, 6), (5, 7, 2), (5, 7)])
def test_other_shapes_are_an_invariant_broken(shape: tuple[int, ...]):
    with pytest.raises(AssertionError, match="h, w"):
        parse_degradation("clip")(np.zeros(shape, np.float32), generator())


def test_other_types_are_an_invariant_broken():
    with pytest.raises(AssertionError, match="uint8"):
        parse_degradation("clip")(np.zeros((5, 7, 3), np.uint8), generator())  # pyright: ignore[reportArgumentType]


# --- Noise --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("sigma", [5, 25, 50])
def test_gaussian_has_the_sigma_it_was_asked_for(sigma: float):
    noise = operators.gaussian(photograph(211, 223), generator(), sigma=sigma) - photograph(211, 223)
    assert noise.std() * 255 == pytest.approx(sigma, rel=0.01)
    assert abs(noise.mean() * 255) < 4 * sigma / math.sqrt(noise.size)


def test_gaussian_is_white_and_independent_between_channels():
    noise = operators.gaussian(np.zeros((211, 223, 3), np.float32), generator(), sigma=255)
    for other in (np.roll(noise, 1, 0), np.roll(noise, 1, 1), np.roll(noise, 1, 2)):
        assert abs((noise * other).mean()) < 0.02


def test_gaussian_is_not_clipped():
    out = operators.gaussian(np.ones((53, 67, 3), np.float32), generator(), sigma=25)
    assert (out > 1).mean() == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("seed", [0, 7])
def test_published_gaussian_is_the_published_protocol_to_the_bit(seed: int):
    image = photograph()
    expected = image.copy()
    np.random.seed(seed)
    expected += np.random.normal(0, 25 / 255, expected.shape)
    assert np.array_equal(operators.published_gaussian(image, 25, seed), expected)


def test_published_gaussian_starts_from_seed_0_and_keeps_its_values():
    out = operators.published_gaussian(np.zeros((1, 1, 3), np.float32), 255)
    np.testing.assert_allclose(out.ravel(), [1.7640524, 0.4001572, 0.978738], rtol=1e-6)


@pytest.mark.parametrize("value", [0.05, 0.3, 1.0])
def test_poisson_gaussian_has_the_variance_of_shot_and_read_noise(value: float):
    image = np.full((211, 223, 3), value, np.float32)
    out = operators.poisson_gaussian(image, generator(), peak=200, read=5)
    assert out.mean() == pytest.approx(value, rel=0.01)
    assert out.var() == pytest.approx(value / 200 + (5 / 255) ** 2, rel=0.03)


def test_shot_noise_counts_photons():
    out = operators.poisson_gaussian(photograph(), generator(), peak=7, read=0)
    np.testing.assert_allclose(out * 7, np.rint(out * 7), atol=1e-5)


def test_values_below_zero_carry_no_shot_noise_and_keep_their_mean():
    image = np.full((53, 67, 1), -0.25, np.float32)
    np.testing.assert_array_equal(operators.poisson_gaussian(image, generator(), peak=10, read=0), image)


# --- Blur ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("radius", [0.7, 1.5, 3.3, 7.0, 12.4])
def test_a_disc_has_sum_1_and_four_symmetries(radius: float):
    kernel = operators.disc_kernel(radius)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    for turned in (kernel.T, kernel[::-1], kernel[:, ::-1]):
        np.testing.assert_allclose(kernel, turned, atol=1e-7)


@pytest.mark.parametrize("radius", [0.7, 1.5, 3.3, 7.0, 12.4])
def test_a_disc_is_the_share_of_each_pixel_that_it_covers(radius: float):
    kernel = operators.disc_kernel(radius)
    size, fine = len(kernel), 50
    cells = (np.arange(fine * size) + 0.5) / fine - size / 2
    covered = (np.hypot(cells[:, None], cells) <= radius).reshape(size, fine, size, fine).mean(axis=(1, 3))
    np.testing.assert_allclose(kernel * np.pi * radius**2, covered, atol=0.02)
    # Of a disc's r² / 4 along each axis nothing is lost; the pixels' own width adds up to 1/12.
    assert radius**2 / 4 <= moments(kernel)[1][0, 0] <= radius**2 / 4 + 1 / 12 + 0.02


def test_a_disc_grows_smoothly_with_its_radius():
    widths = [moments(operators.disc_kernel(radius))[1][0, 0] for radius in np.arange(0.5, 6, 0.05)]
    steps = np.diff(widths)
    assert steps.min() > 0
    assert steps.max() < 0.25


@pytest.mark.parametrize("radius", [0, 0.4])
def test_a_disc_inside_one_pixel_changes_nothing(radius: float):
    np.testing.assert_allclose(operators.defocus(photograph(), generator(), radius=radius), photograph(), atol=1e-6)


@pytest.mark.parametrize(("length", "angle"), [(3, 0), (11, 30), (20.5, -60), (30, 90), (17, 145)])
def test_a_straight_motion_has_its_length_and_its_angle(length: float, angle: float):
    kernel = operators.motion_kernel(generator(), length=length, angle=angle, shake=0)
    mean, covariance = moments(kernel)
    along = np.array([-math.sin(math.radians(angle)), math.cos(math.radians(angle))])
    across = along[::-1] * [1, -1]
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(mean).max() < 1e-4
    # A line has length² / 12; interpolation adds up to 1/4 in either direction.
    assert length**2 / 12 * 0.98 <= along @ covariance @ along <= length**2 / 12 * 1.05 + 0.25
    assert across @ covariance @ across <= 0.25


def test_a_positive_angle_points_up_to_the_right():
    blurred = operators.motion(impulse(), generator(), length=21, angle=45)[..., 0]
    assert blurred[:32, 33:].sum() > 0.4  # above, right
    assert blurred[:32, :32].sum() < 1e-4  # above, left


@pytest.mark.parametrize("shake", [0.3, 1, 10])
def test_a_shaken_path_is_centred_positive_and_no_longer_than_its_length(shake: float):
    for seed in range(12):
        kernel = operators.motion_kernel(generator(seed), length=23, angle=15, shake=shake)
        mean, _ = moments(kernel)
        rows, columns = np.nonzero(kernel > 1e-6)
        assert kernel.sum() == pytest.approx(1, abs=1e-5)
        assert kernel.min() >= 0
        assert np.abs(mean).max() < 1e-3
        assert math.hypot(np.ptp(rows), np.ptp(columns)) <= 23 * math.sqrt(2) + 3
        # Smooth and without gaps: one connected trace.
        assert components(kernel > 0).max() == 1


def test_shake_bends_the_path():
    def straightness(shake: float) -> float:
        kernels = [operators.motion_kernel(generator(seed), length=40, angle=0, shake=shake) for seed in range(20)]
        eigenvalues = [np.linalg.eigvalsh(moments(kernel)[1]) for kernel in kernels]
        return float(np.median([small / large for small, large in eigenvalues]))

    assert straightness(0) < 0.002
    assert straightness(0) < straightness(0.5) < straightness(3)


def test_a_tremor_has_unit_strength_and_changes_slowly():
    tremors = [operators._tremor(101, generator(seed)) for seed in range(40)]
    strengths = [(tremor**2).sum(axis=1).mean() for tremor in tremors]
    np.testing.assert_allclose(strengths, 1)
    changes = [((tremor[20:] - tremor[:-20]) ** 2).sum(axis=1).mean() for tremor in tremors]
    assert 0.2 < np.mean(changes) < 1.4  # over a fifth of the exposure; 2 if it had no memory


BLURS = ["defocus:4.3", "defocus:4.3,vary=1", "motion:15,angle=25", "motion:15,shake=1"]


@pytest.mark.parametrize("spec", BLURS)
def test_the_border_is_mirrored_so_a_constant_picture_stays_constant(spec: str):
    flat = np.full((23, 29, 3), 0.7, np.float32)
    np.testing.assert_allclose(parse_degradation(spec)(flat, generator()), flat, atol=1e-6)


@pytest.mark.parametrize("spec", BLURS)
def test_a_picture_smaller_than_the_kernel_is_blurred_too(spec: str):
    image = photograph(3, 5)
    out = parse_degradation(spec)(image, generator())
    assert out.shape == image.shape
    assert out.std() < image.std()
    assert out.min() >= image.min() - 1e-6
    assert out.max() <= image.max() + 1e-6


@pytest.mark.parametrize("spec", ["defocus:4.3", "motion:15,angle=25", "motion:15,shake=1"])
def test_blur_conserves_light(spec: str):
    assert parse_degradation(spec)(impulse(), generator()).sum() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("shape", [(31, 37), (32, 41)])
def test_blur_is_the_convolution_with_symmetric_borders(shape: tuple[int, int]):
    image = photograph(*shape)
    kernel = operators.motion_kernel(generator(1), length=13, angle=0, shake=1)
    assert not np.allclose(kernel, kernel[::-1, ::-1], atol=1e-3)  # else correlation would pass
    expected = ndimage.convolve(image.astype(np.float64), kernel[..., None], mode="reflect")  # scipy's "symmetric"
    out = operators.motion(image, generator(1), length=13, shake=1)
    np.testing.assert_allclose(out, expected, atol=2e-6)


@pytest.mark.parametrize(
    "spec", ["defocus:3.4", "defocus:0-2,vary=0.9", "motion:11,angle=-90..90", "motion:0-14,shake=0-10", "gaussian:50",
             "motion:9|defocus:4+defocus:2@0.5", "rain:0"]
)  # fmt: skip
def test_no_light_comes_from_beyond_the_reach(spec: str):
    degradation = parse_degradation(spec)
    image = photograph(101, 107)
    for seed in range(12):
        whole = degradation(image, generator(seed))
        reach = degradation.reach
        window = np.zeros_like(image)
        window[40 - reach : 48 + reach, 40 - reach : 48 + reach] = image[
            40 - reach : 48 + reach, 40 - reach : 48 + reach
        ]
        part = degradation(window, generator(seed))
        np.testing.assert_allclose(part[40:48, 40:48], whole[40:48, 40:48], atol=2e-6)


def test_the_reach_is_that_of_the_steps_together():
    assert parse_degradation("gaussian:25+jpeg:80+round8+rain").reach == 0
    assert parse_degradation("defocus:0-5+gaussian:2").reach == 5
    assert parse_degradation("defocus:2,vary=1|motion:20+motion:10@0.1").reach == 11 + 6


def test_a_varying_defocus_is_sharper_here_and_softer_there():
    dots = np.zeros((181, 181, 1), np.float32)
    dots[10::20, 10::20] = 1
    peaks = operators.defocus(dots, generator(1), radius=4, vary=0.9)[10::20, 10::20, 0]
    plain = operators.defocus(dots, generator(1), radius=4)[10::20, 10::20, 0]
    np.testing.assert_allclose(plain, plain[4, 4], rtol=1e-3)
    assert peaks.max() > 1.3 * plain[4, 4]
    assert peaks.min() < 0.8 * plain[4, 4]
    # Smooth: a neighbour differs far less than the extremes do.
    assert np.abs(np.diff(np.log(peaks), axis=1)).max() < 0.5 * np.ptp(np.log(peaks))


def test_a_varying_defocus_between_its_discs_is_close_to_the_right_disc(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(operators, "_smooth_map", lambda height, width, rng: np.full((height, width), 0.31))
    out = operators.defocus(photograph(), generator(), radius=4, vary=0.5)
    right = operators.defocus(photograph(), generator(), radius=4 * (1 + 0.31 * 0.5))
    wrong = operators.defocus(photograph(), generator(), radius=4)
    assert np.abs(out - right).mean() < 0.3 * np.abs(wrong - right).mean()


@pytest.mark.parametrize(("radius", "vary"), [(0, 0.5), (1e-9, 1), (3, 1e-12), (1, 0.0101), (100, 1)])
def test_a_varying_defocus_keeps_the_brightness_however_little_it_varies(radius: float, vary: float):
    flat = np.full((23, 29, 1), 0.7, np.float32)
    np.testing.assert_allclose(operators.defocus(flat, generator(), radius=radius, vary=vary), flat, atol=1e-5)


def test_the_map_of_a_varying_defocus_stays_within_its_bounds():
    maps = np.stack([operators._smooth_map(53, 67, generator(seed)) for seed in range(40)])
    assert np.abs(maps).max() <= 1
    assert maps.std() > 0.3
    assert np.abs(np.diff(maps, axis=1)).max() < 0.15


# --- Rain, compression, range -------------------------------------------------------------------------------


def rain(image: operators.Image, seed: int = 0, **changed: float) -> operators.Image:
    usual = {"density": 0.4, "length": 30, "tilt": 0, "peak": 0.5, "width": 1}
    return operators.rain(image, generator(seed), **(usual | changed))


def test_rain_only_brightens_and_stays_within_1():
    image = photograph(211, 223)
    wet = rain(image)
    assert np.all(wet >= image)
    assert wet.max() == 1
    assert 0.02 < (wet > image).mean() < 0.9


@pytest.mark.parametrize("density", [0.01, 0.04])
def test_rain_starts_on_its_share_of_the_pixels(density: float):
    dark = np.zeros((1201, 1301, 1), np.float32)
    # Short, thin streaks seldom touch, so that each is one connected component.
    count = components(rain(dark, density=density, length=6)[..., 0] > 0.02).max()
    expected = density / 100 * dark.size
    assert abs(count - expected) < 5 * math.sqrt(expected)


def test_a_streak_has_the_length_the_peak_and_the_tilt_it_was_asked_for():
    dark = np.zeros((1201, 1301, 1), np.float32)
    wet = rain(dark, density=0.002, length=40, tilt=40, peak=0.3, width=1)[..., 0]
    labels = components(wet > 0.003)
    inner = [
        (wet[box] * (labels[box] == index), box)
        for index, box in enumerate(ndimage.find_objects(labels), 1)
        if box[0].start > 0 and box[0].stop < 1201 and box[1].start > 0 and box[1].stop < 1301
    ]
    assert len(inner) > 10
    heights = [streak.shape[0] for streak, _ in inner]
    slopes = [(streak.shape[1] - 1) / streak.shape[0] for streak, _ in inner]
    peaks = [streak.max() for streak, _ in inner]
    assert 18 * math.cos(math.radians(42)) < min(heights)
    assert max(heights) <= 40 * math.cos(math.radians(38)) + 1
    assert np.median(slopes) == pytest.approx(math.tan(math.radians(40)), rel=0.15)
    assert max(peaks) <= 0.3 + 1e-6
    assert min(peaks) >= 0.3 * 0.5 * 0.4  # half as bright when farthest, less when it falls between two columns
    # Falls to the right: the lower half's light is on the right of the upper half's.
    for streak, _ in inner:
        half, columns = len(streak) // 2, np.arange(streak.shape[1])
        assert np.average(columns, weights=streak[half:].sum(0)) > np.average(columns, weights=streak[:half].sum(0))


def test_rain_is_as_dense_at_the_borders_as_in_the_middle():
    dark = np.zeros((401, 403, 1), np.float32)
    light = np.mean([rain(dark, seed, tilt=25, peak=0.1)[..., 0] for seed in range(6)], axis=0)
    for border in (light[:20], light[-20:], light[:, :20], light[:, -20:]):
        assert border.mean() == pytest.approx(light.mean(), rel=0.15)


def test_wider_streaks_carry_more_light_in_proportion():
    dark = np.zeros((401, 403, 1), np.float32)
    thin, wide = (rain(dark, density=0.05, peak=0.05, width=width).mean() for width in (2, 6))
    assert wide == pytest.approx(3 * thin, rel=0.15)


def test_rain_in_batches_is_the_same_rain(monkeypatch: pytest.MonkeyPatch):
    dark = np.zeros((601, 607, 1), np.float32)
    sizes = []
    count = np.bincount
    monkeypatch.setattr(np, "bincount", lambda *given: sizes.append(len(given[0])) or count(*given))
    wet = rain(dark, density=10, length=100, peak=0.001, width=1)
    assert len(sizes) > 1
    # Were a batch lost, the light would fall short: density · mean of depth² · length · taper · profile.
    taper, profile, depth = 2 / math.pi, math.sqrt(math.pi / (4 * math.log(2))), 7 / 12
    assert wet.mean() == pytest.approx(0.001 * 0.1 * depth * 100 * taper * profile, rel=0.05)


def test_even_streaks_of_one_distance_and_direction_are_all_alike():
    dark = np.zeros((1201, 1301, 1), np.float32)
    usual = {"density": 0.002, "length": 20, "tilt": 0, "peak": 0.3, "width": 1}
    wet = operators.rain(dark, generator(), **usual, depth=1, spread=0, soft=0)[..., 0]
    labels = components(wet > 0.003)
    inner = [box for box in ndimage.find_objects(labels) if box[0].start > 0 and box[0].stop < 1201]
    assert len(inner) > 10
    assert {box[0].stop - box[0].start for box in inner} == {20}
    # The brightness of every row of a streak is that of its first; a soft streak begins and ends dark.
    rows = [wet[box].sum(axis=1) for box in inner if box[1].stop - box[1].start < 5]
    assert all(np.allclose(light, light[0], rtol=1e-5) for light in rows)
    assert not np.array_equal(wet, operators.rain(dark, generator(), **usual, depth=1, spread=0)[..., 0])


def test_the_spread_of_rain_is_in_its_streaks_directions():
    dark = np.zeros((1201, 1301, 1), np.float32)
    usual = {"density": 0.002, "length": 40, "tilt": 0, "peak": 0.3, "width": 1, "depth": 1}
    widest = [
        max(box[1].stop - box[1].start for box in ndimage.find_objects(components(wet > 0.003)))
        for wet in (operators.rain(dark, generator(), **usual, spread=spread)[..., 0] for spread in (0, 15))
    ]
    assert widest[0] < 6
    assert 8 < widest[1] < 6 + 40 * math.tan(math.radians(15))


def test_no_rain_is_no_change():
    assert np.array_equal(rain(photograph(), density=0), photograph())


def test_jpeg_loses_more_at_a_lower_quality():
    image = photograph()
    losses = [np.abs(parse_degradation(f"jpeg:{q}")(image, generator()) - image).mean() for q in (95, 60, 10)]
    assert losses == sorted(losses)
    assert losses[0] < 0.01 < losses[2]


@pytest.mark.parametrize("channels", [1, 3])
def test_a_jpeg_compressed_again_hardly_changes(channels: int):
    rng, image = generator(), photograph(channels=channels)
    once = operators.jpeg(image, rng, quality=60, subsampling=444)
    again = operators.jpeg(once, rng, quality=60, subsampling=444)
    assert np.abs(again - once).mean() < 0.15 * np.abs(once - image).mean()


def test_jpeg_subsampling_blurs_the_colours_only_where_it_should():
    image = np.zeros((64, 64, 3), np.float32)
    image[:, ::2, 0], image[:, 1::2, 2] = 1, 1  # red and blue columns: 4:4:4 alone keeps them
    losses = {
        kind: np.abs(operators.jpeg(image, generator(), quality=95, subsampling=kind) - image).mean()
        for kind in (444, 422, 420)
    }
    assert losses[444] < 0.05 < losses[420]
    assert losses[422] > 0.05
    turned = np.ascontiguousarray(image.transpose(1, 0, 2))  # rows: 4:2:2 keeps them, too
    assert np.abs(operators.jpeg(turned, generator(), quality=95, subsampling=422) - turned).mean() < 0.05
    assert np.abs(operators.jpeg(turned, generator(), quality=95) - turned).mean() > 0.05  # 4:2:0 is the default


@pytest.mark.parametrize("spec", ["jpeg:90", "round8"])
def test_an_eight_bit_file_holds_eight_bits(spec: str):
    out = parse_degradation(f"gaussian:50+{spec}")(photograph(), generator())
    assert out.min() >= 0
    assert out.max() <= 1
    assert np.array_equal(out, np.rint(out * 255).astype(np.float32) / np.float32(255))


def test_gray_is_the_luma_or_the_green_channel_of_both_sides():
    image, rng = photograph(), generator()
    noisy = operators.gaussian(image, rng, sigma=25)
    for of, expected in ((0, [0.299, 0.587, 0.114]), (1, [0, 1, 0])):
        degraded, clean = operators.gray_pair(noisy, image, rng, of=of)
        for gray, colour in ((degraded, noisy), (clean, image)):
            single = colour @ np.array(expected, np.float32)
            np.testing.assert_allclose(gray, np.repeat(single[..., None], 3, 2), atol=1e-6)
    assert (degraded - clean).std() * 255 == pytest.approx(25, rel=0.05)  # one channel's noise, not a mean's


def test_round8_rounds_to_the_nearest_and_clip_only_clamps():
    image = np.array([-0.2, 0.4 / 255, 0.6 / 255, 254.6 / 255, 1.2], np.float32).reshape(1, 5, 1)
    assert (operators.round8(image, generator()) * 255).ravel().tolist() == [0, 0, 1, 255, 255]
    clamped = operators.clip(image, generator()).ravel()
    assert clamped.tolist() == [0, *image.ravel()[1:4].tolist(), 1]


@pytest.mark.parametrize("shake", [0.0, 1.0, 10.0])
def test_no_kernel_of_a_path_is_wider_than_the_reach(shake: float):
    for length in (5, 9.3, 14):
        reach = parse_degradation(f"motion:{length},shake={shake}").reach
        sizes = [len(operators.motion_kernel(generator(i), length=length, angle=10, shake=shake)) for i in range(300)]
        assert max(sizes) // 2 <= reach
