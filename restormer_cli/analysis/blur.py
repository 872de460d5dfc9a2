"""Blur, from a single picture: a disc's radius (out of focus), or a line's length and direction (moved).

A blur's transfer function leaves its zeros in the picture's power spectrum: rings for a disc, parallel stripes for a
line (Gennery 1973; Cannon 1976, who averages the logarithms of many pieces' spectra, as is done here). Found are the
parameters whose transfer function explains the averaged spectrum best (identification by maximum likelihood: Pavlović
and Tekalp 1992), beside a natural picture's own spectrum, which falls as a power of the frequency and differs a little
by direction (Field 1987), and a floor of noise.

A hand that shakes leaves neither rings nor stripes. It is told by what a natural spectrum cannot explain, and by edges:
the strongest need several pixels to rise (as in Marziliano, Dufaux, Winkler and Ebrahimi 2002).
"""

from collections.abc import Callable, Iterable, Sequence
from copy import copy
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import j1

from restormer_cli.analysis.detectors import DISC, LINE, SHAKE
from restormer_cli.analysis.sampling import Image, luma, sample_tiles

Array = NDArray[np.float64]
Kind = Literal["none", "soft", "defocus", "motion", "shake"]

TILE, ACROSS = 128, 12
"""The side of a piece in pixels, and how many are looked at along each side of the picture."""
TILES = 48
"""The most pieces whose spectra are averaged: those with the most texture."""
LEAST_SIDE, FLAT = 32, 4 / 255
"""A picture that is smaller, or whose values differ less, shows no blur."""
POINTS = 1500
"""Frequencies on which all candidates are tried; the best are tried again on all."""
TOGETHER = 32
"""Candidates that are tried at once: their frequencies stay in a processor's cache."""
SOFTNESSES = np.arange(0.3, 2.6, 0.2)
RADII = np.arange(0.75, 10.01, 0.25)
LENGTHS = np.array([3, 4, 5, 6, 7, 8.5, 10, 12, 14, 16.5, 19, 22, 25, 28, 32])
"""Sizes that are tried, in pixels: the Gaussian's σ, the disc's radius, the line's length."""
LEAK = 2e-3
"""A transfer function's zeros are filled up by the window's leakage, and by blurs that are not quite even."""
NATURAL = -2.3
"""The exponent of a sharp picture's power spectrum; a little steeper than Field's -2, for lens and sensor blur too."""
EDGES, EDGE_TILES = 256, 16
"""The pieces in which edges are looked for, in pixels, and how many at the most."""
STRONG, EDGE = 0.998, 0.1
"""The share of steps that the strongest exceed, and the step from which a piece has an edge."""
NOTABLE = 0.35
"""Gain of the logarithm of the residual from which a blur is believed; clean photographs stay below 0.33."""


@dataclass(frozen=True)
class Blur:
    """Estimate of blur."""

    kind: Kind
    """`soft`: a smooth blur, such as a lens's or an enlargement's; `defocus`: a disc; `motion`: a line; `shake`: a path
    that is bent, so that neither length nor direction can be told."""
    width: float
    """Pixels: the disc's radius (of a soft blur, of the disc as wide), or the line's length; 0 for none and shake."""
    angle: float
    """Angle of a line, in degrees counter-clockwise from horizontal, -90 to 90; else 0."""
    evidence: float
    """How much better the blur explains the spectrum than none does: log of the ratio of the squared residuals."""
    unsharpness: float
    """Above 0: shaken for sure."""
    bluntest: float
    sharpest: float
    """How the strongest edges rise, in the bluntest and in the sharpest direction: log of the steps between neighbours
    over those between pixels four apart. 0 within a pixel, -1.4 in four."""
    signs: dict[str, float] = field(default_factory=dict)
    """What tells blur from a scene that has no sharp edges of its own; empty where nothing can be seen."""

    @property
    def score(self) -> float:
        """Above 0: out of focus, or moved, for sure; of another kind there is none, -9."""
        detector = {"defocus": DISC, "motion": LINE}.get(self.kind)
        return -9.0 if detector is None or not self.signs else detector.score(self.signs)


