"""From a request to arms and what they share; whatever can be refused is refused here, before any training."""

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from restormer_cli.commands.ablate.arms import PROGRESSIVE, SCALES, WINDOWS, Spec, network, parse_arms, published
from restormer_cli.commands.ablate.types import Arm, Request, Started
from restormer_cli.data.pairs import check_names, find_pairs, missing_folders
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.errors import UserError
from restormer_cli.model.config import ModelConfig
from restormer_cli.recipe import Pairs, Recipe, Schedule, Stage, Validation
from restormer_cli.recipe_files import change_recipe, read_recipe

if TYPE_CHECKING:
    from restormer_cli.model.cost import Operations

CROP = {"compact": 512, "paper": 0}
MINUTES = {"compact": 13, "paper": 0}
"""Minutes of training, where neither iterations nor a recipe are chosen: with scoring 20 on two processor cores."""
APART = 0.10
"""Budgets may differ by this much."""
POINTS = 8
"""Validations along a curve."""


def start(request: Request) -> Started:
    """Return the comparison to run. Raises UserError."""
    _check_flags(request)
    specs = parse_arms(request.words, request.options)
    first = _first_recipe(request, specs)
    whole = _with_data(change_recipe(first, _changes(request), first.name), request)
    notes = _check_base(whole, request, specs)
    base = with_iterations(whole, request.iterations or whole.iterations)
    recipes = [
        (spec, _recipe(spec, whole, first.iterations, request, base.iterations), _window(spec, request))
        for spec in specs
    ]
    for recipe in (base, *(recipe for _, recipe, _ in recipes if recipe.data != base.data)):
        _check_data(recipe, request)
        check_names(recipe)
    _check_weights([recipe for _, recipe, _ in recipes])

    # After the checks that need no torch.
    import torch

    from restormer_cli.hardware import choose_device, describe_machine
    from restormer_cli.model.cost import count_operations, count_parameters

    device = str(choose_device(request.device))
    arms: list[Arm] = []
    for spec, recipe, window in recipes:
        twin = next((arm for arm in arms if _same_training(arm.recipe, recipe)), None)
        if twin is not None and twin.window == window:
            raise UserError(
                f"{twin.name} and {spec.name}: are the same arm here: nothing differs, in training or testing"
            )
        work, parameters = count_operations(recipe.model, 256, 256), count_parameters(recipe.model)
        figure = published(spec.choices) if spec.choices and _is_as_published(spec, recipe, request) else None
        trained_as = spec.name if twin is None else twin.trained_as
        arms.append(Arm(spec.name, recipe, window, parameters, work, figure, trained_as))
    if not request.any_budget:
        check_budgets(arms)
    validate = base.data.validate_
    assert validate is not None
    steps = base.validation.degrade or base.degrade.steps
    return Started(
        arms=tuple(arms),
        seeds=tuple(base.seed + repetition for repetition in range(request.seeds)),
        iterations=base.iterations,
        scale=request.scale,
        equal=request.equal,
        minutes=_minutes(request, specs) or None,
        folder=request.out or Path("runs") / "-vs-".join(arm.name for arm in arms),
        degradation=None if validate.degraded is not None else str(parse_degradation(steps)),
        pictures=len(find_pairs(validate, role="validate")),
        crop=CROP[request.scale] if request.crop is None else request.crop,
        data=_describe(base),
        device=device,
        machine=describe_machine(torch.get_num_threads()),
        notes=tuple(notes) + _sharing(arms),
    )


def _minutes(request: Request, specs: Sequence[Spec]) -> int:
    """How long all trainings may take together; 0: as long as they do."""
    if request.minutes is not None:
        return request.minutes
    chosen = request.iterations is not None or any(spec.recipe is not None for spec in specs)
    return 0 if chosen else MINUTES[request.scale]


def _check_flags(request: Request) -> None:
    if request.scale not in SCALES:
        raise UserError(f"--scale {request.scale}: choose {' or '.join(SCALES)}")
    if request.equal not in ("iterations", "time"):
        raise UserError(f"--equal {request.equal}: choose iterations or time")
    if request.crop is not None and (request.crop < 0 or request.crop % 8):
        raise UserError(f"--crop {request.crop}: a multiple of 8, or 0 for whole pictures")


OWN = ("model", "stage", "optimizer", "schedule", "loss", "teacher", "ema", "augment", "init")
"""What a recipe keeps as an arm; all else is the first one's."""


