"""Before and after side by side: both unchanged, of one depth, and never over another picture."""

from dataclasses import replace
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.commands.restore.side_by_side import comparison_of, side_by_side, write_comparison
from restormer_cli.images.io import read_picture


def restore(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["restore", "--device", "cpu", *map(str, arguments)])


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


@pytest.mark.parametrize(("channels", "bits"), [(1, 8), (3, 8), (4, 8), (3, 16), (2, 16)])
def test_both_sides_are_what_they_were(tmp_path, write_png, channels, bits):
    source = write_png(tmp_path / "a.png", 20, 30, channels=channels, bits=bits)
    before = read_picture(source)
    after = 1 - before.pixels
    assert write_comparison(tmp_path / "b.png", [(after, before)]) == ()
    both, was = imagecodecs.png_decode((tmp_path / "b.compare.png").read_bytes()), read_picture(source)
    original = imagecodecs.png_decode(source.read_bytes())
    assert both.dtype == original.dtype
    assert both.shape[:2] == (20, 62)
    np.testing.assert_array_equal(both[:, :30], original)
    right = read_picture(tmp_path / "b.compare.png").pixels[:, 32:]
    np.testing.assert_allclose(right, 1 - was.pixels, atol=1e-4 if bits == 16 else 0.003)


def test_invisible_pixels_stay_invisible(tmp_path, write_png):
    picture = read_picture(write_png(tmp_path / "a.png", 20, 30, channels=4))
    assert picture.alpha is not None
    alpha = picture.alpha.copy()
    alpha[3:5] = 0
    both = side_by_side(replace(picture, alpha=alpha), picture.pixels)
    assert both.alpha is not None
    assert (both.alpha[3:5, :30] == 0).all()
    assert (both.alpha[3:5, 30:32] == 255).all()


def test_the_flag(tmp_path, colour_weights, write_png):
    for name in ("1.png", "deep/2.png"):
        write_png(tmp_path / "in" / name)
    arguments = (tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--compare")
    result = restore(*arguments)
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == ["1.compare.png", "1.png", "deep/2.compare.png", "deep/2.png"]
    both = imagecodecs.png_decode((tmp_path / "out" / "1.compare.png").read_bytes())
    width = (both.shape[1] - 2) // 2
    np.testing.assert_array_equal(both[:, :width], imagecodecs.png_decode((tmp_path / "in" / "1.png").read_bytes()))
    np.testing.assert_array_equal(both[:, -width:], imagecodecs.png_decode((tmp_path / "out" / "1.png").read_bytes()))
    (tmp_path / "out" / "1.png").unlink()
    (tmp_path / "out" / "deep" / "2.png").unlink()
    assert "1.compare.png: already there" in restore(*arguments).stderr
    assert restore(*arguments, "--overwrite").exit_code == 0


def test_what_cannot_be_is_refused_before_any_work(tmp_path, colour_weights, write_png):
    write_png(tmp_path / "in" / "a.png").rename(tmp_path / "in" / "a.jpg")
    write_png(tmp_path / "in" / "a.compare.png")
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--compare", "--ext", "png")
    assert result.exit_code == 2
    assert "a.compare.png is another picture's name" in result.stderr
    assert not (tmp_path / "out").exists()
    result = restore(tmp_path / "in" / "a.jpg", "-", "--weights", colour_weights, "--compare")
    assert result.exit_code == 2
    assert "--compare" in result.stderr


def test_a_comparison_that_is_too_wide_is_a_note(tmp_path, write_png):
    picture = read_picture(write_png(tmp_path / "a.png", 2, 9000))
    (note,) = write_comparison(tmp_path / "b.webp", [(picture.pixels, picture)])
    assert note.startswith("no comparison: ")
    assert "16,383" in note
    assert not comparison_of(tmp_path / "b.webp").exists()
