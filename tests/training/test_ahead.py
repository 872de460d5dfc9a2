"""Steps that are queued, and repeated as one graph, as on a GPU: on a CPU, by a recorder that does what a graph does.

The recorder notes every operator of a step and does it again with the same memory. What the host decides in a step, or
reads from the device, it would get wrong just as a CUDA graph would.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

from restormer_cli.data.batches import TrainingBatches
from restormer_cli.data.pictures import Note
from restormer_cli.model.restormer import KERNELS
from restormer_cli.model.weights import load_weights
from restormer_cli.recipe import Recipe
from restormer_cli.training import learner, step_graph
from restormer_cli.training.learner import runs_ahead
from restormer_cli.training.trainer import RolledBack, StepLog, Stopped, fit


class Recorder(TorchDispatchMode):
    """Notes the operators of some work, without effect; `replay` then does them again."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Any, Any, Any, Any]] = []
        self.changed: dict[int, tuple[Tensor, Tensor]] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("the host reads from the device")
        for declared, given in zip(func._schema.arguments, args, strict=False):
            if declared.alias_info is not None and declared.alias_info.is_write:
                for tensor in tree_flatten(given)[0]:
                    self.changed.setdefault(id(tensor), (tensor, tensor.clone()))
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result

    def undo(self) -> None:
        with torch.no_grad():
            for tensor, before in self.changed.values():
                tensor.copy_(before)

    def replay(self) -> None:
        with torch.no_grad():
            for func, args, kwargs, result in self.calls:
                again = tree_flatten(func(*args, **kwargs))[0]
                for target, source in zip(tree_flatten(result)[0], again, strict=True):
                    if isinstance(target, Tensor) and target.data_ptr() != source.data_ptr():
                        target.copy_(source)


