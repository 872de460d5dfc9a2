"""How many operations PyTorch dispatches for a picture, with the kernels in C and without, on one thread.

python scripts/measure/dispatched.py [--weights W.safetensors] [--sides 128 256]
"""

import argparse

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from restormer_cli.engine.strips import StripNetwork
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.weights import load_weights


class Count(TorchDispatchMode):
    """Counts what is dispatched below it."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.operations += 1
        return func(*args, **(kwargs or {}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", help="a file or a bundled name (default: the paper's network, random weights)")
    parser.add_argument("--sides", type=int, nargs="+", default=[128, 256])
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_weights(options.weights).model if options.weights else Restormer(ModelConfig()).eval()
    for side in options.sides:
        for native in (True, False):
            network = StripNetwork(model, threads=1, native=native)
            with Count() as count:
                network.run(torch.rand(1, model.config.in_channels, side, side))
            print(f"{side}², {'kernels' if native else 'operators'}: {count.operations:,}")


if __name__ == "__main__":
    main()
