"""An ablation's answer as plain values for JSON. Sizes are bytes, times seconds, PSNR dB; null: not to be had.

The classes below are its description (docs/reference/json.md is made of them); within a schema keys are only added.
"""

from dataclasses import asdict
from typing import Any, TypedDict

from restormer_cli import __version__
from restormer_cli.commands.ablate.types import Arm, Estimate, Finished, Scored
from restormer_cli.files import finite

SCHEMA = "restormer-ablate/1"


class NetworkEntry(TypedDict):
    """The network of an arm."""

    name: str
    model: dict[str, Any]
    """The configuration: `[model]` of a recipe."""
    stages: list[dict[str, Any]]
    """`[[stage]]` of its recipe."""
    window: int | None
    """Side of the attention's windows at test time; null: global."""
    trained_as: str
    """The arm whose training it shares: itself, unless they differ at test time only."""
    parameters: int
    conv_macs: int
    """Multiply-accumulates of convolutions at 256²: the paper's "FLOPs"."""
    attention_macs: int
    """Those of attention's matrix products."""
    flops: int
    """Twice all of them."""
    published: dict[str, Any] | None
    """The paper's `psnr` for this arm; `recalled`: not found in print again."""


class PicturePsnr(TypedDict):
    """One picture."""

    name: str
    psnr: float | None
    input_psnr: float | None


class TrainingEntry(TypedDict):
    """One training of an arm."""

    seed: int
    iterations: int
    training_seconds: float
    psnr: float | None
    pictures: list[PicturePsnr]
    curve: list[list[float]]
    """Pairs of iteration and mean PSNR in validation."""
    weights: str


class ArmEntry(NetworkEntry):
    """An arm, over its trainings."""

    training_seconds: float
    """Mean of a training."""
    seconds_per_megapixel: float | None
    """Of restoring."""
    peak: int | None
    """Most memory of restoring."""
    timed_side: int | None
    """Side of the picture that was timed."""
    psnr: float | None
    psnr_error: float | None
    """Standard error."""
    runs: list[TrainingEntry]


class EstimateEntry(TypedDict):
    """A mean with its interval; null after one seed."""

    mean: float | None
    error: float | None
    """Standard error."""
    low: float | None
    high: float | None
    confidence: float


class DifferenceEntry(EstimateEntry):
    """By how many dB an arm is better than another, paired by seed and picture."""

    first: str
    other: str
    decided: bool
    """The interval lies on one side of zero."""


class Document(TypedDict):
    """`restormer ablate --json`, and `result.json`. PSNR in dB, sizes in bytes; what could not be had is null."""

    schema: str
    """"restormer-ablate/1"."""
    restormer: str
    """The program's version."""
    machine: dict[str, Any]
    """`Machine`, below."""
    device: str
    scale: str
    equal: str
    """What is equal between the arms: "iterations" or "time"."""
    iterations: int
    seeds: list[int]
    """Those that are complete."""
    seeds_wanted: int
    data: str
    degradation: str | None
    pictures: int
    crop: int | None
    notes: list[str]
    arms: list[ArmEntry]
    differences: list[DifferenceEntry]
    verdict: str
    trust: str
    """What the interval can and cannot show."""


def to_dict(finished: Finished) -> Document:
    """The whole answer."""
    started = finished.started
    return {
        "schema": SCHEMA,
        "restormer": __version__,
        "machine": asdict(started.machine),
        "device": started.device,
        "scale": started.scale,
        "equal": started.equal,
        "iterations": started.iterations,
        "seeds": list(started.seeds[: finished.repetitions]),
        "seeds_wanted": len(started.seeds),
        "data": started.data,
        "degradation": started.degradation,
        "pictures": started.pictures,
        "crop": started.crop or None,
        "notes": list(started.notes),
        "arms": [_arm(finished, arm) for arm in started.arms],
        "differences": [
            {
                "first": row.first,
                "other": row.other,
                "decided": row.estimate.decided,
                **_estimate(row.estimate),
            }
            for row in finished.differences
        ],
        "verdict": finished.verdict,
        "trust": finished.trust,
    }


def _network(arm: Arm) -> NetworkEntry:
    """Identity of the method or arm."""
    return {
        "name": arm.name,
        "model": arm.recipe.model.to_dict(),
        "stages": [stage.model_dump() for stage in arm.recipe.stage],
        "window": arm.window,
        "trained_as": arm.trained_as,
        "parameters": arm.parameters,
        "conv_macs": arm.work.conv_macs,
        "attention_macs": arm.work.attention_macs,
        "flops": arm.work.flops,
        "published": None if arm.published is None else asdict(arm.published),
    }


def _arm(finished: Finished, arm: Arm) -> ArmEntry:
    rows = finished.of(arm.name)
    price = next((row for row in finished.prices if row.arm == arm.name), None)
    mean = dict(finished.means)[arm.name]
    return {
        **_network(arm),
        "training_seconds": sum(row.seconds for row in rows) / len(rows),
        "seconds_per_megapixel": None if price is None else price.seconds,
        "peak": None if price is None else price.peak,
        "timed_side": None if price is None else price.side,
        "psnr": finite(mean.mean),
        "psnr_error": finite(mean.error),
        "runs": [_run(finished, row) for row in rows],
    }


def _run(finished: Finished, row: Scored) -> TrainingEntry:
    return {
        "seed": finished.started.seeds[row.repetition],
        "iterations": row.iterations,
        "training_seconds": row.seconds,
        "psnr": finite(row.psnr),
        "pictures": [
            {"name": name, "psnr": finite(psnr), "input_psnr": finite(before)}
            for (name, psnr), before in zip(row.pictures, row.inputs, strict=True)
        ],
        "curve": [list(point) for point in row.curve],
        "weights": str(row.weights),
    }


def _estimate(estimate: Estimate) -> EstimateEntry:
    return {
        "mean": finite(estimate.mean),
        "error": finite(estimate.error),
        "low": finite(estimate.low),
        "high": finite(estimate.high),
        "confidence": estimate.confidence,
    }
