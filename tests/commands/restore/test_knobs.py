"""How much of the change is kept, where, and by which task: the flags of `restore` around the network."""

import json
from pathlib import Path

import imagecodecs
import numpy as np
import PIL.Image
import pytest
import skimage.data
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.commands.restore.jobs import Job
from restormer_cli.commands.restore.types import Diagnosis, Restored
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.engine.control import Control, apply_control
from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import read_picture
from restormer_cli.model.weights import load_weights


def restore(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["restore", "--device", "cpu", *map(str, arguments)])


def refused(result: Result, code: int = 2) -> str:
    assert result.exit_code == code, result.output
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    return errors[0]


@pytest.fixture
def picture(tmp_path, write_png) -> Path:
    return write_png(tmp_path / "a.png", 24, 40, bits=16)


# --- Luma, chroma, detail, grain ------------------------------------------------------------------------------


@pytest.mark.parametrize("channels", [1, 3])
def test_the_flags_are_the_controls_of_the_engine(tmp_path, write_png, colour_weights, channels):
    picture = write_png(tmp_path / "a.png", 24, 40, channels, bits=16)
    flags = ("--strength", 0.9, "--luma", 0.6, "--chroma", 0.8, "--detail", 0.5, "--grain", 0.25)
    assert restore(picture, tmp_path / "b.png", "--weights", colour_weights, *flags).exit_code == 0
    before = read_picture(picture).pixels
    wide = np.repeat(before, 3 // channels, axis=2)
    answer = Restorer(load_weights(colour_weights).model, device="cpu")(wide)
    answer = answer.mean(axis=2, keepdims=True) if channels == 1 else answer
    wanted = apply_control(before, answer, Control(0.9, 0.6, 0.8, 0.5, 0.25))
    result = read_picture(tmp_path / "b.png")
    assert result.bits == 16
    np.testing.assert_allclose(result.pixels, wanted, atol=1 / 65535)


def test_nothing_kept_is_a_round_trip(tmp_path, picture, colour_weights):
    result = restore(picture, tmp_path / "b.png", "--weights", colour_weights, "--luma", 0, "--chroma", 0)
    assert result.exit_code == 0
    np.testing.assert_array_equal(read_picture(tmp_path / "b.png").pixels, read_picture(picture).pixels)


def test_the_change_in_json_is_the_networks_whatever_is_kept(tmp_path, picture, colour_weights):
    changes = []
    for name, flags in (("b", ()), ("c", ("--luma", 0.5, "--chroma", 0.25))):
        result = restore(picture, tmp_path / f"{name}.png", "--weights", colour_weights, "--json", *flags)
        changes.append(json.loads(result.stdout)["files"][0]["change"])
    assert changes[0] == changes[1] > 0


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ("--detail", 0.5, "--luma", 0),
            "--detail: gives back what was taken from luminance, and --luma 0 takes nothing",
        ),
        (("--subsampling", "420"), "--subsampling 420: unknown; write one of 4:4:4, 4:2:2, 4:2:0"),
        (("--protect", "shadows"), "--protect shadows: unknown; write --protect highlights"),
        (("--degrade", "gaussian:5", "--chroma", 0.5), "--degrade makes pictures worse: leave --luma, --chroma"),
        (("--task", "auto", "--weights", "x"), "--task auto: chooses among the bundled tasks: leave --weights and"),
    ],
)
def test_contradictions_are_refused_in_a_line(tmp_path, picture, flags, words):
    assert words in refused(restore(picture, tmp_path / "b.png", *flags))
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize("knob", ["luma", "chroma", "detail", "grain", "strength"])
@pytest.mark.parametrize("value", ["-0.1", "1.5", "nan"])
def test_values_that_are_no_share_are_refused_in_a_line(tmp_path, picture, knob, value):
    line = refused(restore(picture, tmp_path / "b.png", f"--{knob}", value))
    assert line.startswith(f"error: --{knob} {value}: is a share: give a number from 0 to 1")


