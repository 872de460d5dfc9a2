"""A watched folder: complete files only, each once, whatever happens to the others."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from restormer_cli.cli import app
from restormer_cli.commands.restore import cli as verb
from restormer_cli.commands.restore import watch as module
from restormer_cli.commands.restore.jobs import Job
from restormer_cli.commands.restore.run import restore
from restormer_cli.commands.restore.types import Request, Restored, Started
from restormer_cli.errors import UserError


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_file_is_ready_when_it_has_stood_still(tmp_path):
    clock = Clock()
    waiting, job = module.Waiting(clock), Job(tmp_path / "a.png", tmp_path / "out.png")
    assert waiting.ready([job]) == []  # not there
    job.source.write_bytes(b"")
    clock.now = 10
    assert waiting.ready([job]) == []
    clock.now = 20
    assert waiting.ready([job]) == []  # empty
    job.source.write_bytes(b"half")
    assert waiting.ready([job]) == []
    clock.now = 21
    assert waiting.ready([job]) == []
    job.source.write_bytes(b"whole")  # written slowly
    clock.now = 22.5
    assert waiting.ready([job]) == []
    clock.now = 24.5
    assert waiting.ready([job]) == [job]
    clock.now = 30
    assert waiting.ready([job]) == []  # tried as it is
    job.source.write_bytes(b"changed")
    assert waiting.ready([job]) == []
    clock.now = 33
    assert waiting.ready([job]) == [job]
    job.target.touch()
    assert waiting.ready([job]) == []


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(module, "POLL", 0.01)
    monkeypatch.setattr(module, "SETTLED", 0.0)
    (tmp_path / "in").mkdir()
    return tmp_path


def test_what_appears_is_restored_and_what_is_done_is_left_alone(folder, write_png, colour_weights):
    write_png(folder / "in" / "old.png")
    write_png(folder / "out" / "old.png")
    write_png(folder / "in" / "a.png")
    events = restore(Request(folder / "in", folder / "out", weights=str(colour_weights), device="cpu", watch=True))
    started = next(events)
    assert isinstance(started, Started)
    assert started.watching
    event = next(events)
    assert isinstance(event, Restored)
    assert (event.source.name, event.error) == ("a.png", None)
    (folder / "in" / "bad.png").write_bytes(b"no picture")
    event = next(events)
    assert isinstance(event, Restored)
    assert event.error is not None
    write_png(folder / "in" / "sub" / "b.png")
    event = next(events)
    assert isinstance(event, Restored)
    assert event.target == folder / "out" / "sub" / "b.png"
    write_png(folder / "in" / "bad.png", 20, 20)
    event = next(events)
    assert isinstance(event, Restored)
    assert (event.source.name, event.error) == ("bad.png", None)
    shutil.rmtree(folder / "in")
    with pytest.raises(UserError, match=r"the watched folder is gone; what was in it before is restored"):
        next(events)
    assert sorted(path.name for path in (folder / "out").rglob("*.*")) == ["a.png", "b.png", "bad.png", "old.png"]


@pytest.mark.parametrize("flag", ["--dry-run", "--overwrite"])
def test_contradictions_are_refused(folder, flag):
    result = CliRunner().invoke(app, ["restore", str(folder / "in"), str(folder / "out"), "--watch", flag])
    assert result.exit_code == 2
    assert f"leave {flag} out" in result.stderr


def test_only_folders_are_watched(folder, write_png):
    picture = write_png(folder / "a.png")
    result = CliRunner().invoke(app, ["restore", str(picture), str(folder / "out"), "--watch"])
    assert result.exit_code == 2
    assert "watches a folder" in result.stderr


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly_and_each_picture_was_a_line(folder, write_png, colour_weights, number, warm):
    write_png(folder / "in" / "a.png")
    command = [*warm, "restore", folder / "in", folder / "out", "--watch", "--json"]
    command += ["--weights", colour_weights, "--device", "cpu", "--threads", "1"]
    process = subprocess.Popen(list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None
    line = json.loads(process.stdout.readline())  # comes while it goes on
    assert (line["schema"], line["status"]) == ("restormer-restore/1", "restored")
    assert os.path.basename(line["output"]) == "a.png"
    assert process.poll() is None
    process.send_signal(number)
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors
    assert "ended: 1 restored, 0 failed" in errors
    assert [path.name for path in (folder / "out").iterdir()] == ["a.png"]


def test_an_interrupt_that_falls_into_a_finaliser_is_not_lost():
    class Falling:
        def __del__(self):
            raise KeyboardInterrupt

    def work():
        with verb._terminated_like_interrupted():
            falling = Falling()
            del falling
            for _ in range(1000):
                time.sleep(0.01)

    with pytest.raises(KeyboardInterrupt):
        work()
