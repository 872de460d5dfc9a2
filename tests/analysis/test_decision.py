"""The task that a picture gets, and the line that says why."""

from dataclasses import replace

import numpy as np
import PIL.Image
import pytest

from restormer_cli.analysis.blur import Blur, Kind
from restormer_cli.analysis.decision import Camera, choose_task, read_camera
from restormer_cli.analysis.findings import Findings, analyse
from restormer_cli.analysis.noise import Noise
from restormer_cli.analysis.traces import Clipping, Rain
from restormer_cli.analysis.trial import Trial

NOTHING = Findings(
    noise=Noise((0.5, 0.5, 0.5), 0.0, 0.0, 0.0, 1.0),
    blur=Blur("none", 0.0, 0.0, 0.1, -5.0, -0.3, -0.1),
    blocks=0.0,
    clipping=Clipping(0.0, 0.0),
    rain=Rain(0.0, 0.0, 0.0, 0.0),
)


def noise(sigma: float, correlation: float = 0.0, **more: float) -> Noise:
    return Noise((sigma,) * 3, 0.0, correlation, 0.0, 1.0, **more)


def blur(kind: Kind, width: float, angle: float, **signs: float) -> Blur:
    """As sure as blurs are; `signs` make it less so."""
    sure = {"disc": 1.5, "disc alone": 0.6, "sharpest": -0.9, "sharpest place": -0.8, "radius": float(np.log(width))}
    sure |= {"line": 1.0, "line alone": 0.8, "bluntest": -1.2, "length": float(np.log(width)), "everywhere": 0.4}
    return Blur(kind, width, angle, 1.5, -1.0, -1.2, -0.9, sure | signs)


DISC, LINE = blur("defocus", 3.0, 0.0), blur("motion", 12.0, -30.0)
RAIN = Rain(2.0, 0.3, -0.3, -10.0, low=1.0, agreement=0.8, height=3.5, contrast=0.8)


@pytest.mark.parametrize(
    ("findings", "task", "reason"),
    [
        (NOTHING, None, "noise σ 0.5, no blur and no rain to be sure of: left alone"),
        (replace(NOTHING, noise=noise(9, 0.6)), "denoise", "noise σ 9, correlated: denoise"),
        (
            replace(NOTHING, noise=noise(9, 0.4, floor=0.5, misfit=0.3, coupling=1.0)),
            None,
            "noise σ 9, correlated, or fine texture everywhere, no blur and no rain to be sure of: left alone",
        ),
        (replace(NOTHING, blur=DISC), "defocus", "blur by a disc of radius 3 pixels: defocus"),
        (
            replace(NOTHING, blur=LINE),
            "motion-deblur",
            "blur along 12 pixels at -30°: motion-deblur",
        ),
        (
            replace(NOTHING, blur=Blur("shake", 0.0, 0.0, 0.1, 2.0, -1.2, -0.9)),
            "motion-deblur",
            "no sharp edge, no disc: blur by a shaken camera: motion-deblur",
        ),
        (replace(NOTHING, blur=DISC, noise=noise(20)), "denoise", "noise σ 20: denoise"),
        (replace(NOTHING, blur=replace(DISC, width=1.0)), None, None),
        (replace(NOTHING, blur=replace(DISC, kind="soft")), None, None),
        (replace(NOTHING, blur=blur("defocus", 3.0, 0.0, **{"disc alone": 0.05, "sharpest": -0.3})), None, None),
        (replace(NOTHING, blur=blur("motion", 12.0, 0.0, everywhere=-0.2, bluntest=-0.6)), None, None),
        (replace(NOTHING, rain=RAIN), "derain", "bright streaks, 10° from upright: derain"),
        (replace(NOTHING, rain=replace(RAIN, agreement=0.2, height=0.0, peak=0.1)), None, None),
        (
            replace(NOTHING, noise=noise(5), trial=Trial(4.0, 0.95)),
            "derain",
            "bright streaks, which the derainer takes from all pieces that it is tried on: derain",
        ),
        (replace(NOTHING, trial=Trial(2.0, 1.0)), None, None),
        (replace(NOTHING, trial=Trial(9.0, 0.6)), None, None),
        (
            replace(NOTHING, blocks=0.9),
            None,
            "noise σ 0.5, JPEG blocks, for which no task is made, no blur and no rain to be sure of: left alone",
        ),
    ],
)
def test_choices(findings, task, reason):
    choice = choose_task(findings)
    assert choice.task == task
    if reason is not None:
        assert choice.reason == reason


@pytest.mark.parametrize(
    ("sigma", "iso", "task"),
    [(2, 6400, "denoise"), (2, 800, None), (3, 800, "denoise"), (3, 100, None), (4, 100, "denoise"), (1, 6400, None)],
)
def test_the_cameras_word_counts(sigma, iso, task):
    choice = choose_task(replace(NOTHING, noise=noise(sigma)), Camera("NIKON", iso))
    assert choice.task == task
    assert f"ISO {iso} (NIKON)" in choice.reason


@pytest.mark.parametrize(
    ("spec", "task"),
    [
        ("round8", None),
        ("gaussian:15", "denoise"),
        ("defocus:3+gaussian:2", "defocus"),
        ("motion:10,angle=20..20+gaussian:2", "motion-deblur"),
        ("rain:0.3,length=30", "derain"),
    ],
)
@pytest.mark.parametrize("name", ["rocket", "camera"])
def test_a_photograph_gets_what_was_done_to_it_undone(name, spec, task, degraded):
    pixels = degraded(name, spec)
    assert choose_task(analyse(pixels)).task == task


def exif(make: object, iso: object) -> bytes:
    tags = PIL.Image.Exif()
    tags[271] = make
    tags[34665] = {34855: iso}
    return tags.tobytes()


def test_maker_and_sensitivity_are_read():
    assert read_camera(exif("NIKON  CORPORATION\n", 6400)) == Camera("NIKON CORPORATION", 6400)
    assert read_camera(exif("NIKON", 6400).removeprefix(b"Exif\0\0")) == Camera("NIKON", 6400)


@pytest.mark.parametrize("block", [None, b"", b"junk", b"MM\0*\xff\xff\xff\xff", exif("", 100), exif("X", 0)])
def test_where_the_camera_says_nothing_there_is_no_prior(block):
    assert read_camera(block) is None
