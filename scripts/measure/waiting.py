#!/usr/bin/env python3
"""How the threads of a parallel loop should wait for one another: alone on the machine, and beside a busy process.

    python scripts/measure/waiting.py [--side 256] [--rounds 2]

libgomp, which torch brings on Linux, spins for a while before it sleeps; the package has it sleep at once, since what
spins is in the way of the threads that compute a map's pieces, and of other processes.
Each setting runs in a process of its own; the settings take turns.
"""

import argparse
import os
import subprocess
import sys
from statistics import median

SETTINGS = {
    "asleep, as here": {},
    "libgomp's own": {"GOMP_SPINCOUNT": "300000"},
    "spin 1,000": {"GOMP_SPINCOUNT": "1000"},
    "spin 10,000": {"GOMP_SPINCOUNT": "10000"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
WORK = """
import sys, time, numpy as np
from restormer_cli.engine.restorer import Restorer
from restormer_cli.model.weights import load_weights
restorer, side = Restorer(load_weights("denoise").model), int(sys.argv[1])
picture = np.random.default_rng(0).random((side, side, 3), dtype=np.float32)
restorer(picture)
for _ in range(3):
    begun = time.perf_counter()
    restorer(picture)
    print(time.perf_counter() - begun)
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    seconds: dict[tuple[str, bool], list[float]] = {(name, busy): [] for busy in (False, True) for name in SETTINGS}
    for busy in (False, True):
        beside = subprocess.Popen([sys.executable, "-c", "while True: pass"]) if busy else None
        for _ in range(options.rounds):
            for name, setting in SETTINGS.items():
                command = [sys.executable, "-c", WORK, str(options.side)]
                done = subprocess.run(
                    command, env={**os.environ, **setting}, capture_output=True, text=True, check=True
                )
                seconds[name, busy] += map(float, done.stdout.split())
        if beside is not None:
            beside.kill()
    print(f"median milliseconds for {options.side}², {os.cpu_count()} cores\n")
    print("| waiting | alone | beside a busy process |\n|---|---|---|")
    for name in SETTINGS:
        print(f"| {name} | {median(seconds[name, False]) * 1e3:.0f} | {median(seconds[name, True]) * 1e3:.0f} |")


if __name__ == "__main__":
    main()
