"""Where the time goes: seconds per stage of the network, in the order in which a picture passes them."""

from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from restormer_cli.engine.backend import PRECISIONS
from restormer_cli.engine.progress import Meter
from restormer_cli.engine.strips import StripNetwork
from restormer_cli.hardware import choose_device
from restormer_cli.model.padding import pad_to_multiple_of_8
from restormer_cli.model.restormer import Restormer

REST = "convolutions between"
"""Patch embedding, resampling, reductions and output: what is no stage of blocks."""


class TimedStripNetwork(StripNetwork):
    """The network that keeps the time of each stage."""

    def __init__(self, model: Restormer, dtype: torch.dtype) -> None:
        super().__init__(model, dtype)
        self.seconds: dict[str, float] = {}

    def _level(self, name: str, x: Tensor, spare: Tensor, meter: Meter) -> None:
        begun = _now(self.device)
        super()._level(name, x, spare, meter)
        self.seconds[name] = _now(self.device) - begun


def time_stages(model: Restormer, precision: str, device: str, picture: np.ndarray) -> tuple[tuple[str, float], ...]:
    """Seconds per stage for one picture (h, w, c), whole, after one warm-up; the last entry is the rest."""
    where = choose_device(device)
    strips = TimedStripNetwork(model.to(where), PRECISIONS[precision])
    planes = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))[None].to(where)
    planes = pad_to_multiple_of_8(planes)
    strips.run(planes)
    begun = _now(where)
    strips.run(planes)
    total = _now(where) - begun
    return (*strips.seconds.items(), (REST, total - sum(strips.seconds.values())))


def _now(device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return perf_counter()
