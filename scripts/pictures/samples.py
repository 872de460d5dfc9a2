#!/usr/bin/env python3
"""Make the sample pictures in docs/samples: two photographs, each with Gaussian noise of three strengths.

The photographs come with scikit-image, may be shipped without conditions, and are never trained on. The clean
ones are kept in docs/originals, as PNG, and read from there when they exist: rocket is a JPEG, which another
decoder may read a level differently, and the samples should be the same everywhere.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

DOCS = Path(__file__).resolve().parents[2] / "docs"
SOURCES = {"chelsea": "chelsea.png", "rocket": "rocket.jpg"}  # in scikit-image's data folder
SIGMAS = (15, 25, 50)  # standard deviation of the noise, where white is 255


def add_noise(clean: np.ndarray, sigma: float) -> np.ndarray:
    """Add Gaussian noise to a picture, (h, w, c) uint8 -> the same, clipped and rounded to 8 bit.

    RandomState and not default_rng: its stream is promised to stay the same in every release of numpy. Each
    picture starts from seed 0, as in the benchmark protocol that the paper's figures follow.
    """
    noise = np.random.RandomState(0).normal(0, sigma / 255, clean.shape)
    return np.rint(np.clip(clean / 255 + noise, 0, 1) * 255).astype(np.uint8)


def read_picture(path: Path) -> np.ndarray:
    """Read a picture file: (h, w, c=3), uint8."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))


def find_source(name: str) -> Path:
    """Say where the installed scikit-image keeps a photograph."""
    import skimage.data

    return Path(skimage.data.__file__).parent / SOURCES[name]


def write_samples(docs: Path, originals: Path) -> list[Path]:
    """Write docs/originals (what `originals` lacks is taken from scikit-image) and docs/samples."""
    written = []
    for name in SOURCES:
        kept = originals / f"{name}.png"
        clean = read_picture(kept if kept.exists() else find_source(name))
        pictures = {docs / "originals" / f"{name}.png": clean}
        pictures |= {docs / "samples" / f"{name}-sigma{sigma}.png": add_noise(clean, sigma) for sigma in SIGMAS}
        for path, pixels in pictures.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path, optimize=True)
            written.append(path)
    return written


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description="Make docs/samples: chelsea and rocket with Gaussian noise of sigma 15, 25 and 50, as "
        "8-bit PNG. The clean ones are read from docs/originals, or from scikit-image if not there.",
    )
    parser.add_argument(
        "--docs", type=Path, default=DOCS, help="write originals/ and samples/ here (default: %(default)s)"
    )
    options = parser.parse_args(arguments)
    for path in write_samples(options.docs, DOCS / "originals"):
        print(f"{path.stat().st_size:9,} bytes  {path}")


if __name__ == "__main__":
    main()
