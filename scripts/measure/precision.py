"""What bfloat16 costs in quality: the bundled checkpoints on degraded photographs, in bf16 against fp32.

python scripts/measure/precision.py FOLDER [--sigma 25] [--crop 512]

Prints the PSNR of both results against the clean picture, and of one result against the other.
"""

import argparse
from pathlib import Path

import numpy as np

from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import read_picture
from restormer_cli.images.listing import find_pictures
from restormer_cli.metrics.measures import psnr
from restormer_cli.model.weights import bundled_tasks, load_weights


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--sigma", type=float, default=25)
    parser.add_argument("--crop", type=int, default=512)
    options = parser.parse_args()
    for task in bundled_tasks():
        model = load_weights(task).model
        exact, rounded = (Restorer(model, device="cpu", precision=name) for name in ("fp32", "bf16"))
        rows = []
        for path in find_pictures(options.folder, recursive=True):
            pixels = read_picture(path).pixels
            if pixels.shape[2] != 3:
                continue
            top, left = (max(0, (side - options.crop) // 2) for side in pixels.shape[:2])
            clean = pixels[top : top + options.crop, left : left + options.crop]
            noise = np.random.default_rng(0).normal(0, options.sigma / 255, clean.shape)
            noisy = (clean + noise).astype(np.float32)
            a, b = exact(noisy).clip(0, 1), rounded(noisy).clip(0, 1)
            rows.append((psnr(a, clean, peak=1.0), psnr(b, clean, peak=1.0), psnr(b, a, peak=1.0)))
            print(f"{path.name:40} fp32 {rows[-1][0]:.3f}  bf16 {rows[-1][1]:.3f}  bf16 to fp32 {rows[-1][2]:.2f} dB")
        mean = np.mean(rows, axis=0)
        print(
            f"{task}: mean of {len(rows)}: fp32 {mean[0]:.3f}, bf16 {mean[1]:.3f} (loss {mean[0] - mean[1]:.4f} dB), "
            f"bf16 to fp32: {mean[2]:.2f} dB, least {min(row[2] for row in rows):.2f} dB"
        )


if __name__ == "__main__":
    main()
