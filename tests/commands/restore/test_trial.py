"""`--task auto` asks the derainer where pixels alone do not tell streaks."""

from pathlib import Path

import imagecodecs
import numpy as np
import skimage.data

from restormer_cli.commands.restore.steps import diagnose
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.images.io import read_picture


def write_png(path: Path, pixels: np.ndarray) -> None:
    path.write_bytes(imagecodecs.png_encode(np.rint(np.clip(pixels, 0, 1) * 255).astype(np.uint8)))


def test_streaks_are_found_by_a_trial_and_only_for_auto(tmp_path):
    path = tmp_path / "chelsea.png"
    clean = skimage.data.chelsea()[:296, :448].astype(np.float32) / 255
    write_png(path, parse_degradation("rainfall:8,kind=3")(clean, np.random.default_rng(1)))
    picture = read_picture(path)
    alone, followed = diagnose(picture), diagnose(picture, followed=True)
    assert alone.task != "derain"
    assert alone.findings["trial"] is None
    assert followed.task == "derain"
    assert followed.findings["trial"]["score"] > 0


def test_a_clean_picture_is_left_alone(tmp_path):
    path = tmp_path / "rocket.png"
    write_png(path, skimage.data.rocket()[:296, :448].astype(np.float32) / 255)
    found = diagnose(read_picture(path), followed=True)
    assert found.task != "derain"
    assert found.findings["trial"]["score"] < 0
