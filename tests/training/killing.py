"""Kill a training run at many points of its life (SIGKILL, from inside and from outside) and resume each.

    python tests/training/killing.py FOLDER SEED

Every point gets a run of its own in a forked process, which kills itself in the middle of a write, before or after
a rename, between validation pictures, within a line of the log …; then another process resumes it. Prints a JSON
list: per point what it was, whether the kill met a running process, and what differs from an uninterrupted run.
"""

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from restormer_cli import files
from restormer_cli.model.weights import load_weights
from restormer_cli.recipe import Recipe
from restormer_cli.training import run_folder as run_module
from restormer_cli.training import validation
from restormer_cli.training.learner import TrainState
from restormer_cli.training.trainer import fit

FROM_INSIDE = {"write": 6, "fsync": 3, "rename": 3, "renamed": 4, "validate": 3, "line": 3, "border": 4}
"""How many points of each kind."""
FROM_OUTSIDE = 6


def recipe(folder: Path) -> Recipe:
    """Three short stages, a checkpoint after every second iteration, a validation after every third."""
    rows = [(5, 16, 2), (4, 24, 1), (3, 8, 3)]
    return Recipe.model_validate(
        {
            "name": "tiny",
            "task": "denoise",
            "model": {"dim": 4, "blocks": [1, 1, 1, 1], "heads": [1, 1, 2, 2], "refinement": 1},
            "data": {"train": {"clean": str(folder)}, "validate": {"clean": str(folder)}, "cache": "memory"},
            "degrade": {"steps": ["gaussian:10-50"]},
            "validation": {"every": 3, "crop": 16},
            "checkpoint": {"every": 2},
            "optimizer": {"clip": 1.0},
            "ema": {"decay": 0.9},
            "stage": [{"iterations": i, "patch": p, "batch": b} for i, p, b in rows],
        }
    )


BORDERS = (5, 9)


class Points:
    """Counts the moments of each kind, and ends the process at the one that is asked for."""

    def __init__(self, kind: str = "", number: int = 0) -> None:
        self.kind, self.number = kind, number
        self.counts = dict.fromkeys(FROM_INSIDE, 0)

    def reach(self, kind: str) -> None:
        self.counts[kind] += 1
        if (kind, self.counts[kind]) == (self.kind, self.number):
            os.kill(os.getpid(), signal.SIGKILL)


def watch(points: Points) -> None:
    """Hook into the places where a kill might hurt."""

    def before(owner: Any, name: str, kind: str, after: str = "", when: Callable[..., bool] = lambda *_: True) -> None:
        original = getattr(owner, name)

        def hooked(*arguments: Any, **options: Any) -> Any:
            if when(*arguments):
                points.reach(kind)
            result = original(*arguments, **options)
            if after:
                points.reach(after)
            return result

        setattr(owner, name, hooked)

    before(files.os, "fsync", "fsync")
    before(Path, "replace", "rename", after="renamed")
    before(validation, "psnr", "validate")
    before(
        TrainState, "step", "border", when=lambda learner, *_: bool(learner.optimizer.state) and near_border(learner)
    )
    store = run_module._store

    def piecewise(state: dict[str, Any], stream: Any) -> None:
        class Pieces:
            def write(self, data: Any) -> int:
                half = len(data) // 2
                stream.write(data[:half])
                stream.flush()  # half a checkpoint is really there
                points.reach("write")
                return half + stream.write(data[half:])

            def flush(self) -> None:
                stream.flush()

        store(state, Pieces())  # pyright: ignore[reportArgumentType]

    run_module._store = piecewise
    append = run_module.MetricsLog.append

    def torn(self: run_module.MetricsLog, entry: dict[str, Any]) -> None:
        self.stream.write(json.dumps(entry).encode()[:7])
        self.stream.flush()
        points.reach("line")
        self.stream.truncate(self.stream.tell() - 7)
        self.stream.seek(0, os.SEEK_END)
        append(self, entry)

    run_module.MetricsLog.append = torn


def near_border(learner: TrainState) -> bool:
    """Whether the step to come is the last of a stage or the first of the next."""
    steps = max(int(state["step"]) for state in learner.optimizer.state.values())
    return steps + 1 in BORDERS or steps in BORDERS


def forked(work: Callable[[], None]) -> int:
    """Start work in another process; its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(repr(error), file=sys.stderr)
            os._exit(1)
    return child


def train(values: Recipe, folder: Path, *, resume: bool = False, points: Points | None = None) -> Callable[[], None]:
    def work() -> None:
        if points is not None:
            watch(points)
        for _ in fit(values, folder, device="cpu", resume=resume):
            pass
        if points is not None:
            (folder / "counts.json").write_text(json.dumps(points.counts))

    return work


def outcome(folder: Path) -> dict[str, Any]:
    """What must not differ: everything but what the clock says."""
    last = max((folder / "checkpoints").glob("*.pt"))
    state = torch.load(last, weights_only=True)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    weights = load_weights(folder / "weights.safetensors")
    return {
        "checkpoint": {key: value for key, value in state.items() if key not in ("seconds", "metrics_bytes")},
        "weights": dict(weights.model.state_dict()),
        "log": [{k: v for k, v in line.items() if k not in ("seconds", "waited")} for line in lines],
        "pictures": {path.name: path.read_bytes() for path in (folder / "pictures").iterdir()},
        "leftovers": [path.name for path in folder.rglob("*.part")],
    }


def differing(one: Any, other: Any, place: str = "") -> list[str]:
    if isinstance(one, dict) and isinstance(other, dict):
        if one.keys() != other.keys():
            return [f"{place}: {sorted(map(str, one.keys() ^ other.keys()))}"]
        return [found for key in one for found in differing(one[key], other[key], f"{place}/{key}")]
    same = torch.equal(one, other) if isinstance(one, torch.Tensor) else one == other
    return [] if same else [place]


def main(folder: Path, seed: int) -> None:
    torch.set_num_threads(1)
    rng = random.Random(seed)
    (folder / "data").mkdir(parents=True)
    for number in range(2):
        pixels = np.random.default_rng(number).integers(0, 256, (40, 48, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "data" / f"{number}.png")
    values = recipe(folder / "data")

    begun = time.monotonic()
    os.waitpid(forked(train(values, folder / "whole", points=Points())), 0)
    duration = time.monotonic() - begun
    counts = json.loads((folder / "whole" / "counts.json").read_text())
    (folder / "whole" / "counts.json").unlink()
    expected = outcome(folder / "whole")

    plan: list[tuple[str, float]] = []
    for kind, many in FROM_INSIDE.items():
        plan += [(kind, number) for number in sorted(rng.sample(range(1, counts[kind] + 1), many))]
    plan += [("outside", rng.uniform(0.2, 0.9) * duration) for _ in range(FROM_OUTSIDE)]

    results = []
    for index, (kind, point) in enumerate(plan):
        run = folder / f"run{index}"
        child = forked(train(values, run, points=Points(kind, int(point)) if kind != "outside" else None))
        if kind == "outside":
            time.sleep(point)
            os.kill(child, signal.SIGKILL)  # of a child not waited for: nobody else has its number
        status = os.waitpid(child, 0)[1]
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        had = len(list((run / "checkpoints").glob("*.pt")))
        resumed = os.waitpid(forked(train(values, run, resume=True)), 0)[1] == 0
        different = differing(expected, outcome(run)) if resumed else ["did not resume"]
        results.append({"kind": kind, "point": point, "killed": killed, "checkpoints": had, "different": different})
    print(json.dumps(results))


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
