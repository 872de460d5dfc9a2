"""What is kept of a change: parts that add up, knobs that move steadily, bands that cannot be seen."""

import tracemalloc

import numpy as np
import pytest

from restormer_cli.engine import control as module
from restormer_cli.engine.control import Control, apply_control, highlights, mask_weight, split_change
from restormer_cli.errors import UserError
from restormer_cli.pixels import LUMA

KNOBS = ("strength", "luma", "chroma", "detail", "grain")


def pair(height: int = 61, width: int = 83, channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """A noisy picture with texture on its right side, and the same without noise and with less texture."""
    rng = np.random.default_rng(7)
    y, x, c = np.ogrid[0:height, 0:width, 0:channels]
    smooth = 0.5 + 0.2 * np.sin(x / 19 + c) * np.cos(y / 23)
    texture = 0.08 * np.sin(1.9 * x) * np.cos(1.7 * y) * (x > width / 2)
    noisy = smooth + texture + rng.normal(0, 0.05, (height, width, channels))
    return noisy.astype(np.float32), (smooth + 0.6 * texture).astype(np.float32)


def luma(image: np.ndarray) -> np.ndarray:
    return image @ LUMA if image.shape[2] == 3 else image[..., 0]


def test_nothing_set_returns_the_restored_picture_itself():
    noisy, restored = pair()
    before = restored.copy()
    assert apply_control(noisy, restored, Control()) is restored
    np.testing.assert_array_equal(restored, before)


@pytest.mark.parametrize("nothing", [Control(strength=0), Control(luma=0, chroma=0, detail=0.5)])
def test_nothing_kept_is_the_input_to_the_bit(nothing):
    noisy, restored = pair()
    np.testing.assert_array_equal(apply_control(noisy, restored, nothing), noisy)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_parts_of_a_change_add_up(channels):
    noisy, restored = pair(channels=channels)
    layers = split_change(noisy, restored)
    np.testing.assert_allclose(layers.luma[..., None] + layers.chroma, restored - noisy, atol=1e-6)
    np.testing.assert_allclose(luma(layers.chroma), 0, atol=1e-6)
    np.testing.assert_allclose(layers.blend(Control()), restored - noisy, atol=1e-6)


def test_luma_and_chroma_keep_out_of_each_other():
    noisy, restored = pair()
    gray = apply_control(noisy, restored.copy(), Control(chroma=0))
    np.testing.assert_allclose(luma(gray), luma(restored), atol=1e-6)
    np.testing.assert_allclose(gray - luma(gray)[..., None], noisy - luma(noisy)[..., None], atol=1e-6)
    colour = apply_control(noisy, restored.copy(), Control(luma=0))
    np.testing.assert_allclose(luma(colour), luma(noisy), atol=1e-6)
    np.testing.assert_allclose(colour - luma(colour)[..., None], restored - luma(restored)[..., None], atol=1e-6)


@pytest.mark.parametrize("others", [Control(), Control(0.7, 0.6, 0.9, 0.5, 0.3)])
@pytest.mark.parametrize("knob", KNOBS)
def test_every_knob_moves_every_value_in_one_direction_and_linearly(knob, others):
    noisy, restored = pair()
    values = {name: getattr(others, name) for name in KNOBS}
    results = [
        apply_control(noisy, restored.copy(), Control(**{**values, knob: value})).astype(np.float64)
        for value in (0, 0.25, 0.5, 1)
    ]
    step = results[3] - results[0]
    assert np.abs(step).max() > 0.01
    np.testing.assert_allclose(results[1], results[0] + 0.25 * step, atol=2e-7)
    np.testing.assert_allclose(results[2], results[0] + 0.5 * step, atol=2e-7)


@pytest.mark.parametrize("value", [0.5, 1])
def test_luminance_that_is_given_back_was_taken_away(value):
    noisy, restored = pair()
    result = apply_control(noisy, restored.copy(), Control(detail=value, grain=value))
    layers = split_change(noisy, restored)
    given = luma(restored) - luma(result)  # of the octaves' sum, with its sign and never more
    fine = layers.fine + layers.coarser
    assert (np.abs(given) <= np.abs(layers.fine) + np.abs(layers.coarser) + 1e-6).all()
    assert np.corrcoef(given.ravel(), fine.ravel())[0, 1] > 0.8
    np.testing.assert_allclose(result - luma(result)[..., None], restored - luma(restored)[..., None], atol=1e-6)


def test_detail_returns_to_texture_and_grain_returns_everywhere():
    noisy, restored = pair()

    def returned(control: Control) -> tuple[float, float]:
        given = luma(apply_control(noisy, restored.copy(), control)) - luma(restored)
        return float(np.square(given[:, :30]).mean()), float(np.square(given[:, -30:]).mean())

    flat, textured = returned(Control(detail=1))
    assert textured > 10 * flat
    flat, textured = returned(Control(grain=1))
    assert textured < 3 * flat


@pytest.mark.parametrize("control", [Control(luma=0.4, detail=0.7, grain=0.2), Control(chroma=0.3), Control(0.5)])
def test_bands_do_not_show(control, monkeypatch):
    noisy, restored = pair(height=131)
    weight = np.linspace(0, 1, 83, dtype=np.float32)[None].repeat(131, axis=0)
    whole = apply_control(noisy, restored.copy(), control, weight)
    for rows in (1, 7, 40):
        monkeypatch.setattr(module, "BAND", rows * 83)
        np.testing.assert_allclose(apply_control(noisy, restored.copy(), control, weight), whole, atol=2e-7)


def test_hardly_any_memory_is_needed_beside_the_pictures():
    pixels = np.zeros((1500, 2000, 3), np.float32)
    restored, weight = pixels + np.float32(0.1), np.ones((1500, 2000), np.float32)
    apply_control(pixels[:20], restored[:20], Control(detail=0.5))  # what is imported then does not count
    tracemalloc.start()
    apply_control(pixels, restored, Control(luma=0.9, detail=0.5, grain=0.1), weight)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 70e6  # a band of half a megapixel, whatever the picture's size


def test_sixteen_bits_are_kept():
    noisy, restored = pair()
    noisy = np.rint(noisy * 65535).astype(np.float32) / np.float32(65535)
    result = apply_control(noisy, restored.copy(), Control(luma=0.31, chroma=0.77, detail=0.4))
    exact = split_change(noisy.astype(np.float64), restored.astype(np.float64))  # pyright: ignore
    wanted = noisy + exact.blend(Control(luma=0.31, chroma=0.77, detail=0.4))
    assert np.abs(result - wanted).max() < 0.1 / 65535


def test_a_mask_weighs_each_pixel():
    noisy, restored = pair()
    mask = np.zeros((61, 83, 3), np.float32)
    mask[:, 20:40], mask[:, 40:] = 0.5, 1
    weight = mask_weight(mask, 61, 83)
    result = apply_control(noisy, restored.copy(), Control(), weight)
    np.testing.assert_array_equal(result[:, :20], noisy[:, :20])
    np.testing.assert_allclose(result[:, 20:40], (noisy + restored)[:, 20:40] / 2, atol=1e-6)
    np.testing.assert_allclose(result[:, 40:], restored[:, 40:], atol=1e-7)


def test_a_mask_of_another_size_is_refused():
    with pytest.raises(UserError, match=r"is 83 × 61, the picture 83 × 60: make them the same size"):
        mask_weight(np.zeros((61, 83, 1), np.float32), 60, 83)


def test_highlights_are_areas_at_white():
    pixels = np.full((20, 20, 3), 0.5, np.float32)
    pixels[3:9, 3:9, 0] = 1  # one channel is enough
    pixels[15, 15] = 1  # a speck
    found = highlights(pixels)
    assert found[3:9, 3:9].all()
    assert found.sum() == 36
