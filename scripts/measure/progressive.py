"""Progressive learning against fixed patches, the same network and the same wall-clock time each.

    python scripts/measure/progressive.py --data datasets/photographs --seconds 480

Both arms are the compact denoising recipe. Fixed: its first stage throughout, as in the paper's comparison (Table 7).
Progressive: its three stages, in its own proportions. How many iterations fit into the time is measured first, so that
each arm's learning rate runs through its whole schedule. Scored at σ 25, on centre crops and on larger ones.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from restormer_cli.engine.strips import StripNetwork
from restormer_cli.model.weights import load_weights
from restormer_cli.recipe import Recipe, Stage
from restormer_cli.recipe_files import read_recipe
from restormer_cli.training.distributed import make_accelerator
from restormer_cli.training.learner import TrainState
from restormer_cli.training.trainer import StepLog, fit
from restormer_cli.training.validation import Validation


def make_recipe(arm: str, data: Path, stages: list[dict[str, int]]) -> Recipe:
    """The compact recipe with other stages; its rate is constant for the same share as there."""
    values: dict[str, Any] = read_recipe("compact/denoise").model_dump(mode="json", by_alias=True)
    total = sum(stage["iterations"] for stage in stages)
    share = values["schedule"]["constant"] / sum(stage["iterations"] for stage in values["stage"])
    values["name"] = arm
    values["data"]["train"]["clean"] = str(data / "train")
    values["data"]["validate"]["clean"] = str(data / "validate")
    values["stage"] = stages
    values["schedule"]["constant"] = round(share * total)
    values["validation"]["every"] = values["checkpoint"]["every"] = total
    return Recipe.model_validate(values)


def seconds_per_step(learner: TrainState, stage: Stage) -> float:
    """The median of five steps, after two."""
    taken = []
    for _ in range(7):
        degraded, clean = torch.rand(2, stage.batch, 3, stage.patch, stage.patch)
        begun = time.perf_counter()
        learner.step([(degraded, clean)], stage.batch, 1e-4, False)
        taken.append(time.perf_counter() - begun)
    return statistics.median(taken[2:])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", type=Path, default=Path("datasets/photographs"))
    parser.add_argument("--seconds", type=float, default=480)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="keep the two run folders here")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    base = read_recipe("compact/denoise")
    accelerator = make_accelerator("cpu", None, Path(tempfile.gettempdir()))
    learner = TrainState(base, accelerator)
    costs = [seconds_per_step(learner, stage) for stage in base.stage]
    rows = [stage.model_dump() for stage in base.stage]
    scale = arguments.seconds / sum(cost * row["iterations"] for cost, row in zip(costs, rows, strict=True))
    arms = {
        "fixed": [{**rows[0], "iterations": round(arguments.seconds / costs[0])}],
        "progressive": [{**row, "iterations": max(1, round(scale * row["iterations"]))} for row in rows],
    }
    out = arguments.out or Path(tempfile.mkdtemp())
    results = {}
    for arm, stages in arms.items():
        recipe = make_recipe(arm, arguments.data, stages)
        steps = [log for log in fit(recipe, out / arm, device="cpu") if isinstance(log, StepLog)]
        result: dict[str, Any] = {"stages": stages, "seconds": round(sum(log.seconds for log in steps), 1)}
        network = StripNetwork(load_weights(out / arm / "weights.safetensors").model)
        for crop in (256, 512):
            wide = recipe.model_copy(update={"validation": recipe.validation.model_copy(update={"crop": crop})})
            score = Validation(wide, accelerator).score(network.run, 0, out / arm / f"crop{crop}")
            result[f"psnr_{crop}"] = round(score.psnr, 3)
            result[f"input_psnr_{crop}"] = round(score.input_psnr, 3)
        results[arm] = result
    print(
        json.dumps(
            {"seconds": arguments.seconds, "threads": arguments.threads, "seconds_per_step": costs, **results}, indent=1
        )
    )


if __name__ == "__main__":
    main()
