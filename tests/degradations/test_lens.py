"""`lens` blurs by distance: shapes of the aperture, sharp things before a soft background, and the other way."""

import numpy as np
import pytest
from skimage import data

from restormer_cli.degradations import lens as module
from restormer_cli.degradations.lens import Aperture, lens
from restormer_cli.degradations.spec import parse_degradation


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def photograph(side: int = 128) -> np.ndarray:
    return data.astronaut()[60 : 60 + side, 150 : 150 + side].astype(np.float32) / 255


def aperture(**changed: float) -> Aperture:
    return Aperture(**({"blades": 0, "turned": 0.3, "rounded": 0.0, "rim": 0.0, "cut": 0.0} | changed))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("radius", [0.5, 1.3, 3, 7.5, 15])
def test_a_disc_has_its_size_and_its_sum(radius: float):
    kernel = aperture().kernel(radius, 0, 0)
    assert kernel.sum() == pytest.approx(1, abs=1e-5)
    across = np.arange(len(kernel)) - len(kernel) // 2
    if radius > 2:
        assert (kernel * across**2).sum() == pytest.approx(radius**2 / 4, rel=0.1)


def test_polygons_are_smaller_than_discs_and_have_their_corners():
    disc = aperture().kernel(14, 0, 0)
    for blades in (5, 6, 7):
        shape = aperture(blades=blades).kernel(14, 0, 0)
        share = (shape > shape.max() / 2).sum() / (disc > disc.max() / 2).sum()
        assert share == pytest.approx(blades / (2 * np.pi) * np.sin(2 * np.pi / blades), abs=0.05)
        y, x = np.mgrid[-14:15, -14:15]
        edge = (shape > shape.max() / 2) & (np.hypot(y, x) > 12.6)
        angle = np.exp(1j * blades * np.arctan2(y, x))[edge]
        assert abs(angle.mean()) > 0.5  # what is far out lies in the directions of the corners


def test_towards_the_corners_points_are_cut_to_cats_eyes():
    middle, corner = (aperture(cut=0.8).kernel(12, *at) for at in ((0, 0), (0.8, 0.8)))
    assert (corner > corner.max() / 2).sum() < 0.7 * (middle > middle.max() / 2).sum()
    along, across = (np.sqrt((corner * d**2).sum()) for d in _axes(len(corner)))
    assert along < 0.7 * across  # narrow towards the middle of the frame
    assert max(abs((corner * d).sum()) for d in _axes(len(corner))) < 0.05  # but nothing is moved


def _axes(size: int) -> tuple[np.ndarray, np.ndarray]:
    y, x = np.mgrid[:size, :size] - size // 2
    return (y + x).astype(float), (y - x).astype(float)


@pytest.mark.parametrize("parameters", [{}, {"layers": 3}, {"cut": 0.8, "blades": 7}, {"fringe": 1}])
def test_flat_pictures_stay_and_light_is_kept(parameters: dict[str, float]):
    flat = np.full((67, 83, 3), 0.4, np.float32)
    assert np.abs(lens(flat, generator(), radius=9, **parameters) - flat).max() < 1e-3
    image = photograph()
    before, after = (
        (p[20:-20, 20:-20] ** 2.2).mean() for p in (image, lens(image, generator(), radius=6, **parameters))
    )
    assert after == pytest.approx(before, rel=0.06)


def test_one_layer_is_a_disc_in_linear_light():
    dot = np.zeros((65, 65, 1), np.float32)
    dot[32, 32] = 1
    seen = lens(dot, generator(), radius=7)[..., 0] ** 2.2
    assert seen.sum() == pytest.approx(1, rel=0.1)
    assert (seen > 0.3 / (np.pi * 49)).sum() == pytest.approx(np.pi * 49, rel=0.15)


def _before(out_near: float, out_far: float) -> np.ndarray:
    """A white square in front of black and gray stripes, each out of focus by so many pixels: the middle row."""
    light = np.full((65, 129, 3), 0.2, np.float32)
    light[:, 65:] = 1
    mask = np.zeros((65, 129), np.float32)
    mask[:, 65:] = 1
    result = np.zeros((3, 65, 129), np.float32)
    frame = module._Frame(5, 0, 0)
    for layer, out in zip(module.split(light, [mask], [0, 1]), (out_far, out_near), strict=True):
        planes = np.concatenate([layer.light.transpose(2, 0, 1) * layer.opacity, layer.opacity[None]])
        seen = module._seen(planes, aperture(), frame, out, 0)
        result = result * (1 - seen[3]) + seen[:3]
    return result[1, 32]


def test_a_sharp_thing_keeps_its_edge_before_a_soft_background():
    row = _before(0, 8)
    assert np.abs(row - np.where(np.arange(129) < 65, 0.2, 1)).max() < 0.01  # nor does it shine into the background


def test_a_soft_thing_lets_a_sharp_background_through():
    row = _before(8, 0)
    assert row[65] == pytest.approx(0.6, abs=0.06)
    assert 0.2 < row[60] < 0.6 < row[70] < 1
    assert row[54] == pytest.approx(0.2, abs=0.01)


def test_layers_are_blurred_by_their_distance():
    """Fine stripes keep much of their contrast here and none there."""
    stripes = np.repeat(np.tile(np.array([0.2, 0.2, 0.8, 0.8], np.float32), 40)[None, :, None], 160, axis=0)
    kept = []
    for seed in range(10):
        seen = lens(stripes, generator(seed), radius=10, layers=3)[..., 0]
        contrast = seen.reshape(10, 16, 10, 16).std(axis=(1, 3)) / 0.3
        kept.append([contrast.min(), contrast.max()])
    low, high = np.array(kept).T
    assert (low < 0.2).mean() > 0.5
    assert (high > 0.8).mean() > 0.5


def test_fringes_are_colour_at_edges_only():
    edge = np.zeros((65, 65, 3), np.float32)
    edge[:, 33:] = 0.8
    assert np.ptp(lens(edge, generator(), radius=5), axis=2).max() < 1e-4
    fringed = np.ptp(lens(edge, generator(), radius=5, fringe=1), axis=2)
    assert fringed[:, 26:40].max() > 0.03
    assert fringed[:, :24].max() < 1e-3


def test_highlights_become_discs():
    image = np.full((65, 65, 1), 0.1, np.float32)
    image[30:33, 30:33] = 1
    plain, bright = (lens(image, generator(), radius=7, highlights=h) for h in (1, 15))
    assert bright.max() > 1.8 * plain.max()


def test_no_light_comes_from_beyond_the_reach():
    degradation = parse_degradation("lens:0-9,layers=1,cut=0.5")
    image = photograph(120)
    reach = degradation.reach
    for seed in range(6):
        whole = degradation(image, generator(seed))
        window = np.zeros_like(image)
        near = slice(56 - reach, 64 + reach)
        window[near, near] = image[near, near]
        np.testing.assert_allclose(degradation(window, generator(seed))[56:64, 56:64], whole[56:64, 56:64], atol=3e-3)


def test_nothing_changes_in_focus():
    assert np.array_equal(lens(photograph(), generator(), radius=0), photograph())