def test_a_share_in_per_cent_is_told(tmp_path, picture):
    assert refused(restore(picture, tmp_path / "b.png", "--strength", 50)).endswith("from 0 to 1; 50 % is 0.5")
    assert refused(restore(picture, tmp_path / "b.png", "--strength", 1.5)).endswith("from 0 to 1")


# --- Where ----------------------------------------------------------------------------------------------------


def write_mask(path: Path, height: int = 24, width: int = 40) -> Path:
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 4 : width // 2], mask[:, width // 2 :] = 128, 255
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(imagecodecs.png_encode(mask))
    return path


def test_a_mask_says_where(tmp_path, picture, colour_weights):
    mask = write_mask(tmp_path / "mask.png")
    assert restore(picture, tmp_path / "all.png", "--weights", colour_weights).exit_code == 0
    assert restore(picture, tmp_path / "b.png", "--weights", colour_weights, "--mask", mask).exit_code == 0
    before, whole, part = (read_picture(tmp_path / name).pixels for name in ("a.png", "all.png", "b.png"))
    np.testing.assert_array_equal(part[:, :10], before[:, :10])
    np.testing.assert_array_equal(part[:, 20:], whole[:, 20:])
    between = before + 128 / 255 * (whole - before)
    np.testing.assert_allclose(part[:, 10:20], between[:, 10:20], atol=2 / 65535)


def test_masks_of_a_folder_go_by_name(tmp_path, write_png, colour_weights):
    for name in ("a.png", "b.png", "sub/a.png"):
        write_png(tmp_path / "in" / name, 24, 40)
    write_mask(tmp_path / "masks/a.png")
    result = restore(tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--mask", tmp_path / "masks")
    assert result.exit_code == 3
    assert f"{tmp_path / 'in' / 'b.png'}: there is no mask of its name in {tmp_path / 'masks'}" in result.stderr
    done = [str(path.relative_to(tmp_path / "out")) for path in sorted((tmp_path / "out").rglob("*.png"))]
    assert done == ["a.png"]  # sub/a.png has no mask either
    before, after = (read_picture(tmp_path / place / "a.png").pixels for place in ("in", "out"))
    np.testing.assert_array_equal(after[:, :10], before[:, :10])


def test_masks_that_fit_nowhere_are_refused(tmp_path, picture, colour_weights):
    small = write_mask(tmp_path / "small.png", 20, 40)
    (tmp_path / "empty").mkdir()
    for mask, words in (
        (small, f"the mask {small} is 40 × 20, the picture 40 × 24: make them the same size"),
        (tmp_path / "none.png", "none.png: no such file or folder"),
        (tmp_path / "empty", "give the mask its picture's name"),
    ):
        result = restore(picture, tmp_path / "b.png", "--weights", colour_weights, "--mask", mask)
        assert words in refused(result)
    assert not (tmp_path / "b.png").exists()


def test_protected_highlights_stay(tmp_path, colour_weights):
    pixels = np.full((32, 32, 3), 90, np.uint8)
    pixels[8:16, 8:16] = (255, 250, 240)
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(pixels))
    flags = ("--weights", colour_weights, "--protect", "highlights")
    assert restore(tmp_path / "a.png", tmp_path / "b.png", *flags).exit_code == 0
    result = imagecodecs.png_decode((tmp_path / "b.png").read_bytes())
    np.testing.assert_array_equal(result[8:16, 8:16], pixels[8:16, 8:16])
    assert (result[20:] != pixels[20:]).any()


# --- Which task -----------------------------------------------------------------------------------------------


def write_photograph(path: Path, spec: str, form: str = "PNG", exif: bytes = b"", scene: str = "rocket") -> Path:
    samples = skimage.data.rocket()[200:392, 200:392] if scene == "rocket" else skimage.data.chelsea()[60:252, 100:292]
    clean = samples.astype(np.float32) / 255
    pixels = np.rint(np.clip(parse_degradation(spec)(clean, np.random.default_rng(0)), 0, 1) * 255).astype(np.uint8)
    path.parent.mkdir(exist_ok=True)
    PIL.Image.fromarray(pixels).save(path, form, exif=exif, **({"quality": 95} if form == "JPEG" else {}))
    return path


