#!/usr/bin/env python3
"""How far off the estimates of noise and blur are: the figures of docs/control.md.

    python scripts/results/estimates.py FOLDER … [--side 768]

Every photograph's middle gets a degradation of known strength. Its own noise, as estimated before, is added to the
truth in squares. Told are the errors relative to the truth: the median, the fifth and the ninety-fifth percentile, and
how many of the estimates are off by more than 15 % (noise) or 25 % (blur).
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from restormer_cli.analysis.blur import estimate_blur
from restormer_cli.analysis.noise import estimate_noise
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.images.io import read_picture

SIGMAS = (3, 5, 10, 20, 40, 60)
BLURS = (
    "defocus:1.5", "defocus:2", "defocus:3", "defocus:5", "motion:5,angle=20..20", "motion:9,angle=-50..-50",
    "motion:15,angle=0..0", "motion:25,angle=70..70",
)  # fmt: skip


def rounded(pixels: np.ndarray) -> np.ndarray:
    return (np.rint(np.clip(pixels, 0, 1) * 255) / 255).astype(np.float32)


def noise_of(kind: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Of variance 1: white, or blurred by a Gaussian of σ 0.6, which correlates neighbours by 0.5."""
    noise = rng.standard_normal(shape)
    if kind == "correlated":
        noise = gaussian_filter(noise, (0.6, 0.6, 0))
        noise /= noise.std()
    return noise


def row(label: str, errors: list[float], limit: float, extra: str = "") -> str:
    values = np.array(errors)
    low, middle, high = (f"{value:+.1%}" for value in np.quantile(values, (0.05, 0.5, 0.95)))
    return f"| {label} | {middle} | {low} … {high} | {(np.abs(values) > limit).sum()} of {len(values)} |{extra}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=768)
    options = parser.parse_args()
    paths = [path for folder in options.folders for path in sorted(folder.glob("*.png"))]
    if not paths:
        sys.exit(f"{options.folders[0]}: no photographs; prepare them with python scripts/photographs.py")
    pictures = []
    for path in paths:
        whole = read_picture(path).pixels
        top, left = (max(0, (length - options.side) // 2) for length in whole.shape[:2])
        pictures.append(np.ascontiguousarray(whole[top : top + options.side, left : left + options.side]))
    rng = np.random.default_rng(0)
    print("| noise | median error | 5 % … 95 % | off by more than 15 % |\n|---|---|---|---|")
    for soft in (False, True):
        cleans = [gaussian_filter(picture, (1.5, 1.5, 0)) if soft else picture for picture in pictures]
        own = [estimate_noise(rounded(clean)).mean for clean in cleans]
        for kind in ("white", "correlated"):
            for sigma in SIGMAS:
                errors = []
                for clean, before in zip(cleans, own, strict=True):
                    noisy = rounded(clean + noise_of(kind, clean.shape, rng) * sigma / 255)
                    errors.append(estimate_noise(noisy).mean / np.hypot(sigma, before) - 1)
                print(row(f"{kind}, σ {sigma}, {'soft' if soft else 'sharp'}", errors, 0.15), flush=True)
    print("\n| blur | median error | 5 % … 95 % | off by more than 25 % | kind seen |\n|---|---|---|---|---|")
    for spec in BLURS:
        wanted = "defocus" if spec.startswith("defocus") else "motion"
        true = float(spec.partition(":")[2].partition(",")[0])
        degradation, kinds, errors = parse_degradation(f"{spec}+gaussian:2+round8"), Counter(), []
        for picture in pictures:
            blur = estimate_blur(degradation(picture, rng))
            kinds[blur.kind] += 1
            errors += [blur.width / true - 1] if blur.kind == wanted else []
        seen = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common())
        print(row(f"`{spec}`", errors, 0.25, f" {seen} |"), flush=True)


if __name__ == "__main__":
    main()
