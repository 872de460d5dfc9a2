"""Arms that train in turns, a few steps each, so that whatever slows the machine slows all, and an interruption
leaves arms that can be compared."""

import statistics
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from accelerate import Accelerator

from restormer_cli.commands.ablate.plan import with_iterations
from restormer_cli.commands.ablate.types import Arm, Budget, Notice, Step
from restormer_cli.data.pictures import Note
from restormer_cli.recipe import Recipe
from restormer_cli.training.learner import TrainState
from restormer_cli.training.schedule import split_batch
from restormer_cli.training.signals import StopRequest
from restormer_cli.training.teacher import Teacher
from restormer_cli.training.trainer import Log, RolledBack, StepLog, Stopped, fit

TURN = 10
"""Steps until the next arm's turn."""
PROBES = 3
"""Timed steps per stage and arm, once the first ones are behind."""


@dataclass
class ArmTraining:
    """One arm's training, part of the way."""

    arm: str
    recipe: Recipe
    logs: Generator[Log, None, None]
    done: int
    """Iterations so far."""
    begun: bool = False

    @property
    def share(self) -> float:
        """How far it is, from 0 to 1."""
        return self.done / self.recipe.iterations


def seeded(recipe: Recipe, seed: int) -> Recipe:
    """The recipe of one repetition: the same seed decides every arm's first weights, patches and noise."""
    return recipe.model_copy(update={"seed": seed})


@dataclass
class InterleavedTraining:
    """The trainings of one repetition; iterate it. `stopped` tells afterwards whether it was asked to stop."""

    recipes: Mapping[str, Recipe]
    folders: Mapping[str, Path]
    done: Mapping[str, int]
    """Iterations that each has a checkpoint of, of those whose folders hold anything."""
    repetition: int
    device: str
    stop: StopRequest
    stopped: bool = field(default=False, init=False)

    def __iter__(self) -> Iterator[Step | Notice]:
        lanes = [self._lane(arm) for arm in self.recipes]
        try:
            while lanes and not self.stopped:
                lane = min(lanes, key=lambda lane: lane.share)
                if (yield from self._turn(lane)):
                    lanes.remove(lane)
            for lane in lanes:  # asked to stop: the others keep a checkpoint too
                if lane.begun:
                    yield from self._drain(lane)
        finally:
            for lane in lanes:
                lane.logs.close()

    def _lane(self, arm: str) -> ArmTraining:
        recipe = self.recipes[arm]
        logs = fit(
            recipe,
            self.folders[arm],
            resume=arm in self.done,
            device=self.device,
            asked_to_stop=self.stop,
            ready=self.stop.be_gentle,
            queues=False,
        )
        return ArmTraining(arm, recipe, logs, self.done.get(arm, 0))

    def _turn(self, lane: ArmTraining) -> Generator[Step | Notice, None, bool]:
        """A turn; True when the training is over, or was stopped."""
        lane.begun = True
        target = min(lane.recipe.iterations, lane.done + TURN)
        for log in lane.logs:
            yield from self._tell(lane, log)
            # After the last step there is still a validation and a checkpoint to come.
            if isinstance(log, StepLog) and target <= lane.done < lane.recipe.iterations:
                return False
            if isinstance(log, Stopped):
                self.stopped = True
        return True

    def _drain(self, lane: ArmTraining) -> Iterator[Step | Notice]:
        for log in lane.logs:
            yield from self._tell(lane, log)

    def _tell(self, lane: ArmTraining, log: Log) -> Iterator[Step | Notice]:
        if isinstance(log, StepLog):
            lane.done = log.iteration
            yield Step(lane.arm, self.repetition, log.iteration, lane.recipe.iterations, log.loss, log.seconds)
        elif isinstance(log, RolledBack):
            lane.done = log.to
            text = f"too many steps were not finite: back to iteration {log.to:,} with {log.scale} of the rate"
            yield Notice(lane.arm, self.repetition, text)
        elif isinstance(log, Stopped):
            kept = f"iteration {log.kept:,} is kept" if log.kept else "nothing is kept yet"
            yield Notice(lane.arm, self.repetition, f"stopped after iteration {log.iteration:,}; {kept}")
        elif isinstance(log, Note):
            yield Notice(lane.arm, self.repetition, log.text)


