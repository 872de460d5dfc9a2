"""The training loop: `fit` yields one log per step and draws nothing.

Everything random is a pure function of (seed, iteration), so a checkpoint is the weights, the optimiser, the
average and a few numbers, and a resumed run ends with the bits of an uninterrupted one. A step draws nothing from
torch's, numpy's or Python's own generators (test_a_step_draws_no_random_numbers).
"""

import json
import time
from collections.abc import Callable, Generator
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from restormer_cli.data.batches import TrainingBatches, prefetched, training_batches
from restormer_cli.data.pictures import Note, Reading
from restormer_cli.errors import Failed
from restormer_cli.files import finite
from restormer_cli.hardware import (
    EMULATED,
    about_device,
    is_out_of_memory,
    keep_freed,
    lacks_compiler,
    multiplies_bf16,
)
from restormer_cli.model.weights_file import save_weights
from restormer_cli.recipe import Recipe, Stage
from restormer_cli.recipe_files import recipe_toml, resolved
from restormer_cli.training.distributed import check_sharded, environment, is_unsharded_fsdp, make_accelerator, on_main
from restormer_cli.training.learner import Outcome, TrainState
from restormer_cli.training.provenance import describe_data, describe_device, earlier_legs, training_record
from restormer_cli.training.run_folder import FORMAT, MetricsLog, Run, check_unused, make_run_folder, open_run
from restormer_cli.training.schedule import Split, learning_rate, split_batch, stage_at
from restormer_cli.training.teacher import Teacher
from restormer_cli.training.tracking import Tracker, check_tracker
from restormer_cli.training.validation import Validation, ValidationLog


@dataclass(frozen=True)
class StepLog:
    """One training iteration."""

    iteration: int
    stage: int
    """From 0."""
    patch: int
    batch: int
    loss: float
    """Mean over the global batch, before the step; not finite (in JSON null) where the step was skipped."""
    lr: float
    seconds: float
    waited: float = 0.0
    """Seconds of `seconds` in which the batch was not there yet."""
    skipped: int = 0
    """Steps skipped up to now because the loss or a gradient was not finite; 0 (in JSON left out) for a step that was
    taken."""


@dataclass(frozen=True)
class RolledBack:
    """Too many steps in a row were not finite: the run goes back to an iteration, and on with half the rate."""

    iteration: int
    to: int
    scale: float
    """Factor of the recipe's learning rate from now on."""


@dataclass(frozen=True)
class Stopped:
    """The run was asked to stop, and did after this iteration."""

    iteration: int
    kept: int
    """The iteration of the newest checkpoint."""


Log = StepLog | ValidationLog | RolledBack | Stopped | Reading | Note