def estimate_blur(pixels: Image) -> Blur:
    """The blur of float32 (h, w, 1 or 3) in [0, 1], taken as the same everywhere; `none` of flat or tiny pictures."""
    if min(pixels.shape[:2]) < LEAST_SIDE or np.ptp(luma(pixels[::2, ::2])) < FLAT:
        return Blur("none", 0.0, 0.0, 0.0, 0.0, 0.0, 0.0)
    spectrum = _Spectrum(pixels)
    none, natural = spectrum.fit(_sharp)
    soft, softness = spectrum.best(_gaussian, [(s,) for s in SOFTNESSES], lambda p: [(p[0] + d,) for d in (-0.1, 0.1)])
    disc, radius = spectrum.best(_disc, [(r,) for r in RADII], lambda p: [(p[0] + d,) for d in (-0.12, 0.12)])
    line, path = spectrum.best(_line, list(_paths()), _beside)
    misfit, kind, width, angle, transfer, parameters = min(
        (soft, "soft", 2 * softness[0], 0.0, _gaussian, softness),  # a disc of radius r is as wide as σ = r / 2
        (disc, "defocus", radius[0], 0.0, _disc, radius),
        (line, "motion", path[0], (path[1] + 90) % 180 - 90, _line, path),
        key=lambda candidate: candidate[0],
    )
    evidence = float(np.log(none / misfit))
    bluntest, sharpest, place = _rises(pixels)
    gains = {"soft": np.log(none / soft), "disc": np.log(none / disc), "line": np.log(none / line)}
    signs = {
        **gains,
        "disc alone": gains["disc"] - max(gains["soft"], gains["line"], 0),
        "line alone": gains["line"] - max(gains["soft"], gains["disc"], 0),
        "radius": np.log(radius[0]),
        "length": np.log(path[0]),
        "everywhere": min(quarter.gain(transfer, *parameters) for quarter in spectrum.quarters()),
        "misfit": np.log(none),
        "slope": natural[1],
        "direction": np.hypot(natural[2], natural[3]),
        "bluntest": bluntest,
        "sharpest": sharpest,
        "sharpest place": place,
    }
    signs = {name: float(value) for name, value in signs.items()}
    unsharpness = SHAKE.score(signs)
    if evidence < NOTABLE:
        kind, width, angle = "shake" if unsharpness > 0 else "none", 0.0, 0.0
    return Blur(kind, float(width), float(angle), evidence, unsharpness, bluntest, sharpest, signs)


def _rises(pixels: Image) -> tuple[float, float, float]:
    """Log of the strongest steps between neighbours over those between pixels four apart: bluntest, sharpest.

    Then the sharpest direction of the sharpest piece; -9 where no piece has edges.
    """
    tiles = luma(sample_tiles(pixels, EDGES, EDGE_TILES))
    rises, places = [], []
    for far, near in (
        (tiles[:, :, 4:] - tiles[:, :, :-4], tiles[:, :, 1:] - tiles[:, :, :-1]),
        (tiles[:, 4:] - tiles[:, :-4], tiles[:, 1:] - tiles[:, :-1]),
        (tiles[:, 4:, 4:] - tiles[:, :-4, :-4], tiles[:, 1:, 1:] - tiles[:, :-1, :-1]),
        (tiles[:, 4:, :-4] - tiles[:, :-4, 4:], tiles[:, 1:, :-1] - tiles[:, :-1, 1:]),
    ):
        steps = [np.abs(step[:, :, ::2]).reshape(len(tiles), -1) for step in (near, far)]
        small, large = (float(np.quantile(step, STRONG)) for step in steps)
        rises.append(np.log((small + 1e-4) / (large + 1e-4)))
        smalls, larges = (np.quantile(step, STRONG, axis=1) for step in steps)
        places.append(np.where(larges > EDGE, np.log((smalls + 1e-4) / (larges + 1e-4)), np.nan))
    edged = np.array(places)[:, np.isfinite(places).all(axis=0)]
    return float(min(rises)), float(max(rises)), float(edged.max()) if edged.size else -9.0


