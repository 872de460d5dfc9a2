"""`train`: a recipe in, a run folder out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from restormer_cli import launcher
from restormer_cli.data.pairs import check_names, missing_folders
from restormer_cli.errors import UserError
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import read_recipe

if TYPE_CHECKING:  # importing it would load torch
    from restormer_cli.training.estimate import Plan

QUICK = "restormer train recipes/quick/denoise.toml"


@dataclass(frozen=True)
class Request:
    """Which recipe, where to, and what to change."""

    recipe: str
    out: Path | None = None
    resume: bool = False
    accept_changes: bool = False
    overrides: tuple[str, ...] = ()
    stop_after: int | None = None
    device: str = "auto"
    precision: str | None = None
    seed: int | None = None
    track: str | None = None


@dataclass(frozen=True)
class Started:
    """Training run, before the first step."""

    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Finished:
    """Where the result is."""

    weights: Path


def train(request: Request) -> Iterator[object]:
    """Yields Started, then the trainer's logs, then Finished; only the main process of several does.

    Raises UserError before training starts, KeyboardInterrupt after a stop that was asked for and went well.
    """
    recipe = _recipe(request)
    _check_data(recipe)
    folder = request.out or Path("runs") / recipe.name

    # After the checks: they answer at once, without torch.
    from restormer_cli.hardware import choose_device
    from restormer_cli.training.run_folder import Run
    from restormer_cli.training.signals import stop_requests
    from restormer_cli.training.trainer import Stopped, fit

    choose_device(request.device)
    main = launcher.is_first()
    if main:
        yield Started(recipe, folder)
    with stop_requests() as stop:
        logs = fit(
            recipe,
            folder,
            resume=request.resume,
            accept_changes=request.accept_changes,
            stop_after=request.stop_after,
            device=request.device,
            asked_to_stop=stop,
            ready=stop.be_gentle,
        )
        stopped = False
        for log in logs:
            stopped = stopped or isinstance(log, Stopped)
            if main:
                yield log
    if stopped:
        raise KeyboardInterrupt
    if main:
        yield Finished(Run(folder).weights)


def _recipe(request: Request) -> Recipe:
    """The recipe as the flags change it."""
    flags = {"run.precision": request.precision, "seed": request.seed, "run.track": request.track}
    changes = tuple(f"{key}={value}" for key, value in flags.items() if value is not None)
    return read_recipe(request.recipe, request.overrides + changes)


def _missing(recipe: Recipe) -> list[str]:
    rows = (recipe.data.train, recipe.data.validate_)
    return [place for row in rows if row is not None for place in missing_folders(row)]


def _check_data(recipe: Recipe) -> None:
    if missing := _missing(recipe):
        raise UserError(
            f"recipe {recipe.name}: its data are not here; missing folders: {', '.join(missing)}. "
            f"Put them there, or name yours with --set data.train.clean=FOLDER …; without any data set, try: {QUICK}"
        )
    check_names(recipe)


@dataclass(frozen=True)
class Planned:
    """Plan of a recipe, and its missing folders."""

    plan: "Plan"
    missing: tuple[str, ...]


def plan(request: Request, devices: int | None) -> Planned:
    """Work a recipe out without training, for so many devices (default: as many as processes were launched).

    Raises UserError where a batch splits unevenly, unless the recipe allows it.
    """
    recipe = _recipe(request)

    from restormer_cli.training.estimate import make_plan

    return Planned(make_plan(recipe, devices or launcher.processes()), tuple(_missing(recipe)))
