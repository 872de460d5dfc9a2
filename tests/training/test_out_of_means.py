"""What a machine lacks is one line with the cure that fits: memory, a compiler."""

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch._dynamo

from restormer_cli.engine.adapter import restore_pixels
from restormer_cli.engine.restorer import Restorer
from restormer_cli.errors import Failed
from restormer_cli.recipe import Recipe
from restormer_cli.training import learner
from restormer_cli.training.learner import TrainState
from restormer_cli.training.trainer import fit
from restormer_cli.training.validation import Validation

FULL = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB.\nGPU 0 has …\n")


def fail(error: BaseException):
    def raise_it(*_, **__):
        raise error

    return raise_it


@pytest.fixture
def recipe(tmp_path: Path, small_recipe) -> Recipe:
    return small_recipe(
        data={"train": {"clean": str(tmp_path / "clean")}, "validate": {"clean": str(tmp_path / "clean")}},
        validation={"every": 1, "crop": 16, "degrade": ["gaussian:25"]},
        stage=[{"iterations": 2, "patch": 16, "batch": 4}],
    )


def told(recipe: Recipe, folder: Path, **options) -> str:
    with pytest.raises(Failed) as caught:
        list(fit(recipe, folder, device="cpu", **options))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("error", [FULL, MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: …")])
def test_training_out_of_memory_names_the_cures_that_are_left(recipe, tmp_path, monkeypatch, error):
    monkeypatch.setattr(TrainState, "_loss", fail(error))
    line = told(recipe, tmp_path / "run")
    assert line.startswith("iteration 1: not enough memory on cpu for 4 patches of 16 at once: try ")
    assert "run.micro_batch=2, or --set run.activation_checkpointing=true, or --set stage.0.patch=8" in line
    frugal = recipe.model_copy(
        update={"run": recipe.run.model_copy(update={"micro_batch": 1, "activation_checkpointing": True})}
    )
    assert told(frugal, tmp_path / "frugal").endswith("for 1 patches of 16 at once: try --set stage.0.patch=8")


def test_validation_out_of_memory(recipe, tmp_path, monkeypatch):
    monkeypatch.setattr(Validation, "_restore", fail(FULL))
    assert "not enough memory on cpu for validation: --set validation.crop=" in told(recipe, tmp_path / "run")


def test_memory_that_runs_out_while_resuming_is_not_another_network(recipe, tmp_path, monkeypatch):
    list(fit(recipe, tmp_path / "run", device="cpu", stop_after=1))
    monkeypatch.setattr(TrainState, "_load", fail(FULL))
    assert told(recipe, tmp_path / "run", resume=True) == "not enough memory to take up the checkpoint on cpu"


MISSING = RuntimeError("InvalidCxxCompiler: No working C++ compiler found in torch._inductor.config.cpp.cxx: …\n…")


def test_compiling_without_a_compiler(recipe, tmp_path, monkeypatch, tiny_network, samples):
    monkeypatch.setattr(TrainState, "_loss", fail(MISSING))
    assert told(recipe, tmp_path / "run").endswith(
        "run.compile: needs a C++ compiler, and there is none: install g++, or set it to false"
    )
    monkeypatch.setattr(Restorer, "__call__", fail(MISSING))
    with pytest.raises(Failed, match=r"--compile: needs a C\+\+ compiler, .* or leave it out"):
        restore_pixels(Restorer(tiny_network(), device="cpu"), samples(8, 8) / 255)


def test_training_in_fp32_is_exact_on_cuda_too(recipe, tmp_path, monkeypatch):
    """TF32 is off in steps and validation, and afterwards as it was."""
    loss, score, seen = TrainState._loss, Validation._restore, []

    def note(wrapped):
        def call(*arguments):
            seen.append((torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32))
            return wrapped(*arguments)

        return call

    monkeypatch.setattr(TrainState, "_loss", note(loss))
    monkeypatch.setattr(Validation, "_restore", note(score))
    before = torch.backends.cudnn.allow_tf32
    list(fit(recipe, tmp_path / "run", device="cpu"))
    assert seen == [(False, False)] * 4
    assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.parametrize("setting", ["recompile_limit", "cache_size_limit"])
def test_compiling_sets_the_limit_that_this_pytorch_has(recipe, monkeypatch, setting):
    """PyTorch 2.6, which is allowed, has another name for it."""
    config = SimpleNamespace(**{setting: 1})
    monkeypatch.setattr(torch._dynamo, "config", config)
    compiling = recipe.model_copy(update={"run": recipe.run.model_copy(update={"compile": True})})
    monkeypatch.setattr(torch.nn.Module, "compile", lambda *_, **__: None)
    learner._configure(learner.initial_network(compiling), compiling, compiled=True)
    assert vars(config) == {setting: 16}
