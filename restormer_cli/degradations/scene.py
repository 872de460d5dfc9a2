"""A photograph taken apart into what lies in front of what, since no depth is known: layers with soft edges."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Layer:
    """Layer of the scene at one depth; the farthest is opaque throughout."""

    light: Image
    """Linear (h, w, 3), everywhere: what the layer does not cover is of no account."""
    opacity: Image
    """(h, w), 0 to 1."""
    nearness: float
    """1 / distance, relative to the other layers."""


def split(light: Image, masks: list[Image], nearness: list[float]) -> list[Layer]:
    """Layers, the farthest first: linear (h, w, 3), the nearer ones' masks (h, w) from far to near.

    What a nearer layer hides is made up from what is around it. Put on one another they give the picture again, but for
    the soft edges.
    """
    layers, hidden = [], np.zeros(light.shape[:2], np.float32)
    for mask, near in zip(reversed(masks), reversed(nearness[1:]), strict=True):
        layers.append(Layer(filled(light, hidden), mask, near))
        hidden = 1 - (1 - hidden) * (1 - mask)
    layers.append(Layer(filled(light, hidden), np.ones_like(hidden), nearness[0]))
    return layers[::-1]


def filled(light: Image, hidden: Image) -> Image:
    """The picture (h, w, 3) with what is hidden, by 0 to 1, replaced by what is around: (h, w, 3).

    Means of ever larger surroundings, each where the smaller ones see nothing.
    """
    if not hidden.any():
        return light
    from scipy.ndimage import uniform_filter, zoom  # 50 ms that --help should not pay

    height, width, _ = light.shape
    rows, columns = -(-height // _COARSE), -(-width // _COARSE)
    seen = np.dstack([light, np.ones_like(hidden)]) * ((1 - hidden) ** 4)[..., None]
    pads = ((0, rows * _COARSE - height), (0, columns * _COARSE - width), (0, 0))
    seen = np.pad(seen, pads).reshape(rows, _COARSE, columns, _COARSE, 4).mean(axis=(1, 3))
    known, weight = seen.copy(), np.float32(1)
    for reach in (3, 9, 27, 81):
        weight *= np.float32(1e-2)
        known += weight * uniform_filter(seen, reach, mode="nearest", axes=(0, 1))
    guess = known[..., :3] / np.maximum(known[..., 3:], np.float32(1e-12))
    planes = [zoom(g, _COARSE, order=1, mode="nearest", grid_mode=True) for g in np.moveaxis(guess, 2, 0)]
    guess = np.stack([np.asarray(plane) for plane in planes], axis=2)
    return np.asarray(light + hidden[..., None] ** 2 * (guess[:height, :width] - light), np.float32)


_COARSE = 8


def smooth_mask(height: int, width: int, rng: np.random.Generator, share: float) -> Image:
    """Hills about as large as the picture cut at a level, so that about `share` of it is 1: (h, w), edges soft."""
    size = max(height, width)
    across, down = rng.uniform(-1.5, 1.5, (2, 5))
    phase = np.exp(2j * np.pi * rng.uniform(size=5))
    rows = phase * np.exp(2j * np.pi / size * np.arange(height)[:, None] * down)
    hills = (rows @ np.exp(2j * np.pi / size * across[:, None] * np.arange(width))).real
    level = np.quantile(hills[::4, ::4], 1 - share)
    edge = hills.std() * 10 ** rng.uniform(-2, -0.7) + 1e-6
    return _step((hills - level) / edge)


def object_mask(light: Image, rng: np.random.Generator) -> Image:
    """A thing of the picture: some regions that belong together by Felzenszwalb and Huttenlocher 2004: (h, w), 0 to 1.

    Found at about 100 pixels a side, from 3 to 40 per cent of the picture where there is such a thing.
    """
    from scipy.ndimage import binary_fill_holes, gaussian_filter  # 50 ms that --help should not pay
    from skimage.segmentation import felzenszwalb
    from skimage.transform import resize

    height, width = light.shape[:2]
    coarse = max(1, round(max(height, width) / 100))
    small = np.sqrt(light[::coarse, ::coarse])
    labels = felzenszwalb(
        small, scale=float(10 ** rng.uniform(1.3, 2.5)), sigma=0.8, min_size=max(4, small.size // 300)
    )
    names, sizes = np.unique(labels, return_counts=True)
    chosen = np.zeros(labels.shape, bool)
    fitting = names[(sizes > 0.03 * labels.size) & (sizes < 0.4 * labels.size)]
    seed = rng.choice(fitting) if len(fitting) else rng.choice(names)
    chosen |= labels == seed
    for _ in range(int(rng.integers(0, 4))):  # a thing has several colours: some of the neighbours too
        if chosen.mean() > 0.25:
            break
        edge = (gaussian_filter(chosen.astype(np.float32), 1) > 0.05) & ~chosen
        if not edge.any():
            break
        more = chosen | (labels == rng.choice(labels[edge]))
        if more.mean() > 0.45:
            break
        chosen = more
    chosen = gaussian_filter(np.asarray(binary_fill_holes(chosen), np.float32), 0.8)
    return _step(np.asarray(resize(chosen, (height, width), order=1), np.float32) * 4 - 2)


def _step(values: NDArray[np.floating]) -> Image:
    """0 below -1/2, 1 above 1/2, smooth between."""
    x = np.clip(values + 0.5, 0, 1).astype(np.float32)
    return x * x * (3 - 2 * x)


def unclipped(light: Image, most: float) -> Image:
    """Highlights as bright as they were before they were cut off at white: up to `most` times as bright.

    The photograph does not say; what is within a tenth of white in all channels is taken to have been brighter.
    """
    near = np.clip((light.min(axis=2, keepdims=True) - 0.8) / 0.2, 0, 1)
    return light * (1 + np.float32(most - 1) * near**2) if most > 1 else light
