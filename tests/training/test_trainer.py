"""A run writes what it promises, and an interrupted one ends with the bits of an uninterrupted one."""

import hashlib
import json
import math
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from restormer_cli import files
from restormer_cli.data import batches
from restormer_cli.data.batches import validation_pictures
from restormer_cli.data.pictures import Note
from restormer_cli.engine import backend
from restormer_cli.errors import Failed, UserError
from restormer_cli.metrics.measures import luma8, psnr
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights import load_weights
from restormer_cli.model.weights_file import save_weights
from restormer_cli.pixels import round8
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import read_recipe
from restormer_cli.training import learner, trainer
from restormer_cli.training import run_folder as run_module
from restormer_cli.training.distributed import make_accelerator
from restormer_cli.training.schedule import learning_rate
from restormer_cli.training.trainer import StepLog, fit
from restormer_cli.training.validation import ValidationLog

MODEL = {"dim": 8, "blocks": [0, 1, 0, 1], "heads": [1, 2, 4, 8], "refinement": 0}
Logs = list[Any]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    for role, count in (("train", 2), ("validate", 2)):
        (folder / role).mkdir()
        for number in range(count):
            y, x, c = np.ogrid[0:44, 0 : 37 + number, 0:3]
            waves = 127 + 90 * np.sin(x / (3 + c) + number) * np.cos(y / 5)
            Image.fromarray(waves.astype(np.uint8)).save(folder / role / f"p{number}.png")
    return folder


def recipe(pictures: Path, **tables: Any) -> Recipe:
    values: dict[str, Any] = {
        "name": "tiny",
        "task": "denoise",
        "model": MODEL,
        "data": {"train": {"clean": str(pictures / "train")}, "validate": {"clean": str(pictures / "validate")}},
        "degrade": {"steps": ["gaussian:10-50"]},
        "validation": {"every": 4, "crop": 32, "degrade": ["gaussian:25"]},
        "checkpoint": {"every": 2},
        "optimizer": {"lr": 1e-3, "clip": 1.0},
        "ema": {"decay": 0.5},
        "stage": [{"iterations": 5, "patch": 16, "batch": 2}, {"iterations": 3, "patch": 24, "batch": 1}],
    }
    return Recipe.model_validate(values | tables)


def run(values: Recipe, folder: Path, **options: Any) -> Logs:
    return list(fit(values, folder, device="cpu", **options))


def steps(logs: Logs) -> list[StepLog]:
    return [log for log in logs if isinstance(log, StepLog)]


def validations(logs: Logs) -> list[ValidationLog]:
    return [log for log in logs if isinstance(log, ValidationLog)]


def losses(logs: Logs) -> list[tuple[int, float]]:
    return [(log.iteration, log.loss) for log in steps(logs)]


def bits(folder: Path) -> dict[str, torch.Tensor]:
    return load_weights(folder / "weights.safetensors").model.state_dict()


def checkpoint(folder: Path, iteration: int) -> dict[str, Any]:
    state = torch.load(folder / "checkpoints" / f"{iteration:08d}.pt", weights_only=True)
    return {key: value for key, value in state.items() if key not in ("seconds", "metrics_bytes")}  # of the clock


def assert_same_bits(one: Any, other: Any) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        for key in one:
            assert_same_bits(one[key], other[key])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for ours, theirs in zip(one, other, strict=True):
            assert_same_bits(ours, theirs)
    elif isinstance(one, torch.Tensor):
        assert torch.equal(one, other)
    else:
        assert one == other


def metrics(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.name.endswith(".part")]


@pytest.fixture(scope="module")
def straight(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Logs]:
    """One uninterrupted run of 8 iterations, which others are held against."""
    folder = tmp_path_factory.mktemp("runs") / "deep" / "straight"
    return folder, run(recipe(pictures), folder)


def test_a_run_yields_a_log_per_iteration(straight: tuple[Path, Logs], pictures: Path) -> None:
    logs = steps(straight[1])
    assert [log.iteration for log in logs] == list(range(1, 9))
    assert [(log.stage, log.patch, log.batch) for log in logs] == [(0, 16, 2)] * 5 + [(1, 24, 1)] * 3
    assert [log.lr for log in logs] == [learning_rate(t, recipe(pictures)) for t in range(1, 9)]
    assert all(math.isfinite(log.loss) and 0 < log.loss < 1 and log.seconds > 0 for log in logs)


def test_a_run_validates_at_its_interval_and_at_the_end(straight: tuple[Path, Logs]) -> None:
    scores = validations(straight[1])
    assert [score.iteration for score in scores] == [4, 8]
    assert {score.pictures for score in scores} == {2}
    assert len({score.input_psnr for score in scores}) == 1  # the same noise every time
    assert scores[0].input_psnr == pytest.approx(20 * math.log10(255 / 25), abs=0.3)
    assert all(math.isfinite(score.psnr) for score in scores)


