"""A picture of any size through the network: pad, run whole or in tiles, crop."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restormer_cli.engine.backend import PRECISIONS, Backend, Notice, OwnBackend
from restormer_cli.engine.memory_plan import Plan
from restormer_cli.engine.positions import positions_of
from restormer_cli.engine.progress import Progress, part_of, silent
from restormer_cli.errors import UserError
from restormer_cli.hardware import choose_device, give_back, held, multiplies_bf16, parse_memory
from restormer_cli.launcher import local_place
from restormer_cli.model.padding import multiple_of_8, pad_to_multiple_of_8
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights_file import Weights
from restormer_cli.native.build import multiplies_pairs


class Restorer:
    """Restores pictures with one network: `restore = Restorer(model); clean = restore(noisy)`.

    The model is never changed, so several Restorers may share one. `precision` is auto, fp32, bf16, fp16 (not on a
    CPU) or tf32 (on CUDA only). `tile` is the side of the tiles in pixels (rounded up to a multiple of 8; None:
    whole pictures, unless memory is too short), `overlap` how far neighbours share pixels. Tiles are approximate:
    attention sees a tile's statistics instead of the picture's. `window` is that of the test-time local converter
    (None: global attention, as trained). `memory` is the budget of the whole process, in bytes or like "6GB" (None:
    most of what is free). `compile` fuses what torch.compile can fuse.

    Of `Weights` the precision auto knows what bf16 costs; of a model alone it is fp32. Any other `Backend`, such as an
    `Exported` file, runs as it is: then there is no choice of device, precision, `window` and `compile`.

    Raises UserError for a device or precision that is not to be had, and for impossible tiles, windows or amounts.
    """

    def __init__(
        self,
        model: Weights | Restormer | Backend,
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
        overlap: int = 32,
        window: int | None = None,
        memory: int | str | None = None,
        compile: bool = False,
    ) -> None:
        check_ways(tile, overlap, window, memory)
        self.tile = None if tile is None else multiple_of_8(tile)
        self.overlap = overlap
        self.memory = None if memory is None else parse_memory(memory)
        self.waiting = 0
        """Bytes of other pictures that wait beside the one that is restored: plans leave them room."""
        self.done: Plan | None = None
        """How the newest picture ran in the end, which is not as planned where memory ran out."""
        header: dict[str, Any] = {}
        if isinstance(model, Weights):
            model, header = model.model, model.header
        if isinstance(model, Restormer):
            where = _own_gpu(choose_device(device))
            chosen = automatic_precision(header, where) if precision == "auto" else _check_precision(precision, where)
            self.backend: Backend = OwnBackend(model, where, chosen, window, compile)
            give_back()
        else:
            _check_as_it_is(model, device, precision, window, compile)
            self.backend = model
            header = getattr(model, "header", {})
        self.positions = positions_of(header.get("recipe"))
        """Turned and mirrored ones in which the network knows pictures."""
        self.config, self.precision, self.device = self.backend.config, self.backend.precision, self.backend.device
        self._base = held(self.device)  # once: later the allocator may hold buffers that the next picture uses again

    def share_room(self, other: "Restorer") -> None:
        """Leave the room that `other` leaves for pictures that wait: both restore pictures of one run.

        What this process held when `other` was made, and what waits, is not counted twice where some of it is held now.
        """
        self.waiting = max(0, other._base + other.waiting - self._base)

    def plan(self, height: int, width: int) -> Plan:
        """How a picture of this size would run now. Raises UserError where `memory` is too little for any way."""
        base = self._base + (self.waiting if self.device.type == "cpu" else 0)
        return self.backend.plan(height, width, tile=self.tile, budget=self.memory, base=base)

    def __call__(
        self, picture: np.ndarray, notice: Notice | None = None, progress: Progress | None = None
    ) -> np.ndarray:
        """Floats (h, w, in_channels), nominally in [0, 1] and not clipped -> float32 (h, w, out_channels), not clamped.

        `notice` hears, in a sentence each, what was not done as asked: tiles for want of memory, parts done again in
        float32. `progress` hears the share that is done, from 0 to 1, in this thread; it falls back to 0 where memory
        ran out and the picture is begun again. Raises UserError for another number of channels, an empty picture, or
        integers: their range is not guessed.
        """
        return self.several([picture], notice, progress)[0]

    @torch.inference_mode()
    def several(
        self, pictures: Sequence[np.ndarray], notice: Notice | None = None, progress: Progress | None = None
    ) -> list[np.ndarray]:
        """Pictures of one shape, restored as by a call for each, and all in memory at once.

        Where a GPU would have too little to do with one, they go through the network together: at most
        `plan(h, w).together` of them.
        """
        self._check(pictures)
        pixels = np.stack(pictures) if len(pictures) > 1 else pictures[0][None]
        pixels = np.require(pixels, np.float32, ["C", "W"])
        x = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.device)
        notice = notice or (lambda _: None)
        chosen = self.plan(*x.shape[-2:])
        if chosen.kind == "tiles" and self.tile is None:
            notice(f"memory is too short for the whole picture: tiles of {chosen.tile}, which is approximate")
        restored = None
        while restored is None:
            try:
                restored = self._planned(x, chosen, notice, progress or silent)
            except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError, on a GPU a kind of it
                if not self.backend.replans:
                    raise
                chosen = _smaller(chosen, error, x)
                what = {"whole": "strip by strip", "recompute": "recomputing v"}.get(
                    chosen.kind, f"tiles of {chosen.tile}, which is approximate"
                )
                notice(f"memory ran out: going on with {what}")
            if restored is None and self.device.type == "cuda":
                torch.cuda.empty_cache()
        self.done = chosen
        if self.memory is not None and self.device.type == "cpu":
            give_back()
        return [each.permute(1, 2, 0).contiguous().cpu().numpy() for part in restored for each in part]

    def _check(self, pictures: Sequence[np.ndarray]) -> None:
        """Raises UserError for what is no picture for this network, or for pictures of several shapes."""
        for picture in pictures:
            if picture.ndim != 3 or picture.shape[2] != self.config.in_channels or 0 in picture.shape:
                raise UserError(
                    f"picture of shape {picture.shape}: this model takes (h, w, {self.config.in_channels}), not empty"
                )
            if not np.issubdtype(picture.dtype, np.floating):
                raise UserError(
                    f"picture of type {picture.dtype}: this model takes floats, 0 for black and 1 for white"
                )
        if len({picture.shape for picture in pictures}) != 1:
            raise UserError("pictures of one shape go together, at least one")

    def _planned(self, x: Tensor, chosen: Plan, notice: Notice, progress: Progress) -> list[Tensor]:
        """(b, c, h, w) -> parts of the batch, (…, c', h, w)."""
        progress(0.0)
        if chosen.tile is not None:
            hear = [part_of(progress, index, len(x)) for index in range(len(x))]
            return [self._tiled(each[None], chosen, notice, hear[index]) for index, each in enumerate(x)]
        parts = x.split(chosen.together)
        hear = [part_of(progress, index, len(parts)) for index in range(len(parts))]
        return [self._whole(part, chosen, notice, hear[index]) for index, part in enumerate(parts)]

    def _whole(self, x: Tensor, chosen: Plan, notice: Notice, progress: Progress) -> Tensor:
        h, w = x.shape[-2:]
        return self.backend.run(pad_to_multiple_of_8(x), chosen, notice, progress)[..., :h, :w]

    def _tiled(self, x: Tensor, chosen: Plan, notice: Notice, progress: Progress) -> Tensor:
        (h, w), tile = x.shape[-2:], chosen.tile
        assert tile is not None
        # What was asked for goes with the tile that was asked for, not with a smaller one for want of memory.
        overlap = self.overlap if tile == self.tile else min(self.overlap, tile // 2)
        total = x.new_zeros(1, self.config.out_channels, h, w)
        weight = x.new_zeros(1, 1, h, w)
        tiles = list(product(_spans(h, tile, overlap), _spans(w, tile, overlap)))
        groups = [tiles[begin : begin + chosen.together] for begin in range(0, len(tiles), chosen.together)]
        for index, group in enumerate(groups):
            cut = [x[..., top:bottom, left:right] for (top, bottom, _), (left, right, _) in group]
            hear = part_of(progress, index, len(groups))
            answers = self._whole(torch.cat(cut) if len(cut) > 1 else cut[0], chosen, notice, hear)
            for ((top, bottom, rows), (left, right, columns)), restored in zip(group, answers, strict=True):
                share = (rows[:, None] * columns[None, :]).to(self.device)
                total[..., top:bottom, left:right] += share * restored
                weight[..., top:bottom, left:right] += share
            hear(1.0)
        return total.div_(weight)


def check_ways(tile: int | None, overlap: int, window: int | None, memory: int | str | None) -> None:
    """Raises UserError for tiles, windows or amounts of memory that cannot be."""
    if tile is not None and tile < 8:
        raise UserError(f"--tile {tile}: the smallest tile is 8 pixels")
    if overlap < 0 or (tile is not None and overlap >= multiple_of_8(tile)):
        raise UserError(
            f"--overlap {overlap}: must be at least 0 and less than the tile, {tile and multiple_of_8(tile)}: "
            "give a smaller --overlap or a larger --tile"
        )
    if window is not None and window < 8:
        raise UserError(f"--window {window}: the smallest window is 8 pixels, one at the deepest level")
    if memory is not None:
        parse_memory(memory)


def _smaller(chosen: Plan, error: Exception, x: Tensor) -> Plan:
    """The next more frugal plan after memory ran out. Raises the error again where it is another, or none is left."""
    if isinstance(error, RuntimeError) and "memory" not in str(error).lower():
        raise error
    if chosen.whole_map:  # strips take less
        return replace(chosen, whole_map=False, together=1)
    if chosen.kind == "whole":
        return replace(chosen, kind="recompute", keep_v=False)
    side = multiple_of_8((chosen.tile or max(x.shape[-2:])) // 2)
    if side < 32:
        raise error
    return replace(chosen, kind="tiles", keep_v=True, tile=side, together=1)


def _spans(side: int, tile: int, overlap: int) -> Iterator[tuple[int, int, Tensor]]:
    """Start, end and blending weights of the tiles along one axis; weights are positive everywhere.

    The tiles are as even as their number allows. A weight rises linearly over the overlap, at inner edges only,
    so that dividing by the sum of weights leaves no seam and no dark border.
    """
    tile = min(tile, side)
    count = 1 if side == tile else -(-(side - overlap) // (tile - overlap))
    starts = [round(index * (side - tile) / max(1, count - 1)) for index in range(count)]
    for index, start in enumerate(starts):
        weights = torch.ones(tile)
        if index > 0:
            shared = starts[index - 1] + tile - start
            weights[:shared] *= torch.arange(1, shared + 1) / (shared + 1)
        if index < count - 1:
            shared = start + tile - starts[index + 1]
            weights[tile - shared :] *= torch.arange(shared, 0, -1) / (shared + 1)
        yield start, start + tile, weights


def _check_as_it_is(backend: Backend, device: str, precision: str, window: int | None, compile: bool) -> None:
    """Raises UserError where something is asked of a finished graph that it cannot give."""
    graph = f"{backend} is a finished graph"
    if device not in ("auto", str(backend.device)):
        raise UserError(
            f"--device {device}: {graph}, which runs on the {backend.device.type.upper()} here: leave --device out"
        )
    if precision not in ("auto", backend.precision):
        raise UserError(f"--precision {precision}: {graph} in {backend.precision}: leave --precision out")
    if window is not None:
        raise UserError(f"--window {window}: {graph} with global attention: use the weights themselves, or --tile")
    if compile:
        raise UserError(f"--compile: {graph}: leave --compile out, or export with it")


LARGEST_LOSS = 0.02
"""In dB, that `auto` accepts for speed."""


def automatic_precision(header: dict[str, object], device: torch.device) -> str:
    """bf16 where it is faster, and where the weights' header says that it costs them no more than 0.02 dB.

    That is on a GPU that multiplies in it, and on a CPU whose kernels multiply pairs (docs/performance.md). Where a CPU
    has to run it by PyTorch's operators, it is fp32.
    """
    loss = header.get("bf16_loss")
    little = isinstance(loss, int | float) and not isinstance(loss, bool) and loss <= LARGEST_LOSS
    faster = multiplies_pairs() if device.type == "cpu" else device.type == "cuda" and multiplies_bf16(device)
    return "bf16" if little and faster else "fp32"


def _own_gpu(device: torch.device) -> torch.device:
    """Under a launcher this process's own GPU, unless one was named by its number."""
    place, processes = local_place()
    return torch.device("cuda", place) if processes > 1 and device.type == "cuda" and device.index is None else device


def _check_precision(name: str, device: torch.device) -> str:
    if name not in PRECISIONS:
        raise UserError(f"--precision {name}: unknown; choose auto, {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise UserError("--precision fp16: no processor computes it well; use bf16 or fp32 on a CPU")
    if name == "tf32" and device.type != "cuda":
        raise UserError("--precision tf32: only NVIDIA's GPUs have it; use fp32, or bf16 for speed")
    return name
