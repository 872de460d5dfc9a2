"""Noise, from a single picture: how strong in each channel, how it grows with brightness, how far it is correlated.

After Ponomarenko, Lukin, Zriakhov, Kaarna and Astola, "An automatic approach to lossy compression of AVIRIS images"
(2007), studied by Colom and Buades (IPOL 2013) and taken to correlated noise by Colom, Lebrun, Buades and Morel (TIP
2015): the variance of every frequency of the 8 × 8 cosine transform is taken over the blocks that show the least beside
noise, for each brightness. Two things differ. Blocks are chosen for one half of the frequencies by the energy in the
other half, so that choosing does not bias the variance wherever in the spectrum the noise lies. And the spectrum is
read as a sum of noise (white, or white blurred by a small Gaussian, as demosaicing and resizing leave it) and of
texture, whose energy falls as a power of the frequency (Field 1987): its share is taken away.
Values lost at black and white are made up for by the moments of the clipped normal distribution (Foi 2009).
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.fft import dct
from scipy.optimize import nnls
from scipy.special import ndtr

from restormer_cli.analysis.detectors import NOISE
from restormer_cli.analysis.sampling import Image, sample_tiles

Array = NDArray[np.float64]

SIDE = 8
"""Side of a block, in pixels."""
STRIDE = 5
"""From one block to the next: no multiple of SIDE, so that a JPEG's own grid does not decide."""
TILE, TILES = 128, 64
GROUPS, LEAST = 6, 500
"""Brightnesses told apart, and the fewest blocks of one."""
SHARE, FEWEST = 0.03, 120
"""Share of a brightness's blocks, those with the least texture; and their minimum number."""
ROUNDS = 4
LEAK = 0.04
"""Share of a texture's energy that may pass for noise."""
LEAST_VARIANCE = 1e-4
"""In 1/255²: what is below is none."""
CLIPPED = 0.25
"""Blocks with more lost values than this share say nothing."""
SCALES: tuple[float, ...] = (0.0, *np.arange(0.3, 1.0, 0.05), 1.1, 1.2, 1.35, 1.5)
"""Standard deviations of the Gaussian that may have correlated the noise, in pixels."""

_BASIS: Array = np.asarray(dct(np.eye(SIDE), norm="ortho", axis=0))  # (frequency, pixel)
_FREQUENCY = np.add.outer(np.arange(SIDE), np.arange(SIDE)).ravel()
_EVEN = (_FREQUENCY % 2 == 0) & (_FREQUENCY > 0)
_ODD = _FREQUENCY % 2 == 1
_FINE = _FREQUENCY >= 4


@dataclass(frozen=True)
class Noise:
    """Estimate of noise; standard deviations in units of 1/255."""

    sigma: tuple[float, ...]
    """σ of each channel, over the brightnesses that the picture has."""
    growth: float
    """Growth of the variance with brightness: 0 none, 1 in proportion (shot noise), below 0 strongest in shadows."""
    correlation: float
    """Between neighbouring pixels; 0 for white noise."""
    length: float
    """Pixels at which the correlation has fallen to 1/e; 0 for white noise."""
    trust: float
    """How well noise is told from texture where that is easiest, 0 to 1: low where texture is everywhere."""
    floor: float = 0.0
    """How much more fine detail the quietest 15 % of blocks have than the quietest 3 %, as a log: 0 where it is noise,
    which is everywhere."""
    misfit: float = 0.0
    """What noise and texture leave unexplained of the spectrum, relative: about 0.13 for noise, more for a lattice."""
    coupling: float = 0.0
    """Correlation of that detail between channels: 0 for most noise; 1 for texture, gray grain and gray pictures."""

    @property
    def mean(self) -> float:
        """The channels' root mean square."""
        return float(np.sqrt(np.mean(np.square(self.sigma))))

    @property
    def signs(self) -> dict[str, float]:
        """What tells noise from texture."""
        return {
            "strength": float(min(np.log(self.mean + 0.3), 2.0)),  # from σ 7 on more is no surer
            "correlation": self.correlation,
            "floor": self.floor,
            "misfit": self.misfit,
            "coupling": self.coupling,
            "coupled correlation": self.coupling * self.correlation,
        }

    @property
    def score(self) -> float:
        """Above 0: it is noise for sure."""
        return NOISE.score(self.signs)


