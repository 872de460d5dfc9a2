"""What bfloat16 costs in quality: bundled checkpoints on degraded photographs, in bf16 against fp32.

    python scripts/results/precision.py datasets/sharp/validate [--pictures 8] [--crop 128] [--write]

For every kind of picture that a checkpoint is for, and clean ones: the mean PSNR of both results against the clean
picture, and of one result against the other. `--write` puts the largest loss into the checkpoints' headers, as
`bf16_loss`, which `--precision auto` reads; not where clean pictures come back at less than 45 dB in bf16.

By PyTorch's operators, which round features too, as GPUs do; RESTORMER_NATIVE=1 asks for the kernels of this CPU.
"""

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from picture_kinds import CLEAN, KINDS

from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import read_picture
from restormer_cli.images.listing import find_pictures
from restormer_cli.metrics.measures import psnr
from restormer_cli.model.cards import CHECKPOINTS
from restormer_cli.model.weights import bundled_tasks, load_weights
from restormer_cli.model.weights_file import save_weights

NOISE = ("gaussian:5", "gaussian:25", "gaussian:50")
LEAST_CLEAN = 45.0
"""In dB."""


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pictures", type=int, default=8, help="of the folder, evenly spread over its names")
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--task", action="append", help="instead of all (repeat for several)")
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    os.environ.setdefault("RESTORMER_NATIVE", "0")
    pictures = [centre(path, options.crop) for path in spread(options.folder, options.pictures)]
    for task in options.task or bundled_tasks():
        weights = load_weights(task)
        ways = [Restorer(weights.model, device="cpu", precision=name) for name in ("fp32", "bf16")]
        losses, kept = [], 0.0
        for spec in kinds_of(weights.task or task):
            exact, rounded, between = np.mean([compared(ways, p, spec, n) for n, p in enumerate(pictures)], axis=0)
            print(f"{task} {spec}: fp32 {exact:.3f}, bf16 {rounded:.3f}, bf16 to fp32 {between:.2f} dB", flush=True)
            if spec == CLEAN:
                kept = rounded
            else:
                losses.append(exact - rounded)
        print(f"{task}: loses at most {max(losses):.4f} dB, keeps clean pictures at {kept:.1f} dB", flush=True)
        if options.write:
            header = {
                key: value for key, value in weights.header.items() if key not in ("format", "model", "bf16_loss")
            }
            if kept >= LEAST_CLEAN:
                header["bf16_loss"] = round(max(0.0, float(max(losses))), 4)
            save_weights(CHECKPOINTS / f"{task}.safetensors", weights.model, header, dtype=torch.float16)


def kinds_of(task: str) -> list[str]:
    """Specs of what a checkpoint is for, and of clean pictures."""
    noise = NOISE if task == "denoise" else ()
    own = (kind.whole or kind.held_out for name, kind in KINDS.items() if kind.task == task and name != "noisy")
    return [*noise, *own, CLEAN]


def compared(ways: list[Restorer], clean: np.ndarray, spec: str, seed: int) -> tuple[float, float, float]:
    """PSNR of fp32 and of bf16 against what is to be found, and of one against the other, in dB, at most 100."""
    degraded, target = parse_degradation(spec.split("+")).pair(clean, np.random.default_rng(seed))
    exact, rounded = (way(degraded).clip(0, 1) for way in ways)
    pairs = (exact, target), (rounded, target), (rounded, exact)
    return tuple(min(100.0, psnr(a, b, peak=1.0)) for a, b in pairs)  # pyright: ignore[reportReturnType]


def spread(folder: Path, count: int) -> list[Path]:
    """Some of a folder's pictures."""
    paths = sorted(find_pictures(folder, recursive=True))
    return [paths[len(paths) * number // count] for number in range(min(count, len(paths)))]


def centre(path: Path, crop: int) -> np.ndarray:
    """The middle of a picture, (crop, crop, 3)."""
    pixels = read_picture(path).pixels[..., :3]
    top, left = (max(0, (side - crop) // 2) for side in pixels.shape[:2])
    return np.ascontiguousarray(pixels[top : top + crop, left : left + crop], np.float32)


if __name__ == "__main__":
    main()
