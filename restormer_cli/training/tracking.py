"""Where else metrics go: TensorBoard, trackio or Weights & Biases, by way of Accelerate."""

import json
from importlib.util import find_spec
from typing import Any

from accelerate import Accelerator

from restormer_cli.errors import UserError
from restormer_cli.recipe import Recipe

PACKAGES = {"tensorboard": ("tensorboard", "tensorboardX"), "trackio": ("trackio",), "wandb": ("wandb",)}


def check_tracker(name: str | None) -> None:
    """Raises UserError with the install command where the tracker's package is missing."""
    if name is not None and not any(find_spec(package) for package in PACKAGES[name]):
        raise UserError(f"--track {name}: {name} is not installed: pip install {name}")


class Tracker:
    """The tracker that the recipe names, or none."""

    def __init__(self, accelerator: Accelerator, recipe: Recipe, run: str) -> None:
        self.accelerator = accelerator
        self.on = recipe.run.track is not None
        if self.on:
            assert recipe.run.track is not None
            values = json.loads(recipe.model_dump_json(by_alias=True, exclude_none=True))
            options = {} if recipe.run.track == "tensorboard" else {recipe.run.track: {"name": run}}
            accelerator.init_trackers("restormer", config=dict(_flat(values)), init_kwargs=options)

    def log(self, iteration: int, entry: dict[str, Any]) -> None:
        """The numbers of a line of metrics.jsonl; those of a validation under `validation/`."""
        if not self.on:
            return
        prefix = "validation/" if "validation" in entry else ""
        skip = ("iteration", "validation", "rolled_back")
        numbers = {f"{prefix}{key}": value for key, value in entry.items() if key not in skip and value is not None}
        self.accelerator.log(numbers, step=iteration)

    def close(self) -> None:
        if self.on:
            for tracker in self.accelerator.trackers:
                tracker.finish()


def _flat(table: dict[str, Any], path: str = "") -> list[tuple[str, Any]]:
    """Values by dotted names; lists as text, since trackers take plain values only."""
    flat: list[tuple[str, Any]] = []
    for key, value in table.items():
        name = f"{path}{key}"
        if isinstance(value, dict):
            flat += _flat(value, f"{name}.")
        else:
            flat.append((name, json.dumps(value) if isinstance(value, list) else value))
    return flat