def test_a_run_writes_its_folder(straight: tuple[Path, Logs], pictures: Path) -> None:
    folder, logs = straight
    names = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert names == {
        "recipe.toml",
        "environment.json",
        "metrics.jsonl",
        "weights.safetensors",
        "pictures/00000004-0.png",
        "pictures/00000004-1.png",
        "pictures/00000008-0.png",
        "pictures/00000008-1.png",
        "checkpoints/00000006.pt",
        "checkpoints/00000008.pt",
    }
    assert read_recipe(str(folder / "recipe.toml")) == recipe(pictures)
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["device"] == "cpu"
    assert environment["torch"] == torch.__version__
    lines = metrics(folder)
    assert [line["loss"] for line in lines if "iteration" in line] == [log.loss for log in steps(logs)]
    assert [line["validation"] for line in lines if "validation" in line] == [4, 8]
    assert set(lines[0]) == {"iteration", "stage", "patch", "batch", "loss", "lr", "seconds", "waited"}


def test_the_weights_of_a_run_describe_themselves(straight: tuple[Path, Logs], pictures: Path) -> None:
    folder, logs = straight
    weights = load_weights(folder / "weights.safetensors")
    assert weights.config == recipe(pictures).model
    assert weights.task == "denoise"
    assert weights.header["recipe"] == json.loads(recipe(pictures).model_dump_json(by_alias=True))
    assert (weights.header["training"]["iterations"], weights.header["training"]["of"]) == (8, 8)
    assert weights.header["training"]["validation"]["psnr"] == validations(logs)[-1].psnr
    assert "licence" not in weights.header
    average = {k.removeprefix("module."): v for k, v in checkpoint(folder, 8)["average"].items() if k != "n_averaged"}
    assert_same_bits(dict(weights.model.state_dict()), average)
    assert not torch.equal(average["output.weight"], checkpoint(folder, 8)["model"]["output.weight"])


