"""Where weights come from: what their header says of the training, phase by phase.

A phase is one run folder, however often it was interrupted. It starts from nothing or from the weights that the
recipe's `init` names, whose own phases it hands on; so hours add up over all of them.
"""

from hashlib import file_digest
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from restormer_cli.data.batches import TrainingBatches
from restormer_cli.data.pictures import manifest_hash
from restormer_cli.hardware import processor_name
from restormer_cli.model.cards import read_header
from restormer_cli.model.weights import find_weights
from restormer_cli.recipe import Recipe

KEPT = ("iterations", "seconds", "seed", "precision", "machines", "data", "teacher", "validation", "mean_with")
"""Keys of an earlier phase that the header of a later one keeps."""


def describe_device(accelerator: Accelerator) -> str:
    """Hardware in a few words: `2 × NVIDIA H100`, or the processor with its threads."""
    device = accelerator.device
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
    else:
        threads = torch.get_num_threads()
        name = f"{processor_name()}, {threads} thread{'s' * (threads > 1)}"
    return name if accelerator.num_processes == 1 else f"{accelerator.num_processes} × {name}"


def describe_data(training: TrainingBatches) -> dict[str, Any]:
    """How many training pictures, and the hash that names all of their pixels (data/pictures.py)."""
    return {"pictures": len(training.pictures.pairs), "sha256": manifest_hash(training.pictures, "train")}


def earlier_legs(recipe: Recipe) -> list[dict[str, Any]]:
    """The phases that led to the recipe's `init`, the first one first; none where there is no `init`.

    Of weights that say nothing of their training, only the file's hash and task are known.
    """
    return [] if recipe.init is None else legs_behind(find_weights(recipe.init))


def which(path: Path) -> dict[str, Any]:
    """A file of weights, as headers name it: its task and hash."""
    with path.open("rb") as stream:
        return {"task": read_header(path).get("task"), "sha256": file_digest(stream, "sha256").hexdigest()}


def legs_behind(path: Path) -> list[dict[str, Any]]:
    """The phases that made a file of weights, the first one first, as far as its header tells."""
    header = read_header(path)
    training = header.get("training")
    training = training if isinstance(training, dict) else {}
    earlier = training.get("earlier")
    phase = which(path)
    phase |= {key: training[key] for key in KEPT if key in training}
    return [*(earlier if isinstance(earlier, list) else []), phase]


def training_record(phase: dict[str, Any], earlier: list[dict[str, Any]]) -> dict[str, Any]:
    """The header's `training`: this phase's facts, the hours of all phases together, and the earlier phases."""
    seconds = [row.get("seconds") for row in (*earlier, phase) if isinstance(row, dict)]
    hours = sum(value for value in seconds if isinstance(value, int | float)) / 3600
    return phase | {"hours": round(hours, 2)} | ({"earlier": earlier} if earlier else {})
