"""Patches come from the places that the published preparations cut, and from the sharp ones where asked."""

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from restormer_cli.data.patches import _sobel_kernels, crop_boxes, edges, keep_sharpest, starts
from restormer_cli.recipe import Cut


@pytest.mark.parametrize(
    ("length", "side", "overlap", "expected"),
    [
        (720, 512, 256, [0, 208]),  # GoPro
        (1280, 512, 256, [0, 256, 512, 768]),
        (1120, 512, 308, [0, 204, 408, 608]),  # DPDD
        (1680, 512, 308, [0, 204, 408, 612, 816, 1020, 1168]),
        (512, 512, 0, [0]),
        (300, 512, 0, [0]),
        (1024, 512, 0, [0, 512]),
        (1025, 512, 0, [0, 512, 513]),
    ],
)
def test_crops_begin_at_the_stride_and_end_at_the_border(
    length: int, side: int, overlap: int, expected: list[int]
) -> None:
    assert starts(length, Cut(side=side, overlap=overlap)) == expected


def test_the_crops_of_the_published_preparations() -> None:
    assert len(crop_boxes(720, 1280, Cut(side=512, overlap=256))) == 8
    assert len(crop_boxes(1120, 1680, Cut(side=512, overlap=308))) == 28
    widely = Cut(side=512, overlap=96, above=800)  # DFWB
    assert crop_boxes(801, 2000, widely).shape == (2 * 5, 4)
    assert crop_boxes(800, 2000, widely).tolist() == [[0, 0, 800, 2000]]  # kept whole
    assert crop_boxes(300, 700, Cut(side=512)).tolist() == [[0, 0, 300, 512], [0, 188, 300, 512]]


def test_every_crop_lies_inside_and_together_they_cover_the_picture() -> None:
    for height, width in ((97, 131), (40, 200), (64, 64)):
        seen = np.zeros((height, width), bool)
        for top, left, tall, wide in crop_boxes(height, width, Cut(side=64, overlap=23)):
            assert top + tall <= height
            assert left + wide <= width
            seen[top : top + tall, left : left + wide] = True
        assert seen.all()


def test_sobel_kernels_are_the_binomial_ones() -> None:
    smooth, slope = _sobel_kernels(3)
    assert np.allclose(smooth, np.array([1, 2, 1]) / 4)
    assert np.allclose(slope, np.array([-1, 0, 1]) / 2)
    smooth, slope = _sobel_kernels(7)
    assert np.allclose(smooth, np.array([1, 6, 15, 20, 15, 6, 1]) / 64)
    assert np.allclose(slope, np.array([-1, -4, -5, 0, 5, 4, 1]) / 20)
    assert [len(kernel) for size in (11, 15) for kernel in _sobel_kernels(size)] == [11, 11, 15, 15]


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_blurred_crop_has_weaker_edges_at_every_scale(dtype: type, channels: int) -> None:
    picture = np.random.default_rng(0).random((60, 180, channels))
    picture[:, 60:120] = gaussian_filter(picture, (1, 1, 0))[:, 60:120]
    picture[:, 120:] = gaussian_filter(picture, (4, 4, 0))[:, 120:]
    pixels = (picture * np.iinfo(dtype).max).astype(dtype)
    crops = np.array([[10, 10, 40, 40], [10, 70, 40, 40], [10, 130, 40, 40]])
    responses = edges(pixels, crops)
    assert responses.shape == (3, 4)
    assert (np.diff(responses, axis=0) < 0).all()
    assert edges(np.full((32, 32, channels), 7, dtype), crops[:1] // 2).tolist() == [[0] * 4]
    assert keep_sharpest([responses], 0.67)[0].tolist() == [True, True, False]


def test_edges_are_as_strong_in_eight_bits_as_in_sixteen() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    crops = np.array([[0, 0, 40, 40]])
    assert np.allclose(edges(pixels, crops), edges(pixels.astype(np.uint16) * 257, crops), rtol=1e-5)


def test_the_sharpest_are_chosen_over_all_pictures() -> None:
    def row(*values: float) -> np.ndarray:
        return np.outer(values, [1, 10, 100, 0.1])  # kernels differ in scale

    kept = keep_sharpest([row(5, 1, 4), row(2), row(3, 9)], 0.5)
    assert [mask.tolist() for mask in kept] == [[True, False, True], [False], [False, True]]
    assert all(mask.all() for mask in keep_sharpest([row(1, 2)], 1.0))
    assert sum(mask.sum() for mask in keep_sharpest([row(*range(10))], 0.7)) == 7
    assert sum(mask.sum() for mask in keep_sharpest([row(*range(10))], 0.01)) == 1


def test_sharp_at_one_scale_only_is_not_sharp() -> None:
    responses = np.array([[9.0, 9, 9, 0], [5, 5, 5, 5], [0, 0, 0, 9]])
    assert keep_sharpest([responses], 0.34)[0].tolist() == [False, True, False]
