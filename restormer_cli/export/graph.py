"""The network as one graph of PyTorch operators, for any height, width and batch; every graph format starts here."""

import io
import json
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch.export import Dim, ExportedProgram

from restormer_cli.engine.runtimes import NOTES
from restormer_cli.errors import UserError
from restormer_cli.export.nchw import AnySize, Planar
from restormer_cli.model.restormer import Restormer

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
LARGEST = 65536
"""Sides that a graph takes at most, in pixels."""
LEAST_ANY = 9
"""torch.export proves nothing about the one padded size of 8, so a program with `any_size` starts above it."""
COMPILERS = ("g++", "c++", "clang++")


def export_program(model: Restormer, precision: str = "fp32", any_size: bool = False) -> ExportedProgram:
    """float32 (b, in_channels, h, w) -> float32 (b, out_channels, h, w) as a graph; b, h and w dynamic.

    h and w are multiples of 8, or with `any_size` at least 9 each: then the padding is part of the graph.
    The weights, and what is computed between, are in `precision`.
    """
    network: torch.nn.Module = Planar(model, DTYPES[precision])
    batch = Dim("batch", min=1, max=1024)
    if any_size:
        network = AnySize(network)
        sides = {2: Dim("height", min=LEAST_ANY, max=LARGEST), 3: Dim("width", min=LEAST_ANY, max=LARGEST)}
    else:
        sides = {2: 8 * Dim("height8", min=1, max=LARGEST // 8), 3: 8 * Dim("width8", min=1, max=LARGEST // 8)}
    # No two sizes alike, none 1: whatever the tracer sees as equal it takes to be always so.
    example = torch.zeros(2, model.config.in_channels, 24, 40)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch's own, about its own interfaces
        return torch.export.export(network, (example,), dynamic_shapes=({0: batch, **sides},))


def pack_program(program: ExportedProgram, metadata: Mapping[str, object]) -> bytes:
    """A `.pt2` file for torch.export.load; the metadata are its extra file `restormer-cli.json`."""
    stream = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.export.save(program, stream, extra_files={NOTES: json.dumps(metadata)})
    return stream.getvalue()


def compile_program(model: Restormer, folder: Path, precision: str = "fp32", any_size: bool = False) -> bytes:
    """A `.pt2` package of machine code for this kind of processor (AOTInductor), built in `folder`.

    Raises UserError where no C++ compiler is to be found.
    """
    if not any(shutil.which(name) for name in COMPILERS):
        raise UserError("--compile: needs a C++ compiler, and there is none: apt install g++ (or leave --compile out)")
    from torch._inductor import aoti_compile_and_package

    program = export_program(model, precision, any_size)
    target = folder / "compiled.pt2"
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        aoti_compile_and_package(program, package_path=str(target))
    return target.read_bytes()
