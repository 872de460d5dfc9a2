#!/usr/bin/env python3
"""Thousands of small pictures, some damaged: by one process, then by two that are killed and started again.

    python scripts/measure/soak.py [--pictures 3000] [--kills 10] [--seed 0] [--diagnose]

Pictures of 16 to 120 pixels a side, six formats, gray, colour and with transparency, 8 and 16 bits and floats, one in
fifty damaged, through a tiny network. Shown: every sound picture has a whole result and no damaged one has any; two
processes that share a folder restore nothing twice, and what they leave has the bytes of what one process wrote;
memory of the last hundred pictures over that of the first hundred is at most 1.05. Exits with 1 where that fails.

The processes run undiagnosed.py: the command with `--json`, but for each picture's diagnosis, which takes five times as
long as such a small picture's restoring; `--diagnose` runs the command itself.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from io import BytesIO
from pathlib import Path
from statistics import mean
from typing import Any

import imagecodecs
import numpy as np
import tifffile
import torch

from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights_file import save_weights

RESTORE = [sys.executable, "-m", "restormer_cli", "restore", "--device", "cpu", "--json"]
UNDIAGNOSED = [sys.executable, str(Path(__file__).with_name("undiagnosed.py"))]
DAMAGED = 50
"""One in so many."""
MOST = 1.05


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=3000)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--diagnose", action="store_true")
    options = parser.parse_args()
    run = RESTORE if options.diagnose else UNDIAGNOSED
    with tempfile.TemporaryDirectory(prefix="restormer-soak-") as work:
        folder = Path(work)
        damaged = make_pictures(folder / "in", options.pictures, np.random.default_rng(options.seed))
        torch.manual_seed(options.seed)
        network = Restormer(ModelConfig(dim=8, blocks=(1, 1, 1, 1), heads=(1, 2, 4, 8), refinement=1))
        save_weights(folder / "tiny.safetensors", network, {"task": "denoise"})
        alone = by_one(run, folder, damaged)
        together = by_two(run, folder, damaged, options.kills, random.Random(options.seed))
    sys.exit(0 if alone and together else 1)


def make_pictures(folder: Path, count: int, rng: np.random.Generator) -> set[str]:
    """Write them; the names of the damaged ones."""
    folder.mkdir()
    damaged = set()
    for number in range(count):
        height, width = (int(side) for side in rng.integers(16, 121, 2))
        ending = ("png", "jpg", "tif", "webp", "bmp", "jxl")[number % 6]
        channels = int(rng.choice({"png": (1, 3, 4), "tif": (1, 3)}.get(ending, (3,))))
        depth = str(
            rng.choice({"png": ("u1", "u2"), "tif": ("u1", "u2", "f4"), "jxl": ("u1", "u2")}.get(ending, ("u1",)))
        )
        ramp = np.linspace(0.1, 0.9, height)[:, None, None] * np.linspace(0.3, 1, width)[None, :, None]
        values = np.clip(ramp + rng.normal(0, 0.05, (height, width, channels)), 0, 1)
        top = {"u1": 255, "u2": 65535, "f4": 1}[depth]
        data = encoded(ending, (values * top).astype(depth).squeeze())
        name = f"{number:05}.{ending}"
        if number % DAMAGED == DAMAGED // 2:
            damaged.add(name)
            data = data[: len(data) // 3] if rng.random() < 0.5 else rng.bytes(len(data))
        (folder / name).write_bytes(data)
    return damaged


def encoded(ending: str, pixels: np.ndarray) -> bytes:
    if ending == "tif":
        stream = BytesIO()
        tifffile.imwrite(stream, pixels, photometric="rgb" if pixels.ndim == 3 else "minisblack")
        return stream.getvalue()
    if ending in ("jpg", "bmp"):
        pixels = np.ascontiguousarray(pixels)
    encode = {
        "png": "png_encode",
        "jpg": "jpeg_encode",
        "webp": "webp_encode",
        "bmp": "bmp_encode",
        "jxl": "jpegxl_encode",
    }
    return bytes(getattr(imagecodecs, encode[ending])(pixels))


def command(run: list[str], folder: Path, out: str, *more: str) -> list[str]:
    weights = ["--weights", str(folder / "tiny.safetensors"), "--threads", "1"]
    return [*run, str(folder / "in"), str(folder / out), *weights, *more]


def by_one(run: list[str], folder: Path, damaged: set[str]) -> bool:
    """One process restores all of them."""
    begun = time.monotonic()
    done = subprocess.run(command(run, folder, "one"), capture_output=True, text=True, check=False)
    files = json.loads(done.stdout)["files"]
    memory = [file["memory"] for file in files if file["status"] == "restored" and file["memory"]]
    hundred = min(100, len(memory) // 2)
    course = [mean(memory[at : at + hundred]) / 1e6 for at in range(0, len(memory) - hundred + 1, hundred)]
    first, last = mean(memory[:hundred]) / 1e6, mean(memory[-hundred:]) / 1e6
    print(f"one process: {len(files)} pictures in {time.monotonic() - begun:.0f} s, exit code {done.returncode}")
    print(
        f"  memory: first {hundred} {first:.1f} MB, last {hundred} {last:.1f} MB, ratio {last / first:.3f}", flush=True
    )
    print("  each hundred:", *(f"{each:.1f}" for each in course), flush=True)
    failed = {Path(file["input"]).name for file in files if file["status"] == "failed"}
    return all(
        [
            told("every damaged picture failed, and no other", failed == damaged),
            told(
                "every sound picture has a result, and no other",
                names(folder / "one") == names(folder / "in") - damaged,
            ),
            told(f"memory is flat, to {MOST}", last <= MOST * first),
            told("exit code 3", done.returncode == 3),
        ]
    )


def by_two(run: list[str], folder: Path, damaged: set[str], kills: int, chance: random.Random) -> bool:
    """Two processes share the work; one of them is killed and started again, `kills` times, at random results."""
    out, begun = folder / "two", time.monotonic()
    outputs = [folder / "first.json", folder / "second.json"]

    def start(index: int) -> subprocess.Popen[bytes]:
        with outputs[index].open("wb") as stream:
            return subprocess.Popen(
                command(run, folder, "two", "--skip-existing"), stdout=stream, stderr=subprocess.DEVNULL
            )

    seen: dict[str, int] = {}
    again: set[str] = set()
    processes = [start(0), start(1)]
    sound = names(folder / "in") - damaged
    killed, at = 0, sorted(chance.sample(range(1, len(sound) * 9 // 10), kills))
    while any(process.poll() is None for process in processes) and time.monotonic() - begun < 60 * 60:
        for name, inode in inodes(out).items():
            if seen.setdefault(name, inode) != inode:
                again.add(name)
        if killed < kills and len(seen) >= at[killed]:
            index = chance.randrange(2)
            processes[index].kill()
            processes[index].wait()
            processes[index] = start(index)
            killed += 1
        time.sleep(0.02)
    reports = [json.loads(path.read_text())["files"] for path in outputs]
    shares = [{file["output"] for file in files if file["status"] == "restored"} for files in reports]
    print(f"two processes: {time.monotonic() - begun:.0f} s, killed and started again {killed} times", flush=True)
    print(f"  the last two restored {len(shares[0])} and {len(shares[1])} pictures, those before them the rest")
    swept = subprocess.run(command(run, folder, "two", "--skip-existing"), capture_output=True, text=True, check=False)
    rest = json.loads(swept.stdout)["summary"]["restored"]
    torn = [name for name in sound & names(out) if (out / name).read_bytes() != (folder / "one" / name).read_bytes()]
    hidden = [name for name in os.listdir(out) if name.startswith(".")]
    return all(
        [
            told(f"killed {kills} times", killed == kills),
            told("all results are there, and no other", names(out) == sound),
            told("nothing was left for a third", rest == 0),
            told("none was written twice", not again and not shares[0] & shares[1]),
            told("every one has the bytes that one process wrote", not torn),
            told("no temporary file is left", not hidden),
        ]
    )


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def inodes(folder: Path) -> dict[str, int]:
    if not folder.is_dir():
        return {}
    with os.scandir(folder) as entries:
        return {entry.name: entry.inode() for entry in entries if not entry.name.startswith(".")}


def told(what: str, holds: Any) -> bool:
    print(f"  {'yes' if holds else 'NO '}: {what}", flush=True)
    return bool(holds)


if __name__ == "__main__":
    main()
