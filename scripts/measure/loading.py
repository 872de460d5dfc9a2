#!/usr/bin/env python3
"""Training crops per second from the cache of decoded pictures, against decoding at every use.

    python scripts/measure/loading.py [--pictures 6] [--seconds 5]

Pairs of 6-megapixel photographs (those inside scikit-image, enlarged, with a little noise, as PNG) are trained on in
crops of 128², one thread, flips included: what `data.cache` = "disk", "memory" and "off" give, taken in turns. Then
the cost of one crop from the mapped file alone. --waited RUN instead tells the share of a run's steps that was
spent waiting for data, from its metrics.jsonl.
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from restormer_cli.data.batches import TrainingBatches, training_batches
from restormer_cli.data.cache import PictureCache
from restormer_cli.data.pairs import find_pairs
from restormer_cli.recipe import Pairs, Recipe, Stage

STAGE = Stage(iterations=1, patch=128, batch=4)
SIZE = (3000, 2000)


def make_pictures(folder: Path, count: int) -> None:
    """Pairs of photographs of SIZE."""
    rng = np.random.default_rng(0)
    colour = Pairs(clean="package:skimage", only=("astronaut", "chelsea", "coffee", "rocket"))
    sources = [pair.clean for pair in find_pairs(colour, role="train")]
    for number in range(count):
        with Image.open(sources[number % len(sources)]) as source:
            picture = np.asarray(source.convert("RGB").resize(SIZE, Image.Resampling.BICUBIC), np.float32)
        for role, sigma in (("clean", 1), ("degraded", 8)):
            (folder / role).mkdir(exist_ok=True)
            noisy = np.rint(picture + rng.normal(0, sigma, picture.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(folder / role / f"{number}.png", compress_level=3)


def open_batches(folder: Path, cache: str) -> TrainingBatches:
    """The pictures as the training loop sees them."""
    values = {
        "task": "deblur",
        "data": {
            "train": {"clean": str(folder / "clean"), "degraded": str(folder / "degraded")},
            "cache": cache,
            "workers": 1,
        },
        "stage": [STAGE.model_dump()],
    }
    reading = training_batches(Recipe.model_validate(values))
    while True:
        try:
            next(reading)
        except StopIteration as end:
            return end.value


def rate(batches: TrainingBatches, seconds: float, first: int) -> float:
    """Crops (pairs of them) per second."""
    started, done = time.perf_counter(), 0
    while time.perf_counter() - started < seconds:
        batches.batch(first + done, STAGE, range(STAGE.batch))
        done += 1
    return done * STAGE.batch / (time.perf_counter() - started)


def one_crop(folder: Path) -> float:
    """Microseconds to copy one random crop of 128² out of a mapped picture."""
    decoded, rng, times = PictureCache(3, "disk"), np.random.default_rng(0), []
    paths = sorted((folder / "clean").iterdir())
    for path in paths:
        decoded.read(path)
    for _ in range(2000):
        path, top, left = paths[rng.integers(len(paths))], rng.integers(SIZE[1] - 128), rng.integers(SIZE[0] - 128)
        started = time.perf_counter()
        decoded[path][top : top + 128, left : left + 128].copy()
        times.append(time.perf_counter() - started)
    return 1e6 * median(times)


def waited(run: Path) -> None:
    """The share of step time spent waiting, by stage; the first step of a run, which starts the threads, apart."""
    steps = [
        entry for line in (run / "metrics.jsonl").read_text().splitlines() if "loss" in (entry := json.loads(line))
    ]
    stages = sorted({step["stage"] for step in steps})
    for name, chosen in [(f"stage {s}", [e for e in steps[1:] if e["stage"] == s]) for s in stages] + [
        ("all", steps[1:])
    ]:
        seconds, waiting = (sum(step[key] for step in chosen) for key in ("seconds", "waited"))
        print(
            f"{name}: {len(chosen)} steps, {seconds:.1f} s, of which {waiting:.2f} s ({waiting / seconds:.2%}) waiting"
        )
    print(f"first step: {steps[0]['seconds']:.2f} s, of which {steps[0]['waited']:.2f} s waiting")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=5, help="of each of three turns")
    parser.add_argument("--waited", type=Path, metavar="RUN", help="a run folder: tell its waiting instead")
    options = parser.parse_args()
    if options.waited:
        waited(options.waited)
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        os.environ["RESTORMER_CACHE"] = str(folder / "cache")
        make_pictures(folder, options.pictures)
        started = time.perf_counter()
        kinds = {kind: open_batches(folder, kind) for kind in ("disk", "memory", "off")}
        print(f"opened {options.pictures} pairs three ways in {time.perf_counter() - started:.1f} s")
        started = time.perf_counter()
        open_batches(folder, "disk")
        print(f"opened again from the cache in {1000 * (time.perf_counter() - started):.0f} ms")
        rates = {kind: [] for kind in kinds}
        for turn in range(3):
            for kind, batches in kinds.items():
                rates[kind].append(rate(batches, options.seconds, 1000 * turn + 1))
        print("| data.cache | pairs of crops per second | against off |\n|---|---|---|")
        for kind, values in rates.items():
            print(f"| {kind} | {median(values):,.1f} | {median(values) / median(rates['off']):,.0f}× |")
        print(f"one crop of 128² from a mapped 6-megapixel picture: {one_crop(folder):.0f} µs")


if __name__ == "__main__":
    main()