# --- Recipes ------------------------------------------------------------------------------------------------


def _first_recipe(request: Request, specs: Sequence[Spec]) -> Recipe:
    """What all arms are changes of: the first recipe among them, else the scale's own."""
    named = [spec.recipe for spec in specs if spec.recipe is not None]
    return read_recipe(named[0] if named else f"ablate/{request.scale}")


def _check_base(base: Recipe, request: Request, specs: Sequence[Spec]) -> list[str]:
    """Notes where other recipes have other data, which do not count. Raises UserError where nothing can be scored."""
    named = [spec.recipe for spec in specs if spec.recipe is not None]
    notes = []
    for name in named[1:]:
        other = read_recipe(name)
        if (other.data, other.degrade) != (base.data, base.degrade) and not (request.data and request.validate):
            notes.append(f"{name}: its [data] and [degrade] are not those of {named[0]}, which hold for all arms")
    if base.data.validate_ is None:
        raise UserError(f"{base.name}: has no [data] validate: arms have to be scored: give --validate FOLDER")
    return notes


def _changes(request: Request) -> tuple[str, ...]:
    """All flags that change every arm's recipe, as KEY=VALUE."""
    flags = {"run.precision": request.precision, "seed": request.seed}
    return request.overrides + tuple(f"{key}={value}" for key, value in flags.items() if value is not None)


def _recipe(spec: Spec, base: Recipe, length: int, request: Request, total: int) -> Recipe:
    """An arm's recipe in `total` iterations: what it is about, and everything else as the others have it.

    `length`: iterations of the first recipe as it is, to which what the flags change in iterations belongs.
    """
    where = spec.recipe or spec.name
    values: dict[str, Any] = base.model_dump(mode="json", by_alias=True)
    if spec.recipe is not None:
        own = with_iterations(read_recipe(spec.recipe), length).model_dump(mode="json", by_alias=True)
        values |= {key: own[key] for key in OWN}
    values["model"] |= network(spec.choices, request.scale) if spec.choices else {}
    if "progressive" in spec.choices:
        values["stage"] = _progressive(request.scale, base.iterations)
    values["name"] = spec.name
    # Once more, over what the arm has brought.
    recipe = _with_data(change_recipe(values, (*_changes(request), *spec.changes), where), request)
    _check_scored_alike(recipe, base)
    return with_iterations(_scored_as(recipe, base), total)


def _progressive(scale: str, total: int) -> list[dict[str, int]]:
    """The scale's growing patches, in `total` iterations."""
    rows = PROGRESSIVE[scale]
    lengths = _in_proportion([share for share, _, _ in rows], total)
    return [
        {"iterations": length, "patch": patch, "batch": batch}
        for length, (_, patch, batch) in zip(lengths, rows, strict=True)
        if length
    ]


def _in_proportion(lengths: Sequence[int], total: int) -> list[int]:
    """Whole numbers in the proportions of these, whose sum is `total`; some may be none."""
    whole = sum(lengths)
    ends = [round(end * total / whole) for end in accumulate(lengths)]
    return [end - begun for begun, end in zip([0, *ends], ends, strict=False)]


def _check_scored_alike(recipe: Recipe, base: Recipe) -> None:
    """Raises UserError where an arm has what only all of them together may have: scores would not compare."""
    rows = (
        ("seed", recipe.seed, base.seed),
        ("task", recipe.task, base.task),
        ("data.validate", recipe.data.validate_, base.data.validate_),
        ("validation", recipe.validation, base.validation),
    )
    apart = [key for key, own, shared in rows if own != shared]
    if apart:
        raise UserError(f"{recipe.name}: arms are scored alike, in {', '.join(apart)} too: change it for all, by --set")


def _scored_as(recipe: Recipe, base: Recipe) -> Recipe:
    """The recipe, whose degradations may be an arm's own, scored on what the base degrades its pictures by."""
    where = base.data.validate_
    if recipe.degrade == base.degrade or base.validation.degrade or (where is not None and where.degraded is not None):
        return recipe
    return recipe.model_copy(
        update={"validation": recipe.validation.model_copy(update={"degrade": base.degrade.steps})}
    )


def _is_as_published(spec: Spec, recipe: Recipe, request: Request) -> bool:
    """Whether nothing but its widths and depths makes an arm another network than its flags name."""
    named = ModelConfig(**network(spec.choices, request.scale))
    kinds = ("attention", "feed_forward", "concat", "norm", "bias")
    refined = bool(recipe.model.refinement) == bool(named.refinement)
    return refined and all(getattr(recipe.model, kind) == getattr(named, kind) for kind in kinds)


