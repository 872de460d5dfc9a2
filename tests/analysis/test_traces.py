"""Blocks, lost light and rain: seen where they were made, and nowhere else."""

import numpy as np
import pytest

from restormer_cli.analysis.sampling import sample_tiles
from restormer_cli.analysis.traces import estimate_blocks, estimate_clipping, estimate_rain


@pytest.mark.parametrize("name", ["coffee", "camera", "astronaut"])
def test_blocks_grow_as_quality_falls(name, degraded):
    found = [estimate_blocks(degraded(name, spec)) for spec in ("round8", "jpeg:40", "jpeg:10")]
    assert found[0] < 0.12
    assert found[1] > found[0] + 0.1
    assert found[2] > found[1] + 0.2


def test_blocks_are_seen_in_a_cropped_picture(degraded):
    picture = degraded("coffee", "jpeg:20")
    assert estimate_blocks(picture[3:, 5:]) == pytest.approx(estimate_blocks(picture), rel=0.2)


def test_a_fence_has_no_blocks():
    fence = np.full((128, 128, 1), 0.5, np.float32) + np.linspace(0, 0.1, 128, dtype=np.float32)[:, None, None]
    fence[:, ::8] += 0.2
    assert estimate_blocks(fence) < 0.1


def test_lost_light_is_counted():
    pixels = np.full((50, 40, 3), 0.5, np.float32)
    pixels[:10, :, 1] = 1  # one channel is enough
    pixels[10:15] = 0
    pixels[15:20, :, 0] = 0  # a pure colour is not black
    clipping = estimate_clipping(pixels)
    assert (clipping.white, clipping.black) == pytest.approx((0.2, 0.1))


@pytest.mark.parametrize("tilt", [-20, 0, 15])
@pytest.mark.parametrize("name", ["rocket", "camera"])
def test_rain_stands_out_and_its_tilt_is_found(name, tilt, degraded):
    wet = estimate_rain(degraded(name, f"rain:0.3,length=30,tilt={tilt}..{tilt}"))
    dry = estimate_rain(degraded(name, "round8"))
    assert wet.score > 0 > dry.score
    assert wet.tilt == pytest.approx(tilt, abs=5)


@pytest.mark.parametrize("spec", ["round8", "gaussian:25", "motion:12,angle=90..90", "defocus:2", "jpeg:60"])
@pytest.mark.parametrize("name", ["rocket", "camera", "astronaut"])
def test_what_is_no_rain_is_not_taken_for_it(name, spec, degraded):
    assert estimate_rain(degraded(name, spec)).score < 0


def test_dark_streaks_are_no_rain(degraded):
    assert estimate_rain(1 - degraded("astronaut", "rain:0.3,length=30")).score < 0


@pytest.mark.parametrize(
    ("shape", "count"), [((100, 300, 3), 1), ((128, 128, 1), 1), ((300, 400, 3), 6), ((2000, 3000, 1), 64)]
)
def test_tiles_are_spread_over_the_picture(shape, count):
    pixels = np.broadcast_to(np.arange(shape[1], dtype=np.float32)[None, :, None], shape)
    tiles = sample_tiles(pixels, 128, 64)
    assert len(tiles) <= 64
    assert len(tiles) >= count * 0.8
    if shape[0] >= 128:
        assert tiles.shape[1:] == (128, 128, shape[2])
        assert (tiles.min(), tiles.max()) == (0, shape[1] - 1) or len(tiles) == 1
