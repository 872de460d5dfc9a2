"""ONNX files: any height, width and batch; the network's own answer in ONNX Runtime."""

import json

import numpy as np
import pytest
import torch

from restormer_cli.export.onnx_file import annotate_onnx, build_onnx

pytest.importorskip("onnxruntime", reason="pip install 'restormer-cli[export]'")


@pytest.mark.parametrize(
    ("kind", "any_size"),
    [
        pytest.param({}, True, marks=pytest.mark.slow),
        pytest.param({}, False, marks=pytest.mark.slow),
        pytest.param({"norm": "bias-free"}, False, marks=pytest.mark.slow),
        pytest.param({"norm": "bias-free", "in_channels": 1, "out_channels": 1}, True, marks=pytest.mark.slow),
        pytest.param({"in_channels": 6, "dual_pixel": True}, True, marks=pytest.mark.slow),
        pytest.param({"attention": "mta", "feed_forward": "dfn", "concat": False}, False, marks=pytest.mark.slow),
    ],
)
def test_onnx_runtime_gives_the_networks_answer_at_every_size(tiny_network, kind: dict, any_size: bool) -> None:
    import onnxruntime

    model = tiny_network(refinement=0, **kind)
    file = annotate_onnx(build_onnx(model, any_size=any_size), {"task": "denoise", "model": {"dim": 4}})
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    assert [axis if isinstance(axis, str) else 0 for axis in session.get_inputs()[0].shape] == [
        "batch", 0, "height", "width",
    ]  # fmt: skip
    assert json.loads(session.get_modelmeta().custom_metadata_map["model"]) == {"dim": 4}
    from restormer_cli.model.padding import pad_to_multiple_of_8

    sizes = [(1, 8, 8), (3, 40, 16), (1, 56, 72)] + ([(1, 1, 1), (2, 5, 9), (1, 13, 3)] if any_size else [])
    for batch, h, w in sizes:
        x = torch.rand(batch, model.config.in_channels, h, w)
        with torch.inference_mode():
            expected = model(pad_to_multiple_of_8(x))[..., :h, :w].numpy()
        result = np.asarray(session.run(None, {"input": x.numpy()})[0])
        assert np.abs(result - expected).max() < 0.01 / 255
