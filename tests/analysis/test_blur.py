"""Blurs of known width are found within 25 %, and their kind; sharp pictures have none."""

import numpy as np
import pytest

from restormer_cli.analysis.blur import estimate_blur


@pytest.mark.parametrize("noise", [0, 2])
@pytest.mark.parametrize("radius", [1.5, 3, 5])
@pytest.mark.parametrize("name", ["camera", "coffee"])
def test_a_disc(name, radius, noise, degraded):
    blur = estimate_blur(degraded(name, f"defocus:{radius}+gaussian:{noise}"))
    assert blur.kind == "defocus"
    assert blur.width == pytest.approx(radius, rel=0.25)


@pytest.mark.parametrize("noise", [0, 2])
@pytest.mark.parametrize(("length", "angle"), [(6, 30), (14, -60), (22, 0)])
@pytest.mark.parametrize("name", ["camera", "astronaut"])
def test_a_line(name, length, angle, noise, degraded):
    blur = estimate_blur(degraded(name, f"motion:{length},angle={angle}..{angle}+gaussian:{noise}"))
    assert blur.kind == "motion"
    assert blur.width == pytest.approx(length, rel=0.25)
    assert abs((blur.angle - angle + 90) % 180 - 90) <= 10


def test_a_shaken_camera_is_told_from_a_moved_one(degraded):
    blur = estimate_blur(degraded("camera", "motion:14,shake=2+gaussian:2", seed=3))
    assert blur.kind == "shake"
    assert blur.unsharpness > 0


@pytest.mark.parametrize("spec", ["round8", "gaussian:10", "gaussian:40", "jpeg:85"])
@pytest.mark.parametrize("name", ["camera", "coffee", "rocket", "astronaut"])
def test_sharp_pictures_have_none(name, spec, degraded):
    assert estimate_blur(degraded(name, spec)).kind == "none"


@pytest.mark.parametrize("shape", [(1, 1, 3), (15, 200, 1), (16, 16, 3), (17, 300, 3)])
def test_small_and_flat_pictures_have_none(shape):
    assert estimate_blur(np.full(shape, 0.5, np.float32)).kind == "none"
