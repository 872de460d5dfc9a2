"""Which network a benchmark is about: weights from a file, or random ones of a given shape, by one small value.

The value travels to the fresh processes in which things are measured; each builds the same network from it.
"""

from dataclasses import dataclass
from pathlib import Path

import torch

from restormer_cli.errors import UserError
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import MDTA, LayerNorm, Restormer
from restormer_cli.model.weights import bundled_tasks, load_weights
from restormer_cli.recipe_files import bundled_recipes, read_recipe

PAPER = "paper"
"""The name of the paper's network, which needs no file."""


@dataclass(frozen=True)
class Network:
    """A network by name; `build` makes it."""

    name: str
    config: ModelConfig
    path: Path | None = None
    """The weights file; None: random weights, which can be timed but not judged."""
    task: str | None = None
    seed: int = 0

    def build(self) -> Restormer:
        """The network, in evaluation mode, on the CPU."""
        if self.path is not None:
            return load_weights(self.path).model
        return random_network(self.config, self.seed)


def find_network(name: str, seed: int = 0) -> Network:
    """A weights file, a bundled checkpoint, `paper`, or a recipe (its network at random weights).

    Raises UserError, naming what there is.
    """
    if name == PAPER:
        return Network(PAPER, ModelConfig(), seed=seed)
    if not name.endswith(".toml") and (name in bundled_tasks() or _exists(name)):
        weights = load_weights(name)
        return Network(weights.path.stem, weights.config, weights.path, weights.task)
    if name.endswith(".toml") or name in bundled_recipes():
        recipe = read_recipe(name)
        return Network(recipe.name, recipe.model, task=recipe.task, seed=seed)
    raise UserError(
        f"{name}: no such weights file, checkpoint ({', '.join(bundled_tasks()) or 'none'}) or recipe "
        f"({', '.join(bundled_recipes())}); `{PAPER}` is the paper's network at random weights"
    )


def random_network(config: ModelConfig, seed: int) -> Restormer:
    """A network whose weights are all random, also those that training starts at 0 or 1.

    So a fault in any of them shows when two ways of running the network are compared.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        model = Restormer(config)
        for module in model.modules():
            if isinstance(module, MDTA):
                module.temperature.uniform_(1, 8)
            elif isinstance(module, LayerNorm):
                module.body.weight.normal_(1, 0.2)
                if module.body.bias is not None:
                    module.body.bias.normal_(0, 0.1)
    return model.eval()


def _exists(name: str) -> bool:
    try:
        return Path(name).exists()
    except OSError:  # a name too long, a folder that may not be searched
        return False
