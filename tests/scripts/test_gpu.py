"""The scripts for a lent GPU, rehearsed on a CPU: what fails there cannot be mended in the minutes that there are."""

import copy
import importlib
import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights import load_weights
from restormer_cli.model.weights_file import save_weights
from restormer_cli.recipe import Recipe
from restormer_cli.training.distributed import make_accelerator
from restormer_cli.training.learner import TrainState

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "scripts" / "gpu"


def run(*command: str | Path) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_leg_by_the_clock_ends_with_its_decay(tmp_path: Path) -> None:
    archive, out, recipe = tmp_path / "tiles.zip", tmp_path / "out", tmp_path / "tiny.toml"
    with zipfile.ZipFile(archive, "w") as file:
        for number, picture in enumerate((data.astronaut(), data.coffee()[:400, :400])):
            stream = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(picture[:400, :400])).save(stream, "AVIF", quality=95)
            file.writestr(f"{number}.avif", stream.getvalue())
    text = (ROOT / "recipes/gpu/denoise-fast.toml").read_text()
    for old, new in (("dim = 16", "dim = 8"), ("patch = 160", "patch = 32"), ("patch = 224", "patch = 48")):
        text = text.replace(old, new)
    recipe.write_text(text.replace("batch = 24", "batch = 6").replace("batch = 12", "batch = 4"))
    run(GPU / "learn.py", recipe, "--minutes", "2", "--steps", "3", "--photographs", archive, "--out", out)
    log = [json.loads(line) for line in (out / "tiny.jsonl").read_text().splitlines()]
    assert log[-1]["event"] == "end"
    assert log[-1]["step"] == 3
    weights = load_weights(out / "tiny.safetensors")
    assert weights.config.dim == 8
    assert weights.task == "denoise"
    assert load_weights(out / "tiny-last.safetensors").config == weights.config


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_measures_a_gpu_runs_through(tmp_path: Path) -> None:
    run(GPU / "measure.py", "--out", tmp_path, "--dry-run")
    document = json.loads((tmp_path / "measure.json").read_text())
    assert {"rows", "tests", "train"} <= document.keys()
    assert not [key for key, row in document["rows"].items() if isinstance(row, dict) and "error" in row]


def test_the_sharpest_tiles_are_packed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    import pack

    rng = np.random.default_rng(0)
    picture = np.full((1100, 600, 3), 128, np.uint8)
    picture[560:1090, 40:560] = rng.integers(0, 256, (530, 520, 3))
    path = tmp_path / "x.png"
    Image.fromarray(picture).save(path)
    (first, tile), (second, _) = pack.best_tiles(path, 2)
    assert first > second
    assert tile.std() > 50
    data_, loss = pack.encode(np.ascontiguousarray(data.coffee()[:256, :256]), 94)
    assert len(data_) > 1000
    assert loss > 38


@pytest.fixture
def stage_of_pairs(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(GPU))
    import training_samples as samples

    from restormer_cli.recipe import Stage
    from restormer_cli.recipe_files import read_recipe

    recipe = read_recipe(str(ROOT / "recipes/gpu/motion-deblur.toml"))
    tiles = np.stack([data.astronaut()[:128, :128], data.coffee()[:128, :128]])
    stage = Stage(iterations=1, patch=32, batch=6)
    made = samples.MadeByProcesses(tiles, stage, recipe, processes=2, held=32)
    yield samples, tiles, recipe, stage, made
    made.close()


def test_processes_make_the_pairs_that_training_makes(stage_of_pairs) -> None:
    samples, tiles, recipe, stage, made = stage_of_pairs
    from restormer_cli.data.batches import TrainingBatches
    from restormer_cli.degradations.spec import parse_degradation

    made.LEAST = 16
    made.to(torch.device("cpu"))
    batches = TrainingBatches(
        samples.TilePictures(tiles),
        samples.places(tiles),
        parse_degradation(recipe.degrade.steps),
        seed=recipe.seed,
        augment=recipe.augment,
        textured=True,
    )
    # Each process begins with a batch of its own: the first and the second.
    known = [(np.stack(batches.batch(n, stage, range(8)), 1).clip(0, 1) * 255).round() for n in range(1, 9)]
    blocks = made.pool[: made.made].numpy().reshape(-1, 8, 2, 32, 32, 3)
    places = [[n for n, block in enumerate(known) if np.array_equal(block, found)] for found in blocks[:2]]
    assert all(places)
    assert places[0] != places[1]