def _with_data(recipe: Recipe, request: Request) -> Recipe:
    """The recipe on the folders of --data and --validate."""
    changes = {}
    if request.data is not None:
        changes["train"] = Pairs(clean=str(request.data))
    if request.validate is not None:
        changes["validate_"] = Pairs(clean=str(request.validate))
    return recipe.model_copy(update={"data": recipe.data.model_copy(update=changes)})


def with_iterations(recipe: Recipe, total: int) -> Recipe:
    """The same recipe in `total` iterations: stages and schedule in proportion, as many points on the curve.

    Stages that would have none are left out.
    """
    lengths = _in_proportion([stage.iterations for stage in recipe.stage], total)
    stages = tuple(
        Stage(iterations=length, patch=stage.patch, batch=stage.batch)
        for stage, length in zip(recipe.stage, lengths, strict=True)
        if length
    )
    knots = {
        name: round(value * total / recipe.iterations)
        for name in ("constant", "cosine")
        if (value := getattr(recipe.schedule, name)) is not None
    }
    every: dict[str, Any] = {"every": -(-total // POINTS)}
    return recipe.model_copy(
        update={
            "stage": stages,
            "schedule": Schedule(**recipe.schedule.model_dump() | knots),
            "validation": Validation(**recipe.validation.model_dump() | every),
        }
    )


def _window(spec: Spec, request: Request) -> int | None:
    return WINDOWS[request.scale] if "local" in spec.choices else None


def _same_training(one: Recipe, other: Recipe) -> bool:
    return one.model_copy(update={"name": ""}) == other.model_copy(update={"name": ""})


def _sharing(arms: Sequence[Arm]) -> tuple[str, ...]:
    return tuple(
        f"{arm.name} and {arm.trained_as} differ at test time only: they are trained once"
        for arm in arms
        if arm.trained_as != arm.name
    )


# --- Data and budgets ---------------------------------------------------------------------------------------


def _check_data(recipe: Recipe, request: Request) -> None:
    data = recipe.data
    missing = [place for row in (data.train, data.validate_) if row is not None for place in missing_folders(row)]
    if missing:
        cure = "leave out --scale paper" if request.scale == "paper" else "see restormer ablate --help"
        raise UserError(
            f"recipe {recipe.name}: its data are not here; missing folders: {', '.join(missing)}. Put them there, name "
            f"yours with --data FOLDER --validate FOLDER, or {cure}"
        )


def _check_weights(recipes: Sequence[Recipe]) -> None:
    """Raises UserError where `init` or a teacher does not fit: `fit` would, after other arms have been trained."""
    if any(recipe.init is not None or recipe.teacher is not None for recipe in recipes):
        from restormer_cli.model.weights import load_weights
        from restormer_cli.training.learner import initial_network
        from restormer_cli.training.teacher import check_channels

        for recipe in recipes:
            if recipe.init is not None:
                initial_network(recipe)
            if recipe.teacher is not None:
                config = load_weights(recipe.teacher.weights).config
                check_channels(recipe, config.in_channels, config.out_channels)


def _describe(base: Recipe) -> str:
    rows = [row for row in (base.data.train, base.data.validate_) if row is not None]
    return " / ".join(row.clean for row in rows)


def budgets(arm: Arm) -> dict[str, float]:
    """Budgets that must be about equal: parameters, and FLOPs by both conventions (G multiply-accumulates at 256²)."""
    work: Operations = arm.work
    return {
        "parameters": arm.parameters,
        "convolution GMACs": work.conv_macs / 1e9,
        "all GMACs": work.macs / 1e9,
    }


def check_budgets(arms: Sequence[Arm]) -> None:
    """Raises UserError, with the numbers, where the largest is more than a tenth above the smallest."""
    rows = {arm.name: budgets(arm) for arm in arms}
    apart = []
    for name in rows[arms[0].name]:
        column = [row[name] for row in rows.values()]
        if max(column) > (1 + APART) * min(column):
            figures = ", ".join(f"{arm} {_figure(row[name])}" for arm, row in rows.items())
            apart.append(f"{name}: {figures} ({max(column) / min(column) - 1:.0%} apart)")
    if apart:
        raise UserError(
            f"the budgets differ by more than {APART:.0%}: {'; '.join(apart)}. --any-budget compares them nevertheless"
        )


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
