"""Videos: every frame at its own time, sound untouched, depth and colours kept; nothing half done, nothing hidden."""

import gc
import io
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import weakref
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL.Image
import pytest
from typer.testing import CliRunner, Result

from restormer_cli import cli
from restormer_cli.analysis.decision import Choice
from restormer_cli.analysis.findings import analyse
from restormer_cli.commands.restore import run
from restormer_cli.commands.restore import video as verb
from restormer_cli.commands.restore.types import FrameDone, Request
from restormer_cli.errors import UserError
from restormer_cli.hardware import usual_priority
from restormer_cli.images import segments
from restormer_cli.images import video as room
from restormer_cli.images import video_writer as writer_room
from restormer_cli.images.segments import Segments
from restormer_cli.images.video import is_video, open_video
from restormer_cli.images.video_writer import writing

av: Any = pytest.importorskip("av", reason=f"PyAV is missing: {room.EXTRA}")

WIDTH, HEIGHT, FRAMES = 64, 48, 9


def waves(number: int) -> np.ndarray:
    """A smooth picture that moves: uint8 (h, w, 3)."""
    y, x, c = np.ogrid[0:HEIGHT, 0:WIDTH, 0:3]
    return np.rint(128 + 50 * np.sin((x + 2 * number) / 9 + c) * np.cos(y / 11)).astype(np.uint8)


@usual_priority()  # SVT-AV1 would keep the tests' process at real time
def make(path: Path, codec: str = "libx264", form: str = "yuv420p", sound: str | None = "aac", **more: Any) -> Path:
    """A film of uneven frame times, with a tone; `more` goes to the encoder's context."""
    options = {"libx265": {"x265-params": "log-level=none"}, "ffv1": {}}.get(codec, {"crf": "12"})
    with av.open(str(path), "w") as film:
        film.metadata["title"] = "A film"
        stream = film.add_stream(codec, rate=25, options=options)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, form
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        for name, value in more.items():
            setattr(stream.codec_context, name, value)
        tone = film.add_stream(sound, rate=44100, layout="mono") if sound else None
        for number, pts in enumerate(np.cumsum([0, *[20, 75, 20, 30] * 9])[:FRAMES]):
            frame = av.VideoFrame.from_ndarray(waves(number)).reformat(format=form)
            frame.pts, frame.time_base = int(pts), Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
        if tone is not None:
            form = tone.codec_context.format.name
            for number in range(8):
                wave = (3000 * np.sin(np.arange(2048) / 20 + number)).astype(np.int16)[None]
                frame = av.AudioFrame.from_ndarray(
                    wave if form == "s16" else wave.astype(np.float32) / 32768, form, "mono"
                )
                frame.sample_rate, frame.pts = 44100, number * 2048
                film.mux(tone.encode(frame))
            film.mux(tone.encode(None))
    return path


def packets(path: Path, kind: str) -> list[tuple[float, bytes]]:
    """Time and content of every packet of a kind of stream."""
    with av.open(str(path)) as film:
        stream = next(stream for stream in film.streams if stream.type == kind)
        return [(float(p.pts * p.time_base), bytes(p)) for p in film.demux(stream) if p.dts is not None]


def frames(path: Path) -> list[tuple[float, np.ndarray]]:
    with open_video(path) as film:
        return [(float(f.original.time), f.pixels) for f in film.frames()]


def through(source: Path, target: Path, change=lambda pixels: pixels) -> list[str]:
    """A film through our reader and writer; returns the notes."""
    return written(source, target, change)[0]


def written(source: Path, target: Path, change=lambda pixels: pixels) -> tuple[list[str], list[str]]:
    """The notes of the writer and those of the reader."""
    store = Segments(target.with_suffix(".parts"), {})
    with open_video(source) as film, writing(film, target, store) as out:
        for part in out.missing():
            with out.segment() as write:
                for frame in part:
                    write(change(frame.pixels), frame)
        with target.open("w+b") as stream:
            out.join(stream)
        store.close(whole=True)
    return out.notes, film.notes


def restore(*arguments: object) -> Result:
    return CliRunner().invoke(cli.app, ["restore", "--device", "cpu", *map(str, arguments)])


# --- Kept -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("codec", "form", "sound", "suffix"),
    [
        ("libx264", "yuv420p", "aac", ".mp4"),
        ("libx264", "yuv444p10le", "pcm_s16le", ".mov"),
        ("libx265", "yuv422p10le", "aac", ".mkv"),
        ("libvpx-vp9", "yuv420p", None, ".webm"),
        ("ffv1", "gray", None, ".mkv"),
        ("ffv1", "yuva444p10le", None, ".mkv"),
        ("ffv1", "bgr0", "flac", ".mkv"),
    ],
)
def test_times_sound_depth_and_colours_are_kept(tmp_path, codec, form, sound, suffix):
    source = make(
        tmp_path / f"a{suffix}", codec, form, sound, color_range=1, colorspace=1, color_trc=1, color_primaries=1
    )
    target = tmp_path / f"b{suffix}"
    assert through(source, target) == []
    before, after = frames(source), frames(target)
    assert len(after) == FRAMES
    np.testing.assert_allclose([time for time, _ in after], [time for time, _ in before], atol=1e-6)
    assert len({round(b - a, 3) for (a, _), (b, _) in pairwise(after)}) == 3  # uneven, as it was
    for (_, was), (_, now) in zip(before, after, strict=True):
        assert now.shape == was.shape
        assert np.abs(was - now).mean() < (1e-3 if codec == "ffv1" else 0.02)
    if sound:
        assert packets(target, "audio") == packets(source, "audio")
    with av.open(str(source)) as one, av.open(str(target)) as two:
        for name in ("name", "pix_fmt", "color_range", "colorspace", "color_trc", "color_primaries", "width", "height"):
            was, now = (getattr(film.streams.video[0].codec_context, name) for film in (one, two))
            assert was == now, name
        assert two.metadata.get("title", two.metadata.get("TITLE")) == "A film"


@pytest.mark.parametrize(("matrix", "full"), [(1, 1), (1, 2), (5, 1), (9, 1), (2, 0)])
def test_eight_bits_and_back_are_the_same_eight_bits(matrix, full):
    flat = av.VideoFrame.from_ndarray(np.full((HEIGHT, WIDTH, 3), (90, 140, 120), np.uint8)).reformat(format="yuv420p")
    luma = np.asarray(memoryview(flat.planes[0]))
    luma[:] = np.random.default_rng(0).integers(90, 160, luma.size)
    flat.colorspace, flat.color_range = matrix, full
    there = room._to_frame(flat)
    back = room.from_pixels(there.pixels, None, flat, "yuv420p")
    for plane, again in zip(flat.planes, back.planes, strict=True):
        was, now = (np.frombuffer(memoryview(p), np.uint8).astype(int) for p in (plane, again))
        assert np.abs(was - now).max() <= 1
    assert (back.colorspace, back.color_range) == (matrix, full)
    assert 0.2 < there.pixels.mean() < 0.8