def _sharp(y: Array, x: Array) -> Array:
    return np.ones_like(x)


def _gaussian(y: Array, x: Array, sigma: float) -> Array:
    return np.exp(-np.square(2 * np.pi * sigma) * (x * x + y * y))


def _disc(y: Array, x: Array, radius: float) -> Array:
    argument = 2 * np.pi * radius * np.hypot(x, y) + 1e-9
    return np.square(2 * j1(argument) / argument)


def _line(y: Array, x: Array, length: float, angle: float) -> Array:
    turned = np.radians(angle)
    return np.square(np.sinc(length * (x * np.cos(turned) - y * np.sin(turned))))  # rows point down


def _paths() -> Iterable[tuple[float, float]]:
    """Lengths and angles of lines; the longer, the finer the angles."""
    for length in LENGTHS:
        step = 7.5 if length < 11 else 5
        for angle in np.arange(-90, 90, step):
            yield float(length), float(angle)


def _beside(path: tuple[float, ...]) -> list[tuple[float, ...]]:
    """Paths a little shorter, longer and turned."""
    length, angle = path
    return [(length * by, angle + turn) for by in (0.93, 1.0, 1.07) for turn in (-2.5, 0, 2.5) if (by, turn) != (1, 0)]


class _Spectrum:
    """A picture's averaged log power spectrum, and how well a transfer function explains it."""

    def __init__(self, pixels: Image) -> None:
        self.side = min(TILE, *pixels.shape[:2])
        window = np.hanning(self.side + 2)[1:-1]
        window = np.outer(window, window)
        window /= np.sqrt(np.square(window).sum())
        tiles = _textured(luma(pixels), self.side)
        power = np.square(np.abs(np.fft.rfft2((tiles - tiles.mean(axis=(1, 2), keepdims=True)) * window)))
        logs = np.log(power + 1e-9) + np.euler_gamma  # the mean of the log of a periodogram is so much low
        y, x = np.meshgrid(np.fft.fftfreq(self.side), np.fft.rfftfreq(self.side), indexing="ij")
        frequency = np.hypot(y, x)
        use = (frequency > 2.5 / self.side) & (frequency < 0.5) & ~((x == 0) & (y < 0))
        self.pieces, self.y, self.x, frequency = logs[:, use], y[use], x[use], frequency[use]
        turn, fall = np.arctan2(self.y, self.x), np.log(frequency / 0.1)
        # A natural spectrum: its height, its fall, and what upright and level edges add by direction.
        columns = [np.ones_like(fall), fall, np.cos(2 * turn), np.sin(2 * turn), np.cos(4 * turn)]
        self.natural = np.stack(columns, axis=1)
        self.middle = np.abs(fall) < 0.2
        self._average(self.pieces)
        self.some = np.arange(0, len(fall), max(1, round(len(fall) / POINTS)))

    def _average(self, pieces: Array) -> None:
        self.logs = pieces.mean(axis=0)
        self.expected = np.array([self.logs[self.middle].mean(), NATURAL, 0, 0, 0])
        self.floor = float(np.quantile(self.logs, 0.02))

    def quarters(self) -> "Iterable[_Spectrum]":
        """The spectra of four parts of the picture, from its top to its bottom; of fewer where it is small."""
        for pieces in np.array_split(self.pieces, min(4, len(self.pieces))):
            part = copy(self)
            part._average(pieces)
            yield part

    def gain(self, transfer: Callable[..., Array], *parameters: float) -> float:
        """How much better this blur explains the spectrum than none does, as a log."""
        return float(np.log(self.fit(_sharp)[0] / self.fit(transfer, *parameters)[0]))

    def fit(self, transfer: Callable[..., Array], *parameters: float) -> tuple[float, Array]:
        """The misfit of one blur, and the natural spectrum's height, fall and directions, then the floor."""
        (misfit,), (found,) = self.fit_all(transfer, [parameters])
        return float(misfit), found

    def fit_all(
        self, transfer: Callable[..., Array], candidates: Sequence[tuple[float, ...]], *, quick: bool = False
    ) -> tuple[Array, Array]:
        """Misfits (n,) of n candidates' parameters, and what `fit` finds beside them, (n, 6).

        A misfit is the mean squared residual of the log spectrum with the best natural spectrum and floor for a blur:
        Gauss-Newton on log(natural · transfer + floor), for all candidates at once; `quick`: on some frequencies, with
        fewer steps.
        """
        chosen = self.some if quick else slice(None)
        logs, natural, y, x = self.logs[chosen], self.natural[chosen], self.y[chosen], self.x[chosen]
        passed = np.log(np.stack([transfer(y, x, *parameters) for parameters in candidates]) + LEAK)
        columns = natural.shape[1]
        squares = (natural[:, :, None] * natural[:, None]).reshape(len(logs), -1)
        tied = np.array([0, *[0.02] * (columns - 1), 0.5 / len(logs)])
        expected = np.append(self.expected, self.floor)
        found = np.tile(expected, (len(passed), 1))
        normal = np.empty((len(passed), columns + 1, columns + 1))
        for step in range(4 if quick else 6):
            light = np.exp(np.clip(found[:, :-1] @ natural.T + passed, -60, 30))
            both = light + np.exp(found[:, -1:])
            rest = logs - np.log(both)
            if step == (3 if quick else 5):
                break
            share = light / both  # slopes of the log are share · natural, and 1 - share for the floor
            normal[:, :-1, :-1] = (np.square(share) @ squares).reshape(-1, columns, columns)
            normal[:, :-1, -1] = normal[:, -1, :-1] = (share * (1 - share)) @ natural
            normal[:, -1, -1] = np.square(1 - share).sum(axis=1)
            towards = np.column_stack([(share * rest) @ natural, ((1 - share) * rest).sum(axis=1)]) / len(logs)
            change = np.linalg.solve(
                normal / len(logs) + np.diag(tied + 1e-9), (towards + tied * (expected - found))[:, :, None]
            )
            found += np.clip(change[:, :, 0], -3, 3)
        return np.square(rest).mean(axis=1) + (tied * np.square(found - expected)).sum(axis=1), found

    def best(
        self,
        transfer: Callable[..., Array],
        candidates: Sequence[tuple[float, ...]],
        beside: Callable[[tuple[float, ...]], list[tuple[float, ...]]],
    ) -> tuple[float, tuple[float, ...]]:
        """The least misfit and its parameters: all candidates quickly, then the best three and what is beside them."""

        def ranked(tried: Sequence[tuple[float, ...]], *, quick: bool = False) -> list[tuple[float, tuple[float, ...]]]:
            parts = [tried[first : first + TOGETHER] for first in range(0, len(tried), TOGETHER)]
            misfits = [float(misfit) for part in parts for misfit in self.fit_all(transfer, part, quick=quick)[0]]
            return sorted(zip(misfits, tried, strict=True))

        best = ranked([parameters for _, parameters in ranked(candidates, quick=True)[:3]])[0]
        return min([best, *ranked(beside(best[1]))])


def _textured(plane: Image, side: int) -> Array:
    """The pieces with the steepest gradients, at most half of all, in their order: (h, w) -> (n, side, side)."""
    height, width = plane.shape
    starts = [
        np.unique(np.linspace(0, length - side, min(ACROSS, 2 * (length // side))).astype(int))
        if length > side
        else np.array([0])
        for length in (height, width)
    ]
    tiles = np.stack([plane[y : y + side, x : x + side] for y in starts[0] for x in starts[1]])
    gradient = np.abs(np.diff(tiles, axis=1)).mean(axis=(1, 2)) + np.abs(np.diff(tiles, axis=2)).mean(axis=(1, 2))
    keep = max(min(4, len(tiles)), min(TILES, (len(tiles) + 1) // 2))
    return tiles[np.sort(np.argsort(-gradient, kind="stable")[:keep])].astype(np.float64)
