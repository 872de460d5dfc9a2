"""All estimates together: an answer for every picture, plain numbers for JSON, a phrase for people."""

import json
import warnings

import numpy as np
import pytest

from restormer_cli.analysis.decision import choose_task
from restormer_cli.analysis.findings import analyse

SHAPES = [(1, 1, 1), (2, 900, 3), (31, 33, 1), (33, 31, 3), (40, 700, 3), (129, 127, 1), (300, 300, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["black", "white", "noise", "ramp", "halves", "not numbers", "endless", "huge"])
def test_every_picture_has_an_answer(shape, kind):
    rng = np.random.default_rng(0)
    pixels = {
        "black": np.zeros(shape),
        "white": np.ones(shape),
        "noise": rng.random(shape),
        "ramp": np.broadcast_to(np.linspace(0, 1, shape[1])[None, :, None], shape),
        "halves": np.broadcast_to((np.arange(shape[1]) > shape[1] / 2)[None, :, None], shape),
        "not numbers": np.where(rng.random(shape) < 0.1, np.nan, 0.5),
        "endless": np.where(rng.random(shape) < 0.1, np.inf, 0.5),
        "huge": rng.random(shape) * 1e30,
    }[kind].astype(np.float32)
    before = pixels.copy()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        findings = analyse(pixels)
    np.testing.assert_array_equal(pixels, before)
    text = json.dumps(findings.to_json(), allow_nan=False)
    assert set(json.loads(text)) == {"noise", "blur", "blocks", "clipping", "rain", "trial"}
    assert str(findings).startswith("noise σ ")
    assert choose_task(findings).reason


def test_the_same_picture_has_the_same_findings(degraded):
    picture = degraded("coffee", "gaussian:9")
    assert analyse(picture) == analyse(picture.copy())


def test_a_phrase_has_what_matters(degraded):
    phrase = str(analyse(degraded("camera", "defocus:3+gaussian:2")))
    assert phrase.startswith("noise σ 2.")
    assert "out of focus, radius 3.0" in phrase
    colour = str(analyse(degraded("coffee", "gaussian:20")))
    assert all(f"{channel} " in colour for channel in "RGB")
    assert "no blur seen" in colour
