"""A step without a finite loss or gradient is skipped; too many in a row go back once, then stop the run."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor

from restormer_cli.errors import Failed
from restormer_cli.model.weights import load_weights
from restormer_cli.recipe import Recipe
from restormer_cli.training import losses
from restormer_cli.training.trainer import RolledBack, StepLog, Stopped, fit


@pytest.fixture
def recipe(small_recipe) -> Recipe:
    """12 iterations, a checkpoint after every second, three failed steps in a row are too many."""
    return small_recipe(
        stage=[{"iterations": 12, "patch": 8, "batch": 1}],
        checkpoint={"every": 2},
        run={"non_finite_steps": 3},
    )


def break_steps(monkeypatch: pytest.MonkeyPatch, bad: set[int]) -> None:
    """Make the loss of the n-th steps of this process (counted from 1) not a number."""
    count = 0

    def loss(output: Tensor, target: Tensor) -> Tensor:
        nonlocal count
        count += 1
        return (output - target).abs().mean() * (torch.nan if count in bad else 1)

    monkeypatch.setitem(losses.LOSSES, "l1", loss)


def run(recipe: Recipe, folder: Path, **options) -> list:
    return list(fit(recipe, folder, device="cpu", **options))


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def test_single_bad_steps_are_skipped_and_counted(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(monkeypatch, {3, 5, 6})
    logs = [log for log in run(recipe, tmp_path / "run") if isinstance(log, StepLog)]
    assert [log.iteration for log in logs] == list(range(1, 13))
    assert {log.iteration: log.skipped for log in logs if log.skipped} == {3: 1, 5: 2, 6: 3}
    lines = metrics(tmp_path / "run")
    assert [line["iteration"] for line in lines if line["loss"] is None] == [3, 5, 6]
    assert [line.get("skipped") for line in lines[2:6]] == [1, None, 2, 3]
    assert all(
        torch.isfinite(p).all() for p in load_weights(tmp_path / "run" / "weights.safetensors").model.parameters()
    )
    state = torch.load(tmp_path / "run" / "checkpoints" / "00000012.pt", weights_only=True)
    assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} == {9}  # AdamW saw the others only


def test_too_many_go_back_to_the_last_sound_checkpoint_at_half_the_rate(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(monkeypatch, {6, 7, 8})  # at 6 and 8 a checkpoint would be due
    logs = run(recipe, tmp_path / "run")
    (back,) = [log for log in logs if isinstance(log, RolledBack)]
    assert back == RolledBack(8, to=4, scale=0.5)
    steps = [log for log in logs if isinstance(log, StepLog)]
    assert [log.iteration for log in steps] == [*range(1, 9), *range(5, 13)]
    plain = recipe.optimizer.lr
    assert (steps[3].lr, steps[8].lr) == (plain, pytest.approx(plain / 2, rel=0.1))
    assert {"rolled_back": 8, "to": 4, "scale": 0.5} in metrics(tmp_path / "run")


def test_going_back_without_a_checkpoint_starts_afresh(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(monkeypatch, {1, 2, 3})
    logs = run(recipe, tmp_path / "run", stop_after=4)
    assert RolledBack(3, to=0, scale=0.5) in logs
    assert [log.iteration for log in logs if isinstance(log, StepLog)] == [1, 2, 3, 1, 2, 3, 4]


def test_a_second_time_the_run_stops_and_keeps_what_was_sound(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(monkeypatch, set(range(6, 100)))
    with pytest.raises(Failed, match=r"^3 steps in a row had no finite .* iteration 7 .*half the rate: try a"):
        run(recipe, tmp_path / "run")
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["00000002.pt", "00000004.pt"]


def test_a_run_killed_after_going_back_ends_with_the_same_bits(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(monkeypatch, {6, 7, 8})
    run(recipe, tmp_path / "whole")
    break_steps(monkeypatch, {6, 7, 8})
    abandoned = fit(recipe, tmp_path / "parts", device="cpu")
    for log in abandoned:
        if isinstance(log, StepLog) and log.skipped == 0 and log.iteration == 7:
            break  # the second time that it gets here; the checkpoint is of iteration 6
    abandoned.close()
    break_steps(monkeypatch, set())
    run(recipe, tmp_path / "parts", resume=True)
    whole, parts = (load_weights(tmp_path / name / "weights.safetensors").model for name in ("whole", "parts"))
    for one, other in zip(whole.parameters(), parts.parameters(), strict=True):
        assert torch.equal(one, other)

    def timeless(folder: Path) -> list[dict]:
        return [{k: v for k, v in line.items() if k not in ("seconds", "waited")} for line in metrics(folder)]

    assert timeless(tmp_path / "whole") == timeless(tmp_path / "parts")


def test_a_stop_on_a_skipped_step_keeps_where_it_is_and_the_last_sound_state(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe.model_copy(update={"checkpoint": recipe.checkpoint.model_copy(update={"keep": 1})})
    run(recipe, tmp_path / "whole")
    break_steps(monkeypatch, {6, 7})
    done = 0

    def asked() -> bool:
        nonlocal done
        done += 1
        return done == 7

    assert run(recipe, tmp_path / "run", asked_to_stop=asked)[-1] == Stopped(7, kept=7)
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["00000004.pt", "00000007.pt"]
    break_steps(monkeypatch, {1})  # the third in a row: back to the sound one
    logs = run(recipe, tmp_path / "run", resume=True)
    assert RolledBack(8, to=4, scale=0.5) in logs
    assert sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir()) == ["00000012.pt"]
