"""Scores of a trained arm: PSNR picture by picture, kept beside its weights; and the cost of running it."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from restormer_cli.benchmark.methods import OURS, Method
from restormer_cli.benchmark.networks import Network
from restormer_cli.benchmark.scoring import ImageScore, Source, evaluate, published_sigma
from restormer_cli.benchmark.timing import Timing, TimingProgress, measure
from restormer_cli.commands.ablate.types import Arm, InferenceCost, Phase, Scored, Started
from restormer_cli.data.pairs import find_pairs
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.errors import Failed
from restormer_cli.files import write_atomically
from restormer_cli.metrics.protocols import BY_TASK, Protocol, find_protocol
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import resolved
from restormer_cli.training.run_folder import Run

SIDE = 512
"""Side of the picture whose restoration is timed."""
ROUNDS = 3


def source_of(recipe: Recipe, crop: int) -> Source:
    """The pictures that arms are scored on, and what is done to them before."""
    where = recipe.data.validate_
    assert where is not None  # plan.py sees to it
    samples = tuple(find_pairs(where, role="validate"))
    steps = () if where.degraded is not None else recipe.validation.degrade or recipe.degrade.steps
    return Source(samples, parse_degradation(steps) if steps else None, crop or None)


def protocol_of(recipe: Recipe, source: Source) -> Protocol:
    """By what is done to the pictures, or by what the weights are for."""
    if published_sigma(source.degradation) is not None:
        return find_protocol("gaussian")
    return find_protocol("rain-y" if recipe.validation.channel == "y" else BY_TASK.get(recipe.task, "plain"))


def score(
    started: Started, arm: Arm, recipe: Recipe, repetition: int, folder: Path, stop: Callable[[], bool]
) -> Iterator[Phase | Scored]:
    """Yields what goes on, then the scores of the weights in a run folder (as kept there, where they are known).

    Raises Failed where a picture cannot be scored, KeyboardInterrupt where it is asked to stop.
    """
    kept = read_scores(folder, arm, recipe, started.crop)
    if kept is None:
        source = source_of(recipe, started.crop)
        protocol = protocol_of(recipe, source)
        kept = {"recipe": resolved(recipe), "window": arm.window, "crop": started.crop, "pictures": []}
        network = Network(arm.name, recipe.model, Run(folder).weights, recipe.task)
        method = Method(OURS, device=started.device, window=arm.window)
        inputs: dict[str, float] = {}
        for event in evaluate([method], network, source, protocol, threads=started.machine.threads):
            if stop():
                raise KeyboardInterrupt
            if not isinstance(event, ImageScore):
                continue
            if event.scores is None:
                raise Failed(f"{arm.name}: cannot be scored: {event.error}")
            name = event.sample.name
            if event.method is None:
                inputs[name] = event.scores.psnr
                yield Phase(f"scoring {arm.name}, seed {repetition + 1}: {name}")
            else:
                kept["pictures"].append([name, event.scores.psnr, inputs[name]])
        text = json.dumps(kept, indent=1)
        write_atomically(_file(folder, arm), lambda stream: stream.write(text.encode()))
    steps, curve = _history(folder)
    yield Scored(
        arm.name,
        repetition,
        iterations=recipe.iterations,
        seconds=steps,
        curve=curve,
        pictures=tuple((name, psnr) for name, psnr, _ in kept["pictures"]),
        inputs=tuple(before for *_, before in kept["pictures"]),
        weights=Run(folder).weights,
    )


def read_scores(folder: Path, arm: Arm, recipe: Recipe, crop: int) -> dict[str, Any] | None:
    """Scores that were kept, if they are of this recipe, window and crop."""
    try:
        kept = json.loads(_file(folder, arm).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    same = (kept["recipe"], kept["window"], kept["crop"]) == (resolved(recipe), arm.window, crop)
    return kept if same and Run(folder).weights.is_file() else None


def _file(folder: Path, arm: Arm) -> Path:
    return folder / f"scores.{arm.name}.json"


def _history(folder: Path) -> tuple[float, tuple[tuple[int, float], ...]]:
    """Seconds of all steps, and the curve, from a run's log."""
    seconds, curve = 0.0, []
    for line in Run(folder).metrics.read_text(encoding="utf-8").splitlines():
        entry = json.loads(line)
        if "iteration" in entry:
            seconds += entry["seconds"]
        elif "validation" in entry and math.isfinite(entry["psnr"] or math.nan):  # null: identical pictures
            curve.append((entry["validation"], entry["psnr"]))
    return seconds, tuple(curve)


def price(started: Started, arms: Sequence[Arm]) -> Iterator[Phase | InferenceCost]:
    """Yields what goes on, then what each arm's network takes, in fresh processes that take turns."""
    lanes = [
        (Method(OURS, device=started.device, window=arm.window), Network(arm.name, arm.recipe.model)) for arm in arms
    ]
    cells: list[Timing] = []
    for event in measure(lanes, (SIDE, SIDE), rounds=ROUNDS, threads=started.machine.threads, stages=False):
        if isinstance(event, TimingProgress):
            yield Phase(f"timing {SIDE}×{SIDE}: round {event.round} of {event.rounds}")
        else:
            cells.append(event)
    for arm, cell in zip(arms, cells, strict=True):
        if cell.error is not None:
            yield InferenceCost(arm.name, None, None, SIDE, cell.error)
        else:
            yield InferenceCost(arm.name, cell.median / (SIDE * SIDE / 1e6), cell.device_peak or cell.peak, SIDE)
