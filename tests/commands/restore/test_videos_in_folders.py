"""Videos of a folder, and among several inputs: with the pictures' flags, resumed and skipped as single ones are."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.commands.restore import run
from restormer_cli.commands.restore import video as verb
from restormer_cli.commands.restore import watch as watch_room
from restormer_cli.commands.restore.types import FrameDone, Request, Restored, Started
from restormer_cli.images import segments
from restormer_cli.images import video as room
from restormer_cli.images.video import open_video

av: Any = pytest.importorskip("av", reason=f"PyAV is missing: {room.EXTRA}")

FRAMES = 4
SPEC = ("--degrade", "gaussian:9")


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small lossless film."""
    path = tmp_path_factory.mktemp("film") / "film.mkv"
    with av.open(str(path), "w") as out:
        stream = out.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 32, 24, "yuv420p"
        for number in range(FRAMES):
            pixels = np.full((24, 32, 3), 90 + 20 * number, np.uint8)
            out.mux(stream.encode(av.VideoFrame.from_ndarray(pixels).reformat(format="yuv420p")))
        out.mux(stream.encode(None))
    return path


@pytest.fixture
def folder(tmp_path: Path, film: Path, write_png: Any) -> Path:
    """in/ with a picture and, deeper, a film."""
    write_png(tmp_path / "in" / "b.png")
    (tmp_path / "in" / "trip").mkdir()
    shutil.copy(film, tmp_path / "in" / "trip" / "a.mkv")
    return tmp_path


def restore(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["restore", "--device", "cpu", *map(str, arguments)])


