"""How a picture is to be run within a memory budget: predicted before work starts, from what it will allocate."""

from dataclasses import dataclass

import torch

from restormer_cli.engine.allocations import Allocations
from restormer_cli.engine.whole_map import predicted_bytes
from restormer_cli.errors import UserError
from restormer_cli.hardware import free, held
from restormer_cli.launcher import local_place
from restormer_cli.model.config import ModelConfig

SHARE = 0.7
"""Of the memory that is free, how much is taken where nothing else is said."""
TILES = (2048, 1536, 1024, 768, 512, 384, 256, 192, 128, 64)
LIBRARIES = 60 << 20
"""What the libraries of products take for themselves when first used (measured: scripts/measure/memory.py)."""
KERNELS = 8 << 20
"""The same where the kernels of native/ run: hardly anything but the products of a block's small matrices."""
TOGETHER = 512 * 512
"""Pixels of small pictures that a GPU restores at once: from so many on one has work for all of it (docs/gpu.md)."""
HEAP = 24 << 20
"""On the host: codecs, loaded with the first picture, and what lies unused between buffers (measured:
scripts/measure/budget.py)."""


@dataclass(frozen=True)
class Plan:
    """How a picture of one size runs."""

    kind: str
    """"whole": the whole picture, v kept; "recompute": the same, exactly, with v computed twice where it is largest;
    "tiles": approximate."""
    keep_v: bool
    """Whether v of the level-1 decoder is kept."""
    tile: int | None
    window: int | None
    precision: str
    bytes: int
    """The predicted peak: of the process, or of what is allocated on a GPU."""
    whole_map: bool = False
    """On a GPU, whether maps run whole (whole_map.py) instead of strip by strip."""
    operators: bool = False
    """On a CPU in bf16, whether PyTorch's operators run it although kernels could: their maps take half the memory."""
    together: int = 1
    """How many pictures of this size, or tiles, the network is given at once."""

    def __str__(self) -> str:
        kind = {"whole": "whole picture", "recompute": "whole picture, v recomputed", "tiles": f"tiles of {self.tile}"}
        return kind[self.kind] + (f", window {self.window}" if self.window else "")


def plan(
    config: ModelConfig,
    height: int,
    width: int,
    *,
    device: torch.device,
    precision: str,
    itemsize: int,
    tile: int | None,
    window: int | None,
    budget: int | None,
    whole_map: bool = False,
    base: int | None = None,
    native: bool = False,
) -> Plan:
    """The fastest way that fits: whole maps (if `whole_map`), strips with v kept, with v recomputed where that saves
    enough, or tiles.

    `budget` is for the whole process in bytes; None takes most of what is free. A `tile` that was asked for is kept.
    `base` is what the process holds beside the picture's buffers (None: what it holds now, in which buffers of earlier
    pictures may be counted that the allocator keeps).
    `native`: whether the kernels of native/ run it.
    Raises UserError where the smallest tiles do not fit a budget that was asked for.
    """
    now = held(device)
    limit = now + int(SHARE * free(device) / _sharers(device)) if budget is None else budget
    base = now if base is None else base
    height, width = height + -height % 8, width + -width % 8

    def need(keep_v: bool, side: int | None = None, mapped: bool = False, count: int = 1) -> int:
        pictures = 0
        h, w = height, width
        if side is not None and max(h, w) > side:
            h, w = min(h, side), min(w, side)
            pictures = 4 * height * width * (config.out_channels + 2)  # the sum of tiles, and of their weights
        if mapped:
            planes = 2 * 4 * count * h * w * config.in_channels
            return base + pictures + planes + predicted_bytes(config, h, w, itemsize, count, window)
        return base + pictures + _needs(config, h, w, itemsize, keep_v, window, device, native)

    def together(side: int | None = None) -> int:
        pixels = height * width if side is None else min(height, side) * min(width, side)
        counts = (count for count in (8, 4, 2) if count * pixels <= TOGETHER)
        return next((count for count in counts if need(True, side, True, count) <= limit), 1)

    def in_tiles(side: int) -> Plan:
        mapped = whole_map and need(True, side, True) <= limit
        count = together(side) if mapped else 1
        return Plan("tiles", True, side, window, precision, need(True, side, mapped, count), mapped, together=count)

    if tile is not None and max(height, width) > tile:
        return in_tiles(tile)
    if whole_map and need(True, mapped=True) <= limit:
        return Plan("whole", True, None, window, precision, need(True, mapped=True), True, together=together())
    for kind, keep_v in (("whole", True), ("recompute", False)):
        if need(keep_v) <= limit:
            return Plan(kind, keep_v, None, window, precision, need(keep_v))
    for side in TILES:
        if side < max(height, width) and in_tiles(side).bytes <= limit:
            return in_tiles(side)
    least = in_tiles(TILES[-1]).bytes
    if budget is not None:
        raise UserError(
            f"--memory {budget / 1e9:.2f}GB: too little for {width}×{height} pixels even in tiles of {TILES[-1]}: "
            f"needs {least / 1e9:.2f}GB"
        )
    return in_tiles(TILES[-1])


def _sharers(device: torch.device) -> int:
    """Processes of one run that take of the same memory: those on this machine, unless each has a GPU."""
    return 1 if device.type == "cuda" else local_place()[1]


def _needs(
    config: ModelConfig,
    height: int,
    width: int,
    itemsize: int,
    keep_v: bool,
    window: int | None,
    device: torch.device,
    native: bool,
) -> int:
    """The most that `StripNetwork.run` holds at once, with the picture before it and the result after it."""
    threads = torch.get_num_threads() if device.type == "cpu" else 1
    table = Allocations(config, height, width, itemsize, keep_v, window, threads, native, device.type)
    given = 4 * height * width * (config.in_channels + config.out_channels)  # padded; cropped, or clamped by the writer
    libraries = KERNELS if native else LIBRARIES
    return table.peak + given + libraries + (HEAP if device.type == "cpu" else 0)
