"""Peak memory of one picture through the paper's network, predicted and measured, in a fresh process.

python scripts/measure/memory.py HEIGHTxWIDTH [--memory 1.6GB] [--precision fp32] [--window N]
"""

import argparse
import resource
from time import perf_counter

import numpy as np
import torch

from restormer_cli.engine.restorer import Restorer
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("size")
    parser.add_argument("--memory")
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--window", type=int)
    options = parser.parse_args()
    height, width = (int(side) for side in options.size.split("x"))
    torch.manual_seed(0)
    restorer = Restorer(
        Restormer(ModelConfig()).eval(),
        device="cpu",
        precision=options.precision,
        memory=options.memory,
        window=options.window,
    )
    picture = np.random.default_rng(0).random((height, width, 3), np.float32)
    plan = restorer.plan(height, width)
    begun = perf_counter()
    restorer(picture, print)
    peak = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # of a process that a shell began
    print(
        f"{height}×{width} {options.precision} --memory {options.memory}: {plan}; predicted {plan.bytes / 1e9:.2f} GB, "
        f"measured {peak / 1e9:.2f} GB, ratio {plan.bytes / max(1, peak):.2f}; {perf_counter() - begun:.1f} s"
    )


if __name__ == "__main__":
    main()
