"""Targets by another network (Hinton, Vinyals and Dean 2015).

A photograph is one of many that could lie behind noise; no network can guess which. What a better network answers is
close to their mean, which is what a loss over all of them looks for, so that a step learns more from it. Turned and
mirrored views (Timofte, Rothe and Van Gool, CVPR 2016) make answers better than the network: it may also learn from
its own.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from restormer_cli.engine.backend import OwnBackend
from restormer_cli.engine.positions import ALL, AS_IT_IS, Position, positions_of
from restormer_cli.errors import UserError
from restormer_cli.hardware import held
from restormer_cli.model.weights import find_weights, load_weights
from restormer_cli.recipe import Recipe, Teaching
from restormer_cli.training.provenance import which
from restormer_cli.training.step_graph import Pairs


class Teacher:
    """The network that a recipe's [teacher] names, by the engine that restores with it.

    Raises UserError where it takes or gives other channels than the recipe's network.
    """

    def __init__(self, recipe: Recipe, device: torch.device, precision: str) -> None:
        assert recipe.teacher is not None
        self.wanted = recipe.teacher
        path = find_weights(self.wanted.weights)
        weights = load_weights(str(path))
        check_channels(recipe, weights.config.in_channels, weights.config.out_channels)
        self.record = which(path)
        """What a header says of it."""
        self._notes: list[str] = []
        self._said: set[str] = set()
        # Two views of one scene, left and right, cannot be turned (nor would `views` take more than one of them).
        turned = positions_of(weights.header.get("recipe"))
        self._positions: tuple[Position, ...] = (AS_IT_IS,) if recipe.model.dual_pixel else turned
        self._backend = OwnBackend(weights.model, device, precision)

    def targets(self, pairs: Pairs, iteration: int) -> Pairs:
        """Micro-batches of (degraded, clean) -> (degraded, target), on the device."""
        device = self._backend.device
        placed = [(d.to(device, non_blocking=True), c.to(device, non_blocking=True)) for d, c in pairs]
        with torch.no_grad():
            return [(d, target(self._answer, d, c, self.wanted, iteration, self._positions)) for d, c in placed]

    def told(self) -> list[str]:
        """What is to be said of its answers up to now, once."""
        notes, self._notes = self._notes, []
        return notes

    def _answer(self, pictures: Tensor) -> Tensor:
        backend = self._backend
        plan = backend.plan(*pictures.shape[-2:], tile=None, budget=None, base=held(backend.device))
        x = pictures.to(torch.float32).contiguous()
        return torch.cat([backend.run(some, plan, self._note) for some in x.split(plan.together)])

    def _note(self, note: str) -> None:
        if note not in self._said:
            self._said.add(note)
            self._notes.append(note)


def target(
    answer: Callable[[Tensor], Tensor],
    degraded: Tensor,
    clean: Tensor,
    wanted: Teaching,
    iteration: int,
    positions: tuple[Position, ...] = ALL,
) -> Tensor:
    """(b, c, h, w), h = w: the mean of the teacher's answers to some views, and the share that the photograph keeps.

    Of `positions`, which the teacher knows, an iteration takes as many as `views` says, evenly spread (all, if they are
    no more), the next one those beside them.
    """
    apart = max(1, len(positions) // wanted.views)
    chosen = positions[iteration % apart :: apart]
    total = torch.zeros_like(clean)
    for mirrored, quarters in chosen:
        view = torch.rot90(degraded.flip(-1) if mirrored else degraded, quarters, (-2, -1))
        back = torch.rot90(answer(view).to(clean.dtype), -quarters, (-2, -1))
        total += back.flip(-1) if mirrored else back
    return clean + wanted.share * (total / len(chosen) - clean)


def check_channels(recipe: Recipe, takes: int, gives: int) -> None:
    """Raises UserError where a teacher's channels are not those of the recipe's network."""
    model = recipe.model
    if (takes, gives) != (model.in_channels, model.out_channels):
        assert recipe.teacher is not None
        raise UserError(
            f"teacher.weights = {recipe.teacher.weights}: takes {takes} channels and gives {gives}, [model] "
            f"{model.in_channels} and {model.out_channels}"
        )
