"""A benchmark's result as plain values for JSON. Sizes are bytes, times seconds; what could not be had is null.

The classes below are its description (docs/reference/json.md is made of them); within a schema keys are only added.
"""

from dataclasses import asdict
from typing import Any, TypedDict

from restormer_cli import __version__
from restormer_cli.benchmark.methods import Method
from restormer_cli.benchmark.timing import Timing
from restormer_cli.commands.bench.summary import measures
from restormer_cli.commands.bench.types import Cost, Finished, Quality, Summary
from restormer_cli.files import finite

SCHEMA = "restormer-bench/1"


class NetworkEntry(TypedDict):
    """What is measured."""

    name: str
    weights: str | None
    task: str | None
    seed: int | None
    """Of random weights."""
    parameters: int
    model: dict[str, Any]
    """The configuration: `[model]` of a recipe."""


class WorkEntry(TypedDict):
    """The work of one picture of a size."""

    height: int
    width: int
    conv_macs: int
    """Multiply-accumulates of convolutions: the paper's "FLOPs"."""
    attention_macs: int
    """Those of attention's matrix products, which the paper leaves out."""
    flops: int
    """Twice all of them, as `torch.utils.flop_counter` counts."""


class MethodEntry(TypedDict):
    """A way of restoring."""

    name: str
    kind: str
    """"restormer", or a method of `--against`."""
    precision: str
    device: str
    tile: int | None
    overlap: int | None
    window: int | None
    memory: str | None
    """The budget, as asked for."""
    strength: float | None
    """Of a classical method, like sigma."""
    sigma: float | None
    """The noise it was told; 1 is white."""


class CellEntry(MethodEntry):
    """Speed and memory of a method at a size."""

    height: int
    width: int
    seconds: list[float]
    """One per round."""
    median: float | None
    megapixels_per_second: float | None
    prepare: float
    """From weights to ready."""
    first: float
    """The warm-up."""
    peak: int | None
    """Most memory of the process."""
    device_peak: int | None
    """Most memory allocated on the GPU."""
    difference: float | None
    """Largest absolute difference from the textbook network in fp32, where that takes part."""
    plan: str | None
    stages: dict[str, float]
    """Where the time goes: seconds per stage of the network."""
    error: str | None


class ScalingEntry(MethodEntry):
    """Growth of the time, over the sizes."""

    exponent: float
    """Seconds go as pixels to this power."""


class CostEntry(TypedDict):
    """Speed and memory."""

    cells: list[CellEntry]
    scaling: list[ScalingEntry]


class ProtocolEntry(TypedDict):
    """How pictures are scored."""

    name: str
    rules: str


class StatisticEntry(TypedDict):
    """Over the pictures."""

    mean: float | None
    """null: infinite."""
    deviation: float | None


class PublishedEntry(TypedDict):
    """The paper's figure for these weights, this protocol and this data set."""

    psnr: float
    ssim: float | None
    difference: float | None
    """Ours minus the paper's, dB."""


class QualitySummaryEntry(TypedDict):
    """A method over the pictures."""

    contestant: MethodEntry | None
    """null: the input."""
    group: str | None
    """A folder below; null: all pictures."""
    pictures: int
    measures: dict[str, StatisticEntry]
    """psnr, ssim, mae and those of `--metrics`."""
    seconds: float | None
    """Median per picture."""
    seconds_per_megapixel: float | None
    published: PublishedEntry | None


class PictureEntry(TypedDict):
    """A method on one picture."""

    name: str
    contestant: MethodEntry | None
    height: int
    width: int
    measures: dict[str, float | None]
    """A PSNR of null: identical pictures."""
    seconds: float | None
    error: str | None


class QualityEntry(TypedDict):
    """Scores."""

    protocol: ProtocolEntry
    dataset: str
    degradation: str | None
    seed: int
    crop: int | None
    failed: int
    """Pictures left out of every mean."""
    summaries: list[QualitySummaryEntry]
    pictures: list[PictureEntry]


class GateEntry(TypedDict):
    """A threshold."""

    name: str
    limit: float
    worst: float | None
    """null: infinite, or not measured, which is not passed."""
    whose: str
    passed: bool


class Document(TypedDict):
    """`restormer bench --json`. Sizes are bytes, times seconds; what could not be had is null."""

    schema: str
    """"restormer-bench/1"."""
    restormer: str
    """The program's version."""
    machine: dict[str, Any]
    """`Machine`, below."""
    network: NetworkEntry
    work: list[WorkEntry]
    notes: list[str]
    """What was left out, and why."""
    cost: CostEntry | None
    quality: QualityEntry | None
    gates: list[GateEntry]


def to_dict(finished: Finished) -> Document:
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


def method_dict(method: Method) -> MethodEntry:
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


def _cost(cost: Cost) -> CostEntry:
    return {
        "cells": [_cell(cell) for cell in cost.cells],
        "scaling": [{**method_dict(scaling.method), "exponent": scaling.exponent} for scaling in cost.scaling],
    }


def _cell(cell: Timing) -> CellEntry:
    timed = cell.error is None
    return {
        **method_dict(cell.method),
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


def _quality(quality: Quality) -> QualityEntry:
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


def _summary(summary: Summary) -> QualitySummaryEntry:
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
