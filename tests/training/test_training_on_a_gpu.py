"""For a machine with a CUDA device: `pytest -m gpu`. The CPU's losses, by one graph a step."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from restormer_cli.data.pictures import Note
from restormer_cli.engine.whole_map import WholeMap
from restormer_cli.model.weights import load_weights
from restormer_cli.recipe import Recipe
from restormer_cli.training import step_graph
from restormer_cli.training.trainer import fit
from restormer_cli.training.validation import ValidationLog

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine"),
]


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    """22 steps of two shapes, with an average, in float32."""
    (tmp_path / "clean").mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(noise).resize((96, 128)).save(tmp_path / "clean" / "a.png")
    return Recipe.model_validate(
        {
            "name": "small",
            "task": "denoise",
            "model": {"dim": 16, "blocks": [1, 1, 1, 1], "refinement": 1},
            "data": {"train": {"clean": str(tmp_path / "clean")}},
            "degrade": {"steps": ["gaussian:25"]},
            "stage": [{"iterations": 12, "patch": 32, "batch": 4}, {"iterations": 10, "patch": 48, "batch": 2}],
            "ema": {"decay": 0.9},
            "checkpoint": {"every": 11},
        }
    )


def losses(folder: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("micro_batch", [None, 1])
def test_losses_are_those_of_a_cpu_and_steps_are_graphs(recipe, tmp_path, monkeypatch, micro_batch):
    recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update={"micro_batch": micro_batch})})
    captured, graphs = step_graph.captured, []
    monkeypatch.setattr(step_graph, "captured", lambda *given: graphs.append(given) or captured(*given))
    list(fit(recipe, tmp_path / "cpu", device="cpu"))
    logs = list(fit(recipe, tmp_path / "gpu", device="cuda"))
    assert not [log.text for log in logs if isinstance(log, Note) and "graph" in log.text]
    assert len(graphs) == 2
    assert losses(tmp_path / "gpu") == pytest.approx(losses(tmp_path / "cpu"), rel=1e-3)


def test_a_run_goes_on_and_queued_steps_are_the_same_steps(recipe, tmp_path):
    list(fit(recipe, tmp_path / "whole", device="cuda"))
    list(fit(recipe, tmp_path / "parts", device="cuda", stop_after=9, queues=False))
    list(fit(recipe, tmp_path / "parts", device="cuda", resume=True, queues=False))
    assert losses(tmp_path / "parts") == pytest.approx(losses(tmp_path / "whole"), rel=1e-4)


def test_bf16_and_compiled_blocks_train_too(recipe, tmp_path):
    values = {"precision": "bf16", "compile": True}
    recipe = recipe.model_copy(update={"run": recipe.run.model_copy(update=values)})
    logs = list(fit(recipe, tmp_path / "run", device="cuda"))
    assert not [log.text for log in logs if isinstance(log, Note) and "graph" in log.text]
    assert all(np.isfinite(losses(tmp_path / "run")))
    assert all(p.isfinite().all() for p in load_weights(tmp_path / "run" / "weights.safetensors").model.parameters())


def test_validation_by_whole_maps_scores_as_on_a_cpu(recipe, tmp_path, monkeypatch):
    seen, run = [], WholeMap.run
    monkeypatch.setattr(WholeMap, "run", lambda *given: seen.append(given) or run(*given))
    data = recipe.data.model_copy(update={"validate_": recipe.data.train})
    recipe = recipe.model_copy(
        update={"data": data, "validation": recipe.validation.model_copy(update={"every": 22, "crop": 64})}
    )
    scores = [
        [log.psnr for log in fit(recipe, tmp_path / device, device=device) if isinstance(log, ValidationLog)]
        for device in ("cpu", "cuda")
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.02)
    assert len(seen) == len(scores[1]) == 1
