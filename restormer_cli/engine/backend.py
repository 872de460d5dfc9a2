"""Backends of the Restorer: networks ready to run on one device at one precision; and our own engine as one of them.

Exported graphs are others (runtimes.py), and so are the peers of `bench` (benchmark/methods.py).
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace
from typing import Protocol

import torch
from torch import Tensor

from restormer_cli.engine.memory_plan import Plan, plan
from restormer_cli.engine.progress import Progress, silent
from restormer_cli.engine.strips import StripNetwork, by_kernels
from restormer_cli.engine.whole_map import WholeMap, fits, has_few_cells, tensor_float_32
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer

PRECISIONS = {"fp32": torch.float32, "tf32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
"""`fp32` is exact; `tf32`, on CUDA only, is float32 whose products and convolutions are rounded to 10 bits."""

Notice = Callable[[str], None]


class Backend(Protocol):
    """A network that is ready to run."""

    config: ModelConfig
    precision: str
    device: torch.device
    replans: bool
    """Whether a smaller plan is worth trying where memory runs out; otherwise the error is the user's to cure."""

    def plan(self, height: int, width: int, *, tile: int | None, budget: int | None, base: int) -> Plan:
        """Return how a picture of this size would run now.

        tile: the side that was asked for; None: whole pictures as far as memory goes.
        budget: bytes for the whole process; None: most of what is free.
        base: bytes that the process holds beside the picture's buffers.

        Raises UserError where `budget` is too little for any way.
        """
        ...

    def run(self, picture: Tensor, plan: Plan, notice: Notice, progress: Progress = silent) -> Tensor:
        """float32 (b, in_channels, h, w) on `device`, h and w multiples of 8 -> float32 (b, out_channels, h, w).

        b is at most the plan's `together`.
        Runs all of it in one piece, whatever the plan's tiles: cutting is the Restorer's. `progress` may hear the share
        that is done, in this thread.
        """
        ...


class OwnBackend:
    """This package's own engine: the network strip by strip, or by whole maps where a GPU has room for them.

    The model is never changed; `window` is that of the test-time local converter, None for global attention.
    """

    replans = True

    def __init__(
        self, model: Restormer, device: torch.device, precision: str, window: int | None = None, compile: bool = False
    ) -> None:
        self.config, self.precision, self.device = model.config, precision, device
        self.window = window
        self.compile = compile
        here = next(model.parameters()).device == device
        self._model = model if here else deepcopy(model).to(device)
        self._networks: dict[tuple[str, str], StripNetwork | WholeMap] = {}
        self._network(precision, "map" if self._whole_maps else "strips")

    def plan(self, height: int, width: int, *, tile: int | None, budget: int | None, base: int) -> Plan:
        most = tile or max(height, width)
        dtype = PRECISIONS[self.precision]

        def planned(native: bool) -> Plan:
            return plan(
                self.config,
                height,
                width,
                device=self.device,
                precision=self.precision,
                itemsize=torch.float32.itemsize if native else dtype.itemsize,
                tile=tile,
                window=self.window,
                budget=budget,
                whole_map=self._whole_maps and has_few_cells(min(height, most), min(width, most), self.window),
                base=base,
                native=native,
            )

        native = by_kernels(self._model, dtype)
        chosen = planned(native)
        if native and dtype is torch.bfloat16 and chosen.kind == "tiles" and tile is None:
            exact = planned(False)
            if exact.kind != "tiles":
                return replace(exact, operators=True)
        return chosen

    def run(self, picture: Tensor, plan: Plan, notice: Notice, progress: Progress = silent) -> Tensor:
        """As the protocol says; what overflows in another precision than fp32 is done again in it."""
        schedule = "map" if plan.whole_map else "operators" if plan.operators else "strips"
        with tensor_float_32(self.precision == "tf32"):
            restored = self._network(self.precision, schedule).run(picture, plan.keep_v, progress)
        if self.precision != "fp32" and not _finite(restored) and _finite(picture):
            # One value that is not finite reaches every pixel by way of attention: no smaller part can be mended.
            height, width = picture.shape[-2:]
            notice(f"{self.precision} overflowed on {width}×{height} pixels: done again in fp32")
            with tensor_float_32(False):
                restored = self._network("fp32", "map" if plan.whole_map else "strips").run(picture, plan.keep_v)
        return restored

    @property
    def _whole_maps(self) -> bool:
        """Whether maps may run whole instead of strip by strip: on CUDA, where the network is a usual one."""
        return self.device.type == "cuda" and not self.compile and fits(self.config)

    def _network(self, precision: str, schedule: str) -> StripNetwork | WholeMap:
        """The prepared network in a precision and for a schedule, made when first needed."""
        key = precision, schedule
        if key not in self._networks:
            dtype = PRECISIONS[precision]
            if schedule == "map":
                self._networks[key] = WholeMap(self._model, dtype, window=self.window, tf32=precision == "tf32")
            else:
                native = False if schedule == "operators" else None
                self._networks[key] = StripNetwork(
                    self._model, dtype, window=self.window, compiled=self.compile, native=native
                )
        return self._networks[key]


def _finite(x: Tensor) -> bool:
    # A sum is finite only where every term is; and it needs no map of booleans.
    return bool(x.sum(dtype=torch.float64 if x.device.type != "mps" else None).isfinite())
