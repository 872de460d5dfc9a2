"""Training steps of our network against the textbook one in the same loop, alternately; and the memory they take.

    python scripts/measure/step_time.py                 # dim 16, batch 8 of 128², two threads; about two minutes
    python scripts/measure/step_time.py --rounds 9

Times are medians over the rounds. Memory is the peak of a process of its own that takes two steps, less what it had
before them.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from restormer_cli.model.textbook import TextbookRestormer
from restormer_cli.recipe import Recipe
from restormer_cli.training import learner as module
from restormer_cli.training.distributed import make_accelerator
from restormer_cli.training.learner import TrainState

MODEL = {"dim": 16, "blocks": [2, 2, 2, 4], "heads": [1, 2, 4, 8], "refinement": 2}
KINDS = [(network, precision) for precision in ("fp32", "bf16") for network in ("textbook", "ours")]


def make_learner(network: str, precision: str, *, checkpointing: bool = False) -> TrainState:
    """The real loop's learner, with one network or the other."""
    recipe = Recipe.model_validate(
        {
            "task": "denoise",
            "model": MODEL,
            "data": {"train": {"clean": "none"}},
            "degrade": {"steps": ["gaussian:25"]},
            "run": {"precision": precision, "activation_checkpointing": checkpointing},
        }
    )
    original = module.initial_network
    if network == "textbook":
        module.initial_network = lambda recipe: TextbookRestormer(recipe.model).train()  # pyright: ignore
    try:
        return TrainState(recipe, make_accelerator("cpu", None, Path(tempfile.gettempdir())))
    finally:
        module.initial_network = original


def step(learner: TrainState, batch: int, patch: int) -> float:
    """Seconds of one step."""
    degraded, clean = torch.rand(2, batch, 3, patch, patch)
    begun = time.perf_counter()
    learner.step([(degraded, clean)], batch, 1e-4, False)
    return time.perf_counter() - begun


def peak(network: str, precision: str, checkpointing: bool, arguments: argparse.Namespace) -> float:
    """MiB that two steps add to a fresh process."""
    options = ["--peak", network, precision, str(int(checkpointing)), "--batch", str(arguments.batch)]
    options += ["--patch", str(arguments.patch), "--threads", str(arguments.threads)]
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=True)
    return float(done.stdout)


def measure_peak(arguments: argparse.Namespace) -> float:
    network, precision, checkpointing = arguments.peak
    learner = make_learner(network, precision, checkpointing=bool(int(checkpointing)))
    before = high_water()
    for _ in range(2):
        step(learner, arguments.batch, arguments.patch)
    return high_water() - before


def high_water() -> float:
    """MiB that this process has had at most (getrusage would count the parent's too)."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) / 1024


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--patch", type=int, default=128)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--no-memory", action="store_true")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        print(measure_peak(arguments))
        return

    if not arguments.no_memory:
        peaks = {
            f"{network} {precision}{' with activation checkpointing' * recompute}": round(
                peak(network, precision, recompute, arguments)
            )
            for network, precision in KINDS
            for recompute in ((False, True) if network == "ours" else (False,))
        }
        print(json.dumps({"peak_mib": peaks}, indent=1))
    if not arguments.rounds:
        return
    learners = {kind: make_learner(*kind) for kind in KINDS}
    seconds: dict[tuple[str, str], list[float]] = {kind: [] for kind in KINDS}
    for number in range(arguments.rounds + 1):
        for kind in KINDS:
            taken = step(learners[kind], arguments.batch, arguments.patch)
            if number:  # the first round warms up
                seconds[kind].append(taken)
    medians = {kind: statistics.median(taken) for kind, taken in seconds.items()}
    for (network, precision), median in medians.items():
        spread = f"{min(seconds[network, precision]):.2f} to {max(seconds[network, precision]):.2f}"
        against = medians["textbook", "fp32"] / median
        like = medians["textbook", precision] / median
        print(
            f"{network:9} {precision}  {median:6.2f} s ({spread})  "
            f"{against:.2f}× the textbook in fp32, {like:.2f}× in its own precision"
        )


if __name__ == "__main__":
    main()