def test_a_batch_turns_both_sides_alike_and_draws_only_what_is_there(stage_of_pairs) -> None:
    made = stage_of_pairs[-1]
    made.LEAST = 8
    made.to(torch.device("cpu"))
    made.close()
    made.pool.zero_()
    ramp = torch.arange(32, dtype=torch.uint8)
    made.pool[0, 0], made.pool[0, 1] = ramp[:, None, None], ramp[:, None, None] + 100
    made.filled.fill_(1)
    degraded, clean = made()
    assert degraded.shape == clean.shape == (6, 3, 32, 32)
    torch.testing.assert_close(clean - degraded, torch.full_like(clean, 100 / 255))
    orders = {tuple((sample[0, :, 0] * 255).round().int().tolist()) for _ in range(6) for sample in made()[0]}
    assert len(orders) > 2  # upright, on its head, lying


@pytest.mark.slow
def test_a_leg_of_another_task_runs_through(tmp_path: Path) -> None:
    archive, out, recipe = tmp_path / "tiles.zip", tmp_path / "out", tmp_path / "tiny.toml"
    with zipfile.ZipFile(archive, "w") as file:
        stream = io.BytesIO()
        Image.fromarray(np.ascontiguousarray(data.astronaut()[:128, :128])).save(stream, "AVIF", quality=95)
        file.writestr("0000-astronaut-1.avif", stream.getvalue())
    text = (ROOT / "recipes/gpu/defocus.toml").read_text()
    for old, new in (
        ("dim = 24", "dim = 8"),
        ("[0, 5, 2, 1]", "[0, 1, 1, 1]"),
        ("192", "16"),
        ("batch = 16", "batch = 2"),
    ):
        text = text.replace(old, new)
    teacher = tmp_path / "teacher.safetensors"
    save_weights(teacher, Restormer(ModelConfig(dim=4, blocks=(0, 1, 0, 1), refinement=0)), {"task": "defocus"})
    recipe.write_text(f'{text}\n[teacher]\nweights = "{teacher}"\nviews = 2\n')
    options = ("--steps", "2", "--pairs", "16", "--processes", "1", "--photographs", archive, "--out", out)
    run(GPU / "learn.py", recipe, "--minutes", "2", *options)
    header = load_weights(out / "tiny.safetensors").header
    assert header["task"] == "defocus"
    assert header["training"]["data"]["pictures"] == 1
    assert header["training"]["teacher"]["task"] == "defocus"
    assert header["recipe"]["seed"] == 402


@pytest.mark.parametrize("kind", ["adamw", "muon"])
def test_an_update_of_one_vector_is_the_optimisers(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    learn = importlib.import_module("learn")
    values = {
        "name": "tiny",
        "task": "denoise",
        "model": {"dim": 4, "blocks": [0, 1, 1, 1], "heads": [1, 1, 2, 2], "refinement": 1},
        "data": {"train": {"clean": "none"}},
        "degrade": {"steps": ["gaussian:25"]},
        "optimizer": {"kind": kind, "lr": 1e-2, "weight_decay": 0.1, "betas": [0.9, 0.99], "clip": 0},
        "ema": {"decay": 0.9},
        "run": {"precision": "fp32"},
    }
    recipe = Recipe.model_validate(values)
    state = TrainState(recipe, make_accelerator("cpu", None, tmp_path))
    flat = learn.FlatState(copy.deepcopy(state.network), recipe)
    flat.rate.fill_(recipe.optimizer.lr)
    torch.manual_seed(0)
    for _ in range(3):
        for p, g in zip(state.network.parameters(), flat.network.parameters(), strict=True):
            p.grad = torch.randn_like(p)
            g.grad.copy_(p.grad)
        state.optimizer.step()
        flat.update()
    for p, g in zip(state.network.parameters(), flat.network.parameters(), strict=True):
        torch.testing.assert_close(g, p, rtol=1e-4, atol=1e-5)