def test_another_container_and_a_coder_that_it_holds(tmp_path):
    source = make(tmp_path / "a.mkv", "ffv1", "yuv444p16le", None)
    notes = through(source, tmp_path / "b.mp4")
    assert notes == ["yuv444p16le becomes yuv444p10le"]
    with av.open(str(tmp_path / "b.mp4")) as film:
        assert film.streams.video[0].codec_context.name == "h264"
    assert len(frames(tmp_path / "b.mp4")) == FRAMES


def test_a_turned_film_stays_turned(tmp_path):
    source, target = make(tmp_path / "a.mp4"), tmp_path / "b.mp4"
    turned = tmp_path / "turned.mp4"
    with av.open(str(source)) as one, av.open(str(turned), "w") as two:
        stream = two.add_stream_from_template(one.streams.video[0])
        stream.set_display_rotation(90)
        for packet in one.demux(one.streams.video[0]):
            if packet.dts is not None:
                packet.stream = stream
                two.mux(packet)
    through(turned, target)
    for path in (turned, target):
        with open_video(path) as film:
            assert next(film.frames()).original.rotation in (90, -90)
    with open_video(turned) as one, open_video(target) as two:
        assert next(one.frames()).original.rotation == next(two.frames()).original.rotation


@pytest.mark.parametrize("codec", ["libsvtav1", "libvpx-vp9", "ffv1"])
def test_codings_that_quicktime_does_not_hold_become_another(tmp_path, codec):
    through(make(tmp_path / "a.mkv", codec, "yuv420p", None), tmp_path / "b.mov")
    assert len(frames(tmp_path / "b.mov")) == FRAMES


def test_a_turned_film_in_av1_with_sound_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 3)
    source, target = tmp_path / "a.mp4", tmp_path / "b.mp4"
    with av.open(str(make(tmp_path / "plain.mp4"))) as one, av.open(str(source), "w") as two, usual_priority():
        pictures = two.add_stream("libsvtav1", rate=25, options={"crf": "20"})
        pictures.width, pictures.height, pictures.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        pictures.time_base = pictures.codec_context.time_base = Fraction(1, 1000)
        pictures.set_display_rotation(90)
        sound = two.add_stream_from_template(one.streams.audio[0])
        for packet in one.demux():
            if packet.stream.type == "video":
                for frame in packet.decode():
                    two.mux(pictures.encode(frame))
            elif packet.dts is not None:
                packet.stream = sound
                two.mux(packet)
        two.mux(pictures.encode(None))
    assert interrupted(source, target, 7) == 6
    assert "goes on at frame 7\n" in restore(source, target, "--degrade", "gaussian:9").stderr
    assert restore(source, tmp_path / "whole.mp4", "--degrade", "gaussian:9").exit_code == 0
    assert target.read_bytes() == (tmp_path / "whole.mp4").read_bytes()
    assert packets(target, "audio") == packets(source, "audio")
    with open_video(source) as one, open_video(target) as two:
        assert one.opening.rotation == two.opening.rotation == 90


def test_sound_that_does_not_fit_is_refused_before_any_work(tmp_path):
    source = make(tmp_path / "a.mkv", "ffv1", "gray", "flac")
    with pytest.raises(UserError, match=r"its sound, flac, does not fit in there: name a .mkv"):
        through(source, tmp_path / "b.webm")


# --- The verb -------------------------------------------------------------------------------------------------


def test_what_the_frames_meet_is_told_once(tmp_path, colour_weights, monkeypatch):
    from restormer_cli.engine.restorer import Restorer

    def telling(self, picture, notice):
        notice("memory is too short")
        return picture

    monkeypatch.setattr(Restorer, "__call__", telling)
    source = make(tmp_path / "a.mkv", "ffv1", "yuv444p", None)
    result = restore(source, tmp_path / "out", "--weights", colour_weights, "--json")
    assert json.loads(result.stdout)["files"][0]["warnings"].count("memory is too short") == 1


def test_a_film_is_restored_as_its_frames_would_be(tmp_path, colour_weights):
    from restormer_cli.engine.restorer import Restorer
    from restormer_cli.model.weights import load_weights

    source = make(tmp_path / "a.mkv", "ffv1", "yuv444p", None)
    result = restore(source, tmp_path / "out", "--weights", colour_weights, "--report", tmp_path / "page.html")
    assert result.exit_code == 0, result.output
    assert "9 frames" in result.stderr
    restorer = Restorer(load_weights(colour_weights).model, device="cpu")
    before, after = frames(source), frames(tmp_path / "out" / "a.mkv")
    assert len(after) == FRAMES
    for (_, was), (_, now) in zip(before[:2], after[:2], strict=True):
        wanted = np.clip(restorer(was), 0, 1)
        assert np.abs(wanted - was).mean() > 0.02
        assert np.abs(now - wanted).mean() < 0.01
    assert "9 frames" in (tmp_path / "page.html").read_text()


