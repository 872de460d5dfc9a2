"""What surrounds the network: strength, channels, streams, plans, JSON, the environment, and runs that end early."""

import hashlib
import importlib.util
import io
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.commands.restore import jobs as jobs_module
from restormer_cli.commands.restore import run as verb
from restormer_cli.commands.restore import steps
from restormer_cli.commands.restore.document import SCHEMA
from restormer_cli.engine.restorer import Restorer
from restormer_cli.errors import Failed, NoRoom, UserError
from restormer_cli.files import locked
from restormer_cli.images import io as images_io
from restormer_cli.images.io import read_picture
from restormer_cli.model.weights import bundled_tasks, load_weights


def restore(*arguments: object, **options) -> Result:
    return CliRunner().invoke(app, ["restore", "--device", "cpu", *map(str, arguments)], **options)


def refused(result: Result, code: int = 2) -> str:
    assert result.exit_code == code, result.output
    return [line for line in result.stderr.splitlines() if line.startswith("error: ")][-1]


def png(path: Path) -> np.ndarray:
    return imagecodecs.png_decode(path.read_bytes())


@pytest.fixture
def folder(tmp_path, write_png) -> Path:
    """in/ with a.png, b.png and c.png, the second of them no picture."""
    for name in ("a.png", "c.png"):
        write_png(tmp_path / "in" / name)
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    return tmp_path


# --- Strength -------------------------------------------------------------------------------------------------