def recorded(device: torch.device, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """In the place of `step_graph.captured`."""
    recorder = Recorder()
    with recorder:
        result = work()
    recorder.undo()

    def replay() -> Tensor:
        recorder.replay()
        return result

    return replay


@pytest.fixture(params=["adamw", "muon"])
def recipe(request: pytest.FixtureRequest, small_recipe) -> Recipe:
    """Two shapes, micro-batches, an average; a checkpoint after every fourth iteration."""
    return small_recipe(
        stage=[{"iterations": 8, "patch": 8, "batch": 3}, {"iterations": 6, "patch": 16, "batch": 2}],
        optimizer={"kind": request.param, "lr": 1e-3, "clip": 1.0},
        ema={"decay": 0.9},
        checkpoint={"every": 4},
        run={"non_finite_steps": 3, "micro_batch": 2},
    )


@pytest.fixture
def plain(recipe: Recipe, tmp_path: Path) -> Path:
    """The folder of a run as on a CPU, by operators, as recorders see them."""
    before = KERNELS.set(False)
    with pytest.MonkeyPatch.context() as own:  # whatever else has been set up
        own.setattr(learner, "runs_ahead", runs_ahead)
        list(fit(recipe, tmp_path / "plain", device="cpu"))
    KERNELS.reset(before)
    return tmp_path / "plain"


@pytest.fixture
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(learner, "runs_ahead", lambda accelerator: True)
    monkeypatch.setattr(step_graph, "captured", recorded)
    monkeypatch.setattr(step_graph, "aside", lambda device, work: work())
    before = KERNELS.set(False)
    yield
    KERNELS.reset(before)


def metrics(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def losses(folder: Path) -> list[float]:
    return [line["loss"] for line in metrics(folder)]


def assert_like(folder: Path, other: Path, tolerance: float = 1e-4) -> None:
    """The same losses and weights, up to roundings: rates are tensors of float32, averages add up otherwise."""
    assert losses(folder) == pytest.approx(losses(other), rel=tolerance / 10)
    for one, two in zip(
        *(load_weights(path / "weights.safetensors").model.parameters() for path in (folder, other)), strict=True
    ):
        torch.testing.assert_close(one, two, rtol=tolerance, atol=tolerance)


def spoil(monkeypatch: pytest.MonkeyPatch, bad: set[int], times: int = 1) -> None:
    """Batches of these iterations are not numbers, the first `times` that they are made."""
    batch, made = TrainingBatches.batch, dict.fromkeys(bad, 0)

    def spoilt(self, iteration, stage, rows):
        degraded, clean = batch(self, iteration, stage, rows)
        if iteration in bad and made[iteration] < times:
            made[iteration] += 1
            degraded = degraded * np.float32(np.nan)
        return degraded, clean

    monkeypatch.setattr(TrainingBatches, "batch", spoilt)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_replayed_steps_are_the_steps(recipe: Recipe, plain: Path, tmp_path: Path, monkeypatch) -> None:
    graphs: list[Callable[[], Tensor]] = []

    def captured(device: torch.device, work: Callable[[], Tensor]) -> Callable[[], Tensor]:
        graphs.append(recorded(device, work))
        return graphs[-1]

    monkeypatch.setattr(step_graph, "captured", captured)
    logs = list(fit(recipe, tmp_path / "run", device="cpu"))
    assert len(graphs) == 2  # one for each stage
    assert [log.iteration for log in logs if isinstance(log, StepLog)] == [*range(1, 15)]
    assert not [log for log in logs if isinstance(log, Note) and "graph" in log.text]
    assert_like(tmp_path / "run", plain)
    state = torch.load(tmp_path / "run" / "checkpoints" / "00000014.pt", weights_only=True)
    assert isinstance(state["optimizer"]["param_groups"][0]["lr"], float)
    assert int(state["average"]["n_averaged"]) == 14


@pytest.mark.usefixtures("as_on_a_gpu")
def test_queued_steps_end_with_the_bits_of_others(recipe: Recipe, tmp_path: Path) -> None:
    for name, queues in (("queued", True), ("one by one", False)):
        list(fit(recipe, tmp_path / name, device="cpu", queues=queues))
    assert_like(tmp_path / "queued", tmp_path / "one by one", tolerance=0)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_run_goes_on_from_a_checkpoint(recipe: Recipe, plain: Path, tmp_path: Path) -> None:
    list(fit(recipe, tmp_path / "run", device="cpu", stop_after=6))
    list(fit(recipe, tmp_path / "run", device="cpu", resume=True))
    assert_like(tmp_path / "run", plain)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_stop_takes_in_what_is_queued(recipe: Recipe, plain: Path, tmp_path: Path) -> None:
    asked = iter([False, False, False, False, False, True] + [False] * 10)
    logs = list(fit(recipe, tmp_path / "run", device="cpu", asked_to_stop=lambda: next(asked)))
    assert logs[-1] == Stopped(7, kept=7)
    assert len(metrics(tmp_path / "run")) == 7
    list(fit(recipe, tmp_path / "run", device="cpu", resume=True))
    assert_like(tmp_path / "run", plain)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_a_step_that_is_not_finite_changes_nothing(recipe: Recipe, tmp_path: Path, monkeypatch) -> None:
    spoil(monkeypatch, {2, 5, 6, 13}, times=4)  # by single calls, and replayed
    logs = list(fit(recipe, tmp_path / "run", device="cpu"))
    assert {log.iteration: log.skipped for log in logs if isinstance(log, StepLog) and log.skipped} == {
        2: 1, 5: 2, 6: 3, 13: 4,
    }  # fmt: skip
    state = torch.load(tmp_path / "run" / "checkpoints" / "00000014.pt", weights_only=True)
    assert {int(entry["step"]) for entry in state["optimizer"]["state"].values()} == {10}
    assert int(state["average"]["n_averaged"]) == 10
    monkeypatch.setattr(learner, "runs_ahead", runs_ahead)
    spoil(monkeypatch, {2, 5, 6, 13}, times=4)
    list(fit(recipe, tmp_path / "plain", device="cpu"))
    finite = [[loss for loss in losses(tmp_path / name) if loss is not None] for name in ("run", "plain")]
    assert finite[0] == pytest.approx(finite[1], rel=1e-5)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_too_many_go_back_although_another_is_queued(recipe: Recipe, tmp_path: Path, monkeypatch) -> None:
    finite = []
    for name, ahead in (("run", True), ("plain", False)):
        monkeypatch.setattr(learner, "runs_ahead", lambda accelerator, ahead=ahead: ahead)
        with pytest.MonkeyPatch.context() as own:
            spoil(own, {6, 7, 8})
            logs = list(fit(recipe, tmp_path / name, device="cpu"))
        assert RolledBack(8, to=4, scale=0.5) in logs
        steps = [log for log in logs if isinstance(log, StepLog)]
        assert [log.iteration for log in steps] == [*range(1, 9), *range(5, 15)]
        finite.append([log.loss for log in steps if np.isfinite(log.loss)])
    assert finite[0] == pytest.approx(finite[1], rel=1e-5)


@pytest.mark.usefixtures("as_on_a_gpu")
def test_what_cannot_be_captured_runs_by_single_calls(recipe: Recipe, plain: Path, tmp_path: Path, monkeypatch) -> None:
    loss = learner.TrainState._loss

    def looks(self, degraded, clean):
        value = loss(self, degraded, clean)
        float(value.detach())
        return value

    monkeypatch.setattr(learner.TrainState, "_loss", looks)
    logs = list(fit(recipe, tmp_path / "run", device="cpu"))
    notes = [log.text for log in logs if isinstance(log, Note)]
    assert notes == ["steps are no CUDA graph, which is slower: the host reads from the device"]
    assert_like(tmp_path / "run", plain)
