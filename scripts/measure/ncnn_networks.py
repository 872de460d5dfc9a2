#!/usr/bin/env python3
"""Do ncnn's networks, as pnnx makes them of our .onnx files, give our answers? With the real packages.

    python scripts/measure/ncnn_networks.py                        # the figure of docs/export.md: denoise, denoise-fast
    python scripts/measure/ncnn_networks.py my.safetensors --side 256

pnnx and ncnn go into an environment of their own (a temporary one, or --environment DIR to keep it). Prints the largest
error in 1/255 on a random picture, in float32. Exit 4: above LIMIT.
"""

import argparse
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

import numpy as np
import torch

from restormer_cli.engine.strips import StripNetwork
from restormer_cli.export.onnx_file import build_onnx
from restormer_cli.model.weights import load_weights

PACKAGES = ("pnnx==20261020", "ncnn==1.0.20261020", "numpy==2.3.5")
LIMIT = 0.05
"""Largest error allowed, in 1/255."""
RUN = """
import ncnn, numpy as np
network = ncnn.Net()
network.opt.use_fp16_packed = network.opt.use_fp16_storage = network.opt.use_fp16_arithmetic = False
assert network.load_param("m.ncnn.param") == network.load_model("m.ncnn.bin") == 0
extractor = network.create_extractor()
picture = np.load("input.npy")  # kept: a Mat does not own it
extractor.input("in0", ncnn.Mat(picture).clone())
np.save("output.npy", np.array(extractor.extract("out0")[1]))
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", nargs="*", default=["denoise", "denoise-fast"])
    parser.add_argument("--side", type=int, default=128, help="of the tile, a multiple of 8")
    parser.add_argument("--environment", type=Path, metavar="DIR", help="keep the environment here, and use it again")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        programs = environment(options.environment or Path(name) / "environment")
        errors = []
        for weights in options.weights:
            errors.append(largest_error(weights, options.side, programs, Path(name)))
            print(f"{weights}: {errors[-1]:.3f} / 255 on {options.side}²", flush=True)
    sys.exit(0 if all(error <= LIMIT for error in errors) else 4)


def environment(place: Path) -> Path:
    """The folder of programs of an environment with PACKAGES."""
    if not place.exists():
        venv.create(place, with_pip=True)
        subprocess.run([place / "bin" / "pip", "install", "-q", *PACKAGES], check=True)
    return (place / "bin").resolve()


def largest_error(weights: str, side: int, programs: Path, folder: Path) -> float:
    """Between ncnn's answer and our engine's to one random picture of side × side pixels, in 1/255."""
    import onnx

    model = load_weights(weights).model
    picture = np.random.default_rng(0).random((model.config.in_channels, side, side), dtype=np.float32)
    onnx.save(build_onnx(model), folder / "m.onnx")
    np.save(folder / "input.npy", picture)
    shape = f"inputshape=[1,{model.config.in_channels},{side},{side}]f32"
    subprocess.run([programs / "pnnx", "m.onnx", shape], cwd=folder, check=True, capture_output=True)
    subprocess.run([programs / "python", "-c", RUN], cwd=folder, check=True)
    with torch.inference_mode():
        ours = StripNetwork(model).run(torch.from_numpy(picture)[None])[0].numpy()
    return float(np.abs(np.load(folder / "output.npy") - ours).max() * 255)


if __name__ == "__main__":
    main()
