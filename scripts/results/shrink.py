#!/usr/bin/env python3
"""Weights for a smaller network, cut out of a larger one's, as a start for training.

    python scripts/results/shrink.py LARGE.safetensors recipes/compact/denoise-fast.toml START.safetensors

The networks differ in their numbers of blocks and in `expansion` alone. Of a level's blocks the encoder keeps the first
and the decoder the last; of a feed-forward network's hidden channels those of the largest weights stay.
"""

import argparse
import re
from pathlib import Path

import torch
from torch import Tensor

from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights import load_weights
from restormer_cli.model.weights_file import save_weights
from restormer_cli.recipe_files import read_recipe
from restormer_cli.training.provenance import legs_behind

BLOCK = re.compile(r"(\w+?_level\d|latent|refinement)\.(\d+)\.(.+)")


def shrink(large: Restormer, config: ModelConfig) -> Restormer:
    """The smaller network of `config`; raises ValueError where its channels are others."""
    small = Restormer(config)
    given, taken = large.state_dict(), {}
    counts = _counts(given), _counts(small.state_dict())
    for key, value in small.state_dict().items():
        source = key
        if match := BLOCK.fullmatch(key):
            level, number, rest = match[1], int(match[2]), match[3]
            last = level.startswith("decoder")
            number += counts[0][level] - counts[1][level] if last else 0
            source = f"{level}.{number}.{rest}"
        taken[key] = given[source] if ".ffn." not in key else _hidden(given, source, value)
        if taken[key].shape != value.shape:
            raise ValueError(f"{key}: {tuple(taken[key].shape)} gives no {tuple(value.shape)}")
    small.load_state_dict(taken)
    return small


def _counts(state: dict[str, Tensor]) -> dict[str, int]:
    """Blocks by level."""
    found: dict[str, int] = {}
    for key in state:
        if match := BLOCK.fullmatch(key):
            found[match[1]] = max(found.get(match[1], 0), int(match[2]) + 1)
    return found


def _hidden(state: dict[str, Tensor], key: str, value: Tensor) -> Tensor:
    """A feed-forward network's tensor, with as many hidden channels as `value` has."""
    stem, name = key.split(".ffn.")
    wide, out = (state[f"{stem}.ffn.{part}.weight"].flatten(1) for part in ("project_in", "project_out"))
    gate, content = wide.chunk(2)
    size = value.shape[1] if name == "project_out.weight" else len(value) // 2
    size = out.shape[1] if name == "project_out.bias" else size
    kept = (gate.norm(dim=1) * content.norm(dim=1) * out.norm(dim=0)).topk(size).indices.sort().values
    if name.startswith("project_out"):
        return state[key][:, kept] if name.endswith("weight") else state[key]
    return torch.cat([half[kept] for half in state[key].chunk(2)])


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("large", type=Path)
    parser.add_argument("recipe")
    parser.add_argument("out", type=Path)
    options = parser.parse_args()
    weights = load_weights(options.large)
    recipe = read_recipe(options.recipe)
    header = {"task": recipe.task, "training": {"earlier": legs_behind(options.large)}}
    save_weights(options.out, shrink(weights.model, recipe.model), header, dtype=torch.float32)


if __name__ == "__main__":
    main()
