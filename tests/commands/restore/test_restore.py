"""Pictures in, restored ones out: same names, size and depth; a mistake is one line and leaves nothing behind."""

import io
import os
import subprocess
import sys
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.commands.restore import run as verb
from restormer_cli.commands.restore import types
from restormer_cli.engine.backend import OwnBackend
from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import read_picture
from restormer_cli.model import weights as weights_room
from restormer_cli.model import weights_file
from restormer_cli.model.weights import load_weights
from restormer_cli.model.weights_file import save_weights

REPOSITORY = Path(__file__).parents[3]
SAMPLES = REPOSITORY / "docs" / "samples"


def restore(*arguments: object) -> Result:
    """`restormer restore …` on the CPU; the device can be named again."""
    return CliRunner().invoke(app, ["restore", "--device", "cpu", *map(str, arguments)])


def files(folder: Path) -> list[str]:
    """Every file below a folder, hidden ones too."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def refused(result: Result, code: int = 2) -> str:
    """The one red line of a refusal."""
    assert result.exit_code == code, result.output
    assert result.stdout == ""
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "Traceback" not in result.stderr
    assert "\x1b" not in result.stderr
    return line


def expected(weights: Path, source: Path) -> np.ndarray:
    """What the network makes of a picture, by way of the library."""
    return np.clip(Restorer(load_weights(weights).model, device="cpu")(read_picture(source).pixels), 0, 1)


# --- What it is for -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bundled", [True, False], ids=["bundled", "own weights"])
def test_the_literal_command_in_an_empty_folder(tmp_path, colour_weights, samples, write_png, bundled, warm):
    """`restormer restore in/ out/ --tile 512` as a person types it, once through the installed script."""
    write_png(tmp_path / "in" / "one.png", 41, 57)
    Image.fromarray(samples(30, 20)).save(tmp_path / "in" / "two.jpg")
    extra = () if bundled else ("--weights", str(colour_weights))
    start = [Path(sys.executable).parent / "restormer"] if bundled else warm
    command = [*start, "restore", "in/", "out/", "--tile", "512", *extra]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
    assert "\x1b" not in done.stderr
    assert files(tmp_path) == ["in/one.png", "in/two.jpg", "out/one.png", "out/two.jpg"]
    for name, size in (("one.png", (57, 41)), ("two.jpg", (20, 30))):
        with Image.open(tmp_path / "out" / name) as after, Image.open(tmp_path / "in" / name) as before:
            assert after.size == before.size == size
            assert np.asarray(after).tolist() != np.asarray(before).tolist()
    assert ("using the bundled denoise checkpoint" in done.stderr) is bundled
    assert "tiles of 512" in done.stderr
    assert "2 restored, 0 failed" in done.stderr


def test_a_file_to_a_file_is_what_the_network_makes_of_it(tmp_path, colour_weights, write_png):
    source = write_png(tmp_path / "noisy.png", 21, 30)
    result = restore(source, tmp_path / "clean.png", "--weights", colour_weights)
    assert result.exit_code == 0, result.output
    assert result.stdout == ""
    restored = imagecodecs.png_decode((tmp_path / "clean.png").read_bytes())
    np.testing.assert_allclose(restored / 255, expected(colour_weights, source), atol=0.51 / 255)
    assert np.abs(restored - imagecodecs.png_decode(source.read_bytes()).astype(float)).max() > 5
    assert files(tmp_path) == ["clean.png", "noisy.png"]


def test_a_file_to_a_folder_keeps_its_name(tmp_path, colour_weights, write_png):
    source = write_png(tmp_path / "a b ü.png")
    assert restore(source, tmp_path / "new" / "folder", "--weights", colour_weights).exit_code == 0
    (tmp_path / "there.png").mkdir()  # an existing folder is one, whatever it is called
    assert restore(source, tmp_path / "there.png", "--weights", colour_weights).exit_code == 0
    assert files(tmp_path) == ["a b ü.png", "new/folder/a b ü.png", "there.png/a b ü.png"]


def test_a_folder_to_a_folder_mirrors_the_tree_and_leaves_other_files(tmp_path, colour_weights, write_png):
    for name in ("1.png", "2.png", "deep/1.png", "deep/er/3.png", ".hidden.png"):
        write_png(tmp_path / "in" / name)
    (tmp_path / "in" / "notes.txt").write_text("not a picture")
    (tmp_path / "in" / "empty").mkdir()
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights)
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == ["1.png", "2.png", "deep/1.png", "deep/er/3.png"]
    assert "4 pictures · colour.safetensors · cpu, " in result.stderr
    assert "whole pictures" in result.stderr
    assert "4 restored, 0 failed" in result.stderr


def test_tiles_reach_the_network(tmp_path, colour_weights, write_png):
    source = write_png(tmp_path / "in.png", 40, 40)
    result = restore(source, tmp_path / "out.png", "--weights", colour_weights, "--tile", "12", "--overlap", "4")
    assert result.exit_code == 0, result.output
    assert "note: --tile 12 rounded up to 16, a multiple of 8" in result.stderr
    assert "tiles of 16" in result.stderr
    restorer = Restorer(load_weights(colour_weights).model, device="cpu", tile=16, overlap=4)
    wanted = np.clip(restorer(read_picture(source).pixels), 0, 1)
    restored = imagecodecs.png_decode((tmp_path / "out.png").read_bytes()) / 255
    np.testing.assert_allclose(restored, wanted, atol=0.51 / 255)


# --- Every size, every kind -----------------------------------------------------------------------------------


@pytest.mark.parametrize("tile", [(), ("--tile", "8", "--overlap", "2")], ids=["whole", "tiles"])
@pytest.mark.parametrize(("height", "width"), [(1, 1), (7, 5), (8, 8), (9, 13), (3, 200)])
def test_odd_and_tiny_pictures_keep_their_size(tmp_path, colour_weights, write_png, height, width, tile):
    write_png(tmp_path / "in.png", height, width)
    result = restore(tmp_path / "in.png", tmp_path / "out.png", "--weights", colour_weights, *tile)
    assert result.exit_code == 0, result.output
    assert imagecodecs.png_decode((tmp_path / "out.png").read_bytes()).shape == (height, width, 3)


def encode(kind: str, pixels: np.ndarray, path: Path) -> Path:
    if kind == "png":
        path.write_bytes(imagecodecs.png_encode(pixels))
    elif kind == "tif":
        tifffile.imwrite(path, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
    else:
        Image.fromarray(pixels).save(path, quality=95, lossless=kind == "webp")
    return path


def decode(path: Path) -> np.ndarray:
    """By another library than ours where there is one."""
    if path.suffix == ".png":
        return imagecodecs.png_decode(path.read_bytes())
    if path.suffix == ".tif":
        return tifffile.imread(path)
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.mark.parametrize(
    ("kind", "channels", "bits"),
    [(kind, channels, bits) for kind in ("png", "tif") for channels in (1, 3) for bits in (8, 16)]
    + [("jpg", 1, 8), ("jpg", 3, 8), ("bmp", 1, 8), ("bmp", 3, 8), ("webp", 3, 8)],
)
def test_every_format_comes_back_as_it_went_in(tmp_path, colour_weights, samples, kind, channels, bits):
    """Format, depth, size and channels; gray goes through colour weights and comes back gray."""
    source = encode(kind, samples(19, 22, channels, bits), tmp_path / f"in.{kind}")
    target = tmp_path / "out" / f"in.{kind}"
    result = restore(source, target.parent, "--weights", colour_weights)
    assert result.exit_code == 0, result.output
    before, after = decode(source), decode(target)
    assert (after.shape, after.dtype) == (before.shape, before.dtype)
    pixels = read_picture(source).pixels
    wanted = Restorer(load_weights(colour_weights).model, device="cpu")(pixels.repeat(3 // pixels.shape[2], axis=2))
    wanted = wanted.mean(axis=2) if channels == 1 else wanted
    peak = 2**bits - 1
    assert np.abs(after.astype(float) - before).mean() > 2 * peak / 255
    if kind != "jpg":
        np.testing.assert_allclose(after / peak, np.clip(wanted, 0, 1), atol=0.51 / peak + 1e-6)
    assert bits == 8 or len(np.unique(after % 256)) > 50  # 16 bits, not 8 that are stretched


def test_gray_weights_restore_gray_pictures(tmp_path, gray_weights, write_png):
    source = write_png(tmp_path / "in.png", 9, 13, channels=1)
    assert restore(source, tmp_path / "out.png", "--weights", gray_weights).exit_code == 0
    restored = imagecodecs.png_decode((tmp_path / "out.png").read_bytes())
    np.testing.assert_allclose(restored / 255, expected(gray_weights, source)[..., 0], atol=0.51 / 255)


def test_what_another_format_loses_is_said(tmp_path, colour_weights, write_png):
    source = write_png(tmp_path / "deep.png", bits=16)
    result = restore(source, tmp_path / "out.jpg", "--weights", colour_weights)
    assert result.exit_code == 0, result.output
    assert "16 bits become 8" in result.stderr


def test_an_official_pth_restores_the_same(tmp_path, colour_weights, write_png):
    source, pth = write_png(tmp_path / "in.png"), tmp_path / "official.pth"
    weights_file.save_weights(pth, load_weights(colour_weights).model, {})
    assert restore(source, tmp_path / "a.png", "--weights", pth).exit_code == 0
    assert restore(source, tmp_path / "b.png", "--weights", colour_weights).exit_code == 0
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("native", [True, False])
def test_bf16_is_taken_and_said(tmp_path, colour_weights, write_png, monkeypatch, native):
    monkeypatch.setattr("restormer_cli.commands.restore.operations.multiplies_bf16", lambda device: native)
    source = write_png(tmp_path / "in.png")
    result = restore(source, tmp_path / "out.png", "--weights", colour_weights, "--precision", "bf16")
    assert result.exit_code == 0, result.output
    assert "cpu, bf16" in result.stderr
    assert ("bf16 is emulated on this processor" in result.stderr) is not native


# --- Pictures that are there already --------------------------------------------------------------------------


@pytest.fixture
def two_pictures(tmp_path, write_png) -> Path:
    """in/a.png and in/b.png; the former is in out/ already, as something else."""
    write_png(tmp_path / "in" / "a.png")
    write_png(tmp_path / "in" / "b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.png").write_bytes(b"precious")
    return tmp_path


def test_nothing_is_overwritten_unasked(two_pictures, colour_weights):
    line = refused(restore(two_pictures / "in", two_pictures / "out", "--weights", colour_weights))
    assert line.endswith("out/a.png: already there: --overwrite replaces it, --skip-existing leaves it alone")
    assert files(two_pictures / "out") == ["a.png"]
    assert (two_pictures / "out" / "a.png").read_bytes() == b"precious"


def test_overwrite_replaces(two_pictures, colour_weights):
    result = restore(two_pictures / "in", two_pictures / "out", "--weights", colour_weights, "--overwrite")
    assert result.exit_code == 0, result.output
    assert files(two_pictures / "out") == ["a.png", "b.png"]
    assert decode(two_pictures / "out" / "a.png").shape == (9, 13, 3)


def test_skip_existing_skips_and_counts(two_pictures, colour_weights):
    arguments = (two_pictures / "in", two_pictures / "out", "--weights", colour_weights, "--skip-existing")
    result = restore(*arguments)
    assert result.exit_code == 0, result.output
    assert "1 restored, 1 skipped, 0 failed" in result.stderr
    assert (two_pictures / "out" / "a.png").read_bytes() == b"precious"
    assert decode(two_pictures / "out" / "b.png").shape == (9, 13, 3)
    again = restore(*arguments)
    assert again.exit_code == 0, again.output
    assert "0 restored, 2 skipped, 0 failed" in again.stderr


def test_overwrite_and_skip_existing_are_not_given_together(two_pictures, colour_weights):
    arguments = (two_pictures / "in", two_pictures / "out", "--weights", colour_weights)
    line = refused(restore(*arguments, "--overwrite", "--skip-existing"))
    assert line == "error: --overwrite and --skip-existing: give only one of them"


def test_several_that_are_there_are_counted(two_pictures, colour_weights):
    (two_pictures / "out" / "b.png").write_bytes(b"precious too")
    line = refused(restore(two_pictures / "in", two_pictures / "out", "--weights", colour_weights))
    assert "a.png and 1 more: already there: --overwrite replaces them" in line


# --- In and out in one another --------------------------------------------------------------------------------


def test_several_files_and_a_folder_of_them(tmp_path, colour_weights, write_png, monkeypatch):
    paths = [write_png(tmp_path / name) for name in ("a.png", "b.png", "trip/c.png")]
    (tmp_path / "film.mp4").write_bytes(b"not opened")
    monkeypatch.setitem(sys.modules, "av", None)
    result = restore(
        *paths[:2], tmp_path / "trip", tmp_path / "film.mp4", tmp_path / "out", "--weights", colour_weights
    )
    assert result.exit_code == 0, result.output
    assert files(tmp_path / "out") == ["a.png", "b.png", "trip/c.png"]
    assert "3 restored, 0 failed" in result.output
    assert "note: 1 left out: 1 .mp4 (pip install 'restormer-cli[video]')" in result.output


def test_results_inside_the_input_are_not_read_again(tmp_path, colour_weights, write_png):
    write_png(tmp_path / "a.png")
    assert restore(tmp_path, tmp_path / "out", "--weights", colour_weights).exit_code == 0
    result = restore(tmp_path, tmp_path / "out", "--weights", colour_weights, "--overwrite")
    assert result.exit_code == 0, result.output
    assert files(tmp_path) == ["a.png", "out/.restormer-results", "out/a.png"]
    assert restore(tmp_path, tmp_path / "other", "--weights", colour_weights).exit_code == 0  # nor are earlier OUTs
    assert files(tmp_path / "other") == [".restormer-results", "a.png"]
    again = restore(tmp_path / "out", tmp_path / "twice", "--weights", colour_weights)  # unless they are what is named
    assert again.exit_code == 0
    assert files(tmp_path / "twice") == ["a.png"]
    told = restore(tmp_path, tmp_path / "other", "--weights", colour_weights, "--skip-existing")
    assert "note: 1 left out: 1 folder of earlier results" in told.output


def test_the_input_may_lie_inside_the_output(tmp_path, colour_weights, write_png):
    write_png(tmp_path / "raw" / "a.png")
    assert restore(tmp_path / "raw", tmp_path, "--weights", colour_weights).exit_code == 0
    assert files(tmp_path) == ["a.png", "raw/a.png"]


@pytest.mark.parametrize("flag", ["--overwrite", "--skip-existing"])
@pytest.mark.parametrize(
    ("source", "target"),
    [("in", "in"), ("in/a.png", "in"), ("in/a.png", "in/a.png"), ("in", "in/../in"), ("in", "link")],
)
def test_an_input_is_never_overwritten(tmp_path, colour_weights, write_png, source, target, flag):
    original = write_png(tmp_path / "in" / "a.png").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "in")
    line = refused(restore(tmp_path / source, tmp_path / target, "--weights", colour_weights, flag))
    assert "a.png: is an input, which is never overwritten" in line
    assert (tmp_path / "in" / "a.png").read_bytes() == original


def test_one_result_does_not_overwrite_another_input(tmp_path, colour_weights, write_png):
    write_png(tmp_path / "in" / "in" / "a.png")
    original = write_png(tmp_path / "in" / "a.png").read_bytes()
    line = refused(restore(tmp_path / "in", tmp_path, "--weights", colour_weights, "--overwrite"))
    assert "in/a.png: is an input, which is never overwritten" in line
    assert (tmp_path / "in" / "a.png").read_bytes() == original


# --- Bad pictures ---------------------------------------------------------------------------------------------


def test_a_corrupt_picture_costs_that_picture_only(tmp_path, colour_weights, write_png):
    for name in ("a.png", "c.png"):
        write_png(tmp_path / "in" / name)
    torn = (tmp_path / "in" / "a.png").read_bytes()[:-30]
    (tmp_path / "in" / "b.png").write_bytes(torn)
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights)
    line = refused(result, code=3)
    assert line.startswith(f"error: {tmp_path}/in/b.png: ")
    assert files(tmp_path / "out") == ["a.png", "c.png"]
    assert "2 restored, 1 failed" in result.stderr


def test_a_corrupt_picture_on_its_own_is_one_line(tmp_path, colour_weights):
    (tmp_path / "bad.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    line = refused(restore(tmp_path / "bad.png", tmp_path / "out", "--weights", colour_weights))
    assert line.startswith(f"error: {tmp_path}/bad.png: ")
    assert files(tmp_path) == ["bad.png"]
    assert not (tmp_path / "out").exists()


def test_only_corrupt_pictures_are_one_line_each_and_one_for_all(tmp_path, colour_weights):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.jpg"):
        (tmp_path / "in" / name).write_bytes(b"nothing of the kind")
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights)
    assert result.exit_code == 2, result.output
    first, second, last = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert "in/a.png: " in first
    assert "in/b.jpg: " in second
    assert last == f"error: {tmp_path}/in: none of its 2 pictures could be restored"
    assert not (tmp_path / "out").exists()


def test_a_result_that_is_not_finite_is_refused(tmp_path, tiny_network):
    pixels = np.full((8, 8, 3), 0.5, np.float32)
    tifffile.imwrite(tmp_path / "in.tif", pixels, photometric="rgb")
    broken = tiny_network(seed=3)
    broken.output.weight.data.fill_(3e38)
    save_weights(tmp_path / "broken.safetensors", broken, {"task": "denoise"})
    arguments = ("--weights", tmp_path / "broken.safetensors", "--precision", "fp32")
    line = refused(restore(tmp_path / "in.tif", tmp_path / "out.tif", *arguments), code=1)
    assert "the result is not finite: these weights cannot restore it" in line
    assert files(tmp_path) == ["broken.safetensors", "in.tif"]


@pytest.mark.parametrize("error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory")])
def test_too_little_memory_names_the_cure(tmp_path, colour_weights, write_png, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(Restorer, "__call__", fail)
    arguments = (write_png(tmp_path / "in.png"), tmp_path / "out.png", "--weights", colour_weights)
    cure = "in.png: not enough memory, not even for small tiles: close other programs, or make it smaller"
    assert refused(restore(*arguments), code=1).endswith(cure)
    monkeypatch.setattr(OwnBackend, "replans", False)  # a graph, which takes no smaller tiles by itself
    assert refused(restore(*arguments), code=1).endswith("in.png: not enough memory: try --tile 512")
    line = refused(restore(*arguments, "--tile", 256), code=1)
    assert line.endswith("in.png: not enough memory: try a --tile smaller than 256")


def test_a_defect_of_ours_is_not_called_a_lack_of_memory(tmp_path, colour_weights, write_png, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("shapes do not match")

    monkeypatch.setattr(Restorer, "__call__", fail)
    line = refused(restore(write_png(tmp_path / "in.png"), tmp_path / "out.png", "--weights", colour_weights), code=1)
    assert "a defect of restormer-cli, please report it: RuntimeError: shapes do not match (test_restore.py:" in line


def test_a_defect_costs_one_picture_and_not_the_folder(tmp_path, colour_weights, write_png, monkeypatch):
    for name in ("a.png", "b.png", "c.png"):
        write_png(tmp_path / "in" / name)
    real, calls = Restorer.__call__, []

    def second_fails(self, *arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise IndexError("out of range")
        return real(self, *arguments, **options)

    monkeypatch.setattr(Restorer, "__call__", second_fails)
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights)
    assert result.exit_code == 3
    assert files(tmp_path / "out") == ["a.png", "c.png"]
    assert "2 restored, 1 failed" in result.stderr


@pytest.mark.parametrize(("height", "width"), [(1, 1), (9, 1), (1, 9)])
def test_an_ensemble_of_one_pixel_is_restored(tmp_path, colour_weights, write_png, height, width):
    source = write_png(tmp_path / "in.png", height, width)
    result = restore(source, tmp_path / "out.png", "--weights", colour_weights, "--ensemble")
    assert result.exit_code == 0, result.output


def test_a_name_too_long_for_its_comparison_costs_only_that(tmp_path, colour_weights, write_png):
    source = write_png(tmp_path / "in" / ("n" * 247 + ".png"))
    result = restore(source, tmp_path / "out", "--weights", colour_weights, "--compare")
    assert result.exit_code == 0, result.output
    assert "no comparison" in result.stderr


def test_a_task_in_part_is_understood(tmp_path, picture, bundle):
    line = refused(restore(picture, tmp_path / "out", "--task", "nois"))
    assert "did you mean " in line


def test_a_file_that_cannot_be_written_leaves_no_part(tmp_path, colour_weights, write_png, monkeypatch):
    def fail(*_, **__):
        raise OSError(28, "No space left on device")

    write_png(tmp_path / "in" / "a.png")
    monkeypatch.setattr("os.fsync", fail)
    line = refused(restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights), code=1)
    assert "out/a.png: cannot be written" in line
    assert "No space left on device" in line
    assert files(tmp_path) == ["in/a.png"]


def test_a_place_that_is_taken_by_a_file_costs_the_pictures_below_it_only(tmp_path, colour_weights, write_png):
    write_png(tmp_path / "in" / "a.png")
    write_png(tmp_path / "in" / "deep" / "b.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "deep").write_text("in the way")
    line = refused(restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights), code=3)
    assert "out/deep: this folder cannot be made: File exists" in line
    assert files(tmp_path / "out") == ["a.png", "deep"]


# --- Requests that are refused before any work ----------------------------------------------------------------


@pytest.fixture
def picture(tmp_path, write_png) -> Path:
    return write_png(tmp_path / "in" / "a.png")


def test_an_input_that_is_not_there(tmp_path, colour_weights):
    line = refused(restore(tmp_path / "nowhere", tmp_path / "out", "--weights", colour_weights))
    assert line == f"error: {tmp_path}/nowhere: no such file or folder: name a picture, a folder of them, a video, or -"
    assert files(tmp_path) == []


def test_a_folder_without_pictures(tmp_path, colour_weights):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("")
    line = refused(restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights))
    assert line.startswith(f"error: {tmp_path}/in: no pictures in it (looked for .3fr, ")
    assert not (tmp_path / "out").exists()


def test_a_folder_cannot_become_a_file(tmp_path, picture, colour_weights):
    (tmp_path / "out.png").write_bytes(b"precious")
    line = refused(restore(picture.parent, tmp_path / "out.png", "--weights", colour_weights, "--overwrite"))
    assert line.endswith(f"out.png: is a file, but {picture.parent} is a folder: name a folder to write to")
    assert (tmp_path / "out.png").read_bytes() == b"precious"


@pytest.mark.parametrize("target", ["file/out", "file/deep/out", "file/out.png"])
@pytest.mark.parametrize("source", ["in", "in/a.png"])
def test_an_output_below_a_file(tmp_path, picture, colour_weights, source, target):
    (tmp_path / "file").write_text("")
    line = refused(restore(tmp_path / source, tmp_path / target, "--weights", colour_weights))
    assert f"cannot be a folder, since {tmp_path}/file is a file" in line
    assert files(tmp_path) == ["file", "in/a.png"]


def test_an_output_without_permission(tmp_path, picture, colour_weights, monkeypatch):
    monkeypatch.setattr("os.access", lambda _, mode: not mode & os.W_OK)
    line = refused(restore(picture, tmp_path / "out", "--weights", colour_weights))
    assert line == f"error: {tmp_path}/out: cannot be written to: no permission in {tmp_path}"


def test_a_format_that_is_not_written_is_not_taken_for_a_folder(tmp_path, picture, colour_weights):
    line = refused(restore(picture, tmp_path / "out.mpo", "--weights", colour_weights))
    assert 'out.mpo: cannot write ".mpo"; use one of ' in line
    assert files(tmp_path) == ["in/a.png"]


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (
            "dual_pixel_weights",
            "dual.safetensors: dual-pixel weights take two views of a scene: name the second ",
        ),
        ("broken_weights", "broken.safetensors: patch_embed.proj.weight has values that are not finite"),
    ],
)
def test_weights_that_cannot_be_used(tmp_path, picture, request, weights, message):
    line = refused(restore(picture, tmp_path / "out", "--weights", request.getfixturevalue(weights)))
    assert message in line
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weights", "nowhere.safetensors"], "nowhere.safetensors: no such weights file (bundled: "),
        (["--weights", "."], ".: is a folder; name the weights file in it"),
        (["--task", "cooking"], "--task cooking: no such bundled checkpoint (bundled: "),
        (["--task", "denoise", "--weights", "x"], "--weights and --task: give only one of them"),
        (["--weights", "OURS", "--device", "toaster"], "--device toaster: unknown; choose auto, cpu"),
        (["--weights", "OURS", "--device", "cuda:77"], "--device cuda:77: not on this machine; --device auto"),
        (["--weights", "OURS", "--precision", "fp12"], "--precision fp12: unknown; choose auto, fp32, "),
        (["--weights", "OURS", "--precision", "fp16"], "--precision fp16: no processor computes it well; use bf16"),
        (["--weights", "OURS", "--tile", "16"], "--overlap 32: must be at least 0 and less than the tile, 16: give"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_options_that_cannot_be_met(tmp_path, picture, colour_weights, arguments, message):
    arguments = [colour_weights if argument == "OURS" else argument for argument in arguments]
    line = refused(restore(picture, tmp_path / "out", *arguments))
    assert line.startswith(f"error: {message}")
    assert files(tmp_path) == ["in/a.png"]
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("option", [("--tile", "7"), ("--tile", "x"), ("--overlap", "-1")])
def test_numbers_out_of_range_are_usage_errors(tmp_path, picture, option):
    result = restore(picture, tmp_path / "out", *option)
    assert result.exit_code == 2
    assert option[0] in result.stderr
    assert files(tmp_path) == ["in/a.png"]


# --- Which weights --------------------------------------------------------------------------------------------


@pytest.fixture
def bundle(tmp_path_factory, colour_weights, monkeypatch) -> Path:
    """A stand-in for the folder of bundled checkpoints, with `denoise` and `dehaze`."""
    folder = tmp_path_factory.mktemp("checkpoints")
    for task in ("denoise", "dehaze"):
        (folder / f"{task}.safetensors").write_bytes(colour_weights.read_bytes())
    monkeypatch.setattr(weights_room, "CHECKPOINTS", folder)
    return folder


def test_without_task_and_weights_the_assumption_is_said(tmp_path, picture, bundle):
    result = restore(picture, tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert result.stderr.startswith("no --task or --weights given: using the bundled denoise checkpoint\n")


@pytest.mark.parametrize("arguments", [("--task", "dehaze"), ("--weights", "dehaze")])
def test_a_bundled_checkpoint_by_name(tmp_path, picture, bundle, arguments):
    result = restore(picture, tmp_path / "out", *arguments)
    assert result.exit_code == 0, result.output
    assert "dehaze.safetensors" in result.stderr
    assert "using the bundled" not in result.stderr


def test_an_unknown_task_names_those_that_there_are(tmp_path, picture, bundle):
    line = refused(restore(picture, tmp_path / "out", "--task", "derain"))
    assert line == "error: --task derain: no such bundled checkpoint (bundled: dehaze, denoise; or auto)"


def test_the_library_call_yields_a_start_and_a_result_per_picture(tmp_path, picture, colour_weights):
    request = types.Request(picture.parent, tmp_path / "out", weights=str(colour_weights), device="cpu")
    started, restored = verb.restore(request)
    assert isinstance(started, types.Started)
    assert (started.pictures, started.task, started.assumed) == (1, "denoise", False)
    assert isinstance(restored, types.Restored)
    assert (restored.width, restored.height, restored.error) == (13, 9, None)
    assert restored.seconds is not None


def test_window_and_memory_reach_the_network_and_the_plan(tmp_path, colour_weights, write_png):
    source = write_png(tmp_path / "in.png", 48, 64)
    flags = ("--weights", colour_weights, "--window", "24", "--memory", "3GB", "--json")
    result = restore(source, tmp_path / "out.png", *flags)
    assert result.exit_code == 0, result.output
    assert '"plan": "whole picture, window 24"' in result.stdout


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--window", "wide"), "--window wide: give a number of pixels, or auto"),
        (("--window", "4"), "the smallest window is 8"),
        (("--memory", "much"), "not an amount of memory; write it like 6GB"),
        (("--memory", "1MB"), "too little"),
    ],
)
def test_impossible_windows_and_budgets_are_told(tmp_path, colour_weights, write_png, flags, said):
    source = write_png(tmp_path / "in.png", 16, 24)
    line = refused(restore(source, tmp_path / "out.png", "--weights", colour_weights, *flags))
    assert said in line
    assert not (tmp_path / "out.png").exists()


def test_a_strength_in_percent_is_told_its_share(tmp_path, picture, colour_weights):
    result = restore(picture, tmp_path / "out", "--weights", colour_weights, "--strength", "70")
    assert result.exit_code == 2
    assert "70 % is 0.7" in " ".join(result.stderr.replace("│", " ").split())


def test_what_a_folder_holds_and_is_not_restored_is_counted(tmp_path, colour_weights, write_png, monkeypatch):
    missing = {"heic": "heic", "dng": "raw"}
    monkeypatch.setattr("restormer_cli.images.listing.missing_extra", missing.get)
    monkeypatch.setitem(sys.modules, "av", None)
    write_png(tmp_path / "in" / "a.png")
    for name in ("IMG_1.HEIC", "deep/IMG_2.heic", "M.MP4", "R.DNG", "notes.txt", ".hidden.heic"):
        (tmp_path / "in" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "in" / name).touch()
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights)
    assert result.exit_code == 0
    told = " ".join(result.stderr.split())
    assert "4 left out: 1 .dng (pip install 'restormer-cli[raw]'), 2 .heic (pip install 'restormer-cli[heic]')" in told
    assert "1 .mp4 (pip install 'restormer-cli[video]')" in told


def test_strip_sign_keep_time_and_salvage_reach_the_files(tmp_path, colour_weights):
    import os

    from PIL import Image

    source, cut = tmp_path / "in" / "a.jpg", tmp_path / "in" / "b.jpg"
    source.parent.mkdir()
    exif = Image.Exif()
    exif[0x010F] = "A maker"
    Image.effect_noise((64, 48), 60).convert("RGB").save(source, exif=exif.tobytes())
    cut.write_bytes(source.read_bytes()[:-400])
    os.utime(source, (1_000_000_000, 1_000_000_000))
    flags = ("--weights", colour_weights, "--strip", "--sign", "--keep-time")
    assert restore(tmp_path / "in", tmp_path / "cut", *flags).exit_code == 3
    result = restore(tmp_path / "in", tmp_path / "out", *flags, "--salvage")
    assert result.exit_code == 0, result.output
    assert "ends too early" in result.output
    written = tmp_path / "out" / "a.jpg"
    assert written.stat().st_mtime == 1_000_000_000
    with Image.open(written) as opened:
        read = opened.getexif()
    assert 0x010F not in read
    assert read[305].startswith("restormer-cli ")
    assert read[305].endswith(", denoise")


def test_salvage_is_for_plans_pages_and_standard_input_too(tmp_path, colour_weights):
    out = io.BytesIO()
    Image.effect_noise((64, 48), 60).convert("RGB").save(out, "JPEG")
    cut = tmp_path / "a.jpg"
    cut.write_bytes(out.getvalue()[:-400])
    flags = ("--weights", colour_weights, "--salvage")
    planned = restore(cut, tmp_path / "out", *flags, "--dry-run")
    assert planned.exit_code == 0, planned.output
    assert restore(cut, tmp_path / "out", *flags, "--report", tmp_path / "page.html").exit_code == 0
    assert "cannot be shown" not in (tmp_path / "page.html").read_text(encoding="utf-8")
    arguments = ["restore", "-", tmp_path / "b.png", "--device", "cpu", *flags]
    piped = CliRunner().invoke(app, list(map(str, arguments)), input=cut.read_bytes())
    assert piped.exit_code == 0, piped.output