def estimate_noise(pixels: Image) -> Noise:
    """The noise of float32 (h, w, 1 or 3), nominally in [0, 1]; none below 16 pixels a side."""
    channels = pixels.shape[2]
    if min(pixels.shape[:2]) < 2 * SIDE:
        return Noise((0.0,) * channels, 0.0, 0.0, 0.0, 0.0)
    blocks = _blocks(sample_tiles(pixels, TILE, TILES))
    lost = ((blocks <= 0) | (blocks >= 1)).mean(axis=(2, 3)).max(axis=1)
    if (lost <= CLIPPED).sum() >= min(LEAST, len(lost)):
        blocks = blocks[lost <= CLIPPED]
    means = blocks.mean(axis=(2, 3), dtype=np.float64)
    basis = (_BASIS * np.sqrt(255)).astype(np.float32)
    energy = np.square(basis @ blocks @ basis.T).reshape(len(blocks), -1)
    order = np.argsort(means.mean(axis=1), kind="stable")
    groups = np.array_split(order, max(1, min(GROUPS, len(order) // LEAST)))
    spectra, light = np.empty((len(groups), channels, SIDE * SIDE)), np.empty((len(groups), channels))
    quietest = []
    for i, group in enumerate(groups):
        spectra[i], chosen = _spectrum(energy[group], channels)
        quietest.append(group[chosen])
        light[i] = means[quietest[i]].mean(axis=0)
    shape, variance, texture, misfit = _separate(spectra)
    variance = np.vectorize(_unclipped)(light, variance)
    lines = [_line(light[:, i], variance[:, i], texture[:, i]) for i in range(channels)]
    sigma = [_SCARCE[shape] * _mean_sigma(line, light[:, i]) for i, line in enumerate(lines)]
    middle = sum(at + slope / 2 for at, slope in lines)
    growth = np.clip(sum(slope for _, slope in lines) / 2 / max(middle, LEAST_VARIANCE), -1, 1)
    trust = (variance / (variance + LEAK * texture + 1e-3)).mean(axis=1)
    best = int(trust.argmax())
    return Noise(
        sigma=tuple(map(float, sigma)),
        growth=float(growth),
        correlation=float(_RHO[shape]),
        length=float(_LENGTHS[shape]),
        trust=float(trust[best]),
        floor=_floor(energy[groups[best]], spectra[best]),
        misfit=float(misfit[best].mean()),
        coupling=_coupling(basis @ blocks[quietest[best]] @ basis.T),
    )


def _floor(energy: Image, spectrum: Array) -> float:
    """The floor (see Noise) of one brightness: energies of its blocks (n, c · 64), and their spectrum (c, 64)."""
    wide = _spectrum(energy, len(spectrum), 5 * SHARE)[0]
    return float(np.log(np.median(wide[:, _FINE] / spectrum[:, _FINE])))


def _coupling(blocks: Image) -> float:
    """The correlation of fine detail between neighbouring channels of transformed blocks (n, c, 8, 8)."""
    fine = blocks.reshape(*blocks.shape[:2], -1)[..., _FINE]
    power = np.sqrt(np.square(fine).mean(axis=(0, 2)))
    pairs = [(0, 1), (1, 2)] if fine.shape[1] == 3 else [(0, 0)]
    return float(np.mean([(fine[:, a] * fine[:, b]).mean() / (power[a] * power[b] + 1e-9) for a, b in pairs]))


def _mean_sigma(line: tuple[float, float], light: Array) -> float:
    at, slope = line
    return float(np.sqrt(np.maximum(at + slope * light, LEAST_VARIANCE).mean()))


def _line(light: Array, variance: Array, texture: Array) -> tuple[float, float]:
    """Variance over brightness, a straight line through what textures leave sure: its value at 0 and its slope.

    A slope is believed as far as the points speak for it: a priori it is 0, give or take the line's own height.
    """
    spread = 0.1 * variance + LEAK * texture + 0.02
    height = np.average(variance, weights=spread**-2)
    middle = np.average(light, weights=spread**-2)
    weights = spread**-2
    slope = (weights * (light - middle) * (variance - height)).sum()
    slope /= (weights * (light - middle) ** 2).sum() + (middle / max(height, 1e-3)) ** 2 + 1e-9
    return float(height - slope * middle), float(slope)


def _blocks(tiles: Image) -> Image:
    """Blocks of all tiles: (n, h, w, c) -> (m, c, 8, 8)."""
    view = np.lib.stride_tricks.sliding_window_view(tiles, (SIDE, SIDE), axis=(1, 2))[:, ::STRIDE, ::STRIDE]  # pyright: ignore
    return view.reshape(-1, *view.shape[3:])


def _spectrum(energy: Image, channels: int, share: float = SHARE) -> tuple[Array, NDArray[np.intp]]:
    """Each frequency's variance over the blocks with the least beside noise: (n, c · 64) -> (c, 64), those blocks."""
    keep = min(len(energy), max(FEWEST, int(len(energy) * share)))
    variance = np.median(energy, axis=0) / 0.455 + 1e-3  # the median of a square is 0.455 of its mean
    even, odd = np.tile(_EVEN, channels), np.tile(_ODD, channels)
    best = np.arange(keep)
    for _ in range(ROUNDS):
        following = np.zeros_like(variance)
        for judged, chosen in ((even, odd), (odd, even)):
            score = energy @ np.where(chosen, 1 / variance, 0).astype(np.float32)
            best = np.argpartition(score, keep - 1)[:keep]
            following[judged] = energy[best].mean(axis=0)[judged]
        variance = following + 1e-3
    return variance.reshape(channels, SIDE * SIDE).astype(np.float64), best


_LAG = np.arange(SIDE)
_PRODUCTS = np.array([[(1 + (k > 0)) * (row[: SIDE - k] @ row[k:]) for k in _LAG] for row in _BASIS])


def _seen(correlation: Array) -> Array:
    """Variances of the transform of noise whose correlations at lags (0 … 7)² these are: (8, 8) -> (64,)."""
    return (_PRODUCTS @ correlation @ _PRODUCTS.T).ravel()


def _blurred(scale: float) -> Array:
    """The correlations of white noise after a Gaussian: (8, 8)."""
    along = np.exp(-(_LAG**2) / (4 * scale**2)) if scale else (_LAG == 0).astype(float)
    return np.outer(along, along)


def _demosaiced() -> list[Array]:
    """The mean correlations of red, green and blue after bilinear demosaicing of white noise."""
    red, green = np.zeros((2, SIDE, SIDE))
    along = np.array([1, 2 / 3, 1 / 6])
    red[:3, :3] = np.outer(along, along)
    green[0, 0], green[0, 1], green[1, 1], green[0, 2] = 1, 0.4, 0.1, 0.05
    green = np.maximum(green, green.T)
    return [red, green, red]


_SHAPES = np.stack([[_seen(_blurred(scale))] * 3 for scale in SCALES] + [[_seen(shape) for shape in _demosaiced()]])
_RHO = np.array([*(_blurred(scale)[0, 1] for scale in SCALES), 0.58])
_LENGTHS = np.array([*(2 * scale for scale in SCALES), 1.5])
_SCARCE = np.array([1.02, *[1.035] * (len(SCALES) - 1), 1.2])
"""Share of σ that is lost by choosing the quietest blocks, by the noise's shape: measured on noise alone."""
_RADIUS = np.hypot(*np.indices((SIDE, SIDE))).ravel()
_TEXTURES = np.stack([np.where(_RADIUS > 0, np.maximum(_RADIUS, 1) ** -power, 0) for power in (2.0, 3.5)])


def _separate(spectra: Array) -> tuple[int, Array, Array, Array]:
    """Noise and texture in spectra (n, c, 64): the noise's shape; its variances, the texture's, misfits (n, c)."""
    use = _FREQUENCY > 0
    groups, channels = spectra.shape[:2]
    spectra = spectra[..., use]
    weights = 1 / (spectra + 0.05 * spectra.mean(axis=2, keepdims=True) + 0.05)
    found = np.empty((len(_SHAPES), groups, channels, 1 + len(_TEXTURES)))
    rest = np.empty((len(_SHAPES), groups, channels))
    for shape, seen in enumerate(_SHAPES):
        for channel in range(channels):
            parts = np.stack([seen[channel if channels == 3 else 1], *_TEXTURES], axis=1)[use]
            for group in range(groups):
                weight = weights[group, channel]
                where = shape, group, channel
                found[where], rest[where] = nnls(parts * weight[:, None], spectra[group, channel] * weight)
    noise, texture = found[..., 0], found[..., 1:].sum(axis=-1)
    loss = np.square(rest)
    first = int(loss.sum(axis=(1, 2)).argmin())
    trust = noise[first] / (noise[first] + LEAK * texture[first] + 1e-3)
    best = int((loss * trust).sum(axis=(1, 2)).argmin()) if trust.any() else first
    return best, noise[best], texture[best], rest[best] / use.sum() ** 0.5


def _unclipped(mean: float, variance: float) -> float:
    """The variance before values were clipped to [0, 1], from mean and variance (in 1/255²) after that."""
    target = max(variance, 1e-6) / 255**2
    middle, sigma = mean, target**0.5
    if min(mean, 1 - mean) > 4 * sigma:
        return variance
    for _ in range(30):
        low, high = -middle / sigma, (1 - middle) / sigma
        p, q = ndtr(low), ndtr(-high)
        d0, d1 = (np.exp(-z * z / 2) / np.sqrt(2 * np.pi) for z in (low, high))
        inside = 1 - p - q
        first = middle * inside + sigma * (d0 - d1) + q
        second = (
            (middle**2 + sigma**2) * inside + 2 * middle * sigma * (d0 - d1) + sigma**2 * (low * d0 - high * d1) + q
        )
        sigma *= min(2.0, (target / max(second - first**2, 1e-9)) ** 0.5)
        sigma = min(sigma, 1.0)
        middle = float(np.clip(middle + mean - first, -0.5, 1.5))
    return float(min(sigma**2 * 255**2, 4 * variance))
