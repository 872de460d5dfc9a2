#!/usr/bin/env python3
"""Cold start: from the shell prompt to the finished file of one 256 × 256 picture, and where the time goes.

    python scripts/measure/coldstart.py [--rounds 5]

Times the installed `restormer` in fresh processes, then once more with the imports timed (`-X importtime`).
"""

import argparse
import json
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

from restormer_cli.images.listing import find_pictures

PARTS = ("torch", "numpy", "rich", "typer", "imagecodecs", "PIL", "safetensors", "einops", "scipy", "restormer_cli")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    sample = find_pictures(Path(__file__).resolve().parents[2] / "docs" / "samples")[0]
    with tempfile.TemporaryDirectory() as temporary:
        source, target = Path(temporary, "in.png"), Path(temporary, "out.png")
        Image.fromarray(np.asarray(Image.open(sample))[:256, :256]).save(source)
        command = ["-m", "restormer_cli", "restore", str(source), str(target), "--overwrite", "--json"]
        seconds = []
        for _ in range(options.rounds):
            begun = time.perf_counter()
            subprocess.run([sys.executable, *command], check=True, capture_output=True)
            seconds.append(time.perf_counter() - begun)
        print(f"median of {options.rounds}: {median(seconds):.2f} s  ({', '.join(f'{s:.2f}' for s in seconds)})")
        timed = [sys.executable, "-X", "importtime", *command]
        done = subprocess.run(timed, check=True, capture_output=True, text=True)
    print(f"the picture itself, seconds: {json.loads(done.stdout)['files'][0]['seconds']}")
    rows = re.findall(r"import time:\s+(\d+) \|\s+(\d+) \|( +)(\S+)", done.stderr)
    print(f"imports, milliseconds of their own: {sum(int(own) for own, *_ in rows) / 1000:.0f} in all")
    for part in PARTS:
        own = sum(int(row[0]) for row in rows if row[3] == part or row[3].startswith(part + "."))
        print(f"{own / 1000:8.0f}  {part}")
    slowest = sorted(rows, key=lambda row: -int(row[0]))[:12]
    print("slowest modules: " + ", ".join(f"{name} {int(own) / 1000:.0f}" for own, _, _, name in slowest))


if __name__ == "__main__":
    main()