def image_tests():
    """The format matrix and its judges of tests/images/test_images.py."""
    path = Path(__file__).parents[2] / "images" / "test_images.py"
    spec = importlib.util.spec_from_file_location("image_tests", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_strength_0_is_an_exact_round_trip_for_every_lossless_format(tmp_path, colour_weights):
    """Every format × depth × channels in one run of the command, judged by other people's codecs."""
    tests = image_tests()
    (tmp_path / "in").mkdir()
    arrays = {}
    for form, dtype, channels in tests.MATRIX:
        array = tests.samples(channels, dtype)
        if channels in (2, 4):
            array[:5, :, -1] = 0
        name = f"{form}-{np.dtype(dtype)}-{channels}.{form}"
        arrays[name] = array
        (tmp_path / "in" / name).write_bytes(tests.JUDGES[form][0](array))
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--strength", 0)
    assert result.exit_code == 0, result.output
    assert len(arrays) == len(tests.MATRIX) > 30
    for name, array in arrays.items():
        after = tests.JUDGES[name.rpartition(".")[2]][1]((tmp_path / "out" / name).read_bytes())
        assert after.dtype == array.dtype, name
        np.testing.assert_array_equal(after, array, err_msg=name)


def test_metadata_survives_the_command(tmp_path, colour_weights):
    tests = image_tests()
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "A maker of cameras"
    (tmp_path / "in").mkdir()
    for name, form in (("a.jpg", "JPEG"), ("b.png", "PNG"), ("c.webp", "WEBP"), ("d.tif", "TIFF"), ("e.avif", "AVIF")):
        picture = Image.fromarray(tests.smooth(3))
        picture.save(tmp_path / "in" / name, form, exif=exif, icc_profile=tests.SRGB)
    assert restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--strength", 0).exit_code == 0
    for path in sorted((tmp_path / "out").iterdir()):
        picture = read_picture(path)
        assert picture.pixels.shape == (tests.WIDTH, tests.HEIGHT, 3), path  # turned, once
        assert picture.icc == tests.SRGB, path
        assert b"A maker of cameras" in (picture.exif or b""), path


def test_strength_blends(tmp_path, colour_weights, write_png):
    source = write_png(tmp_path / "in.png")
    for strength in (0.5, 1):
        arguments = (source, tmp_path / f"{strength}.png", "--weights", colour_weights, "--strength", strength)
        assert restore(*arguments).exit_code == 0
    half, full, none = (png(tmp_path / name).astype(float) for name in ("0.5.png", "1.png", "in.png"))
    clipped = (full > 0) & (full < 255)
    np.testing.assert_allclose(half[clipped], (full / 2 + none / 2)[clipped], atol=1.01)


def test_a_result_that_hardly_differs_gets_a_note(tmp_path, colour_weights, write_png, monkeypatch):
    source = write_png(tmp_path / "in.png")
    monkeypatch.setattr(Restorer, "__call__", lambda _, pixels, **__: pixels + np.float32(0.4 / 255))
    result = restore(source, tmp_path / "a.png", "--weights", colour_weights)
    assert "in.png: the result hardly differs from the input (mean change 0.40/255): " in result.stderr
    blended = restore(source, tmp_path / "c.png", "--weights", colour_weights, "--strength", 0.1)
    assert "mean change 0.40/255" in blended.stderr
    monkeypatch.setattr(Restorer, "__call__", lambda _, pixels, **__: pixels + np.float32(0.6 / 255))
    assert "hardly differs" not in restore(source, tmp_path / "b.png", "--weights", colour_weights).stderr


# --- Channels and views ---------------------------------------------------------------------------------------


def test_a_colour_picture_through_gray_weights_keeps_its_colours(tmp_path, gray_weights, write_png):
    source = write_png(tmp_path / "in.png")
    assert restore(source, tmp_path / "out.png", "--weights", gray_weights).exit_code == 0
    before, after = (png(tmp_path / name).astype(float) for name in ("in.png", "out.png"))
    inside = ((after > 0) & (after < 255)).all(axis=2)
    assert inside.mean() > 0.3
    changes = (after - before)[inside]
    assert np.abs(changes).mean() > 1
    assert np.abs(changes - changes.mean(axis=1, keepdims=True)).max() <= 1  # the same for red, green and blue


def test_two_views_make_one_picture(tmp_path, dual_pixel_weights, write_png, samples):
    write_png(tmp_path / "l" / "a.png")
    write_png(tmp_path / "r" / "a.png", channels=3)
    (tmp_path / "r" / "a.png").write_bytes(imagecodecs.png_encode(np.ascontiguousarray(samples(9, 13)[:, ::-1])))
    result = restore(tmp_path / "l", tmp_path / "out", "--right", tmp_path / "r", "--weights", dual_pixel_weights)
    assert result.exit_code == 0, result.output
    views = [read_picture(tmp_path / side / "a.png").pixels for side in "lr"]
    wanted = Restorer(load_weights(dual_pixel_weights).model, device="cpu")(np.concatenate(views, axis=2))
    np.testing.assert_allclose(png(tmp_path / "out" / "a.png") / 255, np.clip(wanted, 0, 1), atol=0.51 / 255)


def test_a_missing_second_view_costs_its_picture(tmp_path, dual_pixel_weights, write_png):
    for name in ("a_L.png", "a_R.png", "b_L.png"):
        write_png(tmp_path / "in" / name)
    arguments = (tmp_path / "in", tmp_path / "out", "--right", "_L=_R", "--weights", dual_pixel_weights)
    assert refused(restore(*arguments), code=3).endswith(f"there is no second view {tmp_path}/in/b_R.png")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["a_L.png"]


def test_two_views_need_weights_for_two(folder, colour_weights):
    arguments = (folder / "in", folder / "out", "--right", folder / "in", "--weights", colour_weights)
    assert "takes one picture; two views need dual-pixel weights" in refused(restore(*arguments))


def test_the_ensemble_reaches_the_network(tmp_path, colour_weights, write_png, monkeypatch):
    calls = []

    def count(_, pixels, **__):
        calls.append(pixels.shape)
        return pixels

    monkeypatch.setattr(Restorer, "__call__", count)
    restore(write_png(tmp_path / "in.png"), tmp_path / "out.png", "--weights", colour_weights, "--ensemble")
    assert len(calls) == 8


# --- Names, formats -------------------------------------------------------------------------------------------


def test_ext_suffix_quality_and_subsampling(tmp_path, colour_weights, write_png):
    write_png(tmp_path / "in" / "a.png", 64, 64)
    common = (tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--ext", "jpg")
    assert restore(*common, "--suffix", "_high").exit_code == 0
    assert restore(*common, "--suffix", "_low", "--quality", 30, "--subsampling", "4:2:0").exit_code == 0
    high, low = tmp_path / "out" / "a_high.jpg", tmp_path / "out" / "a_low.jpg"
    assert low.stat().st_size < high.stat().st_size / 2
    for path, sampling in ((high, (1, 1)), (low, (2, 2))):
        with Image.open(path) as picture:
            assert picture.format == "JPEG"
            assert picture.layer[0][1:3] == sampling  # pyright: ignore


@pytest.mark.parametrize("ext", ["exr", "gif", "mpo", ""])
def test_a_format_that_cannot_be_written_is_refused_before_any_work(folder, colour_weights, ext):
    line = refused(restore(folder / "in", folder / "out", "--weights", colour_weights, "--ext", ext))
    assert f"--ext {ext}: not a format that can be written; choose same, png, jpg" in line
    assert not (folder / "out").exists()


def test_a_slash_in_the_suffix_is_refused(folder, colour_weights):
    assert "--suffix ../x: becomes part of file names" in refused(
        restore(folder / "in", folder / "out", "--weights", colour_weights, "--suffix", "../x")
    )


@pytest.mark.parametrize("length", [241, 255])
def test_the_longest_names_there_are(tmp_path, colour_weights, write_png, length):
    name = "n" * (length - 4) + ".png"
    source = write_png(tmp_path / "in" / name)
    result = restore(source.parent, tmp_path / "out", "--weights", colour_weights)
    assert result.exit_code == 0, result.output
    assert [path.name for path in (tmp_path / "out").iterdir()] == [name]


@pytest.mark.skipif(sys.platform != "linux", reason="only here may file names be any bytes")
def test_names_that_are_no_text_are_kept_and_do_not_reach_the_terminal(tmp_path, colour_weights, write_png):
    sound = write_png(tmp_path / "a.png").read_bytes()
    folder, names = tmp_path / "in", [b"\xff\xfe.png", b"\x1b[2J\n.png"]
    folder.mkdir()
    for name in names:
        Path(os.fsdecode(os.path.join(os.fsencode(folder), name))).write_bytes(sound)
    values = document(folder, tmp_path / "out", "--weights", colour_weights)
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == sorted(names)
    assert {os.fsencode(Path(file["output"]).name) for file in values["files"]} == set(names)
    result = restore(folder, tmp_path / "out", "--weights", colour_weights, "--overwrite")
    assert "\x1b" not in result.stderr
    assert result.stderr.count("out/?[2J?.png  13×9") == 1


def test_a_name_that_would_become_too_long_is_one_line(tmp_path, colour_weights, write_png):
    source = write_png(tmp_path / "in" / ("n" * 251 + ".png"))
    arguments = (source, tmp_path / "out", "--weights", colour_weights, "--suffix", "_longer")
    line = refused(restore(*arguments))
    assert line.endswith(
        "_longer.png: is longer than file names can be: choose a shorter --suffix, or rename the input"
    )
    assert not (tmp_path / "out").exists()


# --- Standard input and output --------------------------------------------------------------------------------


def test_a_picture_through_standard_input_and_output(tmp_path, colour_weights, write_png, monkeypatch):
    monkeypatch.chdir(tmp_path)
    source = write_png(tmp_path / "in.png")
    assert restore(source, tmp_path / "file.png", "--weights", colour_weights).exit_code == 0
    result = restore("-", "-", "--weights", colour_weights, input=source.read_bytes())
    assert result.exit_code == 0, result.stderr
    assert result.stdout_bytes == (tmp_path / "file.png").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file.png", "in.png"]  # and no record of results
    as_tiff = restore("-", "-", "--weights", colour_weights, "--ext", "tif", input=source.read_bytes())
    np.testing.assert_array_equal(tifffile.imread(io.BytesIO(as_tiff.stdout_bytes)), png(tmp_path / "file.png"))
    to_file = restore("-", tmp_path / "b.png", "--weights", colour_weights, input=source.read_bytes())
    assert to_file.exit_code == 0
    assert (tmp_path / "b.png").read_bytes() == (tmp_path / "file.png").read_bytes()


@pytest.mark.parametrize("data", [b"", b"no picture"])
def test_what_is_no_picture_on_standard_input(colour_weights, data):
    result = restore("-", "-", "--weights", colour_weights, input=data)
    assert refused(result).startswith("error: standard input: is ")
    assert result.stdout_bytes == b""


def test_a_picture_and_a_document_do_not_share_standard_output(colour_weights):
    assert refused(restore("-", "-", "--json", "--weights", colour_weights, input=b"")).startswith("error: --json: ")


def test_a_reader_that_went_away_is_no_traceback(tmp_path, colour_weights, write_png, warm):
    source = write_png(tmp_path / "in.png", 300, 300)
    reader, writer = os.pipe()
    os.close(reader)
    command = [*warm, "restore", source, "-", "--weights", colour_weights, "--strength", "0", "--ext", "bmp"]
    done = subprocess.run(command, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


# --- Test inputs ----------------------------------------------------------------------------------------------


def test_degrade_makes_test_inputs_that_depend_on_seed_and_name_alone(tmp_path, write_png):
    for name in ("a.png", "b.png"):
        write_png(tmp_path / "in" / name, 40, 40)
    for out, seed in (("1", 0), ("2", 0), ("3", 1)):
        result = restore(tmp_path / "in", tmp_path / out, "--degrade", "gaussian:25", "--seed", seed)
        assert result.exit_code == 0, result.output
    assert "2 pictures · made worse by gaussian:25" in result.stderr
    restore(tmp_path / "in" / "b.png", tmp_path / "4", "--degrade", "gaussian:25")
    noisy = {(out, name): png(tmp_path / out / f"{name}.png") for out, name in ("1a", "1b", "2a", "2b", "3a", "4b")}
    np.testing.assert_array_equal(noisy["1", "a"], noisy["2", "a"])
    np.testing.assert_array_equal(noisy["1", "b"], noisy["4", "b"])
    assert (noisy["1", "a"] != noisy["3", "a"]).mean() > 0.9
    assert (noisy["1", "a"] != noisy["1", "b"]).mean() > 0.9  # the clean ones are equal
    assert np.std(noisy["1", "a"] - png(tmp_path / "in" / "a.png").astype(float)) == pytest.approx(25, abs=2)


@pytest.mark.parametrize("extra", [("--task", "denoise"), ("--weights", "x"), ("--right", ".")])
def test_degrade_needs_no_network(folder, extra):
    arguments = (folder / "in" / "a.png", folder / "out", "--degrade", "gaussian:25", *extra)
    assert "leave --task, --weights, --right out" in refused(restore(*arguments))


def test_a_wrong_degradation_is_one_line(folder):
    assert "gaussian" in refused(restore(folder / "in" / "a.png", folder / "out", "--degrade", "gausian:25"))


# --- Plans ----------------------------------------------------------------------------------------------------


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(folder, colour_weights):
    (folder / "out").mkdir()
    (folder / "out" / "c.png").write_bytes(b"there")
    arguments = (folder / "in", folder / "out", "--weights", colour_weights, "--skip-existing", "--dry-run")
    result = restore(*arguments)
    assert result.exit_code == 3, result.output
    assert f"{folder}/out/a.png  13×9  " in result.stderr
    assert f"{folder}/out/c.png  13×9  there already" in result.stderr
    assert f"error: {folder}/in/b.png: " in result.stderr
    assert "1 would be restored, 1 skipped, 1 failed" in result.stderr
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["c.png"]
    document = json.loads(restore(*arguments, "--json").stdout)
    assert [file["status"] for file in document["files"]] == ["planned", "failed", "skipped"]
    assert document["files"][0]["plan"]


# --- JSON -----------------------------------------------------------------------------------------------------


def test_weights_that_cannot_be_fetched_are_in_the_document_too(folder, monkeypatch):
    def fail(*_, **__):
        raise Failed("official/denoise-color: nothing answers")

    monkeypatch.setattr("restormer_cli.model.hub.fetch", fail)
    values = document(folder / "in", folder / "out", "--weights", "official/denoise-color", code=1)
    assert values["error"] == "official/denoise-color: nothing answers"
    assert values["request"]["weights"] == "official/denoise-color"


def document(*arguments: object, code: int = 0, **options) -> dict:
    result = restore(*arguments, "--json", **options)
    assert result.exit_code == code, result.output
    values = json.loads(result.stdout)
    assert values["schema"] == SCHEMA
    assert values["exit_code"] == code
    return values


def test_the_document_tells_of_every_file(folder, colour_weights):
    options = ("--weights", colour_weights, "--tile", 12, "--overlap", 0, "--precision", "fp32")
    values = document(folder / "in", folder / "out", *options, code=3)
    a, b, c = values["files"]
    assert (a["input"], a["output"]) == (str(folder / "in" / "a.png"), str(folder / "out" / "a.png"))
    assert (a["status"], a["width"], a["height"], a["channels"], a["bits"]) == ("restored", 13, 9, 3, 8)
    assert a["seconds"]["total"] == pytest.approx(sum(a["seconds"][k] for k in ("read", "compute", "write")), abs=1e-3)
    assert a["memory"] > 1e7
    assert a["plan"]
    assert a["precision"] == values["run"]["precision"] == "fp32"
    assert a["change"] > 1
    assert (a["warnings"], a["error"]) == ([], None)
    assert b["status"] == "failed"
    assert b["error"].startswith(f"{folder}/in/b.png: ")
    assert b["seconds"]["total"] is None
    assert c["status"] == "restored"
    assert values["summary"]["pictures"] == 3
    assert values["summary"]["restored"] == 2
    assert values["summary"]["failed"] == 1
    assert values["summary"]["megapixels"] == pytest.approx(2 * 13 * 9 / 1e6)
    assert values["run"]["weights"] == str(colour_weights)
    assert (values["run"]["device"], values["run"]["tile"]) == ("cpu", 16)
    assert values["run"]["warnings"] == ["--tile 12 rounded up to 16, a multiple of 8"]
    assert values["request"]["tile"] == 12
    assert values["error"] is None


def test_the_document_tells_of_what_was_skipped(folder, colour_weights):
    (folder / "in" / "b.png").unlink()
    (folder / "out").mkdir()
    (folder / "out" / "a.png").touch()
    values = document(folder / "in", folder / "out", "--weights", colour_weights, "--skip-existing")
    assert [file["status"] for file in values["files"]] == ["skipped", "restored"]


def test_the_document_tells_of_a_refusal(tmp_path):
    values = document(tmp_path / "nowhere", tmp_path / "out", code=2)
    assert values["error"].startswith(f"{tmp_path}/nowhere: no such file or folder: name a picture")
    assert (values["run"], values["files"]) == (None, [])


def test_the_document_tells_of_a_single_failure(folder, colour_weights):
    values = document(folder / "in" / "b.png", folder / "out", "--weights", colour_weights, code=2)
    assert values["files"][0]["error"] == values["error"]


def test_the_document_tells_of_an_interrupt(folder, colour_weights, monkeypatch):
    calls = []

    def interrupt(_, pixels, **__):
        calls.append(None)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return pixels

    monkeypatch.setattr(Restorer, "__call__", interrupt)
    values = document(folder / "in", folder / "out", "--weights", colour_weights, code=130)
    assert values["error"] == "interrupted"
    assert values["summary"]["pictures"] == 3


def test_a_defect_of_ours_is_in_the_document_too(folder, colour_weights, monkeypatch):
    def fail(*_, **__):
        raise ZeroDivisionError("ours")

    monkeypatch.setattr(Restorer, "__call__", fail)
    result = restore(folder / "in", folder / "out", "--weights", colour_weights, "--json")
    values = json.loads(result.stdout)
    assert result.exit_code == values["exit_code"] == 1  # none was restored
    assert {file["status"] for file in values["files"]} == {"failed"}
    assert "a defect of restormer-cli, please report it: ZeroDivisionError: ours" in values["files"][0]["error"]


# --- Environment ----------------------------------------------------------------------------------------------


def test_every_flag_has_a_variable_and_the_flag_wins(folder, colour_weights, monkeypatch):
    monkeypatch.setenv("RESTORMER_WEIGHTS", str(colour_weights))
    monkeypatch.setenv("RESTORMER_TILE", "16")
    monkeypatch.setenv("RESTORMER_OVERLAP", "8")
    monkeypatch.setenv("RESTORMER_SUFFIX", "_x")
    monkeypatch.setenv("RESTORMER_JSON", "1")
    result = restore(folder / "in" / "a.png", folder / "out")
    values = json.loads(result.stdout)
    assert (values["request"]["tile"], values["request"]["overlap"]) == (16, 8)
    assert (folder / "out" / "a_x.png").exists()
    result = restore(folder / "in" / "a.png", folder / "out", "--tile", 24, "--suffix", "_y")
    assert json.loads(result.stdout)["request"]["tile"] == 24
    assert (folder / "out" / "a_y.png").exists()


def test_a_wrong_variable_is_a_usage_error(folder, monkeypatch):
    monkeypatch.setenv("RESTORMER_TILE", "huge")
    result = restore(folder / "in", folder / "out")
    assert result.exit_code == 2
    assert "--tile" in result.stderr


def test_task_help_tells_what_there_is_without_in_and_out():
    result = restore("--task", "help")
    assert result.exit_code == 0
    assert [line for line in result.stdout.splitlines() if line[:1].strip()] == sorted(bundled_tasks())
    assert result.stdout.count("\n  repairs ") == len(bundled_tasks())
    overview = restore("--help").stdout
    assert "denoise: noise; " in overview
    assert "RESTORMER_TILE=512 is --tile" in overview


def test_a_restored_png_costs_no_import_that_it_does_not_need(tmp_path, colour_weights, write_png):
    """Cold start: what these load is a large part of a second."""
    write_png(tmp_path / "in.png")
    heavy = ("sympy", "scipy", "skimage", "matplotlib", "accelerate", "tifffile", "PIL", "torch._dynamo")
    code = f"import sys\nfrom restormer_cli.cli import app\ntry: app()\nfinally: print(set(sys.modules) & {set(heavy)})"
    arguments = ["restore", "in.png", "out.png", "--weights", colour_weights, "--device", "cpu"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "set()\n"


# --- Runs that end early --------------------------------------------------------------------------------------


def test_fail_fast_stops_at_the_first_failure(folder, colour_weights):
    result = restore(folder / "in", folder / "out", "--weights", colour_weights, "--fail-fast")
    assert refused(result).endswith("stopped at the first failure, with 1 of 3 pictures done (--fail-fast)")
    assert f"error: {folder}/in/b.png: " in result.stderr


def test_a_full_disk_stops_the_run_and_keeps_what_is_done(tmp_path, colour_weights, write_png, monkeypatch):
    for number in range(40):
        write_png(tmp_path / "in" / f"{number}.png")
    real, written = images_io.write_picture, []

    def fill(path, *arguments, **options):
        if len(written) == 2:
            raise NoRoom(f"{path}: cannot be written: No space left on device")
        written.append(path)
        real(path, *arguments, **options)

    monkeypatch.setattr(steps, "write_picture", fill)
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights)
    line = refused(result, code=1)
    assert line.endswith("stopped with 2 of 40 pictures done: make room, then go on with --skip-existing")
    assert result.stderr.count("No space left on device") == 1
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["0.png", "1.png"]
    monkeypatch.setattr(steps, "write_picture", real)
    again = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--skip-existing")
    assert "38 restored, 2 skipped, 0 failed" in again.stderr


def test_a_file_that_vanishes_between_listing_and_reading(folder, colour_weights, monkeypatch):
    (folder / "in" / "b.png").unlink()
    find = jobs_module.find_jobs

    def find_and_delete(*arguments, **options):
        jobs = find(*arguments, **options)
        (folder / "in" / "a.png").unlink()
        return jobs

    monkeypatch.setattr(verb, "find_jobs", find_and_delete)
    line = refused(restore(folder / "in", folder / "out", "--weights", colour_weights), code=3)
    assert line == f"error: {folder}/in/a.png: no such file; check the path"
    assert [path.name for path in (folder / "out").iterdir()] == ["c.png"]


def test_a_result_that_appears_meanwhile_is_left_alone(folder, colour_weights, monkeypatch):
    (folder / "in" / "b.png").unlink()
    compute = Restorer.__call__

    def appear(self, pixels, **options):
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out" / "a.png").write_bytes(b"precious")
        return compute(self, pixels, **options)

    monkeypatch.setattr(Restorer, "__call__", appear)
    line = refused(restore(folder / "in", folder / "out", "--weights", colour_weights), code=3)
    assert line.endswith("out/a.png: appeared while this ran, and is left as it is")
    assert (folder / "out" / "a.png").read_bytes() == b"precious"


def test_another_run_that_was_faster_is_no_failure_when_skipping(folder, colour_weights, monkeypatch):
    (folder / "in" / "b.png").unlink()
    compute = Restorer.__call__

    def appear(self, pixels, **options):
        (folder / "out").mkdir(exist_ok=True)
        (folder / "out" / "a.png").write_bytes(b"precious")
        return compute(self, pixels, **options)

    monkeypatch.setattr(Restorer, "__call__", appear)
    result = restore(folder / "in", folder / "out", "--weights", colour_weights, "--skip-existing")
    assert result.exit_code == 0, result.output
    assert "1 restored, 1 skipped, 0 failed" in result.stderr
    assert (folder / "out" / "a.png").read_bytes() == b"precious"


def test_a_file_that_vanishes_after_it_was_read_is_restored(folder, colour_weights, monkeypatch):
    real = images_io.read_picture

    def read_and_delete(path, **options):
        picture = real(path)
        Path(path).unlink()
        return picture

    monkeypatch.setattr(steps, "read_picture", read_and_delete)
    result = restore(folder / "in" / "a.png", folder / "out", "--weights", colour_weights)
    assert result.exit_code == 0, result.output
    assert (folder / "out" / "a.png").exists()


def test_leftovers_of_a_killed_run_are_swept(folder, colour_weights):
    (folder / "in" / "b.png").unlink()
    (folder / "out").mkdir()
    (folder / "out" / ".restormer-0123456789ab.part").write_bytes(b"half")
    assert restore(folder / "in", folder / "out", "--weights", colour_weights).exit_code == 0
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.png", "c.png"]


@pytest.mark.parametrize("kind", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_summary_and_whole_files(tmp_path, colour_weights, samples, kind, warm):
    (tmp_path / "in").mkdir()
    data = imagecodecs.png_encode(samples(64, 64))
    for number in range(2000):  # more than a second's work on any machine
        (tmp_path / "in" / f"{number}.png").write_bytes(data)
    command = [*warm, "restore", "in", "out", "--weights", colour_weights, "--device", "cpu", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            deadline = time.monotonic() + 60
            while not list(tmp_path.glob("out/*.png")) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.02)
            process.send_signal(kind)
            stdout, stderr = process.communicate(timeout=60)
        finally:
            process.kill()
    assert process.returncode == 130, stderr
    assert "Traceback" not in stderr
    assert "interrupted: " in stderr
    assert "go on with --skip-existing" in stderr
    values = json.loads(stdout)
    assert (values["exit_code"], values["error"]) == (130, "interrupted")
    results = list((tmp_path / "out").iterdir())
    assert 0 < len(results) < 2000
    assert values["summary"]["restored"] == len(results)  # also what was finished while it stopped
    for path in results:
        assert png(path).shape == (64, 64, 3)


def test_two_runs_into_one_folder_share_the_work(folder, colour_weights, monkeypatch):
    """What another run has claimed is left to it, and taken over where it ends without a result."""
    (folder / "in" / "b.png").unlink()
    (folder / "out").mkdir()
    claim = folder / "out" / f".restormer-{hashlib.sha256(b'a.png').hexdigest()[:12]}.claim"
    order = []
    compute = Restorer.__call__

    def noted(self, pixels, **options):
        order.append(claim.exists())
        return compute(self, pixels, **options)

    monkeypatch.setattr(Restorer, "__call__", noted)
    theirs = ExitStack()
    theirs.enter_context(locked(claim, UserError))
    arguments = folder / "in", folder / "out", "--weights", colour_weights
    line = refused(restore(*arguments), code=3)
    assert f"process {os.getpid()} on" in line
    assert line.endswith("is restoring it now: --skip-existing shares the work")
    (folder / "out" / "c.png").unlink()

    monkeypatch.setattr(verb.time, "sleep", lambda seconds: theirs.close())  # the other run dies
    order.clear()
    result = restore(*arguments, "--skip-existing")
    assert result.exit_code == 0, result.output
    assert "2 restored, 0 failed" in result.stderr
    assert order[0], "c.png is restored while a.png is another's"
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["a.png", "c.png"]


def test_after_ctrl_c_the_account_is_what_is_on_the_disk(tmp_path, colour_weights, write_png, monkeypatch):
    """The interrupt comes while the third picture is computed, and the first two are being written."""
    for name in "abcde":
        write_png(tmp_path / "in" / f"{name}.png")
    seen = iter(range(5))

    def third(self, picture, **_):
        if next(seen) == 2:
            raise KeyboardInterrupt
        return picture

    monkeypatch.setattr(Restorer, "__call__", third)
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--json")
    assert result.exit_code == 130
    document = json.loads(result.stdout)
    there = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert there == ["a.png", "b.png"]
    assert sorted(Path(file["output"]).name for file in document["files"]) == there
    assert document["summary"]["restored"] == 2
    assert "interrupted: 2 restored" in result.stderr