def test_the_header_says_where_the_weights_come_from(
    straight: tuple[Path, Logs], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Over interruptions and legs: hours, machines, data, seed and score."""
    first = load_weights(straight[0] / "weights.safetensors")
    training = first.header["training"]
    assert training["seed"] == 100
    assert training["data"]["pictures"] == 2
    assert len(training["data"]["sha256"]) == 64
    assert [machine.endswith(", 1 thread") for machine in training["machines"]] == [True]
    assert training["hours"] == round(training["seconds"] / 3600, 2)
    assert "earlier" not in training

    begun = tmp_path / "first.safetensors"
    record = training | {"seconds": 7200, "machines": ["an abacus"], "earlier": [{"task": "before", "seconds": 3600}]}
    save_weights(begun, first.model, {"task": "denoise", "training": record})
    digest = hashlib.sha256(begun.read_bytes()).hexdigest()
    second = recipe(pictures, init=str(begun), task="defocus", seed=3)
    run(second, tmp_path / "second", stop_after=5)
    save_weights(begun, first.model, {"task": "another"})  # replaced while the run is interrupted
    monkeypatch.setattr(trainer, "describe_device", lambda _: "another machine")
    run(second, tmp_path / "second", resume=True)
    training = load_weights(tmp_path / "second" / "weights.safetensors").header["training"]
    assert training["seed"] == 3
    assert training["machines"] == [*first.header["training"]["machines"], "another machine"]
    assert [leg.get("task") for leg in training["earlier"]] == ["before", "denoise"]
    denoise = training["earlier"][1]
    assert (denoise["sha256"], denoise["seconds"], denoise["machines"]) == (digest, 7200, ["an abacus"])
    assert denoise["validation"] == first.header["training"]["validation"]
    assert denoise["precision"] == "fp32"
    assert "of" not in denoise
    assert training["hours"] == pytest.approx(3 + training["seconds"] / 3600, abs=0.006)


def test_the_last_score_is_that_of_the_written_weights(straight: tuple[Path, Logs], pictures: Path) -> None:
    folder, logs = straight
    model = load_weights(folder / "weights.safetensors").model
    pairs = validation_pictures(recipe(pictures))
    assert [degraded.shape for degraded, _ in pairs] == [(32, 32, 3)] * 2
    scores = []
    for degraded, clean in pairs:
        with torch.no_grad():
            output = model(torch.from_numpy(degraded).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
        scores.append(psnr(output.clip(0, 1), clean, peak=1.0))
    assert validations(logs)[-1].psnr == pytest.approx(np.mean(scores), abs=1e-4)


@pytest.mark.parametrize("stop", [1, 3, 6])
def test_a_resumed_run_ends_with_the_bits_of_an_uninterrupted_one(
    straight: tuple[Path, Logs], pictures: Path, tmp_path: Path, stop: int
) -> None:
    first = run(recipe(pictures), tmp_path / "run", stop_after=stop)
    assert [log.iteration for log in steps(first)] == list(range(1, stop + 1))
    assert load_weights(tmp_path / "run" / "weights.safetensors").header["training"]["iterations"] == stop
    second = run(recipe(pictures), tmp_path / "run", resume=True)
    assert losses(first) + losses(second) == losses(straight[1])
    assert validations(second)[-1] == validations(straight[1])[-1]
    assert_same_bits(bits(tmp_path / "run"), bits(straight[0]))
    assert_same_bits(checkpoint(tmp_path / "run", 8), checkpoint(straight[0], 8))  # the optimiser too
    lines = [line["iteration"] for line in metrics(tmp_path / "run") if "iteration" in line]
    assert lines == list(range(1, 9))


def test_an_abandoned_run_resumes_from_its_newest_checkpoint(
    straight: tuple[Path, Logs], pictures: Path, tmp_path: Path
) -> None:
    interrupted = fit(recipe(pictures), tmp_path / "run", device="cpu")
    first: Logs = [next(interrupted) for _ in range(6)]
    seen = [log.iteration for log in first]  # iteration 4 also yields a validation
    interrupted.close()
    assert seen == [1, 2, 3, 4, 4, 5]
    with (tmp_path / "run" / "metrics.jsonl").open("a") as stream:
        stream.write('{"iteration": 5, "lo')  # torn by the kill
    logs = run(recipe(pictures), tmp_path / "run", resume=True)
    assert [log.iteration for log in steps(logs)] == [5, 6, 7, 8]
    assert_same_bits(bits(tmp_path / "run"), bits(straight[0]))
    assert [line["iteration"] for line in metrics(tmp_path / "run") if "iteration" in line] == list(range(1, 9))


@pytest.fixture(scope="module")
def stopped(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run stopped after 6 of 8 iterations; take a copy."""
    folder = tmp_path_factory.mktemp("stopped") / "run"
    run(recipe(pictures), folder, stop_after=6)
    return folder


@pytest.mark.parametrize("damage", ["half", "empty", "zeros", "text", "gone"])
def test_a_torn_newest_checkpoint_falls_back_to_the_one_before(
    straight: tuple[Path, Logs], pictures: Path, stopped: Path, tmp_path: Path, damage: str
) -> None:
    shutil.copytree(stopped, tmp_path / "run")
    newest = tmp_path / "run" / "checkpoints" / "00000006.pt"
    data = newest.read_bytes()
    contents = {"half": data[: len(data) // 2], "empty": b"", "zeros": bytes(len(data)), "text": b"hello there"}
    newest.write_bytes(contents.get(damage, b""))
    if damage == "gone":
        newest.unlink()
    logs = run(recipe(pictures), tmp_path / "run", resume=True)
    assert [log.iteration for log in steps(logs)] == [5, 6, 7, 8]
    assert_same_bits(bits(tmp_path / "run"), bits(straight[0]))


def test_a_torn_checkpoint_does_not_crowd_out_the_good_one(pictures: Path, tmp_path: Path) -> None:
    values = recipe(pictures, checkpoint={"every": 2, "keep": 2})
    run(values, tmp_path / "run", stop_after=4)
    folder = tmp_path / "run" / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == ["00000002.pt", "00000004.pt"]
    (folder / "00000004.pt").write_bytes(b"torn")
    run(values, tmp_path / "run", resume=True, stop_after=1)
    assert sorted(path.name for path in folder.iterdir()) == ["00000002.pt", "00000003.pt"]
    assert checkpoint(tmp_path / "run", 3)["iteration"] == 3


def test_a_folder_in_use_needs_resume(straight: tuple[Path, Logs], pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match=r"is not empty: go on with --resume, or choose another --out"):
        run(recipe(pictures), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    logs = run(recipe(pictures), tmp_path, resume=True, stop_after=1)  # no checkpoint: starts afresh
    assert losses(logs) == losses(straight[1])[:1]


def test_resuming_with_another_recipe_names_what_changed(
    straight: tuple[Path, Logs], pictures: Path, tmp_path: Path
) -> None:
    run(recipe(pictures), tmp_path / "run", stop_after=2)
    before = (tmp_path / "run" / "recipe.toml").read_text()
    changed = recipe(pictures, seed=3, ema={"decay": 0.9})
    with pytest.raises(
        UserError,
        match=r"another recipe: seed 100 -> 3; ema\.decay 0\.5 -> 0\.9\. Undo that, or go on with --accept-changes",
    ):
        run(changed, tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "recipe.toml").read_text() == before
    logs = run(changed, tmp_path / "run", resume=True, accept_changes=True, stop_after=1)
    assert [log.text for log in logs if isinstance(log, Note)] == [
        "changed since iteration 2: seed 100 -> 3",
        "changed since iteration 2: ema.decay 0.5 -> 0.9",
    ]
    assert [log.iteration for log in steps(logs)] == [3]
    assert read_recipe(str(tmp_path / "run" / "recipe.toml")) == changed


def test_a_changed_optimizer_is_the_one_that_goes_on(pictures: Path, tmp_path: Path) -> None:
    run(recipe(pictures), tmp_path / "run", stop_after=2)
    changed = recipe(pictures, optimizer={"lr": 1e-3, "clip": 1.0, "weight_decay": 0.5, "betas": [0.5, 0.9]})
    run(changed, tmp_path / "run", resume=True, accept_changes=True, stop_after=1)
    (group,) = checkpoint(tmp_path / "run", 3)["optimizer"]["param_groups"]
    assert (group["weight_decay"], tuple(group["betas"])) == (0.5, (0.5, 0.9))


def test_an_average_may_begin_and_end_on_the_way(pictures: Path, tmp_path: Path) -> None:
    off, on = recipe(pictures, ema={"decay": 0}), recipe(pictures, ema={"decay": 0.5})
    run(off, tmp_path / "run", stop_after=2)
    run(on, tmp_path / "run", resume=True, accept_changes=True, stop_after=1)
    state = checkpoint(tmp_path / "run", 3)
    assert torch.equal(state["average"]["module.output.weight"], state["model"]["output.weight"])  # the first one
    run(off, tmp_path / "run", resume=True, accept_changes=True, stop_after=1)
    assert "average" not in checkpoint(tmp_path / "run", 4)


def test_another_network_cannot_go_on_with_a_run(pictures: Path, tmp_path: Path) -> None:
    run(recipe(pictures), tmp_path / "run", stop_after=1)
    with pytest.raises(UserError, match=r"of another network than \[model\] describes"):
        run(recipe(pictures, model={**MODEL, "dim": 16}), tmp_path / "run", resume=True, accept_changes=True)


def test_what_is_not_computed_may_change_freely(pictures: Path, tmp_path: Path) -> None:
    run(recipe(pictures), tmp_path / "run", stop_after=1)
    data = {**recipe(pictures).model_dump(by_alias=True)["data"], "prefetch": 1, "workers": 2}
    assert steps(run(recipe(pictures, data=data), tmp_path / "run", resume=True, stop_after=1))


def test_a_finished_run_has_nothing_to_resume(straight: tuple[Path, Logs], pictures: Path) -> None:
    before = bits(straight[0])
    modified = (straight[0] / "weights.safetensors").stat().st_mtime_ns
    told = run(recipe(pictures), straight[0], resume=True)
    assert [log.text for log in told if isinstance(log, Note)] == [
        f"{straight[0]}: is finished: all {recipe(pictures).iterations} iterations are done"
    ]
    assert len(told) == 1
    assert (straight[0] / "weights.safetensors").stat().st_mtime_ns == modified
    assert_same_bits(bits(straight[0]), before)
    assert len(metrics(straight[0])) == 10


def test_without_an_average_the_weights_are_the_networks(
    straight: tuple[Path, Logs], pictures: Path, tmp_path: Path
) -> None:
    logs = run(recipe(pictures, ema={"decay": 0}), tmp_path / "run")
    assert losses(logs) == losses(straight[1])  # the average changes nothing in the training
    state = checkpoint(tmp_path / "run", 8)
    assert "average" not in state
    assert_same_bits(bits(tmp_path / "run"), dict(state["model"]))
    assert_same_bits(dict(state["model"]), dict(checkpoint(straight[0], 8)["model"]))


def test_the_average_is_exponential(straight: tuple[Path, Logs], pictures: Path, tmp_path: Path) -> None:
    values = recipe(pictures, checkpoint={"every": 1, "keep": 9})
    run(values, tmp_path / "run", stop_after=4)
    states = [checkpoint(tmp_path / "run", t)["model"]["output.weight"] for t in range(1, 5)]
    expected = states[0]
    for state in states[1:]:
        expected = 0.5 * expected + 0.5 * state
    assert torch.allclose(bits(tmp_path / "run")["output.weight"], expected, atol=1e-7)


def test_activation_checkpointing_gives_the_same_losses(
    straight: tuple[Path, Logs], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0
    original = Restormer.forward
    modes: set[bool] = set()

    def watched(self: Restormer, picture: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        modes.add(self.latent.checkpointing)
        return original(self, picture)

    monkeypatch.setattr(Restormer, "forward", watched)
    logs = run(recipe(pictures, run={"activation_checkpointing": True}), tmp_path / "run")
    assert losses(logs) == losses(straight[1])
    assert calls > 0
    assert modes == {True}  # validation runs strips, which have nothing to keep


def test_precisions_may_alternate_in_one_process(pictures: Path, tmp_path: Path) -> None:
    half = run(recipe(pictures, run={"precision": "bf16"}), tmp_path / "half", stop_after=2)
    full = run(recipe(pictures), tmp_path / "full", stop_after=2)
    assert 0 < abs(steps(half)[0].loss - steps(full)[0].loss) < 0.02
    assert next(iter(bits(tmp_path / "half").values())).dtype == torch.float32


@pytest.mark.parametrize("native", [True, False])
def test_auto_is_bf16_where_the_processor_has_it(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, native: bool
) -> None:
    monkeypatch.setattr(learner, "multiplies_bf16", lambda device: native)
    values = recipe(pictures, run={"precision": "auto"})
    logs = run(values, tmp_path / "run", stop_after=1)
    same = run(recipe(pictures, run={"precision": "bf16" if native else "fp32"}), tmp_path / "same", stop_after=1)
    assert losses(logs) == losses(same)
    training = load_weights(tmp_path / "run" / "weights.safetensors").header["training"]
    assert training["precision"] == ("bf16" if native else "fp32")


def test_a_run_that_goes_on_in_another_precision_says_so(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    values = recipe(pictures, run={"precision": "auto"})
    monkeypatch.setattr(learner, "multiplies_bf16", lambda device: True)
    run(values, tmp_path / "run", stop_after=1)
    monkeypatch.setattr(learner, "multiplies_bf16", lambda device: False)
    logs = run(values, tmp_path / "run", stop_after=1, resume=True)
    assert any("begun in bf16, it goes on in fp32 on this cpu" in log.text for log in logs if isinstance(log, Note))


def test_slow_bf16_is_pointed_out(pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trainer, "multiplies_bf16", lambda device: False)
    logs = run(recipe(pictures, run={"precision": "bf16"}), tmp_path / "run", stop_after=1)
    assert any("bf16 is emulated on this processor" in log.text for log in logs if isinstance(log, Note))


def test_the_other_loss_trains_too(straight: tuple[Path, Logs], pictures: Path, tmp_path: Path) -> None:
    logs = run(recipe(pictures, loss={"kind": "charbonnier"}), tmp_path / "run", stop_after=1)
    assert losses(straight[1])[0][1] < losses(logs)[0][1] < losses(straight[1])[0][1] + 1e-3


def test_training_for_psnr_raises_it(pictures: Path, tmp_path: Path) -> None:
    found = [loss for _, loss in losses(run(recipe(pictures, loss={"kind": "psnr"}), tmp_path / "run"))]
    assert max(found) < 0
    assert np.mean(found[-3:]) < np.mean(found[:3])


def test_training_starts_from_init(pictures: Path, tmp_path: Path) -> None:
    torch.manual_seed(7)
    values = recipe(pictures, optimizer={"lr": 1e-12, "weight_decay": 0.0}, init=str(tmp_path / "x.safetensors"))
    model = Restormer(values.model)
    save_weights(tmp_path / "x.safetensors", model, {})
    run(values, tmp_path / "run", stop_after=1)
    got, expected = bits(tmp_path / "run"), model.state_dict()
    assert all(torch.allclose(got[key], expected[key], atol=1e-9) for key in expected)
    with pytest.raises(UserError, match=r"init = .*another network than \[model\] describes"):
        run(recipe(pictures, init=values.init, model={**MODEL, "refinement": 1}), tmp_path / "other")


def test_it_learns(pictures: Path, tmp_path: Path) -> None:
    """30 short iterations take the network, which starts as noise, most of the way towards the picture."""
    rows = [{"iterations": 30, "patch": 16, "batch": 2}]
    logs = losses(run(recipe(pictures, stage=rows, optimizer={"lr": 5e-3, "clip": 1.0}), tmp_path / "run"))
    assert np.mean([loss for _, loss in logs[-5:]]) < 0.8 * np.mean([loss for _, loss in logs[:5]])


def test_a_folder_that_cannot_be_made_is_a_user_error(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UserError, match="cannot hold a run: Not a directory"):
        run(recipe(pictures), tmp_path / "file" / "run")
    with pytest.raises(UserError, match="cannot hold a run"):
        run(recipe(pictures), tmp_path / "file")


@pytest.mark.parametrize("name", ["metrics.jsonl", "checkpoints", "weights.safetensors"])
def test_a_run_file_that_cannot_be_written_is_failed_and_leaves_no_parts(
    pictures: Path, tmp_path: Path, name: str
) -> None:
    if name == "checkpoints":
        (tmp_path / name).write_text("in the way")
    else:
        (tmp_path / name).mkdir()
    with pytest.raises(Failed, match=name):
        run(recipe(pictures), tmp_path, resume=True, stop_after=1)
    assert not leftovers(tmp_path)


def test_a_full_disk_keeps_the_last_checkpoint(
    straight: tuple[Path, Logs], pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(recipe(pictures), tmp_path / "run", stop_after=2)

    def full(state: Any, stream: Any) -> None:
        stream.write(b"some of it")
        raise RuntimeError("[enforce fail at inline_container.cc] . unexpected pos")

    with monkeypatch.context() as patch:
        patch.setattr(torch, "save", full)
        with pytest.raises(Failed, match=r"00000004\.pt: cannot be written"):
            run(recipe(pictures), tmp_path / "run", resume=True)
    assert not leftovers(tmp_path)
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["00000002.pt"]
    run(recipe(pictures), tmp_path / "run", resume=True)
    assert_same_bits(bits(tmp_path / "run"), bits(straight[0]))


def test_a_full_disk_at_the_start_leaves_no_parts(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(Failed, match=r"recipe\.toml: cannot be written: No space left on device"):
        run(recipe(pictures), tmp_path / "run")
    assert not list((tmp_path / "run").iterdir())


def test_data_that_are_not_there_leave_no_run_folder(pictures: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[data\] train: there is no folder"):
        run(recipe(pictures, data={"train": {"clean": str(tmp_path / "none")}}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_pictures_are_cut_at_the_centre_to_multiples_of_8(pictures: Path) -> None:
    whole = validation_pictures(recipe(pictures, validation={"crop": 0, "degrade": ["gaussian:25"]}))
    assert [clean.shape for _, clean in whole] == [(40, 32, 3)] * 2
    stored = np.asarray(Image.open(pictures / "validate" / "p0.png"))
    assert np.array_equal(np.rint(whole[0][1] * 255).astype(np.uint8), stored[2:42, 2:34])


def test_without_validation_pictures_there_are_no_scores(pictures: Path, tmp_path: Path) -> None:
    values = recipe(pictures, data={"train": {"clean": str(pictures / "train")}})
    assert not validations(run(values, tmp_path / "run", stop_after=1))
    assert "validation" not in load_weights(tmp_path / "run" / "weights.safetensors").header["training"]


def test_a_step_draws_no_random_numbers(pictures: Path, tmp_path: Path) -> None:
    """So that a checkpoint needs no generator's state."""
    import random

    before = torch.get_rng_state(), repr(np.random.get_state()), random.getstate()
    run(recipe(pictures), tmp_path / "run")
    assert torch.equal(torch.get_rng_state(), before[0])
    assert repr(np.random.get_state()) == before[1]
    assert random.getstate() == before[2]


def test_validation_pictures_below_8_pixels_are_refused_before_training(pictures: Path, tmp_path: Path, write_png):
    write_png(tmp_path / "narrow" / "a.png", 7, 50)
    data = {"train": {"clean": str(pictures / "train")}, "validate": {"clean": str(tmp_path / "narrow")}}
    with pytest.raises(UserError, match=r"validate: .*a\.png: is less than 8 pixels high or wide: leave it out"):
        run(recipe(pictures, data=data), tmp_path / "run")


def test_validation_pictures_are_input_output_and_target_side_by_side(
    straight: tuple[Path, Logs], pictures: Path
) -> None:
    with Image.open(straight[0] / "pictures" / "00000008-1.png") as shown:
        strip = np.asarray(shown).astype(int)
    degraded, clean = validation_pictures(recipe(pictures))[1]
    assert strip.shape == (32, 3 * 32, 3)
    assert np.abs(strip[:, :32] - degraded.clip(0, 1) * 255).max() <= 0.51
    assert np.abs(strip[:, 64:] - clean * 255).max() <= 0.51
    assert np.abs(strip[:, 32:64] - clean * 255).mean() > 1  # neither of the two


def test_a_damaged_checkpoint_is_told(pictures: Path, tmp_path: Path) -> None:
    run(recipe(pictures), tmp_path / "run", stop_after=6)
    newest = tmp_path / "run" / "checkpoints" / "00000006.pt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1  # one bit within a tensor: only the checksum knows
    newest.write_bytes(data)
    (note,) = [log for log in run(recipe(pictures), tmp_path / "run", resume=True) if isinstance(log, Note)]
    assert "00000006.pt: is damaged (" in note.text
    assert note.text.endswith("going on from iteration 4, the one before")


def test_a_checkpoint_that_cannot_be_read_is_not_taken_for_a_lost_one(pictures: Path, tmp_path: Path) -> None:
    """To go on from an older one would delete it."""
    run(recipe(pictures), tmp_path / "run", stop_after=4)
    folder = tmp_path / "run" / "checkpoints"
    state = torch.load(folder / "00000004.pt", weights_only=True)
    torch.save(state | {"format": 99}, folder / "00000004.pt")
    with pytest.raises(UserError, match=r"00000004\.pt: is another version's checkpoint"):
        run(recipe(pictures), tmp_path / "run", resume=True)
    (folder / "00000005.pt").mkdir()  # of reasons not to be readable, one that holds for root too
    with pytest.raises(Failed, match=r"00000005\.pt: cannot be read: Is a directory"):
        run(recipe(pictures), tmp_path / "run", resume=True)
    assert sorted(path.name for path in folder.iterdir()) == ["00000002.pt", "00000004.pt", "00000005.pt"]


def test_a_folder_in_use_is_refused_before_the_data_are_read(pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    nowhere = {"train": {"clean": str(tmp_path / "none")}, "validate": {"clean": str(tmp_path / "none")}}
    with pytest.raises(UserError, match="is not empty"):
        run(recipe(pictures, data=nowhere), tmp_path)


def test_identical_validation_pictures_leave_valid_json(pictures: Path, tmp_path: Path) -> None:
    values = recipe(pictures, validation={"every": 1, "crop": 32, "degrade": ["gaussian:0"]})
    run(values, tmp_path / "run", stop_after=1)
    (line,) = [entry for entry in metrics(tmp_path / "run") if "validation" in entry]
    assert line["input_psnr"] is None
    assert line["psnr"] > 10
    assert load_weights(tmp_path / "run" / "weights.safetensors").header["training"]["validation"]["input_psnr"] is None


def test_a_full_disk_is_told_in_the_systems_words(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        def write(self, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        def flush(self) -> None:
            pass

    with pytest.raises(OSError, match="No space left on device"):
        run_module._store({"weights": torch.zeros(9)}, Full())  # pyright: ignore[reportArgumentType]


def test_the_y_channel_is_scored_where_the_recipe_says_so(
    straight: tuple[Path, Logs], pictures: Path, tmp_path: Path
) -> None:
    y = recipe(pictures, validation={"every": 8, "crop": 32, "degrade": ["gaussian:25"], "channel": "y"})
    (score,) = validations(run(y, tmp_path / "run"))
    expected = [
        psnr(luma8(round8(degraded)), luma8(round8(clean)), peak=255) for degraded, clean in validation_pictures(y)
    ]
    assert score.input_psnr == pytest.approx(np.mean(expected))
    assert score.input_psnr > validations(straight[1])[-1].input_psnr + 1  # noise in Y is weaker


def test_two_runs_in_one_folder_do_not_meet(pictures: Path, tmp_path: Path) -> None:
    """The second is told whose the folder is, and both with the first's checkpoints whole."""
    folder, values = tmp_path / "run", recipe(pictures)
    first = fit(values, folder, device="cpu")
    while not isinstance(log := next(first), StepLog) or log.iteration < 5:
        pass
    script = (
        f"import sys; from restormer_cli.files import locked; lock = locked({str(folder / '.lock')!r}, Exception)\n"
    )
    script += "try:\n    lock.__enter__()\nexcept Exception as refused:\n    sys.exit(str(refused))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stderr.strip() == f"process {os.getpid()} on {platform.node()}"
    with pytest.raises(UserError, match=rf"process {os.getpid()} on .* trains in it: stop that one, or choose another"):
        run(values, folder, resume=True)
    list(first)
    assert not (folder / ".lock").exists()
    assert sorted(path.name for path in (folder / "checkpoints").iterdir())[-1] == "00000008.pt"


def test_a_later_checkpoint_goes_only_after_a_rollback_of_ones_own(tmp_path: Path) -> None:
    files = run_module.Run(tmp_path)
    for iteration in (100, 200, 300):
        files.save({"iteration": iteration, "format": 1}, keep=2)
    files.save({"iteration": 150, "format": 1}, keep=2)
    assert sorted(path.stem for path in files.checkpoints.iterdir()) == ["00000150", "00000200", "00000300"]
    files.save({"iteration": 160, "format": 1}, keep=2, later=True)
    assert sorted(path.stem for path in files.checkpoints.iterdir()) == ["00000150", "00000160"]


def test_validation_pictures_are_made_when_they_are_needed(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """None is held as floats, which was 24 GB for GoPro in every process; each time they are the same."""
    made = []
    to_float = batches.to_float
    monkeypatch.setattr(batches, "to_float", lambda stored: made.append(stored.shape) or to_float(stored))
    pairs = validation_pictures(recipe(pictures))
    assert (len(pairs), made) == (2, [])
    first, again = pairs[1], pairs[1]
    assert len(made) == 2
    assert all(np.array_equal(one, other) for one, other in zip(first, again, strict=True))


@pytest.mark.parametrize("cache", ["off", "memory"])
def test_validation_keeps_no_picture_in_memory(pictures: Path, cache: str) -> None:
    data = recipe(pictures).data.model_copy(update={"cache": cache})
    pairs = validation_pictures(recipe(pictures).model_copy(update={"data": data}))
    assert isinstance(pairs, batches.ValidationPictures)
    assert len([pairs[0], pairs[1]]) == 2
    assert not pairs._pictures.decoded._kept


def test_validation_runs_the_engine_and_not_the_plain_network(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strips take a half to a third of the plain network's seconds; the last score's test holds that they agree."""
    calls = []
    forward = Restormer.forward
    monkeypatch.setattr(Restormer, "forward", lambda self, x: calls.append(self.training) or forward(self, x))
    logs = run(
        recipe(pictures, validation={"every": 1, "crop": 32, "degrade": ["gaussian:25"]}), tmp_path, stop_after=2
    )
    assert len(validations(logs)) == 2
    assert calls == [True] * 2  # the training steps


@pytest.mark.parametrize("sharded", [False, True])
def test_only_a_sharded_network_is_validated_as_it_is(
    pictures: Path, monkeypatch: pytest.MonkeyPatch, sharded: bool
) -> None:
    values = recipe(pictures, ema={"decay": 0.0})
    taught = learner.TrainState(values, make_accelerator("cpu", None, pictures))
    taught.network.eval()  # its mode comes back as it was
    inner, seen = taught.network, []
    taught.sharded, taught.model = sharded, torch.nn.Sequential(inner).train()
    inner.register_forward_hook(lambda *_: seen.append(torch.is_grad_enabled()))
    picture = torch.rand(1, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with taught.evaluating() as network:
        restored = network(picture)
        assert not sharded or not taught.model.training
    assert seen == [False] * sharded
    assert taught.model.training
    with torch.no_grad():
        torch.testing.assert_close(restored, inner(picture), atol=1e-5, rtol=0)


def test_a_validation_that_overflows_in_bf16_is_done_again_and_told(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = iter([False, True])  # the restored picture, then the one that it was made from
    monkeypatch.setattr(backend, "_finite", lambda x: next(seen, True))
    values = recipe(pictures, validation={"every": 2, "crop": 32, "degrade": ["gaussian:25"]})
    values = values.model_copy(update={"run": values.run.model_copy(update={"precision": "bf16"})})
    logs = run(values, tmp_path, stop_after=2)
    assert [log.text for log in logs if isinstance(log, Note) and "overflowed" in log.text] == [
        "bf16 overflowed on 32×32 pixels: done again in fp32"
    ]


@pytest.mark.parametrize("how", ["gone", "damaged"])
def test_resuming_without_a_checkpoint_leaves_weights_and_log_alone(pictures: Path, tmp_path: Path, how: str) -> None:
    folder = tmp_path / "run"
    run(recipe(pictures), folder, stop_after=2)
    (state,) = (folder / "checkpoints").iterdir()
    if how == "gone":
        (folder / "weights.safetensors").write_bytes(b"trained")
        state.unlink()
    else:
        state.write_bytes(b"torn")
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    with pytest.raises(UserError, match="would overwrite the trained weights: put a checkpoint back"):
        run(recipe(pictures), folder, resume=True)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before


def test_killed_between_its_first_weights_and_its_first_checkpoint_a_run_begins_again(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(run_module, "_store", lambda state, stream: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            run(recipe(pictures), tmp_path / "killed")
    assert (tmp_path / "killed/weights.safetensors").is_file()
    logs = run(recipe(pictures), tmp_path / "killed", resume=True)
    assert [log.text for log in logs if isinstance(log, Note)][:1] == [
        f"{tmp_path}/killed: ended before its first checkpoint; a new training begins"
    ]
    run(recipe(pictures), tmp_path / "whole")
    one, other = (load_weights(tmp_path / name / "weights.safetensors").model for name in ("killed", "whole"))
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))
    assert not list(tmp_path.rglob("none-yet"))


def test_nothing_to_resume_is_told(pictures: Path, tmp_path: Path) -> None:
    logs = run(recipe(pictures), tmp_path / "mistyped", resume=True, stop_after=1)
    assert f"{tmp_path}/mistyped: nothing to go on from; a new training begins" in [
        log.text for log in logs if isinstance(log, Note)
    ]
