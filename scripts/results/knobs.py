#!/usr/bin/env python3
"""What --luma, --chroma and --detail buy against plain --strength: the table of docs/control.md.

    python scripts/results/knobs.py FOLDER … [--degrade SPEC] [--crop 512] [--picture docs/knobs.jpg]
    python scripts/results/knobs.py --picture docs/knobs.jpg          # the picture alone

Each photograph's middle gets a camera's noise and goes through the bundled `denoise`; then the change is kept in part.
Told are, in 1/255: what is left of noise in the chroma and in the luminance, as root mean squares of the error where
the clean photograph is flat; the share of the fine luminance texture (the three finest octaves) that is kept, as the
slope of the result's over the clean photograph's; and the seconds of the knobs over those of the network.
"""

import argparse
import sys
import time
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.engine.control import Control, apply_control
from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import read_picture
from restormer_cli.model.weights import load_weights
from restormer_cli.pixels import LUMA

KNOBS = (
    ("as it is", Control(strength=0)),
    ("--strength 1", Control()),
    ("--strength 0.7", Control(strength=0.7)),
    ("--chroma 1 --luma 0.6 --detail 0.5", Control(luma=0.6, detail=0.5)),
    ("--detail 0.5", Control(detail=0.5)),
    ("--detail 1", Control(detail=1)),
    ("--grain 0.5", Control(grain=0.5)),
    ("--grain 1", Control(grain=1)),
    ("--luma 0.5", Control(luma=0.5)),
    ("--luma 0", Control(luma=0)),
    ("--chroma 0.5", Control(chroma=0.5)),
    ("--chroma 0", Control(chroma=0)),
)


DRAWN = ("luma", "chroma", "detail", "grain")


def measures(result: np.ndarray, clean: np.ndarray) -> tuple[float, float, float]:
    """Noise left in chroma and in luminance where the clean picture is flat, in 1/255, and the share of texture."""
    plane, kept = clean @ LUMA, result @ LUMA
    fine, kept_fine = plane - gaussian_filter(plane, 2), kept - gaussian_filter(kept, 2)
    energy = gaussian_filter(np.square(fine), 4)
    flat, textured = energy <= np.quantile(energy, 0.3), energy >= np.quantile(energy, 0.7)
    error = result - clean
    luma = error @ LUMA
    chroma = error - luma[..., None]
    slope = (kept_fine * fine)[textured].sum() / np.square(fine)[textured].sum()
    return float(chroma[flat].std() * 255), float(luma[flat].std() * 255), float(slope)


def draw(path: Path) -> None:
    """Each knob at 0, 0.5 and 1 on a part of scikit-image's cat with noise of σ 25, at double size, labelled."""
    import PIL.Image
    import PIL.ImageDraw
    import PIL.ImageFont
    import skimage.data

    clean = skimage.data.chelsea()[60:220, 100:340].astype(np.float32) / 255
    noisy = parse_degradation("gaussian:25+round8")(clean, np.random.default_rng(0))
    answer = Restorer(load_weights("denoise").model, device="cpu")(noisy)
    rows = [[(f"--{knob} {value:g}", Control(**{knob: value})) for value in (0, 0.5, 1)] for knob in DRAWN]
    rows.append([KNOBS[2], ("--luma 0.6 --detail 0.5", KNOBS[3][1]), KNOBS[1]])
    part, (height, width), bar, gap = np.s_[30:130, 60:180], (200, 240), 24, 6
    sheet = PIL.Image.new("RGB", (3 * (width + gap) + gap, len(rows) * (height + bar) + gap), (40, 40, 40))
    pen, font = PIL.ImageDraw.Draw(sheet), PIL.ImageFont.load_default(15)
    for row, cells in enumerate(rows):
        for column, (label, control) in enumerate(cells):
            result = np.clip(apply_control(noisy, answer.copy(), control)[part], 0, 1)
            pixels = np.kron(np.rint(result * 255).astype(np.uint8), np.ones((2, 2, 1), np.uint8))
            left, top = gap + column * (width + gap), row * (height + bar)
            pen.text((left, top + 4), label, (235, 235, 235), font)
            sheet.paste(PIL.Image.fromarray(pixels), (left, top + bar))
    sheet.save(path, quality=90, subsampling=0)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="*")
    parser.add_argument("--degrade", default="sensor:1600-12800,scale=1")
    parser.add_argument("--crop", type=int, default=512)
    parser.add_argument("--picture", type=Path)
    options = parser.parse_args()
    if options.picture:
        draw(options.picture)
    if options.picture and not options.folders:
        return
    paths = [path for folder in options.folders for path in sorted(folder.glob("*.png"))]
    if not paths:
        sys.exit("no photographs; prepare them with python scripts/photographs.py")
    network, degradation = Restorer(load_weights("denoise").model, device="cpu"), parse_degradation(options.degrade)
    found: dict[str, list[tuple[float, float, float]]] = {name: [] for name, _ in KNOBS}
    seconds = [0.0, 0.0]
    for path in paths:
        whole = read_picture(path).pixels
        top, left = ((length - options.crop) // 2 for length in whole.shape[:2])
        clean = np.ascontiguousarray(whole[max(0, top) :, max(0, left) :][: options.crop, : options.crop])
        noisy, clean = degradation.pair_of_file(clean, path.name, 0)
        begun = time.process_time()
        answer = network(noisy)
        seconds[0] += time.process_time() - begun
        for name, control in KNOBS:
            begun = time.process_time()
            result = apply_control(noisy, answer.copy(), control)
            if name.startswith("--chroma 1"):
                seconds[1] += time.process_time() - begun
            found[name].append(measures(result, clean))
    print("| | chroma noise | luminance noise | texture kept |\n|---|---|---|---|")
    for name, values in found.items():
        chroma, luma, texture = np.mean(values, axis=0)
        print(f"| `{name}` | {chroma:.2f} | {luma:.2f} | {texture:.0%} |")
    print(f"\nThe knobs take {seconds[1] / seconds[0]:.1%} of the network's time.")


if __name__ == "__main__":
    main()
