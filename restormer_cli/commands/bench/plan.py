"""From a request to what will be measured; everything that can be refused is refused here, before any work."""

import re
from dataclasses import replace

import torch

from restormer_cli.benchmark.classical import METHODS
from restormer_cli.benchmark.methods import OURS, Method, check_kinds, read_kind
from restormer_cli.benchmark.networks import PAPER, Network, find_network
from restormer_cli.benchmark.peers import about_peers, is_peer
from restormer_cli.benchmark.scoring import Source, published_sigma
from restormer_cli.commands.bench.types import Request, Started, Task
from restormer_cli.data.pairs import find_pairs
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.engine.backend import PRECISIONS
from restormer_cli.engine.restorer import check_ways
from restormer_cli.errors import UserError
from restormer_cli.hardware import available_cores, choose_device, describe_machine, parse_memory
from restormer_cli.metrics.perceptual import check_metrics
from restormer_cli.metrics.protocols import BY_TASK, Protocol, find_protocol
from restormer_cli.model.cost import count_operations, count_parameters
from restormer_cli.recipe import Pairs

DEFAULT_SIZES = ("256", "512")
DEFAULT_TASK = "denoise"


def start(request: Request) -> Started:
    """Return the measurements to make. Raises UserError."""
    check_kinds(tuple(read_kind(word)[0] for word in request.against))
    _check_flags(request)
    judging = request.clean is not None
    network = find_network(request.network or (DEFAULT_TASK if judging else PAPER), request.seed)
    wanted = request.sizes or (() if judging else DEFAULT_SIZES)
    sizes = tuple(parse_size(text) for text in wanted)
    methods, notes = list_methods(request)
    notes += _peers(request, network)
    return Started(
        network=network,
        assumed=request.network is None,
        parameters=count_parameters(network.config),
        operations=tuple(count_operations(network.config, *size) for size in sizes),
        machine=describe_machine(request.threads or min(torch.get_num_threads(), available_cores())),
        methods=methods,
        sizes=sizes,
        runs=request.runs,
        notes=notes,
        task=_task(request, network) if judging else None,
    )


def _peers(request: Request, network: Network) -> tuple[str, ...]:
    """What other people's networks are. Raises UserError where one cannot take part."""
    if any(map(is_peer, request.against)) and network.config.dual_pixel:
        raise UserError("--against spandrel:FILE: takes one picture, and these weights two views")
    return about_peers(request.against, network)


def _check_flags(request: Request) -> None:
    judging = request.clean is not None
    if request.runs < 1:
        raise UserError(f"--runs {request.runs}: at least 1")
    if not judging:
        for flag, value in (
            ("--degraded", request.degraded),
            ("--degrade", request.degrade),
            ("--right", request.right),
            ("--protocol", request.protocol),
            ("--dataset", request.dataset),
            ("--crop", request.crop),
            ("--metrics", request.metrics),
            ("--min-psnr", request.gates.min_psnr),
        ):
            if value:
                raise UserError(f"{flag}: is about quality, which needs --clean DIR")
    elif (request.degraded is None) == (request.degrade is None):
        raise UserError("--clean needs either --degraded DIR, its pairs, or --degrade SPEC, such as gaussian:25")
    if request.right is not None and request.degraded is None:
        raise UserError("--right: the second views belong to the pictures of --degraded DIR")
    if request.gates.max_memory is not None:
        parse_memory(request.gates.max_memory, "--max-memory")
        if judging and not request.sizes:
            raise UserError("--max-memory: memory is measured by size: name some, such as --sizes 512")


def list_methods(request: Request) -> tuple[tuple[Method, ...], tuple[str, ...]]:
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
            ours = Method(OURS, precision, device, overlap=request.overlap, memory=request.memory)
            for tile in request.tiles or (0,):
                for window in request.windows or (0,):
                    check_ways(tile or None, request.overlap, window or None, request.memory)
                    found.append(replace(ours, tile=tile or None, window=window or None))
            for kind, strength in map(read_kind, request.against):
                # Classical methods have one precision, whatever the network's.
                given = Method(kind, strength=strength)
                other = given if kind in METHODS else Method(kind, precision, device)
                if other.offers():
                    found.append(other)
                else:
                    notes.append(f"{kind} does not run in {precision} on {device}: left out there")
    return tuple(dict.fromkeys(found)), tuple(notes)


def _task(request: Request, network: Network) -> Task:
    assert request.clean is not None
    if network.path is None:
        raise UserError(f"{network.name}: has random weights, whose quality says nothing: name weights or a task")
    if network.config.dual_pixel != (request.right is not None):
        raise UserError(
            f"{network.name}: dual-pixel weights take two views: name the second views by --right DIR"
            if network.config.dual_pixel
            else f"--right: {network.name} takes one picture: leave it out"
        )
    check_metrics(request.metrics)
    degradation = None if request.degrade is None else parse_degradation(request.degrade)
    if request.crop is not None and request.crop < 8:
        raise UserError(f"--crop {request.crop}: at least 8 pixels")
    clean, degraded, right = (None if f is None else str(f) for f in (request.clean, request.degraded, request.right))
    folders = Pairs(clean=clean or "", degraded=degraded, right=right)
    return Task(
        source=Source(
            samples=tuple(find_pairs(folders, role="--clean", table="")),
            degradation=degradation,
            crop=request.crop,
            seed=request.seed,
        ),
        protocol=_protocol(request, network, published_sigma(degradation)),
        dataset=request.dataset or request.clean.resolve().name,
        metrics=request.metrics,
        keep_views=request.keep_views,
    )


def _protocol(request: Request, network: Network, sigma: float | None) -> Protocol:
    """As asked, or by what is done to the pictures, or by what the weights are for."""
    if request.protocol is not None:
        protocol = find_protocol(request.protocol)
        if protocol.name == "gaussian" and request.degrade is not None and sigma is None:
            raise UserError(
                f"--protocol gaussian: its noise is Gaussian of one σ, such as --degrade gaussian:25; "
                f"score {request.degrade} by plain"
            )
        return protocol
    return find_protocol("gaussian" if sigma is not None else BY_TASK.get(network.task or "", "plain"))


def parse_size(text: str) -> tuple[int, int]:
    """`512` or `1024x1536` -> (height, width) in pixels. Raises UserError."""
    match = re.fullmatch(r"(\d{1,5})(?:[x×](\d{1,5}))?", text.strip())
    if match is None:
        raise UserError(f"--sizes {text}: write 512, or 1024x1536 for height x width, with commas between sizes")
    height, width = int(match[1]), int(match[2] or match[1])
    if min(height, width) < 8:
        raise UserError(f"--sizes {text}: the smallest picture is 8 pixels a side")
    return height, width
