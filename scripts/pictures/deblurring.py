#!/usr/bin/env python3
"""Draw docs/results/deblurring.jpg: what `motion-deblur` and `defocus` make of three validation photographs.

    python scripts/pictures/deblurring.py [--photographs datasets/sharp/validate] [--out docs/results/deblurring.jpg]

From left to right: sharp, shaken by 12 pixels, restored, out of focus by up to 6 pixels in three layers, restored.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import read_picture
from restormer_cli.model.weights import load_weights

PHOTOGRAPHS = {"aosc_381b28cec8": 3, "jodie_1bcf7150cd": 9, "npm_8b60577506": 20}
"""By name, in scripts/sharp_photographs.csv with source and licence, and the seed of each."""
SIDE = 320
WAYS = {
    "motion-deblur": ("shake:12,path=2,layers=2", "gaussian:2", "round8"),
    "defocus": ("lens:6,blades=8,layers=3", "gaussian:2", "round8"),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=Path("datasets/sharp/validate"))
    parser.add_argument("--out", type=Path, default=Path("docs/results/deblurring.jpg"))
    options = parser.parse_args()
    networks = {task: Restorer(load_weights(task).model, device="cpu") for task in WAYS}
    rows = []
    for name, seed in PHOTOGRAPHS.items():
        pixels = read_picture(options.photographs / f"{name}.png").pixels[..., :3]
        top, left = (max(0, (side - SIDE) // 2) for side in pixels.shape[:2])
        row = [np.ascontiguousarray(pixels[top : top + SIDE, left : left + SIDE])]
        for task, steps in WAYS.items():
            degraded, _ = parse_degradation(steps).pair(row[0], np.random.default_rng(seed))
            row += [degraded, networks[task](degraded).clip(0, 1)]
        rows.append(np.hstack(row))
    Image.fromarray((np.vstack(rows) * 255).round().astype(np.uint8)).save(options.out, quality=88)


if __name__ == "__main__":
    main()
