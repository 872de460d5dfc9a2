"""An ablation from its plan to its answer, seed by seed; what is done is on the disk, so it goes on where it was."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

from restormer_cli.commands.ablate.document import to_dict
from restormer_cli.commands.ablate.interleaved import InterleavedTraining, fit_lengths, in_lengths, seeded, time_steps
from restormer_cli.commands.ablate.measure import price, read_scores, score
from restormer_cli.commands.ablate.types import Arm, Budget, Finished, InferenceCost, Phase, Request, Scored, Started
from restormer_cli.commands.ablate.verdict import answer
from restormer_cli.errors import Failed, UserError
from restormer_cli.files import sweep, write_atomically
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import differences, resolved
from restormer_cli.training.distributed import make_accelerator, on_main
from restormer_cli.training.run_folder import Run, check_unused
from restormer_cli.training.signals import StopRequest

T = TypeVar("T")
PLAN, RESULT = "plan.json", "result.json"


class Ablation:
    """One run of the verb."""

    def __init__(self, started: Started, request: Request, stop: StopRequest) -> None:
        self.started = started
        self.folder = started.folder
        self.resume = request.resume
        self.device = request.device
        self.stop = stop
        self.accelerator = make_accelerator(request.device, None, started.folder)
        self.main = self.accelerator.is_main_process
        self.recipes = {arm.name: arm.recipe for arm in started.trainings}
        self.prices: tuple[InferenceCost, ...] = ()
        self.scored: list[Scored] = []

    def run(self) -> Iterator[object]:
        """Everything, in order; yields in every process."""
        self._on_main(self._open)
        yield self.started
        yield from self._prices()
        yield from self._lengths()
        started = self.started  # whose lengths are known now
        finished: Finished | None = None
        for repetition in range(len(started.seeds)):
            yield from self._train(repetition)
            if self.main:
                for arm in started.arms:
                    yield from self._score(arm, repetition)
                finished = answer(started, self.prices, tuple(self.scored))
                self._write(RESULT, to_dict(finished))
            if self.stop():
                raise KeyboardInterrupt
        if finished is not None:
            yield finished

    def _on_main(self, work: Callable[[], T]) -> T:
        return on_main(self.accelerator, work)

    def _open(self) -> None:
        """Make the folder, or look at what is in it. Raises UserError where it is used and not to be resumed."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            used = any(self.folder.iterdir())
        except OSError as error:
            raise UserError(f"{self.folder}: cannot hold an ablation: {error.strerror}") from None
        if used and not self.resume:
            raise UserError(f"{self.folder}: is not empty: go on with --resume, or choose another --out")
        sweep(self.folder)
        kept = self._read(PLAN)
        before, recipes = kept.get("recipes", {}), {arm.name: resolved(arm.recipe) for arm in self.started.arms}
        for name in recipes.keys() & before.keys():
            if changes := list(differences(json.loads(before[name]), json.loads(recipes[name]))):
                raise UserError(
                    f"{self.folder}: {name} was trained with another recipe: {'; '.join(changes)}. Undo that, or "
                    "choose another --out"
                )
        self._write(PLAN, kept | {"recipes": before | recipes})

    # --- What is measured before training -----------------------------------------------------------------

    def _prices(self) -> Iterator[Phase | InferenceCost]:
        """Seconds and memory of every arm's network; the first process measures, the others go on."""
        if not self.main:
            return
        kept = self._read(PLAN)
        wanted = {arm.name: [arm.recipe.model.to_dict(), arm.window, self.started.device] for arm in self.started.arms}
        if kept.get("networks") == wanted:
            prices = [InferenceCost(**row) for row in kept["prices"]]
            yield from prices
        else:
            prices = []
            for event in price(self.started, self.started.arms):
                if isinstance(event, InferenceCost):
                    prices.append(event)
                yield event
            self._write(PLAN, kept | {"networks": wanted, "prices": [asdict(row) for row in prices]})
        self.prices = tuple(prices)

    def _lengths(self) -> Iterator[Phase | Budget]:
        """Equal time, or little time: what fits, measured once and kept, since a schedule cannot change on its way.

        With more seeds than it was measured for, a resumed ablation takes longer.
        """
        started = self.started
        what = None
        if started.equal == "time" or started.minutes is not None:
            what = {arm.name: resolved(arm.recipe) for arm in started.trainings} | {
                "equal": started.equal,
                "minutes": started.minutes,
            }
        kept, begun = self._on_main(lambda: (self._read(PLAN), self._has_begun()))
        known = _is_timed_alike(kept.get("timed"), what)
        if begun and not known:
            raise UserError(
                f"{self.folder}: its trainings have other lengths, by {_timed_by(kept.get('timed'))}: ask for the same "
                "again, or choose another --out"
            )
        if what is None:
            return
        if known:
            seconds, seeds = kept["seconds"], kept["seeds"]
        else:
            yield Phase("timing training steps")
            measured = time_steps(started.trainings, self.accelerator)
            seconds = self._on_main(lambda: measured)  # everybody's clock is the first process's
            seeds = len(started.seeds)
            if self.main:
                self._write(PLAN, self._read(PLAN) | {"timed": what, "seconds": seconds, "seeds": seeds})
        lengths = fit_lengths(started.iterations, seconds, equal=started.equal, seeds=seeds, minutes=started.minutes)
        yield lengths
        notes = started.notes
        if lengths.first < started.iterations:
            notes += (
                f"shortened from {started.iterations:,} to {lengths.first:,} iterations, so that training takes about "
                f"{started.minutes} minutes on this machine",
            )
        arms = in_lengths(started.arms, lengths)
        self.started = replace(started, iterations=lengths.first, arms=arms, notes=notes)
        self.recipes = {arm.name: arm.recipe for arm in self.started.trainings}

    # --- Training and scoring -------------------------------------------------------------------------------

    def _train(self, repetition: int) -> Iterator[object]:
        """The trainings of one seed that are not over. Raises KeyboardInterrupt where they were stopped."""
        recipes = {name: seeded(recipe, self.started.seeds[repetition]) for name, recipe in self.recipes.items()}
        folders = {name: self._place(name, repetition) for name in recipes}
        over, done = self._on_main(lambda: self._state(recipes, folders))
        for name in over:
            del recipes[name]
        if not recipes:
            return
        for name in recipes:
            self._make(folders[name])
        together = InterleavedTraining(recipes, folders, done, repetition, self.device, self.stop)
        yield from together
        if together.stopped:
            raise KeyboardInterrupt

    def _state(self, recipes: dict[str, Recipe], folders: dict[str, Path]) -> tuple[list[str], dict[str, int]]:
        """Which trainings are over (they have been scored), and how far the others are that have begun."""
        over, done = [], {}
        for arm in self.started.trainings:
            folder = folders[arm.name]
            if read_scores(folder, arm, recipes[arm.name], self.started.crop) is not None:
                over.append(arm.name)
            numbers = [int(path.stem) for path in Run(folder).checkpoints.glob("*.pt") if path.stem.isdigit()]
            if not check_unused(folder, resume=True):
                done[arm.name] = max(numbers, default=0)
        return over, done

    def _score(self, arm: Arm, repetition: int) -> Iterator[object]:
        recipe = seeded(self.recipes[arm.trained_as], self.started.seeds[repetition])
        folder = self._place(arm.trained_as, repetition)
        for event in score(self.started, arm, recipe, repetition, folder, self.stop):
            if isinstance(event, Scored):
                self.scored.append(event)
            yield event

    # --- Files ----------------------------------------------------------------------------------------------

    def _has_begun(self) -> bool:
        """Whether any training has a checkpoint: its length is settled then."""
        return any(self.folder.glob(f"*/seed-*/{Run(Path()).checkpoints.name}/*.pt"))

    def _place(self, arm: str, repetition: int) -> Path:
        return self.folder / arm / f"seed-{repetition + 1}"

    def _make(self, folder: Path) -> None:
        if self.main:
            try:
                folder.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise Failed(f"{folder}: cannot be made: {error.strerror}") from None

    def _read(self, name: str) -> dict[str, Any]:
        """A small JSON file; nothing where there is none, or none that is whole."""
        try:
            return json.loads((self.folder / name).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}

    def _write(self, name: str, values: Mapping[str, Any]) -> None:
        text = json.dumps(values, indent=1, allow_nan=False)
        write_atomically(self.folder / name, lambda stream: stream.write(text.encode()))


BY = ("equal", "minutes")
"""Beside the arms' recipes, what lengths depend on."""


def _is_timed_alike(was: Mapping[str, Any] | None, now: Mapping[str, Any] | None) -> bool:
    """Whether lengths were measured for the same flags and arms, but for what may differ on resuming."""
    if was is None or now is None:
        return was is now
    if was.keys() != now.keys() or any(was[key] != now[key] for key in BY):
        return False
    arms = was.keys() - set(BY)
    return not any(list(differences(json.loads(was[arm]), json.loads(now[arm]))) for arm in arms)


def _timed_by(timed: Mapping[str, Any] | None) -> str:
    """The flags and arms that lengths were measured for."""
    if timed is None:
        return "--equal iterations --minutes 0"
    arms = ", ".join(name for name in timed if name not in BY)
    return f"--equal {timed['equal']} --minutes {timed['minutes'] or 0} for the arms {arms}"