def test_auto_gives_each_picture_what_it_needs_and_says_why(tmp_path):
    clean = write_photograph(tmp_path / "in/clean.jpg", "round8", "JPEG")
    write_photograph(tmp_path / "in/noisy.png", "gaussian:20")
    write_photograph(tmp_path / "in/moved.png", "motion:9,angle=20..20", scene="cat")
    result = restore(tmp_path / "in", tmp_path / "out", "--task", "auto", "--json")
    assert result.exit_code == 0, result.output
    document = json.loads(result.stdout)
    files = {Path(file["input"]).name: file for file in document["files"]}
    assert {name: file["task"] for name, file in files.items()} == {
        "clean.jpg": "none",
        "noisy.png": "denoise",
        "moved.png": "motion-deblur",
    }
    assert files["noisy.png"]["reason"] == "noise σ 20: denoise"
    assert files["noisy.png"]["analysis"]["noise"]["sigma"] == pytest.approx([20, 20, 20], rel=0.15)
    assert files["moved.png"]["analysis"]["blur"]["width"] == pytest.approx(9, rel=0.25)
    assert (document["run"]["automatic"], document["run"]["weights"], document["summary"]["left_alone"]) == (
        True,
        None,
        1,
    )
    assert (tmp_path / "out/clean.jpg").read_bytes() == clean.read_bytes()
    assert "noisy.png: noise σ 20: denoise" in result.stderr
    assert "1 left alone" in result.stderr.splitlines()[-1]


def test_auto_leaves_alone_what_goes_into_another_format_too(tmp_path):
    clean = write_photograph(tmp_path / "clean.png", "round8")
    assert restore(clean, tmp_path / "b.tif", "--task", "auto").exit_code == 0
    np.testing.assert_array_equal(read_picture(tmp_path / "b.tif").pixels, read_picture(clean).pixels)


def test_a_dry_run_prints_what_is_wrong(tmp_path):
    noisy = write_photograph(tmp_path / "noisy.png", "gaussian:20")
    clean = write_photograph(tmp_path / "clean.png", "round8")
    told = restore(noisy, tmp_path / "b.png", "--dry-run").stderr
    assert "noise σ 20" in told
    assert "--task auto would say: noise σ 20: denoise" in told
    result = restore(clean, tmp_path / "b.png", "--dry-run", "--task", "auto", "--json")
    assert "left alone" in result.stderr
    file = json.loads(result.stdout)["files"][0]
    assert (file["task"], file["status"], file["plan"]) == ("none", "planned", "left alone")
    assert not (tmp_path / "b.png").exists()


def test_the_cameras_sensitivity_is_heard(tmp_path):
    tags = PIL.Image.Exif()
    tags[271], tags[34665] = "NIKON", {34855: 6400}
    picture = write_photograph(tmp_path / "a.png", "gaussian:2", exif=tags.tobytes())
    told = restore(picture, tmp_path / "b.png", "--dry-run", "--task", "auto").stderr
    assert "ISO 6400 (NIKON): denoise" in told


def test_without_being_asked_nothing_is_estimated(tmp_path, picture, colour_weights, monkeypatch):
    monkeypatch.setattr("restormer_cli.analysis.findings.analyse", None)
    assert restore(picture, tmp_path / "b.png", "--weights", colour_weights).exit_code == 0


def test_a_diagnosis_reaches_another_process():
    diagnosis = Diagnosis({"noise": {"sigma": [9.0]}}, "noise σ 9", "denoise", "noise σ 9: denoise", True)
    told = Restored(Path("a.png"), Path("b.png"), notes=("x",), diagnosis=diagnosis)
    assert Restored.from_json(json.loads(json.dumps(told.to_json()))) == told
    job = Job(Path("a.png"), Path("b.png"), mask=Path("m.png"))
    assert Job.from_json(json.loads(json.dumps(job.to_json()))) == job