def test_knobs_and_a_mask_are_for_films_too(tmp_path, colour_weights):
    source = make(tmp_path / "a.mkv", "ffv1", "yuv444p", None)
    height, width = frames(source)[0][1].shape[:2]
    mask = np.zeros((height, width), np.uint8)
    mask[:, width // 2 :] = 255
    (tmp_path / "mask.png").write_bytes(imagecodecs.png_encode(mask))
    weights = ("--weights", colour_weights)
    assert restore(source, tmp_path / "all.mkv", *weights).exit_code == 0
    result = restore(
        source, tmp_path / "part.mkv", *weights, "--luma", 0.5, "--chroma", 0.5, "--mask", tmp_path / "mask.png"
    )
    assert result.exit_code == 0, result.output
    was, whole, part = (frames(tmp_path / name)[1][1] for name in ("a.mkv", "all.mkv", "part.mkv"))
    assert np.abs(part - was)[:, : width // 2].max() < 0.01
    assert np.abs(part - (was + whole) / 2)[:, width // 2 :].mean() < 0.01
    (tmp_path / "small.png").write_bytes(imagecodecs.png_encode(mask[:8]))
    result = restore(source, tmp_path / "b.mkv", *weights, "--mask", tmp_path / "small.png")
    assert result.exit_code == 2
    assert "make them the same size" in result.stderr


def test_frames_are_taken_from_all_of_a_film(tmp_path, monkeypatch):
    film = make(tmp_path / "a.mkv", "ffv1", "yuv444p", None)
    with open_video(film) as video:
        taken = [frame.pixels for frame in video.spread(3)]
    every = [pixels for _, pixels in frames(film)]
    assert [int(np.argmin([np.abs(pixels - one).max() for one in every])) for pixels in taken] == [2, 5, 8]
    with open_video(film) as video:
        assert len(video.spread(50)) == FRAMES - 1  # none twice; the first is over when its part begins
    (tmp_path / "torn.mkv").write_bytes(film.read_bytes()[:900])
    with pytest.raises(UserError, match=r"torn\.mkv: what its pictures are made of"), open_video(tmp_path / "torn.mkv"):
        pass
    monkeypatch.setattr(room.Video, "_decoded", lambda _: iter(()))
    with open_video(film) as video, pytest.raises(UserError, match="not one frame can be decoded"):
        video.spread(3)


def test_one_task_is_chosen_for_a_film_and_said_at_the_start(tmp_path, monkeypatch):
    source = make(tmp_path / "a.mkv", "ffv1", "yuv444p", None)
    said: list[str | None] = []
    monkeypatch.setattr(
        "restormer_cli.commands.restore.steps.analyse_and_choose",
        lambda frame: (analyse(frame), Choice(said.pop(), "noise σ 9: as it may be")),
    )
    said[:] = ["denoise", "derain", "denoise", None, "denoise"]
    result = restore(source, tmp_path / "b.mkv", "--task", "auto", "--json")
    assert result.exit_code == 0, result.output
    assert result.stderr.count("(3 of 5 frames)") == 1
    assert result.stderr.index("(3 of 5 frames)") < result.stderr.index("b.mkv")
    document = json.loads(result.stdout)
    assert (document["run"]["task"], document["run"]["automatic"]) == ("denoise", True)
    (entry,) = document["files"]
    assert (entry["task"], entry["reason"]) == ("denoise", "noise σ 9: as it may be (3 of 5 frames)")
    assert len(frames(tmp_path / "b.mkv")) == FRAMES
    said[:] = ["denoise", "derain", "denoise", None, "derain"]
    result = restore(source, tmp_path / "c.mkv", "--task", "auto", "--dry-run")
    assert "5 frames disagree (denoise, derain, nothing): left alone" in result.stderr
    result = restore(source, tmp_path / "b.mkv", "--task", "auto", "--skip-existing")
    assert "1 skipped" in result.stderr
    result = restore(source, tmp_path / "d.mkv", "--task", "auto", "--weights", "x")
    assert (result.exit_code, "leave --weights and --right out" in result.stderr) == (2, True)


def test_a_film_that_needs_nothing_is_copied(tmp_path, monkeypatch):
    source = make(tmp_path / "a.mkv")
    monkeypatch.setattr("restormer_cli.analysis.decision.choose_task", lambda *_: Choice(None, "left alone"))
    result = restore(source, tmp_path / "b.mkv", "--task", "auto", "--json")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "b.mkv").read_bytes() == source.read_bytes()
    assert json.loads(result.stdout)["summary"]["left_alone"] == 1
    result = restore(source, tmp_path / "b.mp4", "--task", "auto")
    assert "needs nothing, and is only coded anew for .mp4" in result.stderr
    assert len(frames(tmp_path / "b.mp4")) == FRAMES


def test_what_cannot_be_is_refused_in_one_line(tmp_path, colour_weights, dual_pixel_weights, write_png):
    source = make(tmp_path / "a.mp4", sound=None)
    (tmp_path / "torn.mp4").write_bytes(source.read_bytes()[:300])
    (tmp_path / "text.mp4").write_text("not a film")
    (tmp_path / "there.mp4").write_bytes(b"x")
    write_png(tmp_path / "p.png")
    for arguments, words in (
        (("a.mp4", "b.png"), "is a picture's name"),
        (("a.mp4", "b.avi"), "not a video format that can be written"),
        (("a.mp4", "-"), "does not fit through standard output"),
        (("a.mp4", "a.mp4"), "never overwritten"),
        (("a.mp4", "a.mp4", "--overwrite"), "never overwritten"),
        (("a.mp4", "there.mp4"), "--overwrite replaces it"),
        (("torn.mp4", "b.mp4"), "cannot be read as a video"),
        (("text.mp4", "b.mp4"), "cannot be read as a video"),
        (("none.mp4", "b.mp4"), "no such file"),
        (("a.mp4", "b.mp4", "--right", "x"), "no second views"),
        (("a.mp4", "b.mp4", "--mask", tmp_path), "one mask for all its frames"),
        (("a.mp4", "b.mp4", "--weights", dual_pixel_weights), "take two views of a scene"),
    ):
        paths = [tmp_path / name if name != "-" else name for name in arguments[:2]]
        result = restore(*paths, *arguments[2:], *(() if "--weights" in arguments else ("--weights", colour_weights)))
        assert result.exit_code == 2, result.output
        assert words in result.stderr, words
        assert "Traceback" not in result.stderr
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"a.mp4", "torn.mp4", "text.mp4", "there.mp4", "p.png"}


def test_there_already_and_only_planned(tmp_path, colour_weights):
    source = make(tmp_path / "a.mp4", sound=None)
    target = tmp_path / "b.mp4"
    assert restore(source, target, "--weights", colour_weights, "--dry-run").exit_code == 0
    assert not target.exists()
    target.write_bytes(b"mine")
    assert restore(source, target, "--weights", colour_weights, "--skip-existing").exit_code == 0
    assert target.read_bytes() == b"mine"
    assert restore(source, target, "--weights", colour_weights, "--overwrite").exit_code == 0
    assert len(frames(target)) == FRAMES


def test_a_film_that_ends_too_early_is_kept_as_far_as_it_goes(tmp_path, colour_weights):
    source = make(tmp_path / "a.mkv", "ffv1", "yuv420p", None)
    data = source.read_bytes()
    (tmp_path / "torn.mkv").write_bytes(data[: len(data) * 2 // 3])
    result = restore(tmp_path / "torn.mkv", tmp_path / "b.mkv", "--weights", colour_weights)
    assert result.exit_code == 0, result.output
    assert 0 < len(frames(tmp_path / "b.mkv")) < FRAMES


def test_a_full_disk_is_told_and_leaves_nothing(tmp_path, colour_weights, monkeypatch):
    source = make(tmp_path / "a.mp4", sound=None)

    class Full(io.FileIO):
        def write(self, data):
            raise OSError(28, "No space left on device")

    real = Path.open
    monkeypatch.setattr(
        Path, "open", lambda self, *a, **k: Full(self, "w+") if self.suffix == ".part" else real(self, *a, **k)
    )
    result = restore(source, tmp_path / "b.mp4", "--weights", colour_weights)
    assert result.exit_code == 1
    assert "No space left on device" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


def test_a_killed_run_is_gone_on_with_and_leaves_nothing_else(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 4)
    source = make(tmp_path / "a.mp4")
    out = tmp_path / "out"
    code = (
        "import sys, time\nfrom restormer_cli.commands.restore.run import restore\n"
        "from restormer_cli.commands.restore.types import FrameDone, Request\n"
        "from restormer_cli.images import segments\nfrom pathlib import Path\nsegments.LENGTH = 4\n"
        "for event in restore(Request(Path(sys.argv[1]), Path(sys.argv[2]), degrade='gaussian:9', device='cpu')):\n"
        "    if isinstance(event, FrameDone) and event.frames == 6:\n        print('now', flush=True); time.sleep(60)\n"
    )
    arguments = [sys.executable, "-c", code, str(source), str(out / "b.mp4")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGKILL)
    assert not (out / "b.mp4").exists()
    result = restore(source, out / "b.mp4", "--degrade", "gaussian:9")
    assert result.exit_code == 0, result.output
    assert "note: goes on at frame 5" in result.stderr
    assert [path.name for path in out.iterdir()] == ["b.mp4"]
    assert restore(source, tmp_path / "whole.mp4", "--degrade", "gaussian:9").exit_code == 0
    assert (out / "b.mp4").read_bytes() == (tmp_path / "whole.mp4").read_bytes()


def interrupted(source: Path, target: Path, after: int, **options: Any) -> int:
    """A run that is stopped after so many frames; how many of them stay."""
    for event in run.restore(Request(source, target, device="cpu", **{"degrade": "gaussian:9", **options})):
        if isinstance(event, FrameDone) and event.frames == after:
            return event.kept
    raise AssertionError("it came to its end")


@pytest.mark.parametrize(
    ("codec", "form", "suffix", "after"),
    [
        ("libx264", "yuv420p", ".mov", 4),
        ("libx265", "yuv420p", ".mkv", 7),
        ("libvpx-vp9", "yuv420p", ".webm", 8),
        ("libsvtav1", "yuv420p", ".mp4", 7),
        ("ffv1", "yuva444p10le", ".mkv", 9),
    ],
)
def test_going_on_makes_the_bytes_of_a_run_without_interruption(tmp_path, monkeypatch, codec, form, suffix, after):
    monkeypatch.setattr(segments, "LENGTH", 3)
    source = make(tmp_path / f"a{suffix}", codec, form, "aac" if suffix == ".mov" else None)
    whole, resumed = tmp_path / f"whole{suffix}", tmp_path / f"resumed{suffix}"
    assert restore(source, whole, "--degrade", "gaussian:9").exit_code == 0
    kept = interrupted(source, resumed, after)
    assert kept == (after - 1) // 3 * 3
    result = restore(source, resumed, "--degrade", "gaussian:9")
    assert f"goes on at frame {kept + 1}\n" in result.stderr
    assert resumed.read_bytes() == whole.read_bytes()
    assert [time for time, _ in packets(whole, "video")] == [time for time, _ in packets(resumed, "video")]
    assert len(frames(whole)) == FRAMES
    with av.open(str(whole)) as film:  # as containers want it
        stamps = [packet.dts for packet in film.demux(video=0) if packet.dts is not None]
        assert stamps == sorted(set(stamps))


def test_another_request_starts_again_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 3)
    source, target = make(tmp_path / "a.mkv", "ffv1", "yuv420p", None), tmp_path / "b.mkv"
    assert interrupted(source, target, 7) == 6
    result = restore(source, target, "--degrade", "gaussian:9", "--seed", "1")
    assert result.exit_code == 0
    assert "with other settings: it starts again" in " ".join(result.stderr.split())
    assert "goes on" not in result.stderr
    assert {path.name for path in tmp_path.iterdir()} == {"a.mkv", "b.mkv"}


def test_what_went_before_counts_in_the_account(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 3)
    source = make(tmp_path / "a.mkv", "ffv1", "yuv420p", None)
    reports = []
    for name in ("whole.mkv", "resumed.mkv"):
        if name == "resumed.mkv":
            interrupted(source, tmp_path / name, 7)
        result = restore(source, tmp_path / name, "--degrade", "gaussian:9", "--json")
        reports.append(json.loads(result.stdout)["files"][0])
    assert reports[0]["change"] == reports[1]["change"] > 1
    assert "9 frames" in reports[1]["warnings"]


def test_a_damaged_segment_is_made_again(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 3)
    source, target = make(tmp_path / "a.mkv", "ffv1", "yuv420p", None), tmp_path / "b.mkv"
    interrupted(source, target, 9)
    (folder,) = tmp_path.glob(".restormer-*.video")
    second = folder / "000001.segment"
    second.write_bytes(second.read_bytes()[:-20])
    result = restore(source, target, "--degrade", "gaussian:9")
    assert "goes on at frame 4\n" in result.stderr
    assert len(frames(target)) == FRAMES


def test_ctrl_c_tells_where_it_will_go_on(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 3)
    source = make(tmp_path / "a.mkv", "ffv1", "yuv420p", None)

    def stopped(*_: object) -> None:
        raise KeyboardInterrupt

    real = verb._compute
    monkeypatch.setattr(verb, "_compute", lambda *a: stopped() if a[4] == 7 else real(*a))
    result = restore(source, tmp_path / "b.mkv", "--degrade", "gaussian:9")
    assert result.exit_code == 130
    assert "after 7 frames; the same command goes on at frame 7" in " ".join(result.stderr.split())


def test_two_runs_of_one_film_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 3)
    source, target = make(tmp_path / "a.mkv", "ffv1", "yuv420p", None), tmp_path / "b.mkv"
    first = run.restore(Request(source, target, device="cpu", degrade="gaussian:9"))
    assert [type(next(first)).__name__ for _ in range(3)] == ["Started", "FrameDone", "FrameDone"]
    result = restore(source, target, "--degrade", "gaussian:9")
    assert result.exit_code == 1
    assert "is restoring it now" in " ".join(result.stderr.split())
    assert sum(isinstance(event, FrameDone) for event in first) == FRAMES - 2


def test_degraded_films_are_the_same_for_the_same_seed(tmp_path):
    source = make(tmp_path / "a.mkv", "ffv1", "yuv444p", None)
    for name in ("b.mkv", "c.mkv"):
        assert restore(source, tmp_path / name, "--degrade", "gaussian:25", "--seed", "3").exit_code == 0
    one, two, was = frames(tmp_path / "b.mkv"), frames(tmp_path / "c.mkv"), frames(source)
    assert all(np.array_equal(a, b) for (_, a), (_, b) in zip(one, two, strict=True))
    assert np.abs(one[0][1] - was[0][1]).mean() > 0.03
    assert not np.allclose(one[0][1] - was[0][1], one[1][1] - was[1][1], atol=0.01)  # not the same noise on each


def test_without_pyav_the_cure_is_told(tmp_path, monkeypatch):
    source = make(tmp_path / "a.mp4", sound=None)
    monkeypatch.setitem(sys.modules, "av", None)
    result = restore(source, tmp_path / "b.mp4")
    assert result.exit_code == 2
    assert "pip install 'restormer-cli[video]'" in result.stderr


def test_memory_does_not_grow_with_the_film(tmp_path):
    """Of a film of many frames only those in flight are alive."""
    source = make(tmp_path / "a.mkv", "ffv1", "yuv420p", None)
    alive: list[weakref.ref] = []
    most = 0
    store = Segments(tmp_path / "parts", {})
    with open_video(source) as film, writing(film, Path("b.mkv"), store) as out, out.segment() as write:
        for frame in next(out.missing()):
            alive.append(weakref.ref(frame))
            write(frame.pixels, frame)
            del frame
            gc.collect()
            most = max(most, sum(reference() is not None for reference in alive))
    assert len(alive) == FRAMES
    assert most <= 2


def test_names():
    assert is_video(Path("a.MP4"))
    assert not is_video(Path("a.png"))


# --- Facts that are not in the tags ---------------------------------------------------------------------------

FILMS = Path(__file__).parent / "films"


def told(source: Path, target: Path) -> str:
    """All that is told of a film on its way."""
    writer, reader = written(source, target)
    return "; ".join([*writer, *reader])


def test_a_turned_film_with_sound_stays_turned(tmp_path):
    told(FILMS / "rot.mp4", tmp_path / "b.mp4")
    with open_video(tmp_path / "b.mp4") as film:
        assert next(film.frames()).original.rotation == -90
    assert packets(tmp_path / "b.mp4", "audio") == packets(FILMS / "rot.mp4", "audio")


def test_hevc_in_mp4_is_tagged_as_players_want_it(tmp_path):
    source = make(tmp_path / "a.mkv", "libx265", "yuv420p", None)
    told(source, tmp_path / "b.mp4")
    with av.open(str(tmp_path / "b.mp4")) as film:
        assert film.streams.video[0].codec_context.codec_tag == "hvc1"


def test_a_film_of_quicktime_keeps_its_place_and_maker(tmp_path):
    source, place = (
        tmp_path / "a.mov",
        {"com.apple.quicktime.location.ISO6709": "+48.1+011.5/", "com.apple.quicktime.make": "A"},
    )
    plain = make(tmp_path / "plain.mov", sound=None)
    with av.open(str(plain)) as one, av.open(str(source), "w", options={"movflags": "use_metadata_tags"}) as two:
        two.metadata.update(place)
        copy = two.add_stream_from_template(one.streams.video[0])
        for packet in one.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                two.mux(packet)
    for name in ("b.mov", "b.mp4"):
        told(source, tmp_path / name)
        with av.open(str(tmp_path / name)) as film:
            assert place.items() <= film.metadata.items()


def test_an_interlaced_film_is_told(tmp_path):
    assert "interlaced and the result does not say so: --deinterlace" in told(FILMS / "inter.mp4", tmp_path / "b.mp4")


def test_a_film_that_ends_early_is_told(tmp_path):
    assert "ends early: 0.84 of 1.22 seconds" in told(FILMS / "trunc.mkv", tmp_path / "b.mkv")
    assert told(make(tmp_path / "a.mkv"), tmp_path / "c.mkv") == ""


def alphas(path: Path) -> list[np.ndarray]:
    """Transparency as libvpx sees it, frame by frame."""
    decoder = av.VideoCodecContext.create("libvpx-vp9", "r")
    with av.open(str(path)) as film:
        shown = [frame for packet in film.demux(video=0) for frame in decoder.decode(packet)]
    planes = [(frame.planes[3], frame.width) for frame in shown if len(frame.planes) == 4]
    return [np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)[:, :width] for plane, width in planes]


