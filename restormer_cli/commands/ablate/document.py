"""An ablation's answer as plain values for JSON; the schema is docs/ablation.md's, and versioned.

Within a version keys are only ever added. Sizes are bytes, times seconds, PSNR dB; what could not be had is null.
"""

from dataclasses import asdict
from typing import Any

from restormer_cli import __version__
from restormer_cli.commands.ablate.types import Arm, Estimate, Finished, Scored
from restormer_cli.files import finite

SCHEMA = "restormer-ablate/1"


def to_dict(finished: Finished) -> dict[str, Any]:
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
            {"first": row.first, "other": row.other, "decided": row.estimate.decided} | _estimate(row.estimate)
            for row in finished.differences
        ],
        "verdict": finished.verdict,
        "trust": finished.trust,
    }


def _network(arm: Arm) -> dict[str, Any]:
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


def _arm(finished: Finished, arm: Arm) -> dict[str, Any]:
    rows = finished.of(arm.name)
    price = next((row for row in finished.prices if row.arm == arm.name), None)
    mean = dict(finished.means)[arm.name]
    return _network(arm) | {
        "training_seconds": sum(row.seconds for row in rows) / len(rows),
        "seconds_per_megapixel": None if price is None else price.seconds,
        "peak": None if price is None else price.peak,
        "timed_side": None if price is None else price.side,
        "psnr": finite(mean.mean),
        "psnr_error": finite(mean.error),
        "runs": [_run(finished, row) for row in rows],
    }


def _run(finished: Finished, row: Scored) -> dict[str, Any]:
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


def _estimate(estimate: Estimate) -> dict[str, Any]:
    return {
        "mean": finite(estimate.mean),
        "error": finite(estimate.error),
        "low": finite(estimate.low),
        "high": finite(estimate.high),
        "confidence": estimate.confidence,
    }