def time_steps(
    arms: Sequence[Arm], accelerator: Accelerator, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds that an iteration of each arm takes, over all of its stages; the arms are timed in turn."""
    learners = {arm.name: TrainState(arm.recipe, accelerator) for arm in arms}
    teachers = {
        arm.name: Teacher(arm.recipe, accelerator.device, learners[arm.name].precision)
        for arm in arms
        if arm.recipe.teacher is not None
    }
    taken: dict[tuple[str, int], list[float]] = {}
    unsettled = max(learner.unsettled for learner in learners.values())
    # Stage by stage: a graph is of one shape, and would never be made if shapes took turns.
    for number in range(max(len(arm.recipe.stage) for arm in arms)):
        for probe in range(unsettled + PROBES):
            for arm in arms:
                if number >= len(arm.recipe.stage):
                    continue
                stage = arm.recipe.stage[number]
                timed = learners[arm.name], teachers.get(arm.name)
                seconds = _time_step(*timed, stage.batch, stage.patch, accelerator, clock)
                if probe >= unsettled:
                    taken.setdefault((arm.name, number), []).append(seconds)
    return {
        arm.name: sum(
            stage.iterations * statistics.median(taken[arm.name, number])
            for number, stage in enumerate(arm.recipe.stage)
        )
        / arm.recipe.iterations
        for arm in arms
    }


def fit_lengths(wanted: int, seconds: Mapping[str, float], *, equal: str, seeds: int, minutes: int | None) -> Budget:
    """How many iterations each arm gets: `wanted`, or what the first arm's time allows, or what `minutes` allow.

    `seconds` are an iteration's, by arm, the first arm first; a whole ablation has `seeds` trainings of each.
    """
    first, *_ = seconds.values()
    round_of_all = len(seconds) * first if equal == "time" else sum(seconds.values())
    whole = seeds * wanted * round_of_all
    if minutes is not None and whole > 60 * minutes:
        wanted = max(1, int(60 * minutes / (seeds * round_of_all)))
    each = {name: max(1, round(wanted * first / cost)) if equal == "time" else wanted for name, cost in seconds.items()}
    return Budget(wanted, tuple(each.items()), tuple(seconds.items()), whole)


def in_lengths(arms: Sequence[Arm], lengths: Budget) -> tuple[Arm, ...]:
    """The arms in their own number of iterations; a longer training keeps its stages' proportions."""
    iterations = dict(lengths.iterations)
    return tuple(replace(arm, recipe=with_iterations(arm.recipe, iterations[arm.trained_as])) for arm in arms)


def _time_step(
    learner: TrainState,
    teacher: Teacher | None,
    batch: int,
    patch: int,
    accelerator: Accelerator,
    clock: Callable[[], float],
) -> float:
    """Seconds of one step, and of a teacher's answers before it, on this process's share of a batch of noise."""
    recipe = learner.recipe
    share = split_batch(batch, accelerator.num_processes, recipe.run.micro_batch, uneven=recipe.run.uneven).shares[
        accelerator.process_index
    ]
    channels, out = recipe.model.in_channels, recipe.model.out_channels
    micro_batches = [
        (torch.rand(len(rows), channels, patch, patch), torch.rand(len(rows), out, patch, patch)) for rows in share
    ]
    accelerator.wait_for_everyone()
    begun = clock()
    if teacher is not None:
        micro_batches = teacher.targets(micro_batches, 0)
    learner.step(micro_batches, batch, 0.0, False)
    if accelerator.device.type == "cuda":
        torch.cuda.synchronize(accelerator.device)
    return clock() - begun
