#!/usr/bin/env python3
"""Put a finished run's weights into the package: half precision, header kept.

python scripts/bundle.py runs/denoise/weights.safetensors denoise
"""

import sys

import torch

from restormer_cli.model.weights import CHECKPOINTS, load_weights, save_weights

source, task = sys.argv[1:]
weights = load_weights(source)
header = {key: value for key, value in weights.header.items() if key not in ("format", "model")}
save_weights(CHECKPOINTS / f"{task}.safetensors", weights.model, header, dtype=torch.float16)
