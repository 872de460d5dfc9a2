"""Rounding errors of the paper's network in float32: strips and the textbook page, both against float64.

    python scripts/measure/exactness.py [HEIGHTxWIDTH …]

Random weights, random pictures; the reference is the strip engine in float64, which the tests hold against the
textbook page in float64 to 1e-12. The textbook page needs about 10 GB per megapixel.
"""

import sys

import torch

from restormer_cli.engine.strips import StripNetwork
from restormer_cli.model.config import ModelConfig
from restormer_cli.model.restormer import Restormer
from restormer_cli.model.textbook import TextbookRestormer

SIZES = ("8x8", "8x4096", "4096x8", "64x64", "104x152", "256x256", "1000x1504")


def main() -> None:
    torch.manual_seed(0)
    model = Restormer(ModelConfig()).eval()
    with torch.no_grad():  # away from ones, where mistakes hide
        for parameter in model.parameters():
            parameter.mul_(1 + 0.2 * torch.randn_like(parameter))
    textbook = TextbookRestormer(model.config).eval()
    textbook.load_state_dict(model.state_dict())
    strips = StripNetwork(model)
    exact = StripNetwork(model.double(), torch.float64)  # last, since it turns the model into float64
    print("| size | strips to textbook | strips to float64 | textbook to float64 |\n|---|---|---|---|")
    for size in sys.argv[1:] or SIZES:
        height, width = (int(side) for side in size.split("x"))
        picture = torch.rand(1, 3, height, width)
        truth = exact.run(picture.double())
        with torch.inference_mode():
            ours = strips.run(picture)
            theirs = textbook(picture)
        apart, ours_off, theirs_off = (
            (a - b).abs().max().item() for a, b in ((ours, theirs), (ours.double(), truth), (theirs.double(), truth))
        )
        print(f"| {height}×{width} | {apart:.1e} | {ours_off:.1e} | {theirs_off:.1e} |", flush=True)


if __name__ == "__main__":
    main()
