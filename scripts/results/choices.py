#!/usr/bin/env python3
"""How often `--task auto` picks the right task, and what a wrong one costs: the tables of docs/control.md.

    python scripts/results/choices.py FOLDER … [--side 768] [--crop 256] [--json FILE]

Every photograph is left clean and degraded in each way of WAYS; `auto` looks at its middle, `--side` pixels a side. The
bundled network that it picks then restores the middle `--crop` pixels, and the gain over the input in dB (8 bits, RGB)
tells what the choice was worth. Chance depends on the file's name alone, as in `restore --degrade`. With --json FILE it
may be interrupted and repeated: what is there is kept.
"""

import argparse
import json
import sys
from collections import Counter
from pathlib import Path

import numpy as np

from restormer_cli.commands.restore.trial import analyse_and_choose
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import read_picture
from restormer_cli.metrics.measures import psnr
from restormer_cli.model.weights import load_weights

TASKS = ("none", "denoise", "defocus", "motion-deblur", "derain")
WAYS = (
    ("clean", "none", "round8"),
    ("clean JPEG", "none", "jpeg:85-98,subsampling=444"),
    ("white noise", "denoise", "gaussian:4-50+round8"),
    ("shot and read noise", "denoise", "poisson_gaussian:30-1500,read=0-8+round8"),
    ("noise in a JPEG", "denoise", "gaussian:6-40+jpeg:85-98,subsampling=444"),
    ("out of focus", "defocus", "defocus:1.5-5+gaussian:0-4+round8"),
    ("moved", "motion-deblur", "motion:4-15,angle=-90..90+gaussian:0-4+round8"),
    ("shaken", "motion-deblur", "motion:8-15,angle=-90..90,shake=0.5-2+gaussian:0-4+round8"),
    ("soft rain", "derain", "rain:0.1-0.4,length=15-40+round8"),
    ("even rain", "derain", "rain:0.1-0.4,length=10-40,tilt=-30..30,depth=1,spread=0,soft=0+round8"),
    ("streaks", "derain", "rainfall:2-10+round8"),
    ("shaken by hand", "motion-deblur", "shake:4-20,layers=1-2+gaussian:0-4+round8"),
)


def centre(pixels: np.ndarray, side: int) -> np.ndarray:
    height, width = pixels.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return np.ascontiguousarray(pixels[top : top + side, left : left + side])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--crop", type=int, default=256)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    paths = [path for folder in options.folders for path in sorted(folder.glob("*.png"))]
    if not paths:
        sys.exit(f"{options.folders[0]}: no photographs; prepare them with python scripts/photographs.py")
    networks = {task: Restorer(load_weights(task).model, device="cpu") for task in TASKS[1:]}
    records = []
    if options.json and options.json.exists():
        records = json.loads(options.json.read_text(encoding="utf-8"))
    known = {record["picture"] for record in records}
    for path in (path for path in paths if path.name not in known):
        clean = centre(read_picture(path).pixels, options.side)
        for way, right, spec in WAYS:
            bad = parse_degradation(spec).of_file(clean, f"{way} {path.name}", 0)
            _, choice = analyse_and_choose(bad)
            chosen, gain = choice.task or "none", 0.0
            if chosen != "none":
                before, target = centre(bad, options.crop), centre(clean, options.crop)
                after = np.rint(np.clip(networks[chosen](before), 0, 1) * 255) / 255
                most = 60.0  # dB, where a picture comes back unchanged
                gain = min(psnr(after, target, peak=1), most) - min(psnr(before, target, peak=1), most)
            records.append(
                {"picture": path.name, "way": way, "right": right, "chosen": chosen, "gain": round(float(gain), 3)}
            )
        print(path.name, file=sys.stderr)
        if options.json:
            options.json.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    print(tables(records))


def tables(records: list[dict]) -> str:
    """The confusion table and what wrong choices cost, as Markdown."""
    lines = ["| | " + " | ".join(TASKS) + " | mean gain, dB |", "|---" * (len(TASKS) + 2) + "|"]
    for way, right, _ in WAYS:
        rows = [record for record in records if record["way"] == way]
        counts = Counter(record["chosen"] for record in rows)
        cells = [f"**{counts[task]}**" if task == right else str(counts[task] or "") for task in TASKS]
        gains = [record["gain"] for record in rows if record["chosen"] == right != "none"]
        lines.append(
            f"| {way} | " + " | ".join(cells) + f" | {np.mean(gains):.1f} |"
            if gains
            else f"| {way} | " + " | ".join(cells) + " | |"
        )
    wrong = [record for record in records if record["chosen"] != record["right"]]
    clean = [record for record in records if record["right"] == "none"]
    alone = np.mean([record["chosen"] == "none" for record in clean])
    lines += [
        "",
        f"Right: {1 - len(wrong) / len(records):.1%} of {len(records)}; clean pictures left alone: {alone:.1%}.",
    ]
    for record in sorted(wrong, key=lambda record: record["gain"]):
        lines.append(f"- {record['picture']}, {record['way']}: {record['chosen']}, {record['gain']:+.2f} dB")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
