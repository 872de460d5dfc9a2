"""`train`: a recipe in, a run folder out."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from restormer_cli.data.pairs import check_names, missing_folders
from restormer_cli.errors import UserError
from restormer_cli.recipe import Recipe, read_recipe

QUICK = "restormer train recipes/quick/denoise.toml"


@dataclass(frozen=True)
class Request:
    """Which recipe, where to, and what to change."""

    recipe: str
    out: Path | None = None
    resume: bool = False
    overrides: tuple[str, ...] = ()
    stop_after: int | None = None
    device: str = "auto"
    precision: str | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Started:
    """What will be trained, before the first step."""

    recipe: Recipe
    folder: Path


@dataclass(frozen=True)
class Finished:
    """Where the result is."""

    weights: Path


def train(request: Request) -> Iterator[object]:
    """Yields Started, then the trainer's logs, then Finished. Raises UserError before training starts."""
    overrides = request.overrides
    overrides += () if request.precision is None else (f"run.precision={request.precision}",)
    overrides += () if request.seed is None else (f"seed={request.seed}",)
    recipe = read_recipe(request.recipe, overrides)
    _check_data(recipe)
    folder = request.out or Path("runs") / recipe.name

    # After the checks: they answer at once, without torch.
    from restormer_cli.engine.restorer import choose_device
    from restormer_cli.engine.trainer import Run, fit

    choose_device(request.device)
    yield Started(recipe, folder)
    yield from fit(recipe, folder, resume=request.resume, stop_after=request.stop_after, device=request.device)
    yield Finished(Run(folder).weights)


def _check_data(recipe: Recipe) -> None:
    rows = (recipe.data.train, recipe.data.validate_)
    missing = [place for row in rows if row is not None for place in missing_folders(row)]
    if missing:
        raise UserError(
            f"recipe {recipe.name}: its data are not here; missing folders: {', '.join(missing)}. "
            f"Put them there, or name yours with --set data.train.clean=FOLDER …; without any data set, try: {QUICK}"
        )
    check_names(recipe)