def seen_through(path: Path, frames: int = 6) -> Path:
    """A WebM whose right half is nearly transparent, and more so with each frame."""
    with av.open(str(path), "w") as film:
        stream: Any = film.add_stream("libvpx-vp9", rate=25, options={"crf": "10", "b:v": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuva420p"
        for number in range(frames):
            picture = np.dstack([waves(number)[:48, :64], np.full((48, 64), 255, np.uint8)])
            picture[:, 32:, 3] = 60 - 5 * number
            frame = av.VideoFrame.from_ndarray(picture, "rgba").reformat(format="yuva420p")
            frame.pts = number
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("suffix", [".webm", ".mkv"])
def test_transparency_beside_the_frames_is_kept(tmp_path, monkeypatch, suffix):
    monkeypatch.setattr(segments, "LENGTH", 4)
    source, target = seen_through(tmp_path / "a.webm"), tmp_path / f"b{suffix}"
    assert "transparency" not in told(source, target)
    before, after = alphas(source), alphas(target)
    assert len(before) == len(after) == 6
    assert max(np.abs(one.astype(int) - two).max() for one, two in zip(before, after, strict=True)) < 6
    with open_video(source) as film:
        assert [frame.alpha is not None for frame in film.spread(3)] == [True] * 3
    assert "transparency" not in told(FILMS / "alpha.webm", tmp_path / "c.webm")
    assert len(alphas(tmp_path / "c.webm")) == 25


def test_transparency_that_cannot_be_kept_is_told_and_not_claimed(tmp_path, monkeypatch):
    source = seen_through(tmp_path / "a.webm", 2)
    for suffix in (".mp4", ".mov"):
        assert told(source, tmp_path / f"b{suffix}").count("its transparency is not kept") == 1
    monkeypatch.setattr(av.VideoCodecContext, "create", refused)
    assert "transparency is not kept" in told(source, tmp_path / "c.webm")
    with av.open(str(tmp_path / "c.webm")) as film:
        assert "alpha_mode" not in {key.lower() for key in film.streams.video[0].metadata}
    monkeypatch.undo()
    assert alphas(tmp_path / "c.webm") == []


def test_a_gif_without_transparency_loses_none(tmp_path):
    frames = [PIL.Image.fromarray(waves(number)[:48, :64]) for number in range(3)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    assert "transparency" not in told(tmp_path / "a.gif", tmp_path / "b.mp4")
    mask = PIL.Image.new("L", (64, 48), 255)
    mask.paste(0, (0, 0, 20, 20))
    for frame in frames:
        frame.putalpha(mask)
    frames[0].save(tmp_path / "c.gif", save_all=True, append_images=frames[1:], disposal=2)
    assert told(tmp_path / "c.gif", tmp_path / "d.mp4").count("its transparency is not kept") == 1


def refused(name: str, mode: str) -> None:
    raise ValueError(name)


@pytest.mark.parametrize("form", ["yuvj420p", "yuvj422p"])
def test_a_film_of_odd_size_is_written(tmp_path, form):
    source, target = tmp_path / "a.avi", tmp_path / "b.mkv"
    with av.open(str(source), "w") as film:
        stream = film.add_stream("mjpeg", rate=25)
        stream.width, stream.height, stream.pix_fmt = 63, 47, form
        frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(waves(0)[:47, :63])).reformat(format=form)
        film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    assert "since its size is odd" in told(source, target)
    assert frames(target)[0][1].shape == (47, 63, 3)


def test_a_film_whose_size_changes_is_kept_so_far(tmp_path):
    source = tmp_path / "a.ts"
    with source.open("wb") as joined:
        for width in (64, 96):
            part = tmp_path / f"{width}.ts"
            with av.open(str(part), "w") as film:
                stream = film.add_stream("mpeg2video", rate=25)
                stream.width, stream.height, stream.pix_fmt = width, 48, "yuv420p"
                for number in range(10):
                    frame = av.VideoFrame.from_ndarray(np.full((48, width, 3), 90 + number, np.uint8))
                    film.mux(stream.encode(frame.reformat(format="yuv420p")))
                film.mux(stream.encode(None))
            joined.write(part.read_bytes())
    assert "its size becomes 96 × 48 after" in told(source, tmp_path / "b.mkv")
    assert all(pixels.shape == (48, 64, 3) for _, pixels in frames(tmp_path / "b.mkv"))


def test_a_film_that_begins_late_is_moved_to_its_beginning(tmp_path):
    source = tmp_path / "a.ts"
    with av.open(str(source), "w") as film:
        stream = film.add_stream("mpeg2video", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for number in range(10):
            frame = av.VideoFrame.from_ndarray(waves(number)).reformat(format="yuv420p")
            frame.pts, frame.time_base = 50_001 * 25 + number, Fraction(1, 25)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    told(source, tmp_path / "b.mkv")
    with av.open(str(tmp_path / "b.mkv")) as film:
        assert film.duration < 2_000_000


def test_films_by_other_names_are_films(tmp_path):
    assert is_video(Path("a.VOB"))
    assert is_video(Path("a.mxf"))
    told(FILMS / "anim.gif", tmp_path / "b.mkv")
    assert len(frames(tmp_path / "b.mkv")) > 1


# --- Fields ---------------------------------------------------------------------------------------------------


def weave(path: Path, count: int = 7) -> Path:
    """A film of fields, the lower first: a bar that moves by four pixels from each to the next, at uneven times."""
    with av.open(str(path), "w") as film:
        stream = film.add_stream("libx264", rate=25, options={"x264-params": "bff=1", "qp": "0"})
        stream.width, stream.height, stream.pix_fmt = 64, 32, "yuv420p"
        stream.time_base = stream.codec_context.time_base = Fraction(1, 1000)
        rows, columns = np.mgrid[0:32, 0:64]
        for number in range(count):
            left = 4 * (2 * number + 1 - rows % 2)
            bar = np.where((columns >= left) & (columns < left + 9), 200, 60).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(np.stack([bar] * 3, axis=2)).reformat(format="yuv420p")
            frame.pts, frame.time_base = 40 * number + number % 2, Fraction(1, 1000)
            film.mux(stream.encode(frame))
        film.mux(stream.encode(None))
    return path


def combed(pixels: np.ndarray) -> float:
    """How far rows lie from the mean of their neighbours."""
    return float(np.abs(pixels[1:-1] - (pixels[:-2] + pixels[2:]) / 2).mean())


def test_fields_become_whole_frames_each_at_its_time(tmp_path):
    source = weave(tmp_path / "a.mkv")
    with open_video(source, deinterlace=True) as film:
        whole = [(float(frame.original.time), frame.pixels) for frame in film.frames()]
        assert film.notes == []
    fields = frames(source)
    assert [time for time, _ in whole] == [time for time, _ in fields]
    for (_, was), (_, now) in zip(fields, whole, strict=True):
        assert combed(was) > 0.05
        assert combed(now) < combed(was) / 4
        assert np.abs(now[1::2] - was[1::2]).max() < 0.01  # the field that is shown first is as it was
    with open_video(source, deinterlace=True) as film:
        assert all(combed(frame.pixels) < 0.03 for frame in film.spread(3))


@pytest.mark.parametrize(
    ("form", "colours"),
    [("yuv420p", {"colorspace": 1, "color_range": 2}), ("yuv422p10le", {"colorspace": 9}), ("gray", {}), ("bgr0", {})],
)
def test_whole_frames_stay_as_they_are(tmp_path, form, colours):
    source = make(tmp_path / "a.mkv", "ffv1", form, None, **colours)
    found = []
    for flag in (False, True):
        with open_video(source, deinterlace=flag) as film:
            originals = list(film.originals())
            found.append(([f.time for f in originals], [(f.colorspace, f.color_range) for f in originals]))
            found[-1] += ([room._to_frame(f).pixels for f in originals],)
            assert ("leaves them alone" in " ".join(film.notes)) == flag
    assert found[0][:2] == found[1][:2]
    assert np.array_equal(found[0][2], found[1][2])


def test_a_deinterlaced_film_says_so_and_goes_on_where_it_was(tmp_path, monkeypatch):
    monkeypatch.setattr(segments, "LENGTH", 3)
    source = weave(tmp_path / "a.mkv")
    flags = ("--degrade", "gaussian:9", "--deinterlace")
    assert interrupted(source, tmp_path / "b.mkv", 5, deinterlace=True) == 3
    other = restore(source, tmp_path / "whole.mkv", *flags)
    assert "it is interlaced" not in other.stderr
    result = restore(source, tmp_path / "b.mkv", *flags)
    assert "goes on at frame 4\n" in result.stderr
    assert (tmp_path / "b.mkv").read_bytes() == (tmp_path / "whole.mkv").read_bytes()
    with open_video(tmp_path / "b.mkv") as film:
        assert not any(frame.interlaced_frame for frame in film.originals())
    assert interrupted(source, tmp_path / "c.mkv", 5) == 3
    result = restore(source, tmp_path / "c.mkv", *flags)
    assert "with other settings: it starts again" in " ".join(result.stderr.split())


@pytest.mark.skipif(shutil.which("ffprobe") is None, reason="no ffprobe")
def test_a_deinterlaced_film_is_called_progressive(tmp_path, monkeypatch):
    monkeypatch.setitem(writer_room.ENCODERS, "h264", "ffv1")  # which says it in no other way
    target = tmp_path / "b.mkv"
    assert restore(weave(tmp_path / "a.mkv"), target, "--degrade", "gaussian:9", "--deinterlace").exit_code == 0
    told = subprocess.run(["ffprobe", "-v", "error", "-show_streams", target], capture_output=True, text=True).stdout
    assert "field_order=progressive" in told


def test_a_film_that_needs_nothing_else_is_deinterlaced(tmp_path, monkeypatch, write_png):
    monkeypatch.setattr("restormer_cli.analysis.decision.choose_task", lambda *_: Choice(None, "left alone"))
    source = weave(tmp_path / "a.mkv")
    result = restore(source, tmp_path / "b.mkv", "--task", "auto", "--deinterlace")
    assert "needs nothing, and is only deinterlaced" in result.stderr
    assert all(combed(pixels) < 0.03 for _, pixels in frames(tmp_path / "b.mkv"))
    plain = make(tmp_path / "plain.mkv", sound=None)
    assert restore(plain, tmp_path / "copy.mkv", "--task", "auto", "--deinterlace").exit_code == 0
    assert (tmp_path / "copy.mkv").read_bytes() == plain.read_bytes()
    picture = write_png(tmp_path / "p.png")
    result = restore(picture, tmp_path / "q.png", "--degrade", "gaussian:9", "--deinterlace")
    assert "note: --deinterlace is for videos, and there is none" in result.stderr


# --- The film's own range -------------------------------------------------------------------------------------


def frame_of(form: str, extent: int, luma: int | None = None) -> Any:
    """A frame of random samples, those that no picture has among them; or of one luma and no colour."""
    made = av.VideoFrame(66, 50, form)
    made.colorspace, made.color_range = 1, extent
    bits = max(component.bits for component in made.format.components)
    random, kind = np.random.default_rng(0), np.dtype(np.uint8 if bits == 8 else np.uint16)
    for index, plane in enumerate(made.planes):
        count = plane.buffer_size // kind.itemsize
        flat = luma if index == 0 else 128 << (bits - 8)
        samples = random.integers(0, 2**bits, count) if luma is None else np.full(count, flat)
        plane.update(samples.astype(kind).tobytes())
    return made


def lumas(frame: Any) -> list[np.ndarray]:
    """The visible part of each plane."""
    wide = max(component.bits for component in frame.format.components) > 8
    planes = [(np.frombuffer(memoryview(plane), np.uint16 if wide else np.uint8), plane) for plane in frame.planes]
    return [seen.reshape(plane.height, -1)[:, : plane.width].astype(int) for seen, plane in planes]


@pytest.mark.parametrize("form", ["yuv420p", "yuv422p10le", "yuv444p12le", "nv12", "yuv420p10le"])
@pytest.mark.parametrize("extent", [1, 2])
def test_what_is_left_alone_stays_to_the_bit(form, extent):
    original = frame_of(form, extent)
    frame = room._to_frame(original)
    made = room.from_pixels(frame.pixels, None, original, form)
    room.carry_change(made, room.from_pixels(frame.pixels, None, original, form), original)
    for seen, own in zip(lumas(made), lumas(original), strict=True):
        assert np.array_equal(seen, own)


@pytest.mark.parametrize(("form", "white"), [("yuv420p", 235), ("yuv420p10le", 940), ("yuv422p12le", 3760)])
def test_white_is_one_and_light_beyond_it_is_kept(form, white):
    assert abs(room._to_frame(frame_of(form, 1, white)).pixels - 1).max() < 1e-3
    step = white // 235
    original = frame_of(form, 1, 245 * step)
    frame = room._to_frame(original)
    assert frame.pixels.max() == 1
    darker = room.from_pixels(frame.pixels * 0.9, None, original, form)
    room.carry_change(darker, room.from_pixels(frame.pixels, None, original, form), original)
    kind = np.uint8 if step == 1 else np.uint16
    luma = np.frombuffer(memoryview(darker.planes[0]), kind)[:66].astype(float)
    assert np.abs(luma / step - (245 - 0.1 * 219)).max() < 1.1


def test_an_hdr_film_is_shown_to_the_network_as_sdr(tmp_path, colour_weights):
    source = make(
        tmp_path / "a.mkv", "libx265", "yuv420p10le", None, color_primaries=9, color_trc=16, colorspace=9, color_range=1
    )
    with open_video(source) as film:
        frame = next(iter(film.frames()))
        working = film.working(frame.pixels)
    assert working is not None
    gray = np.full((2, 2, 3), 0.58, np.float32)  # paper white in PQ
    assert working.show(gray).min() > 0.97
    result = restore(source, tmp_path / "b.mkv", "--weights", colour_weights, "--strength", "0")
    assert result.exit_code == 0, result.output
    assert "mastering" not in result.output  # it has none


SCREEN = ((0.17, 0.797), (0.131, 0.046), (0.708, 0.292), (0.3127, 0.329))
"""Green, blue, red and white of the screen on which a film was mastered."""


def mastering(path: Path) -> tuple[list[float], tuple[int, int]]:
    """The screen (green, blue, red, white, most and least light), and the light of the film, by its first frame."""
    with open_video(path) as film:
        opening = film.opening
    assert opening.mastering is not None
    assert opening.light is not None
    *numbers, _, _ = struct.unpack_from("=20i2i", opening.mastering)
    red, green, blue, white, light = ([a / b for a, b in batched(numbers[at : at + 4])] for at in range(0, 20, 4))
    return [*green, *blue, *red, *white, light[1], light[0]], struct.unpack_from("=2I", opening.light)


def batched(numbers: list[int]) -> list[tuple[int, int]]:
    return list(zip(numbers[::2], numbers[1::2], strict=True))


@pytest.mark.parametrize("suffix", [".mkv", ".mp4"])
@pytest.mark.parametrize("codec", ["libx264", "libx265", "libsvtav1"])
def test_the_mastering_of_an_hdr_film_is_kept(tmp_path, monkeypatch, codec, suffix):
    steps = [(round(x * 50_000), round(y * 50_000)) for x, y in SCREEN]
    words = "".join(f"{name}({x},{y})" for name, (x, y) in zip(("G", "B", "R", "WP"), steps, strict=True))
    colours = {"color_primaries": 9, "color_trc": 16, "colorspace": 9, "color_range": 1}
    source = tmp_path / "a.mkv"
    parameters = f"log-level=none:master-display={words}L(10000000,50):max-cll=1000,400"
    with av.open(str(source), "w") as film:
        stream = film.add_stream("libx265", rate=25, options={"x265-params": parameters})
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p10le"
        for name, value in colours.items():
            setattr(stream.codec_context, name, value)
        film.mux(stream.encode(av.VideoFrame.from_ndarray(waves(0)).reformat(format="yuv420p10le")))
        film.mux(stream.encode(None))
    monkeypatch.setitem(writer_room.ENCODERS, "hevc", codec)
    assert "mastering" not in told(source, tmp_path / f"b{suffix}")
    screen, light = mastering(tmp_path / f"b{suffix}")
    wanted = [value for point in SCREEN for value in point]
    np.testing.assert_allclose(screen, [*wanted, 1000, 0.005], atol=2e-4)
    assert light == (1000, 400)


def test_mastering_that_an_encoder_does_not_write_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr(room.Video, "opening", room.Opening(0, bytes(88), None))
    assert "mastering data are not kept" in told(make(tmp_path / "a.mkv", "ffv1", sound=None), tmp_path / "b.mkv")


def test_strip_and_sign_are_for_films_too(tmp_path):
    source = make(tmp_path / "a.mp4")
    for name in ("b.mp4", "b.mkv"):
        for flags, title, remark in (
            ((), True, False),
            (("--strip",), False, False),
            (("--strip", "--sign"), False, True),
        ):
            arguments = (source, tmp_path / name, "--degrade", "gaussian:9", "--overwrite", *flags)
            result = restore(*arguments)
            assert result.exit_code == 0, result.output
            with av.open(str(tmp_path / name)) as film:
                tags = {key.lower(): value for key, value in film.metadata.items()}
            assert ("title" in tags) == title
            assert tags.get("comment", "").startswith("restormer-cli") == remark
            assert not remark or "gaussian" in tags["comment"]
            assert packets(tmp_path / name, "audio")


def test_a_sound_track_that_is_unknown_is_left_out_with_a_note(tmp_path, colour_weights):
    """As phones write spatial audio beside the ordinary one."""
    source = make(tmp_path / "a.mov")
    with av.open(str(source)) as film, av.open(str(tmp_path / "two.mov"), "w") as out:
        copies = {s.index: out.add_stream_from_template(s) for s in film.streams}
        spatial = out.add_stream_from_template(film.streams.audio[0])
        for packet in film.demux():
            if packet.dts is None:
                continue
            if packet.stream.type == "audio":
                twin = av.Packet(bytes(packet))
                twin.pts, twin.dts, twin.time_base = packet.pts, packet.dts, packet.time_base
                twin.stream = spatial
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
                out.mux(twin)
            else:
                packet.stream = copies[packet.stream.index]
                out.mux(packet)
    data = (tmp_path / "two.mov").read_bytes()
    place = data.index(b"mp4a", data.index(b"stsd", data.index(b"soun", data.rindex(b"trak"))))
    unknown = bytearray(data)
    unknown[place : place + 4] = b"apac"
    wave = data.index(b"wave", place)
    unknown[wave : wave + 4] = b"free"
    (tmp_path / "phone.mov").write_bytes(bytes(unknown))
    result = restore(tmp_path / "phone.mov", tmp_path / "out.mov", "--weights", colour_weights, "--strength", "0")
    assert result.exit_code == 0, result.output
    assert "sound track of an unknown kind is left out" in " ".join(result.output.split())
    assert packets(tmp_path / "out.mov", "audio") == packets(source, "audio")


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="no such scheduling here")
def test_an_encoder_that_takes_real_time_gives_it_back() -> None:
    """As SVT-AV1 does as root: with another policy here, which everyone may take."""
    before = os.sched_getscheduler(0)
    begun, ended = threading.Event(), threading.Event()
    with usual_priority():
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
        own = threading.Thread(target=lambda: (begun.set(), ended.wait(30)))  # begins with what its maker has
        own.start()
        begun.wait(30)
        assert os.sched_getscheduler(own.native_id or 0) == os.SCHED_BATCH
    try:
        assert os.sched_getscheduler(0) == os.sched_getscheduler(own.native_id or 0) == before
    finally:
        ended.set()
        own.join()


@pytest.mark.skipif(not hasattr(os, "sched_setscheduler"), reason="no such scheduling here")
def test_a_film_in_av1_leaves_the_machine_to_others(tmp_path: Path) -> None:
    source = make(tmp_path / "in.mkv", "libsvtav1", sound=None)
    before = os.sched_getscheduler(0)
    with open_video(source) as video, writing(video, tmp_path / "out.mkv", Segments(tmp_path / "parts", {}), 95) as out:
        for frames in out.missing():
            with out.segment() as write:
                for frame in frames:
                    write(frame.pixels, frame)
        assert os.sched_getscheduler(0) == before


def test_equal_frames_become_equal_bytes_whatever_memory_held(tmp_path):
    source = make(tmp_path / "a.mp4")
    for number in range(3):  # glibc fills fresh memory so; x264 once planned by memory that it had not written
        command = [sys.executable, "-m", "restormer_cli", "restore", str(source), str(tmp_path / f"{number}.mp4")]
        environment = os.environ | {"MALLOC_PERTURB_": str(85 * number)}
        subprocess.run([*command, "--degrade", "gaussian:9"], env=environment, check=True, capture_output=True)
    assert len({(tmp_path / f"{number}.mp4").read_bytes() for number in range(3)}) == 1