def fit(
    recipe: Recipe,
    folder: Path,
    *,
    resume: bool = False,
    accept_changes: bool = False,
    stop_after: int | None = None,
    device: str = "auto",
    asked_to_stop: Callable[[], bool] = lambda: False,
    ready: Callable[[], None] = lambda: None,
    queues: bool = True,
) -> Generator[Log, None, None]:
    """Train to the recipe's end (or for `stop_after` iterations), yielding logs; `engine.run` tells what is written.

    `asked_to_stop` is looked at before every step: the run then keeps a checkpoint, yields Stopped and ends. `ready`
    is called when there is something to keep, before the first step. `queues`: whether a GPU gets its next step before
    the last one is looked at; not where trainings take turns, since their times would run into each other. Under
    `accelerate launch` every process calls this, and all yield the same logs.

    Raises UserError for data or folders that cannot be used, Failed where too many steps are not finite or a file
    cannot be written.
    """
    check_tracker(recipe.run.track)
    accelerator = make_accelerator(device, recipe.run.track, folder, one_pass=recipe.run.micro_batch is None)
    splits = [
        split_batch(stage.batch, accelerator.num_processes, recipe.run.micro_batch, uneven=recipe.run.uneven)
        for stage in recipe.stage
    ]
    check_sharded(accelerator, splits)
    # The main process alone looks at the folder, so that machines need not share a disk. It does so before the data are
    # read, which may take minutes, and makes it after, so that data that are not there leave nothing behind.
    on_main(accelerator, lambda: check_unused(folder, resume=resume))
    training = yield from training_batches(recipe)
    validation = Validation(recipe, accelerator)
    if accelerator.device.type == "cpu":
        keep_freed()
    learner = TrainState(recipe, accelerator)
    teacher = Teacher(recipe, accelerator.device, learner.precision) if recipe.teacher is not None else None
    with ExitStack() as stack:
        state, notes = on_main(accelerator, partial(_open, stack, folder, recipe, resume, accept_changes))
        if is_unsharded_fsdp(accelerator):
            notes.append("FSDP was asked for, but Accelerate does it on GPUs only: every process has the whole network")
        notes += about_precision(learner, state)
        notes += about_teacher(teacher, state)
        notes += filter(None, [about_device(device)])
        yield from (Note(note) for note in notes)
        loop = Loop(recipe, folder, learner, teacher, training, validation, splits, queues=queues and learner.ahead)
        stack.callback(loop.close)
        loop.begin(state)
        ready()
        last = recipe.iterations if stop_after is None else min(recipe.iterations, loop.done + stop_after)
        yield from loop.run(last, asked_to_stop)


def _open(
    stack: ExitStack, folder: Path, recipe: Recipe, resume: bool, accept_changes: bool
) -> tuple[dict[str, Any] | None, list[str]]:
    """`open_run` under the folder's lock, which `stack` gives back."""
    with ExitStack() as held:
        make_run_folder(folder)
        held.enter_context(Run(folder).lock())
        opened = open_run(folder, recipe, resume=resume, accept_changes=accept_changes)
        stack.push(held.pop_all())
    return opened


def about_precision(learner: TrainState, state: dict[str, Any] | None) -> list[str]:
    """Notes where the precision is slow here, or not the one that the run began in."""
    notes = []
    device = learner.accelerator.device
    if learner.precision == "bf16" and not multiplies_bf16(device):
        notes.append(f"{EMULATED}: --precision auto avoids it")
    before = (state or {}).get("precision", learner.precision)
    if before != learner.precision:
        notes.append(
            f"begun in {before}, it goes on in {learner.precision} on this {device.type}: not to the same bits"
        )
    return notes


def about_teacher(teacher: Teacher | None, state: dict[str, Any] | None) -> list[str]:
    """A note where the file of the teacher's weights is not the one that the run had before."""
    before = (state or {}).get("teacher")
    if teacher is None or before is None or before == teacher.record:
        return []
    name = teacher.wanted.weights
    return [f"teacher.weights = {name}: is another file than up to now: not to the same bits"]


@dataclass(frozen=True)
class Begun:
    """An iteration that is under way."""

    iteration: int
    index: int
    """Of its stage."""
    stage: Stage
    rate: float
    at: float
    """When it was begun, by time.perf_counter."""
    waited: float
    """Seconds in which its batch was not there yet."""
    outcome: Outcome


