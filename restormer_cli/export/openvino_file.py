"""The network as an OpenVINO model: an `.xml` with the graph and a `.bin` with the weights."""

import json
from collections.abc import Mapping
from pathlib import Path

from restormer_cli.extras import require


def build_openvino(onnx: bytes, folder: Path, half: bool, metadata: Mapping[str, object]) -> dict[str, bytes]:
    """An ONNX file -> `.bin` and `.xml`; `half` stores the weights as fp16. `folder` is for scratch.

    The metadata are JSON in the model's `rt_info`, under `restormer_cli`.
    """
    require("an .xml file", "openvino", "openvino")
    import openvino

    model = openvino.Core().read_model(onnx)
    model.set_rt_info(json.dumps(metadata), "restormer_cli")
    path = folder / "openvino.xml"
    openvino.save_model(model, str(path), compress_to_fp16=half)
    return {suffix: path.with_suffix(suffix).read_bytes() for suffix in (".bin", ".xml")}
