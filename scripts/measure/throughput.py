#!/usr/bin/env python3
"""End-to-end speed of `restore` on a folder of mixed photographs, against the engine's own speed on the same pixels.

    python scripts/measure/throughput.py FOLDER [--pictures 12] [--rounds 3] [--weights denoise]

The photographs are cut to sizes between 0.1 and 0.7 megapixels and stored as JPEG, 8-bit PNG, 16-bit TIFF and WebP.
The engine has them decoded in memory; `restore` reads, decodes, restores, encodes and writes. Taken in turns; the
ratio of the medians is what reading and writing cost beside the network.
"""

import argparse
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np

from restormer_cli.commands.restore.run import restore
from restormer_cli.commands.restore.types import Request, Restored, Started
from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import encode_picture, read_picture
from restormer_cli.images.listing import find_pictures
from restormer_cli.model.weights import load_weights

FORMATS = ("jpg", "png", "tif", "webp")
HEIGHTS = (320, 416, 480, 600)


def make_mixture(source: Path, folder: Path, count: int) -> None:
    """Cut `count` photographs out of the pictures in `source`."""
    found = find_pictures(source)
    for number in range(count):
        picture = read_picture(found[number % len(found)])
        height, width = picture.pixels.shape[:2]
        h = min(height, HEIGHTS[number // len(FORMATS) % len(HEIGHTS)])
        w = min(width, h * 3 // 2)
        top, left = (height - h) // 2, (width - w) // 2
        crop = np.ascontiguousarray(picture.pixels[top : top + h, left : left + w])
        form = FORMATS[number % len(FORMATS)]
        like = type(picture)(crop, None, 16 if form == "tif" else 8, None, None, form, Path(form))
        (folder / f"{number:03d}.{form}").write_bytes(encode_picture(crop, like, form))


def end_to_end(folder: Path, weights: str) -> float:
    """Seconds from the first picture's start to the last one's file, with the network loaded before."""
    with tempfile.TemporaryDirectory() as out:
        begun, done = 0.0, 0
        for event in restore(Request(folder, Path(out), weights=weights, overwrite=True)):
            if isinstance(event, Started):
                begun = time.perf_counter()
            elif isinstance(event, Restored):
                assert event.error is None, event.error
                done += 1
        assert done == len(list(Path(out).iterdir()))
        return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path)
    parser.add_argument("--pictures", type=int, default=12)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", default="denoise")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        make_mixture(options.source, folder, options.pictures)
        pixels = [read_picture(path).pixels for path in find_pictures(folder)]
        megapixels = sum(picture.shape[0] * picture.shape[1] for picture in pixels) / 1e6
        restorer = Restorer(load_weights(options.weights).model)
        restorer(pixels[0])
        engine, whole = [], []
        for _ in range(options.rounds):
            begun = time.perf_counter()
            for picture in pixels:
                restorer(picture)
            engine.append(time.perf_counter() - begun)
            whole.append(end_to_end(folder, options.weights))
    a, b = median(engine), median(whole)
    print(f"{len(pixels)} pictures, {megapixels:.2f} megapixels, {options.rounds} rounds")
    print(f"engine alone: {a:.2f} s, {megapixels / a:.3f} megapixels/s  ({', '.join(f'{t:.2f}' for t in engine)})")
    print(f"end to end:   {b:.2f} s, {megapixels / b:.3f} megapixels/s  ({', '.join(f'{t:.2f}' for t in whole)})")
    print(f"ratio: {b / a:.3f}")


if __name__ == "__main__":
    main()
