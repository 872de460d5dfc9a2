"""What people see of a restoration: a bar on a terminal, else plain lines, nothing on stdout."""

from dataclasses import replace
from pathlib import Path

import pytest

from restormer_cli.commands.restore.types import Restored, Started
from restormer_cli.commands.restore.view import RestoringView, show_restoring


def restoring_started() -> Started:
    (started, *_) = restoring()
    assert isinstance(started, Started)
    return started


def restoring() -> list[object]:
    started = Started(
        pictures=4,
        weights=Path("checkpoints/denoise.safetensors"),
        task="denoise",
        assumed=True,
        device="cpu",
        precision="fp32",
        tile=512,
        notes=("a word",),
    )
    return [
        started,
        Restored(Path("in/a.png"), Path("out/a.png"), 1000, 500, 2.0),
        Restored(Path("in/b.png"), Path("out/b.png"), 1000, 1000, 1.0, notes=("16 bits become 8",)),
        Restored(Path("in/c.png"), Path("out/c.png")),
        Restored(Path("in/d.png"), Path("out/d.png"), error="in/d.png: is torn"),
    ]


def test_restoring_without_a_terminal_is_a_line_per_picture_on_stderr(capsys, clock):
    def events():
        for event in restoring():
            yield event
            clock.now += 0.75

    assert show_restoring(events()) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.splitlines() == [
        "no --task or --weights given: using the bundled denoise checkpoint",
        "4 pictures · denoise.safetensors · cpu, fp32, tiles of 512",
        "note: a word",
        "out/a.png  1000×500  2.0 s",
        "out/b.png  1000×1000  1.0 s",
        "note: in/b.png: 16 bits become 8",
        "error: in/d.png: is torn",
        "2 restored, 1 skipped, 1 failed, 0.40 megapixels per second",
    ]


def test_the_summary_tells_precision_plans_and_memory(clock):
    view = RestoringView()
    view.start(replace(restoring_started(), pictures=3))
    for plan, peak in (("whole picture", 2_000_000_000), ("tiles of 512", 900_000_000), ("whole picture", None)):
        clock.now += 1
        view.add(Restored(Path("a.png"), Path("b.png"), 1000, 1000, 1.0, plan=plan, peak_bytes=peak))
    assert view.summary() == (
        "3 restored, 0 failed, 1.00 megapixels per second (fp32, whole picture, tiles of 512 1×, at most 2.00 GB)"
    )


def test_the_time_left_follows_the_bytes_of_each_format(clock):
    """JPEGs of ten pixels a byte and TIFFs of one: what is left is counted in pixels, not in bytes."""
    view = RestoringView()
    view.start(replace(restoring_started(), pictures=4, bytes_by_format={".jpg": 200_000, ".tif": 2_000_000}))
    assert view.seconds_left() is None
    for name, length in (("a.jpg", 100_000), ("b.tif", 1_000_000)):
        clock.now += 5
        view.add(Restored(Path(name), Path("out"), 1000, 1000, 1.0, input_bytes=length))
    assert view.seconds_left() == pytest.approx(10)  # a picture of each kind, both of a megapixel
    assert view.rates() == "0.2 pictures/s · 0.20 megapixels/s · 10 s left"


def test_restoring_on_a_terminal_is_a_bar(screen):
    assert show_restoring(iter(restoring())) == 1
    shown = screen.getvalue()
    assert "4/4" in shown  # skipped and failed pictures are over and done with too
    assert "\x1b[1;31merror: in/d.png: is torn" in shown
    assert "out/a.png  1000" not in shown


def test_one_picture_is_one(capsys):
    (started, *_) = restoring()
    assert isinstance(started, Started)
    show_restoring([Started(**{**vars(started), "pictures": 1, "tile": None, "assumed": False})])
    assert "1 picture · denoise.safetensors · cpu, fp32, whole pictures" in capsys.readouterr().err


def test_a_large_picture_tells_how_much_of_it_is_done(capsys, clock):
    view = RestoringView()
    view.start(replace(restoring_started(), pictures=1, assumed=False, notes=()))
    for share in (0.0, 0.1, 0.2, 0.3, 0.4):
        view.progress(share)
        clock.now += 6
    assert capsys.readouterr().err.splitlines()[1:] == [
        "20% of this picture · 48 s left",
        "40% of this picture · 36 s left",
    ]


def test_the_bar_moves_within_a_picture(clock, monkeypatch):
    view = RestoringView()
    view.start(replace(restoring_started(), pictures=2))
    view._task = view._bar.add_task("", total=2)
    view.add(Restored(Path("a.png"), Path("b.png"), 1000, 1000, 1.0))
    for share in (0.0, 0.25, 0.5):
        view.progress(share)
        clock.now += 5
    (task,) = view._bar.tasks
    assert task.completed == 1.5
    assert task.description.startswith("50% of this picture · 0.1 pictures/s · 0.10 megapixels/s")
    view.add(Restored(Path("c.png"), Path("d.png"), 1000, 1000, 1.0))
    assert task.completed == 2


def test_the_verb_tells_shares_between_its_events(tmp_path, colour_weights, write_png):
    from restormer_cli.commands.restore.run import restore
    from restormer_cli.commands.restore.types import Request

    write_png(tmp_path / "in" / "a.png")
    write_png(tmp_path / "in" / "b.png")
    heard: list[object] = []
    request = Request(tmp_path / "in", tmp_path / "out", weights=str(colour_weights), device="cpu")
    for event in restore(request, heard.append):
        heard.append(type(event).__name__)
    assert heard[0] == "Started"
    shares = [each for each in heard if isinstance(each, float)]
    assert shares.count(0.0) == 2
    assert max(shares) == pytest.approx(1)
