"""Patch, batch and learning rate as pure functions of the iteration (section 4; counted from 1)."""

import math

from restormer_cli.recipe import Recipe, Stage


def stage_at(iteration: int, stages: tuple[Stage, ...]) -> tuple[int, Stage]:
    """The index and row in force at an iteration: the first stage whose last iteration is not before it.

    Past the end the last stage stays.
    """
    last = 0
    for index, stage in enumerate(stages):
        last += stage.iterations
        if iteration <= last:
            return index, stage
    return len(stages) - 1, stages[-1]


def cosine_split(recipe: Recipe) -> tuple[int, int]:
    """Iterations at the constant rate, and along the cosine; by default 92 : 208, as in the paper."""
    total, schedule = recipe.iterations, recipe.schedule
    if schedule.constant is None:
        constant = round(total * 92 / 300) if schedule.cosine is None else max(0, total - schedule.cosine)
    else:
        constant = schedule.constant
    return constant, schedule.cosine if schedule.cosine is not None else max(0, total - constant)


def learning_rate(iteration: int, recipe: Recipe) -> float:
    """The rate of an iteration is the schedule's value at iteration - 1; past the end it stays at lr_min."""
    constant, cosine = cosine_split(recipe)
    high, low = recipe.optimizer.lr, recipe.schedule.lr_min
    done = iteration - 1 - constant
    if done <= 0:
        return high
    if done >= cosine:
        return low
    return low + (high - low) * (1 + math.cos(math.pi * done / cosine)) / 2
