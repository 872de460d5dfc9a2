"""A picture of any size through the network: pad, run whole or in tiles, crop."""

from collections.abc import Iterator
from copy import deepcopy

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from restormer_cli.engine.strips import Strips
from restormer_cli.errors import UserError
from restormer_cli.model.restormer import Restormer

PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Restorer:
    """Restores pictures with one network: `restore = Restorer(model); clean = restore(noisy)`.

    The model is never changed, so several Restorers may share one. `tile` is the side of the tiles in pixels
    (rounded up to a multiple of 8; None: the whole picture at once), `overlap` how far neighbours share pixels.
    Tiles are approximate: attention sees a tile's statistics instead of the picture's.

    Raises UserError for a device or precision that is not to be had, and for impossible tiles.
    """

    def __init__(
        self,
        model: Restormer,
        device: str = "auto",
        precision: str = "auto",
        tile: int | None = None,
        overlap: int = 32,
    ) -> None:
        self.device = choose_device(device)
        self.precision = _choose_precision(precision, self.device)
        self.config = model.config
        if tile is not None and tile < 8:
            raise UserError(f"--tile {tile}: the smallest tile is 8 pixels")
        self.tile = None if tile is None else _multiple_of_8(tile)
        if overlap < 0 or (self.tile is not None and overlap >= self.tile):
            raise UserError(
                f"--overlap {overlap}: must be at least 0 and less than the tile, {self.tile}: "
                "give a smaller --overlap or a larger --tile"
            )
        self.overlap = overlap
        here = next(model.parameters()).device == self.device
        self._network = Strips(model if here else deepcopy(model).to(self.device), PRECISIONS[self.precision])

    @torch.inference_mode()
    def __call__(self, picture: np.ndarray) -> np.ndarray:
        """Floats (h, w, in_channels), nominally in [0, 1] and not clipped -> float32 (h, w, out_channels), not clamped.

        Raises UserError for another number of channels, an empty picture, or integers: their range is not guessed.
        """
        if picture.ndim != 3 or picture.shape[2] != self.config.in_channels or 0 in picture.shape:
            raise UserError(
                f"picture of shape {picture.shape}: this model takes (h, w, {self.config.in_channels}), not empty"
            )
        if not np.issubdtype(picture.dtype, np.floating):
            raise UserError(f"picture of type {picture.dtype}: this model takes floats, 0 for black and 1 for white")
        pixels = np.require(picture, np.float32, ["C", "W"])
        x = torch.from_numpy(pixels).permute(2, 0, 1)[None].to(self.device)
        restored = self._whole(x) if self.tile is None else self._tiled(x, self.tile)
        return restored[0].permute(1, 2, 0).contiguous().cpu().numpy()

    def _whole(self, x: Tensor) -> Tensor:
        h, w = x.shape[-2:]
        return self._network.run(pad_to_multiple_of_8(x))[..., :h, :w]

    def _tiled(self, x: Tensor, tile: int) -> Tensor:
        h, w = x.shape[-2:]
        if h <= tile and w <= tile:
            return self._whole(x)
        total = x.new_zeros(1, self.config.out_channels, h, w)
        weight = x.new_zeros(1, 1, h, w)
        for top, bottom, rows in _spans(h, tile, self.overlap):
            for left, right, columns in _spans(w, tile, self.overlap):
                share = (rows[:, None] * columns[None, :]).to(self.device)
                total[..., top:bottom, left:right] += share * self._whole(x[..., top:bottom, left:right])
                weight[..., top:bottom, left:right] += share
        return total / weight


def choose_device(name: str) -> torch.device:
    """`auto` is cuda, else mps, else cpu. Raises UserError for one that this machine lacks."""
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"--device {name}: unknown; choose auto, cpu, cuda, cuda:1 … or mps") from None
    missing = (device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count()) or (
        device.type == "mps" and not torch.backends.mps.is_available()
    )
    if missing or device.type not in ("cpu", "cuda", "mps"):
        raise UserError(f"--device {name}: not on this machine; --device auto takes the best there is")
    return device


def pad_to_multiple_of_8(x: Tensor) -> Tensor:
    """(b, c, h, w) -> the same, reflected at the right and bottom; edge pixels where it is too small to reflect."""
    h, w = x.shape[-2:]
    down, right = -h % 8, -w % 8
    x = F.pad(x, (0, right, 0, 0), mode="reflect" if right < w else "replicate")
    return F.pad(x, (0, 0, 0, down), mode="reflect" if down < h else "replicate")


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


def _choose_precision(name: str, device: torch.device) -> str:
    if name == "auto":
        return "fp32"
    if name not in PRECISIONS:
        raise UserError(f"--precision {name}: unknown; choose auto, {', '.join(PRECISIONS)}")
    if name == "fp16" and device.type == "cpu":
        raise UserError("--precision fp16: no processor computes it well; use bf16 or fp32 on a CPU")
    return name


def _multiple_of_8(side: int) -> int:
    return -(-side // 8) * 8
