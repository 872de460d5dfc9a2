#!/usr/bin/env python3
"""How well `restormer train --plan` estimates memory: two training steps each, in processes of their own, on a CPU.

    python scripts/measure/planned_memory.py [--dim 48]

The network of the compact recipe with another width; the process's largest resident size above what it had before
the network was made, beside the estimate.
"""

import argparse
import resource
import subprocess
import sys

CASES = (("fp32", 0, 2, 128), ("fp32", 1, 4, 128), ("bf16", 0, 2, 128), ("bf16", 1, 4, 128), ("fp32", 0, 1, 256))


def measure(dim: int, precision: str, checkpointing: int, batch: int, patch: int) -> None:
    """Print one row of the table."""
    import torch

    from restormer_cli.model.restormer import Level, Restormer
    from restormer_cli.recipe_files import read_recipe
    from restormer_cli.training.estimate import memory_of

    changes = (f"model.dim={dim}", f"run.activation_checkpointing={'true' if checkpointing else 'false'}")
    recipe = read_recipe("compact/denoise", (*changes, f"run.precision={precision}", "ema.decay=0.0"))
    fixed, per_pixel = memory_of(recipe)
    with open("/proc/self/statm", encoding="ascii") as stream:
        before = int(stream.read().split()[1]) * resource.getpagesize()
    network = Restormer(recipe.model).train()
    for module in network.modules():
        if isinstance(module, Level):
            module.checkpointing = bool(checkpointing)
    optimizer = torch.optim.AdamW(network.parameters(), fused=True)
    picture = torch.rand(batch, 3, patch, patch)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bf16"):
            output = network(picture)
        torch.nn.functional.l1_loss(output.float(), picture).backward()
        optimizer.step()
        optimizer.zero_grad()
    measured = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    estimated = fixed + per_pixel * batch * patch**2
    how = ", checkpointing" if checkpointing else ""
    print(f"| {precision}{how}, {batch} × {patch}² | {estimated / 1e9:.2f} GB | {measured / 1e9:.2f} GB |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dim", type=int, default=48)
    parser.add_argument("--case", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.case:
        precision, *numbers = options.case
        measure(options.dim, precision, *map(int, numbers))
        return
    print("| step | estimated | measured |\n|---|---|---|", flush=True)
    for case in CASES:
        subprocess.run([sys.executable, __file__, "--dim", str(options.dim), "--case", *map(str, case)], check=True)


if __name__ == "__main__":
    main()
