"""A kind may change what a network is to find; whoever degrades, trains or scores then takes the changed picture."""

import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restormer_cli.benchmark.scoring import Source, load
from restormer_cli.data.batches import _centre, _finish, training_batches, validation_pictures
from restormer_cli.data.pairs import find_pairs
from restormer_cli.data.patches import cut_patch
from restormer_cli.data.pictures import to_float
from restormer_cli.degradations.spec import KINDS, parse_degradation
from restormer_cli.recipe import Pairs, Recipe

CHANGING = {"sensor", "gray"}


def photograph(side: int = 64) -> np.ndarray:
    return data.coffee()[100 : 100 + side, 200 : 200 + side].astype(np.float32) / 255


@pytest.mark.parametrize("kind", KINDS)
def test_the_pairs_degraded_side_is_the_degraded_picture(kind: str):
    degradation, image = parse_degradation(f"{kind}+gaussian:2@0.5+{kind}"), photograph()
    degraded, clean = degradation.pair(image, np.random.default_rng(3))
    assert np.array_equal(degraded, degradation(image, np.random.default_rng(3)))
    if kind in CHANGING:
        assert not np.array_equal(clean, image)
        assert (clean.shape, clean.dtype) == (image.shape, np.float32)
    else:
        assert clean is image


def test_a_step_that_is_left_out_leaves_both_sides():
    image = photograph()
    degraded, clean = parse_degradation("sensor@0").pair(image, np.random.default_rng(3))
    assert clean is image
    assert np.array_equal(degraded, image)
    assert not np.shares_memory(degraded, image)


def test_a_file_has_one_pair():
    degradation, image = parse_degradation("sensor:1600"), photograph()
    degraded, clean = degradation.pair_of_file(image, "a.png", 5)
    again = degradation.pair(image, np.random.default_rng([5, zlib.crc32(b"a.png")]))
    assert np.array_equal(degraded, again[0])
    assert np.array_equal(clean, again[1])
    assert np.array_equal(degraded, degradation.of_file(image, "a.png", 5))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    Image.fromarray((photograph(96) * 255).astype(np.uint8)).save(tmp_path / "a.png")
    return tmp_path


def test_bench_scores_against_the_picture_that_the_camera_would_have_taken(folder: Path):
    degradation = parse_degradation("sensor:3200,scale=1,demosaic=0")
    samples = tuple(find_pairs(Pairs(clean=str(folder)), role="--clean", table=""))
    degraded, clean, _ = load(Source(samples, degradation), samples[0])
    stored = np.asarray(Image.open(folder / "a.png")).astype(np.float32) / np.float32(255)
    expected = degradation.pair_of_file(stored, "a.png", 0)
    assert np.array_equal(degraded, expected[0])
    assert np.array_equal(clean, expected[1])
    assert not np.array_equal(clean, stored)


def test_training_and_validation_take_that_picture_too(folder: Path):
    recipe = Recipe.model_validate(
        {
            "task": "denoise",
            "data": {"train": {"clean": str(folder)}, "validate": {"clean": str(folder)}, "cache": "memory"},
            "degrade": {"steps": ["sensor:3200,scale=1,demosaic=0,sharpen=1"]},
            "augment": {"flips": False},
            "validation": {"crop": 64},
            "stage": [{"iterations": 1, "patch": 32, "batch": 1}],
        }
    )
    batches = _finish(training_batches(recipe))
    degraded, clean = batches.batch(1, recipe.stage[0], range(1))
    rng = np.random.default_rng([recipe.seed, 1, 0])
    spot = batches._spot(rng, 32)
    degradation = batches.degradation
    assert degradation is not None
    around = to_float(cut_patch(batches.pictures.clean(0), spot.top, spot.left, 32, degradation.reach))
    margin = degradation.reach
    for side, expected in zip((degraded, clean), degradation.pair(around, rng), strict=True):
        assert np.array_equal(side[0], expected[margin:-margin, margin:-margin])
    ((degraded, clean),) = validation_pictures(recipe)
    stored = _centre(to_float(batches.pictures.clean(0)), 64)
    for side, expected in zip((degraded, clean), degradation.pair(stored, np.random.default_rng(0)), strict=True):
        assert np.array_equal(side, expected)
