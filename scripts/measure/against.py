"""Seconds of today's build against another checkout's, in turn on a quiet machine: medians and their ratio.

    python scripts/measure/against.py OLD_CHECKOUT [--weights W.safetensors] [--sides 128 512 1024] [--threads 2]
        [--dtype bfloat16] [--busy 1]
    python scripts/measure/against.py . --weights denoise --new-weights denoise-fast --sides 1024
    python scripts/measure/against.py . --weights denoise --new-dtype bfloat16
    python scripts/measure/against.py OLD_CHECKOUT --train 4 --sides 128

Each build runs in a process of its own, on the same pictures; `paper` as weights is the paper's network with random
ones; --new-weights and --new-dtype are today's build's, where they are to be others. Beside them: twelve 3×3
convolutions of 96 channels at half resolution (FFDNet's work) in plain PyTorch.
With --train: forward and backward passes of that many pictures at once, in bf16 by autocast, and the most memory that
the processes took.
With --busy: beside so many processes that keep a core busy all the time.
"""

import argparse
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[2]

WORKER = """
import resource, sys, time
if sys.argv[2] == "own":
    import restormer_cli  # before torch, as every verb does
import torch
weights, kind, threads, batch = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[5])
torch.set_num_threads(threads)
torch.manual_seed(0)
if kind == "ffdnet":
    layers = [torch.nn.Conv2d(12 if i == 0 else 96, 12 if i == 11 else 96, 3, padding=1) for i in range(12)]
    body = torch.nn.Sequential(*[part for layer in layers for part in (layer, torch.nn.ReLU())][:-1])
    body = body.to(memory_format=torch.channels_last)
    network = torch.nn.Sequential(torch.nn.PixelUnshuffle(2), body, torch.nn.PixelShuffle(2)).eval()
    run = torch.inference_mode()(network)
else:
    from restormer_cli.model.config import ModelConfig
    from restormer_cli.model.restormer import Restormer
    from restormer_cli.model.weights import load_weights
    model = Restormer(ModelConfig()).eval() if weights == "paper" else load_weights(weights).model
    from restormer_cli.engine import strips
    run = getattr(strips, "StripNetwork", None) or strips.Strips
    run = run(model, getattr(torch, sys.argv[4])).run
    if batch:
        model.train()
        half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=sys.argv[4] == "bfloat16")
        run = lambda x: (half(model.forward)(x) - x).abs().mean().backward()
for line in sys.stdin:
    side = int(line)
    x = torch.rand(batch or 1, 3, side, side)
    begun = time.perf_counter()
    run(x)
    print(time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, flush=True)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old", type=Path)
    parser.add_argument("--weights", default="paper")
    parser.add_argument("--new-weights")
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 512, 1024])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--new-dtype", choices=("float32", "bfloat16"))
    parser.add_argument("--train", type=int, default=0, metavar="BATCH")
    parser.add_argument("--busy", type=int, default=0, metavar="PROCESSES")
    options = parser.parse_args()

    new_weights, new_dtype = options.new_weights or options.weights, options.new_dtype or options.dtype

    def start(
        checkout: Path, kind: str, weights: str = options.weights, dtype: str = options.dtype
    ) -> subprocess.Popen:
        environment = {**os.environ, "PYTHONPATH": str(checkout), "OMP_NUM_THREADS": str(options.threads)}
        command = [sys.executable, "-c", WORKER, weights, kind, str(options.threads), dtype]
        command.append(str(options.train))
        return subprocess.Popen(
            command, env=environment, cwd="/", text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    others = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(options.busy)]
    workers = {"old": start(options.old.resolve(), "own"), "new": start(HERE, "own", new_weights, new_dtype)}
    if not options.train:
        workers["ffdnet"] = start(HERE, "ffdnet")

    def measured(worker: subprocess.Popen, side: int) -> tuple[float, float]:
        """Seconds, and gigabytes at the most until now."""
        assert worker.stdin is not None
        assert worker.stdout is not None
        worker.stdin.write(f"{side}\n")
        worker.stdin.flush()
        taken, most = worker.stdout.readline().split()
        return float(taken), float(most)

    for side in options.sides:
        taken: dict[str, list[float]] = {name: [] for name in workers}
        most: dict[str, float] = {}
        for turn in range(options.turns + 1):
            for name, worker in workers.items():
                value, most[name] = measured(worker, side)
                if turn:  # the first is a warm-up
                    taken[name].append(value)
        median = {name: statistics.median(values) for name, values in taken.items()}
        ratios = [old / new for old, new in zip(taken["old"], taken["new"], strict=True)]
        beside = f"at most {most['old']:.2f} and {most['new']:.2f} GB"
        if "ffdnet" in workers:
            beside = f"FFDNet's work {median['ffdnet']:.3f} s, new / that {median['new'] / median['ffdnet']:.2f}"
        beside += f"; beside {options.busy} busy processes" if others else ""
        names = options.weights if new_weights == options.weights else f"{options.weights}, {new_weights}"
        print(
            f"{names} {side}²: old {median['old']:.3f} s, new {median['new']:.3f} s, "
            f"ratio {median['old'] / median['new']:.2f} ({min(ratios):.2f} to {max(ratios):.2f}); {beside}",
            flush=True,
        )
    for process in [*workers.values(), *others]:
        process.kill()


if __name__ == "__main__":
    main()
