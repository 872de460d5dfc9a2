"""What people see of a training: every field of the panel, plain lines without a terminal, nothing on stdout."""

import re
from pathlib import Path

import pytest

from restormer_cli.commands.train.run import Finished, Started
from restormer_cli.commands.train.view import TrainingView, show_training
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import parse_recipe
from restormer_cli.training.trainer import StepLog
from restormer_cli.training.validation import ValidationLog


def recipe(**changes) -> Recipe:
    values = {
        "name": "small",
        "task": "denoise",
        "data": {"train": {"clean": "somewhere"}},
        "degrade": {"steps": ["gaussian:25"]},
        "stage": [{"iterations": 30, "patch": 64, "batch": 16}, {"iterations": 10, "patch": 128, "batch": 4}],
    }
    return parse_recipe(values | changes, where="here")


def step(iteration: int, stage: int = 0, patch: int = 64, batch: int = 16, seconds: float = 0.5) -> StepLog:
    return StepLog(iteration, stage, patch, batch, loss=0.0123456, lr=3e-4, seconds=seconds)


def view() -> TrainingView:
    return TrainingView([(30, 64, 16), (10, 128, 4)], "small")


def test_time_left_after_the_first_step_is_by_its_own_seconds(clock):
    shown = view()
    clock.now += 60  # reading the pictures does not count
    shown.step(step(1, seconds=0.5))
    # 64² · 16 pixels as 128² · 4: every step costs the same.
    assert shown.seconds_left() == pytest.approx(0.5 * 39)


def test_time_left_follows_the_pixels_still_to_come(clock):
    """A second stage of twice the pixels takes twice the time, while the first is still running and after it."""
    shown = TrainingView([(10, 32, 2), (10, 32, 4)], "small")
    for iteration in range(1, 11):
        clock.now += 1
        shown.step(step(iteration, patch=32, batch=2, seconds=1.0))
        assert shown.seconds_left() == pytest.approx((10 - iteration) + 10 * 2)
    for iteration in range(11, 21):
        clock.now += 2
        shown.step(step(iteration, stage=1, patch=32, batch=4, seconds=2.0))
        assert shown.seconds_left() == pytest.approx(2 * (20 - iteration))


def test_time_left_follows_a_machine_that_slows_down(clock):
    shown = TrainingView([(1000, 64, 16)], "small")
    for iteration in range(1, 501):
        clock.now += 1 if iteration <= 250 else 3
        shown.step(step(iteration, seconds=1.0))
    assert shown.seconds_left() == pytest.approx(3 * 500, rel=0.02)


def test_images_per_second_count_what_lies_between_steps_too(clock):
    shown = view()
    for iteration in range(1, 400):
        clock.now += 2  # of which the step itself takes half a second
        shown.step(step(iteration, batch=16, seconds=0.5))
    assert dict(shown.rows())["images per second"] == "8.0"


def test_every_field_of_the_panel(clock):
    shown = view()
    shown.step(step(30))
    clock.now += 2
    shown.step(step(31, stage=1, patch=128, batch=4))
    shown.validation = ValidationLog(30, psnr=30.126, input_psnr=20.5, pictures=2)
    rows = dict(shown.rows())
    assert rows["iteration"] == "31 of 40"
    assert rows["stage"] == "2 of 2: patch 128, batch 4"
    assert rows["loss"] == "0.01235"
    assert rows["learning rate"] == "3.00e-04"
    assert rows["validation PSNR"] == "30.13 dB (input 20.50 dB)"
    assert rows["images per second"] == "7.9"  # (0.98 · 16 + 4) / (0.98 · 0.5 + 2)
    assert re.fullmatch(r"\d+ s", rows["time left"])


def test_there_is_no_score_before_the_first_validation():
    assert view().score() == "–"


def test_the_plain_line(clock):
    shown = TrainingView([(2000, 64, 16), (10, 128, 4)], "small")
    shown.step(step(1234))
    line = shown.line()
    assert line.startswith("   1,234  stage 1  patch 64  batch 16  loss 0.01235  lr 3.00e-04  32.0 images/s  ")
    assert line.endswith("6 min 28 s left")  # (766 + 10) · 0.5 s


def test_a_plain_line_is_due_every_ten_seconds(clock):
    shown = view()
    assert not shown.due()
    clock.now += 9.9
    assert not shown.due()
    clock.now += 0.2
    assert shown.due()
    assert not shown.due()


def training() -> list[object]:
    weights = Path("runs/small/weights.safetensors")
    validation = ValidationLog(20, psnr=30.1, input_psnr=20.5, pictures=2)
    started = Started(recipe(expected="about 30 dB"), Path("runs/small"))
    return [started, *(step(i) for i in range(1, 21)), validation, Finished(weights)]


def ticking(events: list[object], clock):
    for event in events:
        clock.now += 1
        yield event


def test_training_without_a_terminal_is_plain_lines_on_stderr(capsys, clock):
    show_training(ticking(training(), clock))
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "\x1b" not in captured.err
    first, expected, *lines, score, last = captured.err.splitlines()
    assert first == "training small (denoise) for 40 iterations into runs/small"
    assert expected == "expected: about 30 dB"
    assert len(lines) == 2  # twenty seconds
    assert all("  stage 1  patch 64  batch 16  loss 0.01235  " in line for line in lines)
    assert score == "      20  validation 30.10 dB (input 20.50 dB)"
    assert last == "weights: runs/small/weights.safetensors"


def test_training_on_a_terminal_is_a_panel(screen):
    show_training(iter(training()))
    shown = screen.getvalue()
    assert "\x1b[" in shown
    assert "training small" in shown
    plain = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", shown)
    for label, value in (("iteration", "20 of 40"), ("validation PSNR", r"30\.10 dB"), ("loss", "0.01235")):
        assert re.search(rf"│ {label} +{value}", plain), label
    assert plain.rstrip().endswith("weights: runs/small/weights.safetensors")


def test_an_error_in_the_middle_of_training_gives_the_terminal_back(screen):
    def broken():
        yield from training()[:5]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        show_training(broken())
    shown = screen.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1  # the cursor is hidden, and shown again
