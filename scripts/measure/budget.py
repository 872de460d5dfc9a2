#!/usr/bin/env python3
"""Fifty pictures of mixed sizes under a budget at the edge: is every plan as --dry-run said, and no peak above it?

    python scripts/measure/budget.py [--pictures 50] [--memory 700MB] [--seed 0]

Without --memory the budget is what two thirds of the pictures would need to run whole. The network is a tiny one, whose
maps are as large in proportion as any other's. Exits with 1 where a plan was another, a picture failed, or the process
took more than the budget.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import torch

from restormer_cli.hardware import parse_memory
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights_file import save_weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--memory", help="the budget")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    with tempfile.TemporaryDirectory(prefix="restormer-budget-") as work:
        folder = Path(work)
        (folder / "in").mkdir()
        for number in range(options.pictures):
            height, width = (int(side) for side in np.exp(rng.uniform(np.log(64), np.log(2000), 2)))
            pixels = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            (folder / "in" / f"{number:03}.png").write_bytes(imagecodecs.png_encode(pixels[:height, :width].copy()))
        torch.manual_seed(0)
        network = Restormer(ModelConfig(dim=16, blocks=(1, 1, 1, 1), heads=(1, 2, 4, 8), refinement=1))
        save_weights(folder / "tiny.safetensors", network, {"task": "denoise"})
        budget = parse_memory(options.memory) if options.memory else edge(folder)
        promised = {file["input"]: file for file in restore(folder, "--dry-run", "--memory", f"{budget / 1e6:.1f}MB")}
        done = restore(folder, "--memory", f"{budget / 1e6:.1f}MB")
    good = table(promised, done, budget)
    sys.exit(0 if good else 1)


def restore(folder: Path, *more: str) -> list[dict[str, Any]]:
    weights = ["--weights", str(folder / "tiny.safetensors"), "--device", "cpu", "--json"]
    command = [sys.executable, "-m", "restormer_cli", "restore", str(folder / "in"), str(folder / "out"), *weights]
    done = subprocess.run([*command, *more], capture_output=True, text=True, check=False)
    return json.loads(done.stdout)["files"]


def edge(folder: Path) -> int:
    """What two thirds of the pictures need."""
    needs = sorted(file["memory"] for file in restore(folder, "--dry-run") if file["memory"])
    return needs[2 * len(needs) // 3]


def table(promised: dict[str, dict[str, Any]], done: list[dict[str, Any]], budget: int) -> bool:
    """Print it; whether all is well."""
    print(f"budget {budget / 1e6:.1f} MB\n\n| picture | promised | done | predicted | peak |\n|---|---|---|---|---|")
    for file in done:
        plan, size = promised[file["input"]], f"{file['width']} × {file['height']}"
        peak = f"{file['memory'] / 1e6:.0f} MB" if file["memory"] else "–"
        need = f"{plan['memory'] / 1e6:.0f} MB" if plan["memory"] else "–"
        print(f"| {size} | {plan['plan'] or plan['error']} | {file['plan'] or file['error']} | {need} | {peak} |")
    restored = [file for file in done if file["status"] == "restored"]
    as_promised = sum(file["plan"] == promised[file["input"]]["plan"] for file in restored)
    highest = max((file["memory"] for file in restored), default=0)
    print(f"\n{len(restored)} of {len(done)} restored, {as_promised} as promised, highest peak {highest / 1e6:.1f} MB")
    return len(restored) == as_promised == len(promised) and highest <= budget


if __name__ == "__main__":
    main()
