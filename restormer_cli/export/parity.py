"""Is an artefact the network that it was made from? On photographs, and on noise without any symmetry."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from restormer_cli.model.config import ModelConfig
from restormer_cli.model.padding import pad_to_multiple_of_8
from restormer_cli.model.restormer import Restormer

LIMITS = {"fp32": 0.05, "fp16": 2.0, "bf16": 16.0}
"""The largest error at any sample that an artefact may have, in units of 1/255 (docs/export.md)."""
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee")
"""In scikit-image's wheel, free to use (NASA; CC0)."""


@dataclass(frozen=True)
class Comparison:
    """One input through both; errors in units of 1/255."""

    name: str
    shape: tuple[int, ...]
    """(b, c, h, w) of the input."""
    maximum: float
    mean: float


def compare(
    model: Restormer, run: Callable[[Tensor], Tensor], any_size: bool = False, least: int = 8
) -> Iterator[Comparison]:
    """The model, in float32, against what `run` makes of the same pictures, one after the other.

    `any_size`: sizes that are no multiples of 8 too, from `least` pixels a side on.
    """
    for name, picture in pictures(model.config, any_size, least):
        h, w = picture.shape[-2:]
        with torch.inference_mode():
            expected = model(pad_to_multiple_of_8(picture))[..., :h, :w]
        result = run(picture)
        if result.shape != expected.shape:
            raise ValueError(f"{name}: the result has shape {tuple(result.shape)}, expected {tuple(expected.shape)}")
        error = (result.float() - expected).abs().double() * 255
        error = torch.nan_to_num(error, nan=torch.inf)
        yield Comparison(name, tuple(picture.shape), error.max().item(), error.mean().item())


def pictures(config: ModelConfig, any_size: bool, least: int) -> Iterator[tuple[str, Tensor]]:
    """Names and float32 (b, in_channels, h, w): photographs, then random ones at three sizes, the first the exporter's.

    The channels differ, and so do height and width, rows and columns, and the pictures of a batch.
    """
    sizes = [(2, 24, 40), (1, 72, 48), (1, 56, 136)]
    sizes += [(1, 37, 61), (1, max(1, least), 13)] if any_size else []
    generator = torch.Generator().manual_seed(11)
    for name in PHOTOGRAPHS:
        yield f"photograph {name}", _photograph(name, config)
    for batch, h, w in sizes:
        yield f"random {h}×{w}", torch.rand(batch, config.in_channels, h, w, generator=generator)


def report(comparisons: list[Comparison], limit: float) -> dict[str, Any]:
    """Plain values for an artefact's metadata."""
    return {
        "unit": "1/255",
        "limit": limit,
        "maximum": max(row.maximum for row in comparisons),
        "mean": sum(row.mean for row in comparisons) / len(comparisons),
        "inputs": [asdict(row) for row in comparisons],
    }


def _photograph(name: str, config: ModelConfig) -> Tensor:
    """128×192 pixels from the middle, as many channels as the network takes."""
    from skimage import data

    pixels = getattr(data, name)().astype(np.float32) / 255
    top, left = (pixels.shape[0] - 128) // 2, (pixels.shape[1] - 192) // 2
    views = [pixels[top : top + 128, left + shift : left + shift + 192] for shift in (0, 2)]
    colours = config.out_channels if config.dual_pixel else config.in_channels
    if colours != 3:  # gray, or however many: each channel another mixture of the colours
        mixture = np.linspace((0.5, 0.3, 0.2), (0.1, 0.3, 0.6), colours, dtype=np.float32)
        views = [view @ mixture.T for view in views]
    chosen = np.concatenate(views, axis=2) if config.dual_pixel else views[0]
    return torch.from_numpy(np.ascontiguousarray(chosen.transpose(2, 0, 1)))[None]
