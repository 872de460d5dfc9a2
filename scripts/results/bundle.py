#!/usr/bin/env python3
"""Put a finished run's weights into the package: half precision, header kept, the licence as it stands here.

    python scripts/results/bundle.py runs/denoise/weights.safetensors denoise
    python scripts/results/bundle.py runs/defocus/weights.safetensors defocus --before denoise-1.safetensors
    python scripts/results/bundle.py runs/denoise/weights.safetensors denoise --mean-with OLD.safetensors

`--mean-with` takes the mean of the run's weights and of those that it began with: often better than both on what a
short leg unlearns (Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022). `--before` adds a leg that
the header does not know, since its successor was trained before headers listed earlier legs.
"""

import argparse
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch

from restormer_cli.model.cards import CHECKPOINTS
from restormer_cli.model.weights import load_weights
from restormer_cli.model.weights_file import save_weights
from restormer_cli.training.provenance import legs_behind, training_record

LICENCE = (
    "Apache-2.0; trained on photographs under GPL, LGPL, CC-BY, CC-BY-SA, GFDL, MIT, CC0, the Pexels licence and "
    "in the public domain, listed in scripts/photographs.csv"
)
SHARP_LICENCE = (
    "Apache-2.0; trained on photographs under CC-BY-SA, CC-BY, CC0, the Unlicense, the Unsplash and Pexels licences "
    "and in the public domain, listed in scripts/sharp_photographs.csv"
)
BOTH_LICENCE = (
    "Apache-2.0; trained on photographs under GPL, LGPL, CC-BY, CC-BY-SA, GFDL, MIT, CC0, the Unlicense, the Unsplash "
    "and Pexels licences and in the public domain, listed in scripts/photographs.csv and scripts/sharp_photographs.csv"
)
"""By the lists that the weights were trained on."""
LICENCES = {"photographs": LICENCE, "sharp": SHARP_LICENCE, "both": BOTH_LICENCE}
RECENT = 1
"""Legs before the last that are listed with all that is known of them; 4 MB have no room for more."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("task")
    parser.add_argument("--lists", choices=LICENCES, default="sharp", help="of photographs that it was trained on")
    parser.add_argument("--before", type=Path, help="weights of a leg before the first that the header lists")
    parser.add_argument("--mean-with", type=Path, help="weights whose mean with the run's is taken")
    options = parser.parse_args()
    weights = load_weights(options.weights)
    header = {key: value for key, value in weights.header.items() if key not in ("format", "model")}
    header["licence"] = LICENCES[options.lists]
    if "recipe" in header:
        header["recipe"] = without_none({**header["recipe"], "licence": None})  # which stands beside it
    if options.before is not None:
        leg = {key: value for key, value in header["training"].items() if key not in ("hours", "earlier")}
        first = legs_behind(options.before)
        known = [row for row in header["training"].get("earlier", []) if row not in first]
        header["training"] = training_record(leg, first + known)
    if options.mean_with is not None:
        other = dict(load_weights(options.mean_with).model.named_parameters())
        with torch.no_grad():
            for name, parameter in weights.model.named_parameters():
                parameter.lerp_(other[name].to(parameter.dtype), 0.5)
        header["training"].pop("validation", None)  # of the run's own weights
        header["training"]["mean_with"] = sha256(options.mean_with.read_bytes()).hexdigest()
    for leg in header["training"].get("earlier", []):
        leg.pop("validation", None)  # by other photographs or noise, and hundreds of bytes
        for key in ("data", "machines"):
            if key in leg and leg[key] == header["training"].get(key):
                del leg[key]
    for leg in header["training"].get("earlier", [])[:-RECENT]:
        for key in ("seed", "precision", "mean_with"):
            leg.pop(key, None)  # at the commit that bundled it
    header["training"] = rounded(header["training"])
    save_weights(CHECKPOINTS / f"{options.task}.safetensors", weights.model, header, dtype=torch.float16)


def rounded(value: Any) -> Any:
    """Decibels to the fourth digit."""
    if isinstance(value, dict):
        return {key: rounded(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [rounded(inner) for inner in value]
    return round(value, 4) if isinstance(value, float) else value


def without_none(value: Any) -> Any:
    """Tables without the keys that are none, as recipes have them by default: bytes of the 4 MB."""
    if isinstance(value, dict):
        return {key: without_none(inner) for key, inner in value.items() if inner is not None}
    return [without_none(inner) for inner in value] if isinstance(value, list) else value


if __name__ == "__main__":
    main()
