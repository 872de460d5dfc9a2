"""A benchmark's result as plain values for JSON; the schema is docs/bench.md's, and versioned.

Within a version keys are only ever added. Sizes are bytes, times seconds; what could not be had is null.
"""

from dataclasses import asdict
from typing import Any

from restormer_cli import __version__
from restormer_cli.benchmark.methods import Method
from restormer_cli.benchmark.timing import Timing
from restormer_cli.commands.bench.summary import measures
from restormer_cli.commands.bench.types import Cost, Finished, Quality, Summary
from restormer_cli.files import finite

SCHEMA = "restormer-bench/1"


def to_dict(finished: Finished) -> dict[str, Any]:
    """The whole result."""
    started = finished.started
    network = started.network
    return {
        "schema": SCHEMA,
        "restormer": __version__,
        "machine": asdict(started.machine),
        "network": {
            "name": network.name,
            "weights": None if network.path is None else str(network.path),
            "task": network.task,
            "seed": network.seed if network.path is None else None,
            "parameters": started.parameters,
            "model": network.config.to_dict(),
        },
        "work": [
            {
                "height": height,
                "width": width,
                "conv_macs": work.conv_macs,
                "attention_macs": work.attention_macs,
                "flops": work.flops,
            }
            for (height, width), work in zip(started.sizes, started.operations, strict=True)
        ],
        "notes": list(started.notes),
        "cost": None if finished.cost is None else _cost(finished.cost),
        "quality": None if finished.quality is None else _quality(finished.quality),
        "gates": [
            {
                "name": gate.name,
                "limit": gate.limit,
                "worst": finite(gate.worst),
                "whose": gate.whose,
                "passed": gate.passed,
            }
            for gate in finished.gates
        ],
    }


def method_dict(method: Method) -> dict[str, Any]:
    """Identity of the method or arm."""
    return {
        "name": method.name,
        "kind": method.kind,
        "precision": method.precision,
        "device": method.device,
        "tile": method.tile,
        "overlap": method.overlap if method.tile else None,
        "window": method.window,
        "memory": method.memory,
        "strength": None if method.hints is None else method.hints.strength,
        "sigma": None if method.hints is None else method.hints.sigma,
    }


def _cost(cost: Cost) -> dict[str, Any]:
    return {
        "cells": [_cell(cell) for cell in cost.cells],
        "scaling": [method_dict(scaling.method) | {"exponent": scaling.exponent} for scaling in cost.scaling],
    }


def _cell(cell: Timing) -> dict[str, Any]:
    timed = cell.error is None
    return method_dict(cell.method) | {
        "height": cell.height,
        "width": cell.width,
        "seconds": list(cell.seconds),
        "median": cell.median if timed else None,
        "megapixels_per_second": cell.megapixels_per_second if timed else None,
        "prepare": cell.prepare,
        "first": cell.first,
        "peak": cell.peak,
        "device_peak": cell.device_peak,
        "difference": finite(cell.difference),
        "plan": cell.plan,
        "stages": dict(cell.stages),
        "error": cell.error,
    }


def _quality(quality: Quality) -> dict[str, Any]:
    task = quality.task
    return {
        "protocol": {"name": task.protocol.name, "rules": task.protocol.rules},
        "dataset": task.dataset,
        "degradation": None if task.source.degradation is None else str(task.source.degradation),
        "seed": task.source.seed,
        "crop": task.source.crop,
        "failed": quality.failed,
        "summaries": [_summary(summary) for summary in quality.summaries],
        "pictures": [
            {
                "name": row.sample.name,
                "contestant": None if row.method is None else method_dict(row.method),
                "height": row.height,
                "width": row.width,
                "measures": {} if row.error is not None else {k: finite(v) for k, v in measures(row).items()},
                "seconds": row.seconds,
                "error": row.error,
            }
            for row in quality.judged
        ],
    }


def _summary(summary: Summary) -> dict[str, Any]:
    published, psnr = summary.published, summary.mean("psnr")
    return {
        "contestant": None if summary.method is None else method_dict(summary.method),
        "group": summary.group,
        "pictures": summary.pictures,
        "measures": {
            name: {"mean": finite(statistic.mean), "deviation": finite(statistic.deviation)}
            for name, statistic in summary.measures
        },
        "seconds": summary.seconds,
        "seconds_per_megapixel": summary.seconds_per_megapixel,
        "published": None
        if published is None or psnr is None
        else {"psnr": published.psnr, "ssim": published.ssim, "difference": finite(psnr - published.psnr)},
    }
