"""The shell: cheap help, exit codes, one red line, and plain lines where nobody watches."""

import os
import re
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.testing import CliRunner

from restormer_cli import __version__
from restormer_cli.cli import app
from restormer_cli.errors import CheckFailed, Failed, UserError

SCRIPT = str(Path(sys.executable).parent / "restormer")
VERBS = [command.callback.__name__ for command in app.registered_commands if command.callback]

HEAVY = ("torch", "numpy", "rich", "accelerate", "imagecodecs", "tifffile", "PIL", "scipy")
COLD = f"""
import sys
sys.argv = ["restormer", *sys.argv[1:]]
from restormer_cli.cli import main
try:
    main()
finally:
    print("loaded:", *(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def invoke(*arguments: object):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


# --- Help and versions ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["restore", "-h"], ["restore"], ["cook"]])
def test_help_and_usage_errors_load_nothing_heavy(arguments):
    done = subprocess.run([sys.executable, "-c", COLD, *arguments], capture_output=True, text=True, timeout=60)
    assert done.returncode == (0 if arguments[-1] in ("--help", "-h") else 2)
    assert done.stderr.splitlines()[-1] == "loaded:"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_verb_in_help_has_its_own(flag):
    assert {"train", "restore"} <= set(VERBS)
    overview = invoke(flag)
    assert overview.exit_code == 0
    for verb in VERBS:
        assert re.search(rf"^  {verb}  +\S.*", overview.stdout, re.MULTILINE), verb
        page = invoke(verb, flag)
        assert page.exit_code == 0
        assert page.stdout.startswith(f"Usage: root {verb} ")
        assert page.stderr == ""


def test_version_names_ours_torch_and_the_device():
    import torch

    result = invoke("--version")
    assert result.exit_code == 0
    (line,) = result.stdout.splitlines()
    assert line.startswith(f"restormer {__version__}, torch {torch.__version__}, device ")
    assert re.search(r"device (cpu|cuda|mps)$", line)


def test_the_module_is_the_script():
    done = subprocess.run([sys.executable, "-m", "restormer_cli", "--help"], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0
    assert "train" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [["cook"], ["--cook"], ["restore", "a", "b", "--cook"], ["restore", "a"], ["train"], ["train", "a", "b"]],
    ids=" ".join,
)
def test_usage_errors_exit_2_on_stderr(arguments):
    result = invoke(*arguments)
    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Usage: " in result.stderr
    assert "Traceback" not in result.stderr


# --- Errors become exit codes ---------------------------------------------------------------------------------


@pytest.fixture
def failing(monkeypatch):
    """Make `restore` raise something before its first picture."""

    def make(error: BaseException) -> None:
        def fail(*_):
            raise error

        monkeypatch.setattr("restormer_cli.commands.restore.run.restore", fail)

    return make


@pytest.mark.parametrize(("kind", "code"), [(UserError, 2), (CheckFailed, 4), (Failed, 1)])
def test_every_error_has_its_exit_code_and_one_line(failing, kind, code):
    failing(kind("in/a.png: what, where,\n and the cure"))
    result = invoke("restore", "in", "out")
    assert result.exit_code == code
    assert result.stdout == ""
    assert result.stderr == "error: in/a.png: what, where, and the cure\n"


def test_control_characters_in_names_do_not_reach_the_terminal(failing):
    failing(UserError("evil\x1b[2J\x07.png: no such file"))
    assert invoke("restore", "in", "out").stderr == "error: evil?[2J?.png: no such file\n"


def test_markup_in_names_is_taken_literally(failing):
    failing(UserError("[red]a[/red].png: no such file"))
    assert invoke("restore", "in", "out").stderr == "error: [red]a[/red].png: no such file\n"


def test_long_lines_are_not_broken(failing):
    failing(UserError("word " * 100 + "end"))
    assert invoke("restore", "in", "out").stderr.count("\n") == 1


def test_debug_shows_the_traceback_and_only_debug(failing):
    failing(UserError("the cure"))
    shown = invoke("restore", "in", "out", "--debug")
    assert shown.exit_code == 2
    assert shown.stderr.startswith("Traceback (most recent call last):\n")
    assert shown.stderr.endswith("UserError: the cure\nerror: the cure\n")
    assert "Traceback" not in invoke("restore", "in", "out").stderr


def test_a_defect_of_ours_keeps_its_traceback(failing):
    failing(ZeroDivisionError())
    assert isinstance(invoke("restore", "in", "out").exception, ZeroDivisionError)


def test_an_interrupt_exits_130(failing):
    failing(KeyboardInterrupt())
    result = invoke("restore", "in", "out")
    assert (result.exit_code, result.output) == (130, "")


def test_ctrl_c_in_the_middle_of_a_run_exits_130_without_a_traceback(tmp_path, write_png, warm):
    """A run that would take hours; the signal comes once the run folder shows that it is under way."""
    write_png(tmp_path / "clean" / "a.png", 40, 40)
    (tmp_path / "endless.toml").write_text(
        'task = "denoise"\n[model]\ndim = 2\nblocks = [0, 1, 0, 1]\nheads = [1, 1, 1, 1]\n'
        '[data]\ntrain = { clean = "clean" }\n[degrade]\nsteps = ["gaussian:25"]\n'
        "[[stage]]\niterations = 100_000_000\npatch = 8\nbatch = 1\n"
    )
    command = [*warm, "train", "endless.toml", "--out", "run", "--device", "cpu"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        metrics = tmp_path / "run" / "metrics.jsonl"
        try:
            deadline = time.monotonic() + 60
            while not metrics.exists() and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.05)
            process.send_signal(signal.SIGINT)
            stdout, stderr = process.communicate(timeout=30)
        finally:
            process.kill()
    assert metrics.exists(), stderr
    assert process.returncode == 130, stderr
    assert stdout == ""
    assert "Traceback" not in stderr
    assert [path.name for path in tmp_path.rglob("*.part")] == []


def test_a_closed_pipe_is_no_traceback():
    """`restormer --help | head -0`: nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([SCRIPT, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True, timeout=60)
    os.close(writer)
    assert "Traceback" not in done.stderr


# --- Terminals ------------------------------------------------------------------------------------------------


def on_a_terminal(command: list[str], *arguments: str, **environment: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of a run whose stderr is a terminal."""
    keep = {key: value for key, value in os.environ.items() if key not in ("NO_COLOR", "FORCE_COLOR", "COLORTERM")}
    leader, follower = os.openpty()
    with subprocess.Popen(
        [*command, *arguments],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=follower,
        env={**keep, "TERM": "xterm-256color", **environment},
    ) as process:
        os.close(follower)
        seen = b""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if select.select([leader], [], [], 0.5)[0]:
                try:
                    seen += os.read(leader, 4096)
                except OSError:  # how Linux says that the other end is closed
                    break
        else:
            process.kill()
        os.close(leader)
        assert process.stdout is not None
        stdout = process.stdout.read().decode()
    return process.returncode, stdout, seen.decode()


needs_a_pseudo_terminal = pytest.mark.skipif(not hasattr(os, "openpty"), reason="no pseudo-terminals here")


@needs_a_pseudo_terminal
def test_on_a_terminal_an_error_is_red_and_a_bar_is_drawn(tmp_path, colour_weights, write_png, warm):
    write_png(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    code, stdout, stderr = on_a_terminal(
        warm, "restore", f"{tmp_path}/in", f"{tmp_path}/out", "--weights", str(colour_weights)
    )
    assert (code, stdout) == (3, "")
    assert re.search(r"\x1b\[1;31merror: .*b\.png: ", stderr)
    assert "2/2" in stderr
    assert "\x1b[2K" in stderr  # the bar is drawn over itself


@needs_a_pseudo_terminal
@pytest.mark.parametrize("environment", [{"NO_COLOR": "1"}, {"TERM": "dumb"}], ids=["NO_COLOR", "TERM=dumb"])
def test_plain_lines_on_a_terminal_that_asks_for_them(tmp_path, colour_weights, write_png, environment, warm):
    write_png(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    code, stdout, stderr = on_a_terminal(
        warm, "restore", f"{tmp_path}/in", f"{tmp_path}/out", "--weights", str(colour_weights), **environment
    )
    assert (code, stdout) == (3, "")
    assert "\x1b" not in stderr
    assert f"{tmp_path}/out/a.png  13×9" in stderr
    assert f"error: {tmp_path}/in/b.png: " in stderr
    assert "1 restored, 1 failed" in stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
def test_what_the_terminal_cannot_show_is_replaced(encoding: str) -> None:
    """As where Windows pipes the output: σ and arrows must not end in a traceback."""
    command = [sys.executable, "-m", "restormer_cli", "restore", "--task", "help"]
    done = subprocess.run(command, capture_output=True, env={**os.environ, "PYTHONIOENCODING": encoding})
    assert done.returncode == 0, done.stderr
    assert b"denoise" in done.stdout
