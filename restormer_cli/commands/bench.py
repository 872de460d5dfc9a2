"""`bench`: how fast, how large, how good, compared with what."""

import re
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from restormer_cli.engine.contestants import OURS, Contestant, check_kinds, needs_onnx
from restormer_cli.engine.flops import Operations, count_operations, count_parameters
from restormer_cli.engine.machine import Machine, available_cores, describe_machine
from restormer_cli.engine.network import PAPER, Network, find_network
from restormer_cli.engine.restorer import PRECISIONS, choose_device
from restormer_cli.engine.stopwatch import Cell, Turn, export_elsewhere, measure
from restormer_cli.errors import UserError

DEFAULT_SIZES = ("256", "512")


@dataclass(frozen=True)
class Request:
    """What to measure, and against what."""

    network: str | None = None
    """Weights, a bundled checkpoint, `paper` or a recipe; None: `paper`, or `denoise` where quality is asked for."""
    sizes: tuple[str, ...] = ()
    """Such as 512 or 1024x1536 (height x width); none: 256 and 512, or no timing where quality is asked for."""
    precisions: tuple[str, ...] = ("fp32",)
    devices: tuple[str, ...] = ("auto",)
    against: tuple[str, ...] = ()
    tiles: tuple[int, ...] = ()
    """Sides of tiles to try, 0 for whole pictures; none: whole."""
    overlap: int = 32
    windows: tuple[int, ...] = ()
    """Windows of the test-time local converter to try, 0 for global attention; none: global."""
    memory: str | None = None
    runs: int = 3
    threads: int | None = None
    stages: bool = True
    seed: int = 0


@dataclass(frozen=True)
class Started:
    """What will be measured, before anything is."""

    network: Network
    assumed: bool
    """No network was named, so this one was taken."""
    parameters: int
    operations: tuple[Operations, ...]
    """Per size."""
    machine: Machine
    contestants: tuple[Contestant, ...]
    sizes: tuple[tuple[int, int], ...]
    runs: int
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Scaling:
    """Seconds grow as pixels to this power, fitted over the sizes: 1 is linear."""

    contestant: Contestant
    exponent: float


@dataclass(frozen=True)
class Cost:
    """Everything that was measured about speed and memory."""

    cells: tuple[Cell, ...]
    scaling: tuple[Scaling, ...]


@dataclass(frozen=True)
class Finished:
    """The whole result."""

    started: Started
    cost: Cost | None = None
    notes: tuple[str, ...] = field(default=())


def bench(request: Request) -> Iterator[object]:
    """Yields Started, Turns and Cells as they come, then Finished. Raises UserError before any work."""
    started = _start(request)
    yield started
    cost = None
    if started.sizes:
        cells = []
        for event in _cost(started):
            if isinstance(event, Cell):
                cells.append(event)
            yield event
        cost = Cost(tuple(cells), scaling(cells))
    yield Finished(started, cost)


def _start(request: Request) -> Started:
    """Check everything that can be checked."""
    check_kinds(request.against)
    if request.runs < 1:
        raise UserError(f"--runs {request.runs}: at least 1")
    threads = request.threads or available_cores()
    sizes = tuple(parse_size(text) for text in request.sizes or DEFAULT_SIZES)
    network = find_network(request.network or PAPER, request.seed)
    contestants, notes = _contestants(request)
    return Started(
        network=network,
        assumed=request.network is None,
        parameters=count_parameters(network.config),
        operations=tuple(count_operations(network.config, *size) for size in sizes),
        machine=describe_machine(threads),
        contestants=contestants,
        sizes=sizes,
        runs=request.runs,
        notes=notes,
    )


def _contestants(request: Request) -> tuple[tuple[Contestant, ...], tuple[str, ...]]:
    """Ours in every way that is asked for, then the others; and notes on those that do not offer a precision."""
    for precision in request.precisions:
        if precision not in PRECISIONS:
            raise UserError(f"--precision {precision}: unknown; choose from {', '.join(PRECISIONS)}")
    devices = [str(choose_device(device)) for device in request.devices]
    if "fp16" in request.precisions and "cpu" in devices:
        raise UserError("--precision fp16: no processor computes it well; use bf16 or fp32 on a CPU")
    found, notes = [], []
    for device in devices:
        for precision in request.precisions:
            ours = Contestant(OURS, precision, device, overlap=request.overlap, memory=request.memory)
            for tile in request.tiles or (0,):
                for window in request.windows or (0,):
                    found.append(replace(ours, tile=tile or None, window=window or None))
            for kind in request.against:
                other = Contestant(kind, precision, device)
                if other.offers():
                    found.append(other)
                else:
                    notes.append(f"{kind} does not run in {precision} on {device}: left out there")
    return tuple(dict.fromkeys(found)), tuple(notes)


def _cost(started: Started) -> Iterator[Turn | Cell]:
    with tempfile.TemporaryDirectory(prefix="restormer-bench-") as folder:
        onnx = None
        if any(needs_onnx(contestant.kind) for contestant in started.contestants):
            onnx = Path(folder) / "network.onnx"
            export_elsewhere(started.network, onnx, started.machine.threads)
        for size in started.sizes:
            yield from measure(
                list(started.contestants),
                started.network,
                size,
                rounds=started.runs,
                threads=started.machine.threads,
                onnx=onnx,
            )


def scaling(cells: list[Cell]) -> tuple[Scaling, ...]:
    """The slope of log seconds over log pixels, for every contestant timed at two sizes or more."""
    found = []
    for contestant in dict.fromkeys(cell.contestant for cell in cells):
        points = [(c.height * c.width, c.median) for c in cells if c.contestant == contestant and c.error is None]
        if len({pixels for pixels, _ in points}) > 1:
            pixels, seconds = np.log(np.array(points)).T
            found.append(Scaling(contestant, float(np.polyfit(pixels, seconds, 1)[0])))
    return tuple(found)


def parse_size(text: str) -> tuple[int, int]:
    """`512` or `1024x1536` -> (height, width) in pixels. Raises UserError."""
    match = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", text.strip())
    if match is None:
        raise UserError(f"--sizes {text}: write 512, or 1024x1536 for height x width, with commas between sizes")
    height, width = int(match[1]), int(match[2] or match[1])
    if min(height, width) < 8:
        raise UserError(f"--sizes {text}: the smallest picture is 8 pixels a side")
    return height, width
