"""Rain as photographs have it: layers of streaks of one direction, which cover what is behind, and a veil of mist."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]


@dataclass(frozen=True)
class _Layer:
    """Ranges from which a layer of rain is drawn; a streak varies about its layer's length and strength."""

    length: tuple[float, float]
    """Length of the streaks, in pixels."""
    width: tuple[float, float]
    """At half the brightness, in pixels."""
    strength: tuple[float, float]
    """How much of what is behind the strongest cover, of `opacity`."""
    cover: float
    """Its part of the pixels, of `amount`."""


_LONG = _Layer((40, 110), (0.7, 1.3), (0.5, 0.9), 1.0)
_SHORT = _Layer((8, 24), (1.2, 2.8), (0.7, 1.0), 0.6)
_FINE = _Layer((6, 18), (0.6, 1.0), (0.3, 0.6), 1.6)
_KINDS = ((_LONG,), (_SHORT,), (_FINE,), (_FINE, _LONG, _SHORT))


def rainfall(
    image: Image,
    rng: np.random.Generator,
    *,
    amount: float,
    kind: float = 3,
    tilt: float = 0,
    jitter: float = 2,
    opacity: float = 0.7,
    veil: float = 0,
) -> Image:
    """Let it rain in layers before the picture: (h, w, c) -> (h, w, c), clipped to [0, 1].

    Streaks blend what is behind with the sky's gray (after Garg and Nayar 2007: a drop hides little of the scene and
    shows the sky), the layers one after the other; then mist, which makes contrast less (Li, Cheong and Tan 2019).
    `amount`: pixels that are wet, in per cent (0 to 30). `kind`: 0 long and thin streaks, 1 short and bright ones, 2
    fine and dense ones, 3 a layer of each. `tilt`: degrees from vertical (-75 to 75), positive falls to the right,
    the layers' own within 2 degrees, ± `jitter` (0 to 20) from streak to streak. `opacity`: how much of the picture
    the strongest streak covers (0 to 1). `veil`: how much the mist covers where it is thickest (0 to 1).
    """
    height, width, _ = image.shape
    sky = np.float32(rng.uniform(0.75, 1)) * (1 + np.float32(0.03) * rng.standard_normal(image.shape[2], np.float32))
    wet = image.copy()
    for ranges in _KINDS[int(kind)]:
        lean = min(max(tilt + rng.uniform(-2, 2), -80), 80)
        share = _streaks(height, width, rng, ranges, amount / 100 * ranges.cover, lean, jitter)
        share *= np.float32(opacity * rng.uniform(*ranges.strength))
        wet += np.minimum(share, 1)[..., None] * (sky - wet)
    if veil:
        mist = np.float32(veil) * _mist(height, width, rng)
        wet += mist[..., None] * (sky - wet)
    return np.clip(wet, 0, 1, out=wet)


def _streaks(
    height: int, width: int, rng: np.random.Generator, ranges: _Layer, cover: float, tilt: float, jitter: float
) -> Image:
    """How much the streaks of a layer cover, the strongest 1 where no other crosses it: (h, w)."""
    mean_length, wide = rng.uniform(*ranges.length), rng.uniform(*ranges.width)
    soft = rng.uniform(0, 1)  # 0: even streaks; 1: ones that fade towards their ends
    longest = 1.4 * mean_length
    steepest = math.radians(min(abs(tilt) + jitter, 85))
    aside = math.ceil(longest * math.sin(steepest) + 3 * wide / math.cos(steepest))
    above = math.ceil(longest)
    count = rng.poisson(cover / (mean_length * wide) * (height + above) * (width + 2 * aside))
    if not count:
        return np.zeros((height, width), np.float32)
    angle = np.radians(np.clip(tilt + rng.uniform(-jitter, jitter, count), -85, 85)).astype(np.float32)
    length = (mean_length * rng.uniform(0.6, 1.4, count)).astype(np.float32)
    strength = rng.uniform(0.4, 1, count).astype(np.float32)
    top = rng.uniform(-above, height, count).astype(np.float32)
    left = rng.uniform(-aside, width + aside, count).astype(np.float32)
    rows = np.ceil(length * np.cos(angle)).astype(np.int32) + 1
    total = np.zeros(height * width)
    # All rows of some streaks, one after the other, so that the short ones do not pay for the long ones.
    ends = np.cumsum(rows)
    batches = np.searchsorted(ends, np.arange(0, ends[-1], 2**18))
    for start, stop in zip(batches, [*batches[1:], count], strict=True):
        chosen = slice(start, stop)
        which: NDArray[np.intp] = np.repeat(np.arange(start, stop), rows[chosen])
        begun = ends[chosen] - rows[chosen]
        step = np.arange(len(which)) - np.repeat(begun - begun[0], rows[chosen])
        lean, cosine = np.tan(angle)[which], np.cos(angle)[which]
        y = np.floor(top[which]).astype(np.int32) + step.astype(np.int32)
        down = y + np.float32(0.5) - top[which]
        along = down / (cosine * length[which])
        inside = (y >= 0) & (y < height) & (along > 0) & (along < 1)
        lean, cosine, down, along = (v[inside] for v in (lean, cosine, down, along))
        which, y = which[inside], y[inside]
        light = strength[which] * np.sin(np.pi * along) ** np.float32(soft)
        x = left[which] + lean * down
        reach = math.ceil(1.4 * wide / math.cos(steepest)) + 1
        first: NDArray[np.int32] = np.floor(x).astype(np.int32)
        narrow = np.float32(4 * math.log(2)) * (cosine / np.float32(wide)) ** 2
        for aside_by in range(-reach, reach + 1):
            column = first + np.int32(aside_by)
            seen = (column >= 0) & (column < width)
            value = light * np.exp(-narrow * (column - x) ** 2)
            total += np.bincount((y * width + column)[seen], value[seen], height * width)
    return total.reshape(height, width).astype(np.float32)


def _mist(height: int, width: int, rng: np.random.Generator) -> Image:
    """Thicker here and thinner there, from 0.4 to 1: (h, w)."""
    size = max(height, width)
    down, across = rng.uniform(-1, 1, (2, 3))
    phase = np.exp(2j * np.pi * rng.uniform(size=3))
    rows = phase * np.exp(2j * np.pi / size * np.arange(height)[:, None] * down)
    waves = (rows @ np.exp(2j * np.pi / size * across[:, None] * np.arange(width))).real
    return (0.7 + 0.1 * waves).astype(np.float32)
