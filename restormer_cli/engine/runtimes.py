"""Exported networks in the runtimes that they were made for: ONNX Runtime, torch.export, AOTInductor, OpenVINO.

`Exported` is a Backend of the Restorer, whichever of the runtimes its file is for. Only files that `restormer export`
wrote: they tell in their metadata which network they hold.
A compiled `.pt2` is machine code and runs as such: take it only from people whose programs you would run.
"""

import json
import warnings
import zipfile
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from restormer_cli.engine.memory_plan import SHARE, TILES, Plan
from restormer_cli.errors import UserError
from restormer_cli.extras import require
from restormer_cli.hardware import free, held
from restormer_cli.launcher import local_place
from restormer_cli.model.config import ModelConfig

RUNTIMES = (".onnx", ".pt2", ".xml")
"""Extensions of files that hold a graph and not just weights."""


MAPS = 40
"""Full-resolution maps of `dim` channels that a runtime holds at its peak (docs/export.md); for planning only."""


class Runtime(Protocol):
    """Interface of the runtimes: float32 (b, in_channels, h, w) -> float32 (b, out_channels, h, w), on the CPU."""

    def metadata(self) -> dict[str, Any]:
        """Return what `restormer export` wrote of the network. Raises UserError where it wrote nothing."""
        ...

    def run(self, picture: Tensor) -> Tensor: ...


class Exported:
    """A file that `restormer export` wrote, as a Backend: always whole pictures in its runtime, on the CPU.

    Raises UserError naming the file where it is damaged, foreign, or its runtime is not installed.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise UserError(f"{path}: no such file")
        kind = {".onnx": OnnxRuntime, ".xml": OpenVino, ".pt2": open_program}[self.path.suffix.lower()]
        try:
            self._runtime: Runtime = kind(self.path)
            self.header = self._runtime.metadata()
        except UserError:
            raise
        except Exception as error:  # each runtime has a dozen kinds of its own
            reason = str(error).strip().splitlines() or [type(error).__name__]
            raise UserError(f"{path}: damaged, or not for this runtime ({reason[0][:200]})") from None
        try:
            self.config = ModelConfig.from_dict(self.header["model"])
        except (KeyError, TypeError, ValueError, AttributeError):
            raise UserError(f"{path}: was not written by `restormer export`: export the weights again") from None
        self.precision = str(self.header.get("precision", "fp32"))
        self.least = int(self.header.get("least_side", 8))
        self.device = torch.device("cpu")
        self.largest_patch: int | None = None
        """No window fits a finished graph."""

    replans = False

    def __str__(self) -> str:
        return self.path.name

    @property
    def task(self) -> str | None:
        """The task in the metadata, if there is one."""
        task = self.header.get("task")
        return task if isinstance(task, str) else None

    def plan(self, height: int, width: int, *, tile: int | None, budget: int | None, base: int) -> Plan:
        """The whole picture where it fits, else the largest tiles that do; a tile that was asked for is kept."""
        limit = budget
        if limit is None:
            limit = held(self.device) + int(SHARE * free(self.device) / local_place()[1])

        def need(side: int | None) -> int:
            h, w = (height, width) if side is None else (min(height, side), min(width, side))
            return base + 4 * h * w * MAPS * self.config.dim + 4 * height * width * self.config.out_channels

        sides = (tile if max(height, width) > tile else None,) if tile else (None, *TILES)
        for side in sides:
            if tile or need(side) <= limit:
                break
        else:
            side = TILES[-1]
            if budget is not None:
                raise UserError(
                    f"--memory {budget / 1e9:.2f}GB: too little for {width}×{height} pixels even in tiles of {side}: "
                    f"needs {need(side) / 1e9:.2f}GB"
                )
        return Plan("whole" if side is None else "tiles", True, side, None, self.precision, need(side))

    def run(self, picture: Tensor, plan: Plan | None = None, notice: Any = None, progress: Any = None) -> Tensor:
        """float32 (b, in_channels, h, w) -> float32 (b, out_channels, h, w).

        h and w are multiples of 8, or anything from `least` on where the file was exported with --any-size.
        """
        if min(picture.shape[-2:]) < self.least:
            raise UserError(f"{self.path}: takes pictures from {self.least} pixels a side on; this one is smaller")
        return self._runtime.run(picture.contiguous())


class OnnxRuntime:
    """An ONNX file in ONNX Runtime, for `restore` and `bench` alike; threads: None for as many as torch has."""

    def __init__(self, path: Path, threads: int | None = None) -> None:
        require(str(path), "export", "onnxruntime")
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.log_severity_level = 3
        # From its second run on a session lays out all of a shape's memory at once, twice what the first run needed.
        # The arena stays on: without it every map is fetched from the system again, which takes half the time.
        options.enable_mem_pattern = False
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def metadata(self) -> dict[str, Any]:
        return _read_values(self.session.get_modelmeta().custom_metadata_map)

    def run(self, picture: Tensor) -> Tensor:
        return torch.from_numpy(np.asarray(self.session.run(["output"], {"input": picture.numpy()})[0]))


class OpenVino:
    """An OpenVINO or ONNX file in OpenVINO, for `restore` and `bench` alike; threads: as for ONNX Runtime."""

    def __init__(self, path: Path, threads: int | None = None, precision: str = "fp32") -> None:
        require(str(path), "openvino", "openvino")
        import openvino

        core = openvino.Core()
        model = core.read_model(str(path))
        self._path = path
        self._notes = (
            str(model.get_rt_info("restormer_cli").astype(str)) if model.has_rt_info("restormer_cli") else None
        )
        # The precision is always said: the default is bf16 wherever the processor has it, whatever the model says.
        options = {
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_PRECISION_HINT": {"fp32": "f32"}.get(precision, precision),
        }
        self._request = core.compile_model(model, "CPU", options).create_infer_request()

    def metadata(self) -> dict[str, Any]:
        if self._notes is None:
            raise UserError(f"{self._path}: was not written by `restormer export`: export the weights again")
        return json.loads(self._notes)

    def run(self, picture: Tensor) -> Tensor:
        return torch.from_numpy(np.array(self._request.infer([picture.numpy()])[0]))


class Program:
    """A `.pt2`: a graph of PyTorch's own operators, or one that AOTInductor compiled."""

    def __init__(self, network: Any, metadata: dict[str, Any]) -> None:
        self._network, self._metadata = network, metadata

    def metadata(self) -> dict[str, Any]:
        return self._metadata

    def run(self, picture: Tensor) -> Tensor:
        with torch.no_grad():
            return self._network(picture)


def open_program(path: Path) -> Program:
    """Load a `.pt2` of either kind. Raises UserError where it is not one of ours."""
    with zipfile.ZipFile(path) as package:
        names = package.namelist()
        notes = [name for name in names if name.endswith(f"/extra/{NOTES}")]
        if not notes:
            raise UserError(f"{path}: was not written by `restormer export`: export the weights again")
        metadata = json.loads(package.read(notes[0]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if any("/aotinductor/" in name for name in names):
            from torch._inductor import aoti_load_package

            return Program(aoti_load_package(str(path)), metadata)
        return Program(torch.export.load(str(path)).module(), metadata)


def _read_values(values: dict[str, str]) -> dict[str, Any]:
    """Strings or JSON, as `annotate_onnx` writes them."""
    read: dict[str, Any] = {}
    for key, value in values.items():
        try:
            read[key] = json.loads(value)
        except ValueError:
            read[key] = value
    return read


NOTES = "restormer-cli.json"
"""The entry of a `.pt2` package that holds the metadata."""
