#!/usr/bin/env python3
"""The figures of docs/export.md.

python scripts/measure/export_figures.py parity     # every format of the full network, four variants
python scripts/measure/export_figures.py speed      # ONNX Runtime, OpenVINO and our engine at 512²
python scripts/measure/export_figures.py layouts    # what ONNX Runtime makes of three layouts of the same network
python scripts/measure/export_figures.py int8       # what eight bits would gain and lose
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

VARIANTS = {
    "colour, with-bias": {},
    "colour, bias-free": {"norm": "bias-free"},
    "gray, bias-free": {"norm": "bias-free", "in_channels": 1, "out_channels": 1},
    "dual-pixel": {"in_channels": 6, "dual_pixel": True},
}
FORMATS = (("x.safetensors", "fp32"), ("x.safetensors", "fp16"), ("x.pth", "fp32"), ("x.onnx", "fp32"),
           ("x.onnx", "fp16"), ("x.pt2", "fp32"), ("x.pt2", "bf16"), ("x.xml", "fp32"), ("x.xml", "fp16"))  # fmt: skip
SHALLOW = {"blocks": [2, 2, 2, 2], "refinement": 2}
"""Widths of the paper's network, fewer blocks: layouts differ by block, and three full exports take minutes."""


def main() -> None:
    if len(sys.argv) == 3:
        _timed(sys.argv[1], Path(sys.argv[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        {"parity": parity, "speed": speed, "layouts": layouts, "int8": int8}[sys.argv[1]](Path(folder))


def _network(**options):
    import torch

    from restormer_cli.model.config import ModelConfig
    from restormer_cli.model.restormer import Restormer

    torch.manual_seed(0)
    return Restormer(ModelConfig.from_dict(options)).eval()


def parity(folder: Path) -> None:
    from restormer_cli.commands.export.run import Finished, Request, export
    from restormer_cli.model.weights_file import save_weights

    print("| network | format | precision | largest error, 1/255 | mean | MB |\n|---|---|---|---|---|---|")
    for name, options in VARIANTS.items():
        save_weights(folder / "in.safetensors", _network(**options), {})
        for file, precision in FORMATS:
            request = Request(str(folder / "in.safetensors"), folder / file, precision, overwrite=True)
            *_, done = export(request)
            assert isinstance(done, Finished)
            found = done.metadata["verified"]
            print(f"| {name} | {file[1:]} | {precision} | {found['maximum']:.2g} | {found['mean']:.2g} "
                  f"| {done.bytes / 1e6:.1f} |", flush=True)  # fmt: skip


def speed(folder: Path) -> None:
    """Each in a process of its own, so that its peak of memory is its own."""
    from restormer_cli.commands.export.run import Request, export
    from restormer_cli.model.weights_file import save_weights

    save_weights(folder / "net.safetensors", _network(), {})
    for name in ("net.onnx", "net.xml"):
        if not (folder / name).exists():
            list(export(Request(str(folder / "net.safetensors"), folder / name)))
    for name in ("net.onnx", "net.xml", "net.safetensors"):
        subprocess.run([sys.executable, __file__, "net", str(folder / name)], check=True)


def layouts(folder: Path) -> None:
    import onnx
    import onnxslim
    import torch

    from restormer_cli.export.nchw import Planar
    from restormer_cli.model.textbook import TextbookRestormer

    model = _network(**SHALLOW).requires_grad_(False)
    textbook = TextbookRestormer(model.config).eval().requires_grad_(False)
    textbook.load_state_dict(model.state_dict())
    for name, network in {"channels-last": model, "textbook": textbook, "planar": Planar(model)}.items():
        program = torch.onnx.export(
            network, (torch.rand(1, 3, 512, 512),), dynamo=True, input_names=["input"], output_names=["output"],
            opset_version=20, verbose=False,
        )  # fmt: skip
        assert program is not None
        onnx.save(onnxslim.slim(program.model_proto), str(folder / f"{name}.onnx"))  # pyright: ignore
    for name in ("channels-last", "textbook", "planar"):
        subprocess.run([sys.executable, __file__, "onnx", str(folder / f"{name}.onnx")], check=True)


def int8(folder: Path) -> None:
    """The bundled checkpoint: dynamic quantisation of its convolutions, and eight-bit weights alone."""
    import numpy as np
    import onnx
    import onnxruntime
    import torch
    from onnx import numpy_helper
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from restormer_cli.export.onnx_file import annotate_onnx, build_onnx
    from restormer_cli.export.parity import pictures
    from restormer_cli.model.weights import load_weights

    model = load_weights("denoise").model
    (folder / "fp32.onnx").write_bytes(annotate_onnx(build_onnx(model), {}))
    quantize_dynamic(folder / "fp32.onnx", folder / "dynamic.onnx", weight_type=QuantType.QUInt8)
    rounded = onnx.load(str(folder / "fp32.onnx"))
    for tensor in rounded.graph.initializer:
        values = np.array(numpy_helper.to_array(tensor))
        if values.ndim == 4:  # one scale for each output channel
            scale = np.abs(values).max((1, 2, 3), keepdims=True) / 127 + 1e-12
            values = (np.rint(values / scale) * scale).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save(rounded, str(folder / "weights-only.onnx"))
    for name in ("fp32", "weights-only", "dynamic"):
        session = onnxruntime.InferenceSession(str(folder / f"{name}.onnx"), providers=["CPUExecutionProvider"])
        scores, errors = [], []
        for title, clean in pictures(model.config, False, 8):
            if not title.startswith("photograph"):
                continue
            generator = torch.Generator().manual_seed(0)
            noisy = clean + torch.randn(clean.shape, generator=generator) * 25 / 255
            answer = torch.from_numpy(np.asarray(session.run(None, {"input": noisy.numpy()})[0]))
            with torch.inference_mode():
                errors.append((answer - model(noisy)).abs().max().item() * 255)
            scores.append(-10 * float((answer.clamp(0, 1) - clean).square().mean().log10()))
        picture = np.random.default_rng(0).random((1, 3, 256, 256), np.float32)
        seconds = _median(lambda: session.run(None, {"input": picture}))  # noqa: B023
        size = (folder / f"{name}.onnx").stat().st_size / 1e6
        print(f"{name}: σ 25 {statistics.mean(scores):.2f} dB, largest error {max(errors):.2g}/255, "
              f"{size:.1f} MB, {seconds:.2f} s at 256²", flush=True)  # fmt: skip


def _timed(kind: str, path: Path) -> None:
    """Median of three runs at 512² after one, and the peak of the process."""
    import numpy as np

    from restormer_cli.hardware import Peak

    peak = Peak("cpu")
    peak.start()  # a new process begins with the peak of the one that it was forked from
    picture = np.random.default_rng(0).random((512, 512, 3), np.float32)
    if kind == "onnx":
        from restormer_cli.engine.runtimes import OnnxRuntime

        session = OnnxRuntime(path).session
        planes = np.ascontiguousarray(picture.transpose(2, 0, 1))[None]
        seconds = _median(lambda: session.run(None, {"input": planes}))
    else:
        from restormer_cli.engine.restorer import Restorer
        from restormer_cli.engine.runtimes import RUNTIMES, Exported
        from restormer_cli.model.weights import load_weights

        network = Exported(path) if path.suffix in RUNTIMES else load_weights(path).model
        restorer = Restorer(network, precision="auto" if path.suffix in RUNTIMES else "fp32", memory="20GB")
        seconds = _median(lambda: restorer(picture))
    print(f"{path.name}: {seconds:.2f} s, peak {(peak.bytes() or 0) / 1e9:.2f} GB ({os.cpu_count()} cores)", flush=True)


def _median(call) -> float:
    call()
    seconds = []
    for _ in range(3):
        begun = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - begun)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
