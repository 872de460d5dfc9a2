#!/usr/bin/env python3
"""Score restored samples against the clean originals, and draw the README's before/after picture.

    restormer restore docs/samples/ out/ && python scripts/pictures/score.py out/ [--figure docs/before-after.png]

Prints the table of docs/results.md: PSNR (8-bit RGB, peak 255) of each noisy sample and of its restoration.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image

from restormer_cli.metrics.measures import psnr

ROOT = Path(__file__).resolve().parents[2]


def load(path: Path) -> np.ndarray:
    """8-bit RGB, (h, w, 3)."""
    return np.asarray(Image.open(path).convert("RGB"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("restored", type=Path)
    parser.add_argument("--figure", type=Path, help="write chelsea at σ 25, before and after, side by side")
    options = parser.parse_args()
    gains: dict[str, list[float]] = {}
    print("| sample | noisy | restored | gain |\n|---|---|---|---|")
    for noisy in sorted((ROOT / "docs/samples").glob("*.png")):
        name, sigma = noisy.stem.split("-sigma")
        clean = load(ROOT / "docs/originals" / f"{name}.png")
        before, after = (psnr(load(p), clean, peak=255.0) for p in (noisy, options.restored / noisy.name))
        gains.setdefault(sigma, []).append(after - before)
        print(f"| {name}, σ {sigma} | {before:.2f} dB | {after:.2f} dB | {after - before:+.2f} dB |")
    print("\nmean gain: " + ", ".join(f"{np.mean(gain):+.2f} dB at σ {sigma}" for sigma, gain in gains.items()))
    if options.figure:
        name = "chelsea-sigma25.png"
        pair = (load(ROOT / "docs/samples" / name), load(options.restored / name))
        Image.fromarray(np.concatenate([picture[20:260, 90:410] for picture in pair], axis=1)).save(options.figure)


if __name__ == "__main__":
    main()
