#!/usr/bin/env python3
"""Fifty pictures of mixed sizes under budgets at the edge: is every plan as --dry-run said, and no peak above it?

    python scripts/measure/budget.py [--pictures 50] [--memory 400MB 600MB …] [--diagnose] [--table] [--seed 0]

`--diagnose` runs the command with `--json`, which tells what is wrong with each picture; without it undiagnosed.py
runs. `--table`: a row for each picture. The network is a tiny one, whose maps are as large in proportion as any
other's. Exits with 1 where a plan was another, a picture that was promised failed, or the process took more than the
budget.
"""

import argparse
import json
import shutil
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

DIAGNOSED = [sys.executable, "-m", "restormer_cli", "restore", "--device", "cpu", "--json"]
UNDIAGNOSED = [sys.executable, str(Path(__file__).with_name("undiagnosed.py"))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pictures", type=int, default=50)
    parser.add_argument("--memory", nargs="+", default=["350MB", "400MB", "500MB", "700MB"], help="the budgets")
    parser.add_argument("--diagnose", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    run = DIAGNOSED if options.diagnose else UNDIAGNOSED
    good = []
    with tempfile.TemporaryDirectory(prefix="restormer-budget-") as work:
        folder = Path(work)
        (folder / "in").mkdir()
        for number in range(options.pictures):
            height, width = (int(side) for side in np.exp(rng.uniform(np.log(64), np.log(1400), 2)))
            pixels = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), np.uint8).repeat(8, 0).repeat(8, 1)
            (folder / "in" / f"{number:03}.png").write_bytes(imagecodecs.png_encode(pixels[:height, :width].copy()))
        torch.manual_seed(0)
        network = Restormer(ModelConfig(dim=16, blocks=(1, 1, 1, 1), heads=(1, 2, 4, 8), refinement=1))
        save_weights(folder / "tiny.safetensors", network, {"task": "denoise"})
        print("| budget | whole | v recomputed | tiles | refused | as promised | highest predicted | highest peak |")
        print("|---|---|---|---|---|---|---|---|", flush=True)
        for memory in options.memory:
            promised = restore(run, folder, memory, "--dry-run")
            done = restore(run, folder, memory)
            shutil.rmtree(folder / "out", ignore_errors=True)
            good.append(row(memory, promised, done))
            if options.table:
                table(promised, done)
    sys.exit(0 if all(good) else 1)


def restore(run: list[str], folder: Path, memory: str, *more: str) -> list[dict[str, Any]]:
    command = [*run, str(folder / "in"), str(folder / "out"), "--weights", str(folder / "tiny.safetensors"), *more]
    done = subprocess.run([*command, "--memory", memory], capture_output=True, text=True, check=False)
    return sorted(json.loads(done.stdout)["files"], key=lambda file: file["input"])


def row(memory: str, promised: list[dict[str, Any]], done: list[dict[str, Any]]) -> bool:
    """Print what became of a budget; whether all is well."""
    plans = [file["plan"] or "refused" for file in done]
    counts = [sum(plan == kind for plan in plans) for kind in ("whole picture", "whole picture, v recomputed")]
    counts += [sum(plan.startswith("tiles") for plan in plans), plans.count("refused")]
    kept = sum(
        (said["plan"], said["error"]) == (file["plan"], file["error"])
        for said, file in zip(promised, done, strict=True)
    )
    predicted, peak = (max(file["memory"] or 0 for file in files) for files in (promised, done))
    figures = [*counts, f"{kept} of {len(done)}", f"{predicted / 1e6:.0f} MB", f"{peak / 1e6:.0f} MB"]
    print(f"| {memory} |", " | ".join(map(str, figures)), "|", flush=True)
    return kept == len(done) == len(promised) and peak <= parse_memory(memory)


def table(promised: list[dict[str, Any]], done: list[dict[str, Any]]) -> None:
    """Print a row for each picture."""
    print("\n| picture | promised | done | predicted | peak |\n|---|---|---|---|---|")
    for said, file in zip(promised, done, strict=True):
        amounts = [f"{each['memory'] / 1e6:.0f} MB" if each["memory"] else "–" for each in (said, file)]
        plans = [each["plan"] or each["error"] for each in (said, file)]
        print(f"| {file['width']} × {file['height']} |", " | ".join([*plans, *amounts]), "|")


if __name__ == "__main__":
    main()
