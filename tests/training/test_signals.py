"""The first signal lets the step finish and keeps it; the second SIGINT does not wait."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from restormer_cli.model.weights import load_weights
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import read_recipe
from restormer_cli.training.signals import StopRequest, stop_requests
from restormer_cli.training.trainer import StepLog, Stopped, fit

TOML = """
task = "denoise"
[model]
dim = 2
blocks = [0, 1, 0, 1]
heads = [1, 1, 1, 1]
refinement = 0
[data]
train = {{ clean = "{folder}" }}
[degrade]
steps = ["gaussian:25"]
[[stage]]
iterations = {iterations}
patch = 8
batch = 1
"""


@pytest.fixture
def short(tmp_path: Path, write_png) -> Recipe:
    """Six iterations."""
    write_png(tmp_path / "clean" / "a.png", 24, 24)
    (tmp_path / "short.toml").write_text(TOML.format(folder=tmp_path / "clean", iterations=6))
    return read_recipe(str(tmp_path / "short.toml"))


def test_a_run_that_is_asked_to_stop_keeps_its_step_and_resumes_to_the_same_bits(short: Recipe, tmp_path: Path) -> None:
    list(fit(short, tmp_path / "whole", device="cpu"))
    request = StopRequest()
    logs = []
    for log in fit(short, tmp_path / "parts", device="cpu", asked_to_stop=request, ready=request.be_gentle):
        logs.append(log)
        if isinstance(log, StepLog) and log.iteration == 3:
            request.handle(signal.SIGINT, None)  # in the middle of the fourth
    assert logs[-1] == Stopped(4, kept=4)
    assert [log.iteration for log in logs if isinstance(log, StepLog)] == [1, 2, 3, 4]
    list(fit(short, tmp_path / "parts", device="cpu", resume=True))
    whole, parts = (load_weights(tmp_path / name / "weights.safetensors").model for name in ("whole", "parts"))
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), parts.parameters(), strict=True))


def test_the_second_sigint_stops_at_once_a_second_sigterm_does_not() -> None:
    with stop_requests() as request:
        request.be_gentle()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGTERM)
        assert request()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_before_there_is_anything_to_keep_the_first_signal_stops_at_once() -> None:
    with stop_requests() as request, pytest.raises(KeyboardInterrupt):
        signal.raise_signal(signal.SIGTERM)
    assert not request()


def test_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with stop_requests():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_exits_130_and_says_what_it_kept(short: Recipe, tmp_path: Path, number: signal.Signals) -> None:
    (tmp_path / "long.toml").write_text(TOML.format(folder=tmp_path / "clean", iterations=100_000))
    command = [sys.executable, "-m", "restormer_cli", "train", "long.toml", "--device", "cpu"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    metrics = tmp_path / "runs" / "long" / "metrics.jsonl"
    while not metrics.exists() or len(metrics.read_text().splitlines()) < 3:
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 130, stderr
    last = json.loads(metrics.read_text().splitlines()[-1])["iteration"]
    assert f"stopped after iteration {last:,}; iteration {last:,} is kept; go on with --resume" in stderr
    assert "Traceback" not in stderr
    assert (tmp_path / "runs" / "long" / "checkpoints" / f"{last:08d}.pt").exists()
