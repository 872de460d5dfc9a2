"""The sheet of crops: chosen by what they show, labelled, and of the crops alone."""

import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.commands.restore import preview as module
from restormer_cli.commands.restore.preview import BAR, GAP, _fitting, choose_crops
from restormer_cli.engine.control import Control, apply_control
from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import quantise, read_picture
from restormer_cli.model.weights import load_weights


def restore(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["restore", "--device", "cpu", *map(str, arguments)])


def test_crops_are_the_noisiest_the_most_detailed_and_the_middle():
    pixels = np.full((400, 600, 3), 0.5, np.float32)
    pixels[300:, :100] += np.random.default_rng(0).normal(0, 0.1, (100, 100, 3)).astype(np.float32)
    pixels[:100, 500:] += 0.3 * (np.indices((100, 100)).sum(axis=0) // 12 % 2)[..., None]
    pixels[150:250, 250:350] += 0.02 * (np.indices((100, 100)).sum(axis=0) // 12 % 2)[..., None]
    crops = choose_crops(pixels, 100)
    assert [crop.why for crop in crops] == ["noisiest", "most detail", "the middle"]
    noisy, detailed, middle = crops
    assert (noisy.top, noisy.left) == (300, 0)
    assert (detailed.top, detailed.left) == (0, 500)
    assert abs(middle.top - 150) <= 50
    assert abs(middle.left - 250) <= 50


@pytest.mark.parametrize("shape", [(5, 7, 3), (30, 900, 1), (192, 192, 3)])
def test_of_a_small_picture_all_is_shown(shape):
    (crop,) = choose_crops(np.zeros(shape, np.float32))
    assert (crop.height, crop.width) == (min(192, shape[0]), min(192, shape[1]))


def test_the_sheet_shows_what_the_command_would_make(tmp_path, write_png, colour_weights):
    picture = write_png(tmp_path / "a.png", 40, 56)
    sheet = tmp_path / "sheet.png"
    result = restore(picture, "--weights", colour_weights, "--preview", sheet, "--luma", 0.5)
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith(f"{sheet}: 1 crop of {picture}, 4 columns, ")
    shown = np.asarray(PIL.Image.open(sheet))
    before = read_picture(picture).pixels
    answer = Restorer(load_weights(colour_weights).model, device="cpu")(before)
    top = 4 * BAR
    for column, strength in enumerate((0, 0.5, 0.75, 1)):
        left = GAP + column * (56 + GAP)
        wanted = quantise(apply_control(before, answer.copy(), Control(strength, luma=0.5)), 8)
        difference = shown[top : top + 40, left : left + 56].astype(int) - wanted
        assert np.abs(difference).max() <= 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "sheet.png"]


def test_auto_shows_the_tasks_and_marks_its_own(tmp_path, write_png, monkeypatch):
    drawn = []
    real = module._draw
    monkeypatch.setattr(module, "_draw", lambda *arguments: drawn.append(arguments) or real(*arguments))
    write_png(tmp_path / "in" / "a.png", 40, 56)
    result = restore(tmp_path / "in", "--task", "auto", "--preview", tmp_path / "new" / "sheet.png")
    assert result.exit_code == 0, result.output
    labels = [label.removesuffix(" (auto)") for label in drawn[0][0]]
    assert labels == ["as it is", "denoise", "defocus", "motion-deblur", "derain"]
    assert sum(label.endswith(" (auto)") for label in drawn[0][0]) == 1


def test_what_is_no_sheet_is_not_replaced(tmp_path, write_png, colour_weights):
    picture, other = write_png(tmp_path / "a.png"), write_png(tmp_path / "b.png")
    before = other.read_bytes()
    for place, words in (
        (other, "not written by --preview"),
        (picture, "is the input"),
        (tmp_path / "b.jpg", "name it b.png"),
    ):
        result = restore(picture, "--weights", colour_weights, "--preview", place)
        assert result.exit_code == 2
        assert words in result.stderr
    assert other.read_bytes() == before
    for _ in range(2):  # one of ours is
        assert restore(picture, "--weights", colour_weights, "--preview", tmp_path / "s.png").exit_code == 0


@pytest.mark.parametrize("flag", ["--watch", "--dry-run", "--json"])
def test_a_preview_does_nothing_else(tmp_path, write_png, flag):
    result = restore(write_png(tmp_path / "a.png"), "--preview", tmp_path / "s.png", flag)
    assert result.exit_code == 2
    assert f"leave {flag} out" in result.stderr


def test_out_is_needed_for_everything_else(tmp_path, write_png):
    result = restore(write_png(tmp_path / "a.png"))
    assert result.exit_code == 2
    assert "Usage: " in result.stderr
    assert "OUT" in result.stderr


def test_a_preview_takes_no_out(tmp_path, write_png):
    result = restore(write_png(tmp_path / "a.png"), tmp_path / "b.png", "--preview", tmp_path / "s.png")
    assert result.exit_code == 2
    assert "error: --preview: writes no OUT: name one picture alone" in result.stderr
    assert not (tmp_path / "s.png").exists()


@pytest.mark.parametrize(("room", "left"), [(0, "…"), (3, "abc"), (2, "a…")])
def test_a_line_that_is_too_long_is_cut_and_cutting_ends(room, left):
    assert _fitting("abc", len, room) == left


def test_a_preview_of_a_truncated_jpeg_is_salvaged_when_asked(tmp_path, colour_weights):
    out = io.BytesIO()
    PIL.Image.effect_noise((48, 64), 60).convert("RGB").save(out, "JPEG")
    (tmp_path / "a.jpg").write_bytes(out.getvalue()[:-400])
    arguments = (tmp_path / "a.jpg", "--weights", colour_weights, "--preview", tmp_path / "s.png")
    assert restore(*arguments).exit_code == 2
    assert restore(*arguments, "--salvage").exit_code == 0


def test_sheets_are_drawn_for_gray_pictures_too(tmp_path, write_png, colour_weights):
    picture = write_png(tmp_path / "a.png", 20, 20, channels=1, bits=16)
    assert restore(picture, "--weights", colour_weights, "--preview", tmp_path / "s.png").exit_code == 0
    assert Path(tmp_path / "s.png").exists()