def files(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def count(path: Path) -> int:
    with open_video(path) as video:
        return sum(1 for _ in video.frames())


def words(text: str) -> str:
    return " ".join(text.split())


def test_the_films_of_a_folder_are_restored_with_it(folder, colour_weights):
    page = folder / "page.html"
    flags = ("--weights", colour_weights, "--json", "--report", page)
    result = restore(folder / "in", folder / "out", *flags)
    assert result.exit_code == 0, result.output
    assert files(folder / "out") == ["b.png", "trip/a.mkv"]
    assert "1 picture, 1 video · " in words(result.stderr)
    assert "2 restored, 0 failed" in words(result.stderr)
    document = json.loads(result.stdout)
    assert {key: document["summary"][key] for key in ("pictures", "videos", "restored")} == {
        "pictures": 2,
        "videos": 1,
        "restored": 2,
    }
    assert [(Path(file["input"]).name, file["frames"]) for file in document["files"]] == [("b.png", 1), ("a.mkv", 4)]
    assert document["summary"]["megapixels"] == (9 * 13 + 4 * 32 * 24) / 1e6
    assert "trip/a.mkv" in page.read_text()
    alone = restore(folder / "in" / "trip" / "a.mkv", folder / "alone.mkv", "--weights", colour_weights)
    assert alone.exit_code == 0, alone.output
    assert (folder / "alone.mkv").read_bytes() == (folder / "out" / "trip" / "a.mkv").read_bytes()


def test_a_plan_has_the_films_too_and_writes_nothing(folder, colour_weights):
    result = restore(folder / "in", folder / "out", "--weights", colour_weights, "--dry-run", "--json")
    assert result.exit_code == 0, result.output
    planned = [(file["status"], file["width"], file["height"]) for file in json.loads(result.stdout)["files"]]
    assert planned == [("planned", 13, 9), ("planned", 32, 24)]
    assert not (folder / "out").exists()


def test_films_that_are_there_are_skipped_and_others_refused(folder):
    (folder / "out" / "trip").mkdir(parents=True)
    (folder / "out" / "trip" / "a.mkv").write_bytes(b"mine")
    refused = restore(folder / "in", folder / "out", *SPEC)
    assert refused.exit_code == 2
    assert "a.mkv: already there" in refused.stderr
    result = restore(folder / "in", folder / "out", *SPEC, "--skip-existing")
    assert "1 restored, 1 skipped, 0 failed" in words(result.stderr)
    assert (folder / "out" / "trip" / "a.mkv").read_bytes() == b"mine"


def test_an_interrupted_film_of_a_folder_goes_on(folder, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 2)
    real = verb._compute

    def stopped(*arguments: Any) -> np.ndarray:
        if arguments[4] == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    monkeypatch.setattr(verb, "_compute", stopped)
    first = restore(folder / "in", folder / "out", *SPEC)
    assert first.exit_code == 130
    assert "1 restored, 0 failed" in words(first.stderr)
    assert "go on with --skip-existing; the video goes on at frame 3" in words(first.stderr)
    monkeypatch.setattr(verb, "_compute", real)
    second = restore(folder / "in", folder / "out", *SPEC, "--skip-existing")
    assert "a.mkv: goes on at frame 3" in words(second.stderr)
    assert "1 restored, 1 skipped, 0 failed" in words(second.stderr)
    whole = restore(folder / "in" / "trip" / "a.mkv", folder / "whole.mkv", *SPEC)
    assert whole.exit_code == 0
    assert (folder / "whole.mkv").read_bytes() == (folder / "out" / "trip" / "a.mkv").read_bytes()


def test_a_bad_film_costs_itself_and_no_other(folder, film):
    (folder / "in" / "bad.mp4").write_bytes(b"no film")
    result = restore(folder / "in", folder / "out", *SPEC)
    assert result.exit_code == 3
    assert "2 restored, 1 failed" in words(result.stderr)
    assert "bad.mp4: cannot be read as a video" in words(result.stderr)
    assert files(folder / "out") == ["b.png", "trip/a.mkv"]


def test_a_defect_within_a_film_costs_that_film(folder, monkeypatch):
    def broken(*_: Any) -> np.ndarray:
        raise IndexError("oops")

    monkeypatch.setattr(verb, "_compute", broken)
    result = restore(folder / "in", folder / "out", *SPEC)
    assert result.exit_code == 3
    assert "a defect of restormer-cli, please report it: IndexError: oops" in words(result.stderr)
    assert files(folder / "out") == ["b.png"]


def test_without_the_extra_films_are_left_out_with_the_cure(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    result = restore(folder / "in", folder / "out", *SPEC)
    assert result.exit_code == 0, result.output
    assert "1 left out: 1 .mkv (pip install 'restormer-cli[video]')" in words(result.stderr)
    assert files(folder / "out") == ["b.png"]
    film = folder / "in" / "trip" / "a.mkv"
    result = restore(film, film, folder / "other", *SPEC)
    assert result.exit_code == 2
    assert "nothing but videos, and they are left out: pip install" in words(result.stderr)


def test_names_and_formats_of_either_kind(folder, film):
    shutil.copy(film, folder / "in" / "c.mp4")
    assert restore(folder / "in", folder / "png", *SPEC, "--ext", "png", "--suffix", "_x").exit_code == 0
    assert files(folder / "png") == ["b_x.png", "c_x.mp4", "trip/a_x.mkv"]
    assert restore(folder / "in", folder / "mkv", *SPEC, "--ext", "mkv").exit_code == 0
    assert files(folder / "mkv") == ["b.png", "c.mkv", "trip/a.mkv"]
    (folder / "in" / "trip" / "a.avi").touch()
    result = restore(folder / "in", folder / "out", *SPEC, "--ext", "mkv")
    assert "a.mkv: --ext same keeps them apart, or restore them into two folders" in words(result.stderr)
    result = restore(folder / "in" / "b.png", folder / "in" / "b.png", folder / "out", *SPEC, "--ext", "mkv")
    assert result.exit_code == 2


def test_films_named_among_others_and_of_results(folder, film, write_png):
    result = restore(film, folder / "in", folder / "in" / "out", *SPEC)
    assert result.exit_code == 0, result.output
    assert files(folder / "in" / "out")[1:] == ["film.mkv", "in/b.png", "in/trip/a.mkv"]
    again = restore(folder / "in", folder / "again", *SPEC)
    assert files(folder / "again") == ["b.png", "trip/a.mkv"], again.output


def test_what_is_for_pictures_alone_is_told(folder, write_png, dual_pixel_weights):
    result = restore(folder / "in", folder / "out", *SPEC, "--compare")
    assert result.exit_code == 0, result.output
    assert "a.mkv: --compare is for pictures" in words(result.stderr)
    assert files(folder / "out") == ["b.compare.png", "b.png", "trip/a.mkv"]
    write_png(folder / "right" / "b.png")
    flags = ("--weights", dual_pixel_weights, "--right", folder / "right")
    result = restore(folder / "in", folder / "two", *flags)
    assert result.exit_code == 0, result.output
    assert "1 .mkv (a video has no second views: restore it without --right)" in words(result.stderr)


def test_a_film_takes_the_mask_of_its_name(folder, colour_weights, write_png):
    import imagecodecs

    for name, shape in (("b", (9, 13)), ("trip/a", (24, 32))):
        (folder / "masks" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "masks" / f"{name}.png").write_bytes(imagecodecs.png_encode(np.zeros(shape, np.uint8)))
    flags = ("--weights", colour_weights, "--mask", folder / "masks")
    assert restore(folder / "in", folder / "out", *flags).exit_code == 0
    with open_video(folder / "in" / "trip" / "a.mkv") as one, open_video(folder / "out" / "trip" / "a.mkv") as two:
        for was, now in zip(one.frames(), two.frames(), strict=True):
            assert np.array_equal(was.pixels, now.pixels)


def test_two_runs_share_the_films(folder, film):
    """What the other run has begun is waited for, and taken for done."""
    shutil.copy(film, folder / "in" / "z.mkv")
    request = Request(folder / "in", folder / "out", device="cpu", degrade="gaussian:9", skip_existing=True)
    first = run.restore(request)
    for event in first:
        if isinstance(event, FrameDone):
            break  # it is at the first film
    second = [event for event in _until_waiting(run.restore(request), first) if isinstance(event, Restored)]
    assert [(event.source.name, event.seconds is None, event.error) for event in second] == [
        ("b.png", True, None),
        ("z.mkv", False, None),
        ("a.mkv", True, None),
    ]


def _until_waiting(events: Any, other: Any) -> Any:
    """The events of a run; when it has done its own film the other run comes to its end."""
    for event in events:
        yield event
        if isinstance(event, Restored) and event.source.name == "z.mkv":
            list(other)


def test_a_watch_takes_films(folder, film, monkeypatch):
    monkeypatch.setattr(watch_room, "POLL", 0.01)
    monkeypatch.setattr(watch_room, "SETTLED", 0.0)
    done = []
    for event in run.restore(Request(folder / "in", folder / "out", device="cpu", degrade="gaussian:9", watch=True)):
        assert isinstance(event, Started | FrameDone | Restored)
        if isinstance(event, Restored):
            done.append(event.source.name)
        if len(done) == 2:
            break
    assert sorted(done) == ["a.mkv", "b.png"]
    assert count(folder / "out" / "trip" / "a.mkv") == FRAMES


def test_the_task_of_each_film_is_its_own(folder, monkeypatch):
    from restormer_cli.analysis.decision import Choice

    monkeypatch.setattr(
        "restormer_cli.analysis.decision.choose_task", lambda findings, camera=None: Choice(None, "left alone")
    )
    result = restore(folder / "in", folder / "out", "--task", "auto", "--json")
    assert result.exit_code == 0, result.output
    assert (folder / "out" / "trip" / "a.mkv").read_bytes() == (folder / "in" / "trip" / "a.mkv").read_bytes()
    document = json.loads(result.stdout)
    assert document["summary"]["left_alone"] == 2
    assert document["files"][1]["reason"] == "left alone (3 of 3 frames)"
    monkeypatch.setattr(
        "restormer_cli.analysis.decision.choose_task", lambda findings, camera=None: Choice("derain", "rain")
    )
    result = restore(folder / "in" / "trip", folder / "two", "--task", "auto", "--json")
    document = json.loads(result.stdout)
    assert [(file["task"], file["status"]) for file in document["files"]] == [("derain", "restored")]