class Loop:
    """The steps of a run, with what they leave in its folder; all that a checkpoint holds is here and in `learner`."""

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        learner: TrainState,
        teacher: Teacher | None,
        training: TrainingBatches,
        validation: Validation,
        splits: list[Split],
        *,
        queues: bool,
    ) -> None:
        self.recipe = recipe
        self.queues = queues
        self.learner = learner
        self.teacher = teacher
        self.accelerator = learner.accelerator
        self.main = self.accelerator.is_main_process
        self.training = training
        self.validation = validation
        self.splits = splits
        self.files = Run(folder)
        self.metrics: MetricsLog | None = None
        self.tracker: Tracker | None = None
        self.done = self.kept = self.skipped = self.in_a_row = 0
        self.scale = 1.0
        self.went_back = False
        self.sound = 0  # the newest checkpoint after a step that was taken
        self.score: ValidationLog | None = None
        self.seconds = 0.0
        self.ended = 0.0  # when the last step did, by time.perf_counter
        self.machines: list[str] = []
        self.data: dict[str, Any] = {}
        self.earlier: list[dict[str, Any]] = []

    def begin(self, state: dict[str, Any] | None) -> None:
        """Take up a checkpoint's state, or none, and write down what runs on what."""
        # As it was when the run began: a bundled name may stand for other weights by now.
        known = (state or {}).get("earlier")
        self.earlier = earlier_legs(self.recipe) if known is None else known
        if state is not None:
            self.machines = list(state.get("machines", []))
            self._take_up(state)
        if self.main and self.done < self.recipe.iterations:
            self.data = describe_data(self.training)
            self.machines = list(dict.fromkeys([*self.machines, describe_device(self.accelerator)]))
            self.files.write("recipe.toml", recipe_toml(self.recipe))
            self.files.write("environment.json", json.dumps(environment(self.accelerator), indent=1))
            # We hold the folder, so what is later than the newest whole one is damaged.
            self.went_back = any(iteration > self.done for iteration in self.files.iterations())
            if state is None:
                self.files.expect_first()
            self.metrics = MetricsLog(self.files.metrics, 0 if state is None else state["metrics_bytes"])
        self.tracker = Tracker(self.accelerator, self.recipe, self.files.folder.name)

    def run(self, last: int, asked_to_stop: Callable[[], bool]) -> Generator[Log, None, None]:
        """Steps up to the iteration `last`, or until asked to stop."""
        while self.done < last:
            batches = prefetched(
                self._batch,
                self.done + 1,
                last,
                depth=self.recipe.data.prefetch,
                workers=self.recipe.data.workers,
            )
            try:
                rolled_back = yield from self._steps(batches, last, asked_to_stop)
            finally:
                batches.close()
            if not rolled_back:
                return

    def _steps(
        self, batches: Generator[list[tuple[Tensor, Tensor]], None, None], last: int, asked_to_stop: Callable[[], bool]
    ) -> Generator[Log, None, bool]:
        """Steps until the end; True where a rollback makes the batches that are under way useless."""
        recipe = self.recipe
        ahead: Begun | None = None
        stopping = False
        while self.done < last:
            begun = ahead or self._begin(self.done + 1, batches, asked_to_stop)
            ahead = None
            # Where the device works by itself, the next step is queued before the host looks at this one.
            if self.queues and not stopping and not self._looks_after(begun.iteration, last):
                ahead = self._begin(begun.iteration + 1, batches, asked_to_stop)
            log, stopped = self._end(begun)
            stopping |= stopped
            self._tell(log)
            yield log
            yield from self._notes()
            if self.in_a_row >= recipe.run.non_finite_steps:
                yield self._roll_back()
                return True
            if ahead is not None:
                continue  # also where it is to stop: what is queued has changed the weights
            ending = self.done == last
            if self.validation.pairs and (self.done % recipe.validation.every == 0 or ending):
                try:
                    with self.learner.evaluating() as network:
                        self.score = self.validation.score(network, self.done, self.files.pictures)
                except (MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    where = f"iteration {self.done}: not enough memory on {self.accelerator.device} for validation"
                    raise Failed(f"{where}: --set validation.crop=256, or a smaller one, takes less") from None
                self._tell(self.score)
                yield self.score
                yield from self._notes()
            # A state whose last step failed may be one from which every step fails: nothing to go back to. A run that
            # stops goes on from there all the same (skipped steps change no weights), beside the last sound one.
            due = self.done % recipe.checkpoint.every == 0 and self.in_a_row == 0
            if due or ending or stopping:
                self._save()
            if stopping and self.done < recipe.iterations:
                yield Stopped(self.done, self.kept)
                break
        self.accelerator.wait_for_everyone()
        return False

    def _notes(self) -> Generator[Note, None, None]:
        notes = self.learner.notes() + ([] if self.teacher is None else self.teacher.told())
        yield from map(Note, notes)

    def _looks_after(self, iteration: int, last: int) -> bool:
        """Whether something is done with the weights after this iteration, before the next one changes them."""
        validates = bool(self.validation.pairs) and iteration % self.recipe.validation.every == 0
        return iteration == last or validates or iteration % self.recipe.checkpoint.every == 0

    def _begin(
        self,
        iteration: int,
        batches: Generator[list[tuple[Tensor, Tensor]], None, None],
        asked_to_stop: Callable[[], bool],
    ) -> "Begun":
        """Set an iteration going."""
        at = time.perf_counter()
        micro_batches = next(batches)
        waited = time.perf_counter() - at
        index, stage = stage_at(iteration, self.recipe.stage)
        rate = learning_rate(iteration, self.recipe) * self.scale
        try:
            if self.teacher is not None:
                micro_batches = self.teacher.targets(micro_batches, iteration)
            outcome = self.learner.step(micro_batches, stage.batch, rate, asked_to_stop())
        except (MemoryError, RuntimeError) as error:
            raise self._explained(error, iteration, max(len(clean) for _, clean in micro_batches)) from None
        return Begun(iteration, index, stage, rate, at, waited, outcome)

    def _end(self, begun: "Begun") -> tuple[StepLog, bool]:
        """Take note of what an iteration came to; also whether any process was asked to stop."""
        loss, stopping, taken = begun.outcome.read()
        self.done = begun.iteration
        self.in_a_row = 0 if taken else self.in_a_row + 1
        self.skipped += not taken
        now = time.perf_counter()
        seconds = now - max(begun.at, self.ended)  # it may have begun before the last one ended
        self.ended = now
        self.seconds += seconds
        log = StepLog(
            begun.iteration,
            begun.index,
            begun.stage.patch,
            begun.stage.batch,
            loss,
            begun.rate,
            seconds,
            min(begun.waited, seconds),
            0 if taken else self.skipped,
        )
        return log, stopping

    def _explained(self, error: Exception, iteration: int, rows: int) -> Exception:
        """The error in one line with the cure that fits, where there is one; else as it is."""
        index, stage = stage_at(iteration, self.recipe.stage)
        run = self.recipe.run
        if lacks_compiler(error):
            return Failed("run.compile: needs a C++ compiler, and there is none: install g++, or set it to false")
        if not is_out_of_memory(error):
            return error
        cures = [f"--set run.micro_batch={rows // 2}"] if rows > 1 else []
        cures += [] if run.activation_checkpointing else ["--set run.activation_checkpointing=true"]
        cures += [f"--set stage.{index}.patch={max(8, stage.patch // 16 * 8)}"]
        return Failed(
            f"iteration {iteration}: not enough memory on {self.accelerator.device} for {rows} patches of "
            f"{stage.patch} at once: try {', or '.join(cures)}"
        )

    def _batch(self, iteration: int) -> list[tuple[Tensor, Tensor]]:
        """This process's rows of an iteration's global batch, by micro-batches of (degraded, clean)."""
        index, stage = stage_at(iteration, self.recipe.stage)
        micro_batches = self.splits[index].shares[self.accelerator.process_index]
        rows = range(micro_batches[0].start, micro_batches[-1].stop)
        degraded, clean = (torch.from_numpy(x).permute(0, 3, 1, 2) for x in self.training.batch(iteration, stage, rows))
        if self.accelerator.device.type == "cuda":  # copied to the device while it computes
            degraded, clean = degraded.pin_memory(), clean.pin_memory()
        sizes = [len(some) for some in micro_batches]
        return list(zip(degraded.split(sizes), clean.split(sizes), strict=True))

    def _roll_back(self) -> RolledBack:
        """Go back to the last sound checkpoint (or the start) with half the rate, once. Raises Failed after that."""
        at, many = self.done, self.recipe.run.non_finite_steps
        if self.scale != 1.0:
            exact = "" if self.learner.precision == "fp32" else ", or run.precision=fp32,"
            raise Failed(
                f"{many} steps in a row had no finite loss or gradient, up to iteration {at} and again at half the "
                f"rate: try a lower optimizer.lr{exact} with --resume --accept-changes"
            )
        state, _ = on_main(self.accelerator, lambda: self.files.newest(sound=True))
        skipped = self.skipped
        self._take_up(state)
        self.scale, self.in_a_row, self.skipped, self.went_back = 0.5, 0, skipped, True
        log = RolledBack(at, self.done, self.scale)
        self._tell(log)
        return log

    def _take_up(self, state: dict[str, Any] | None) -> None:
        self.learner.load(state)
        state = state or {"iteration": 0, "skipped": 0, "in_a_row": 0, "scale": 1.0, "score": None, "seconds": 0.0}
        self.done = self.kept = state["iteration"]
        self.skipped, self.in_a_row = state["skipped"], state["in_a_row"]
        self.sound = state.get("sound", 0 if self.in_a_row else self.done)
        self.scale, self.seconds = state["scale"], state["seconds"]
        self.score = None if state["score"] is None else ValidationLog(**state["score"])

    def _save(self) -> None:
        """Weights first: when the checkpoint says that a run has ended, they are there."""
        state = self.learner.state()  # every process takes part
        self.kept = self.done
        if self.in_a_row == 0:
            self.sound = self.done
        if not self.main:
            return
        assert self.metrics is not None
        state |= {
            "format": FORMAT,
            "iteration": self.done,
            "skipped": self.skipped,
            "in_a_row": self.in_a_row,
            "sound": self.sound,
            "scale": self.scale,
            "score": None if self.score is None else asdict(self.score),
            "seconds": self.seconds,
            "machines": self.machines,
            "earlier": self.earlier,
            "teacher": None if self.teacher is None else self.teacher.record,
            "metrics_bytes": self.metrics.sync(),
            "recipe": resolved(self.recipe),
            "precision": self.learner.precision,
        }
        save_weights(self.files.weights, self.learner.network_of(state), self._header())
        self.files.save(state, self.recipe.checkpoint.keep, later=self.went_back, sound=self.sound)
        self.went_back = False

    def _header(self) -> dict[str, Any]:
        recipe, score = self.recipe, self.score
        phase: dict[str, Any] = {
            "iterations": self.done,
            "of": recipe.iterations,
            "seconds": round(self.seconds),
            "seed": recipe.seed,
            "precision": self.learner.precision,
            "machines": self.machines,
            "data": self.data,
        }
        if self.teacher is not None:
            phase["teacher"] = self.teacher.record
        if score is not None:
            phase["validation"] = {
                "psnr": finite(score.psnr),
                "input_psnr": finite(score.input_psnr),
                "pictures": score.pictures,
            }
        training = training_record(phase, self.earlier)
        header = {"task": recipe.task, "recipe": json.loads(resolved(recipe)), "training": training}
        return header | ({"licence": recipe.licence} if recipe.licence else {})

    def _tell(self, log: StepLog | ValidationLog | RolledBack) -> None:
        """To metrics.jsonl and to trackers."""
        entry = asdict(log)
        if isinstance(log, StepLog):
            entry["loss"] = finite(log.loss)
            if not log.skipped:
                del entry["skipped"]
        else:
            kind = "validation" if isinstance(log, ValidationLog) else "rolled_back"
            entry = {kind: entry.pop("iteration"), **entry}
            entry |= {key: finite(value) for key, value in entry.items() if isinstance(value, float)}
        if self.metrics is not None:
            self.metrics.append(entry)
        if self.tracker is not None:
            self.tracker.log(log.iteration, entry)

    def close(self) -> None:
        if self.metrics is not None:
            self.metrics.close()
        if self.tracker is not None:
            self.tracker.close()
