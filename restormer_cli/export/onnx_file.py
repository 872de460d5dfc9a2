"""The network as an ONNX file, for ONNX Runtime and everything else that reads ONNX."""

import json
import logging
import warnings
from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch

from restormer_cli.export.graph import export_program
from restormer_cli.extras import require
from restormer_cli.model.restormer import Restormer

if TYPE_CHECKING:
    from onnx import ModelProto

OPSET = 20
"""The first with the exact GELU as one operator."""
AXES = ("batch", None, "height", "width")


def build_onnx(model: Restormer, precision: str = "fp32", any_size: bool = False) -> "ModelProto":
    """float32 `input` (batch, in_channels, height, width) -> float32 `output` alike; all but the channels dynamic.

    height and width are multiples of 8; with `any_size` they are anything, since the graph pads and crops.
    `fp16` halves the weights; what overflows stays in fp32. Raises UserError where a package is missing or too old.
    """
    # Older releases of onnxscript put PixelUnshuffle's channels into another order.
    require("an .onnx file", "export", "onnx", "onnxscript>=0.7.1", "onnxslim")
    import onnxslim

    program = export_program(model, precision, any_size)
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)  # or it tells about torchvision, which nobody asked for
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exported = torch.onnx.export(
                program,
                dynamo=True,
                input_names=["input"],
                output_names=["output"],
                opset_version=OPSET,
                verbose=False,
            )
    finally:
        logger.setLevel(level)
    assert exported is not None
    graph: ModelProto = onnxslim.slim(exported.model_proto)  # pyright: ignore[reportAssignmentType]
    _name_axes(graph)
    return graph


def annotate_onnx(graph: "ModelProto", metadata: Mapping[str, object]) -> bytes:
    """The file: the graph with the metadata in its `metadata_props`, as strings or JSON."""
    del graph.metadata_props[:]
    for key, value in metadata.items():
        graph.metadata_props.add(key=key, value=value if isinstance(value, str) else json.dumps(value))
    graph.producer_name = "restormer-cli"
    return graph.SerializeToString()


def _name_axes(graph: "ModelProto") -> None:
    """Say batch, height and width where the tracer says s64, s84 and s32; runtimes work out the shapes between."""
    for value in (*graph.graph.input, *graph.graph.output):
        for axis, name in zip(value.type.tensor_type.shape.dim, AXES, strict=True):
            if name is not None:
                axis.dim_param = name
    del graph.graph.value_info[:]
