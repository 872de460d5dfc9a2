"""Pictures through methods, scored by a protocol."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from restormer_cli.benchmark.classical import METHODS, hints_for, tune
from restormer_cli.benchmark.methods import Method, Restore, prepare, prepare_network
from restormer_cli.benchmark.networks import Network
from restormer_cli.benchmark.peers import is_peer
from restormer_cli.data.pairs import Pair
from restormer_cli.degradations.operators import published_gaussian
from restormer_cli.degradations.spec import Degradation
from restormer_cli.engine.adapter import restore_pixels
from restormer_cli.errors import Failed, RestormerError, UserError, one_line
from restormer_cli.images.io import read_picture
from restormer_cli.metrics.perceptual import Perceptual
from restormer_cli.metrics.protocols import Protocol, Scores
from restormer_cli.pixels import round8

TUNING_SIDE, TUNING_PICTURES = 128, 6
WARM_UP_SIDE = 64


@dataclass(frozen=True)
class Source:
    """Where samples come from and what is done to them before anybody sees them."""

    samples: tuple[Pair, ...]
    degradation: Degradation | None = None
    crop: int | None = None
    """Side of the centre crop, cut before degrading; None: whole pictures."""
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Views:
    """The same picture three times, uint8 (h, w, c)."""

    degraded: np.ndarray
    restored: np.ndarray
    clean: np.ndarray


@dataclass(frozen=True)
class ImageScore:
    """One picture by one method; no method: the degraded picture itself."""

    sample: Pair
    method: Method | None
    height: int
    width: int
    scores: Scores | None = None
    perceptual: tuple[tuple[str, float], ...] = ()
    seconds: float | None = None
    views: Views | None = None
    error: str | None = None


@dataclass(frozen=True)
class Tuning:
    """A classical method is being tuned."""

    method: Method


def load(source: Source, sample: Pair) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """Degraded and clean picture, float32 (h, w, c), and the second view where there is one. Raises UserError."""
    clean = read_picture(sample.clean).pixels
    others = [read_picture(path).pixels for path in (sample.degraded, sample.right) if path is not None]
    for path, other in zip((sample.degraded, sample.right), others, strict=False):
        if other.shape != clean.shape:
            (h, w, c), (h2, w2, c2) = clean.shape, other.shape
            raise UserError(
                f"{one_line(str(path))}: {w2}×{h2}×{c2}, but its clean partner is {w}×{h}×{c}: "
                "pairs must be of one size"
            )
    clean, *others = (centre(picture, source.crop) for picture in (clean, *others))
    if sample.degraded is None:
        assert source.degradation is not None
        degraded, clean = degrade(clean, source.degradation, sample.clean.name, source.seed)
        others.insert(0, degraded)
    return others[0], clean, others[1] if len(others) > 1 else None


def degrade(clean: np.ndarray, degradation: Degradation, name: str, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The degraded picture, and the clean one that is to be found in it (`Degradation.pair`).

    Gaussian noise of a fixed σ as published; anything else by a generator of its own, seeded by the file's
    name as in `restore --degrade`, so that it does not depend on the other pictures.
    """
    sigma = published_sigma(degradation)
    if sigma is not None:
        return published_gaussian(clean, sigma, seed), clean
    return degradation.pair_of_file(clean, name, seed)


def published_sigma(degradation: Degradation | None) -> float | None:
    """σ / 255, where the degradation is the published protocol's: Gaussian noise of one σ and nothing else."""
    if degradation is None or len(degradation.steps) != 1:
        return None
    (step,) = degradation.steps
    operation, *others = step.choices
    if others or step.probability < 1 or operation.kind != "gaussian":
        return None
    (span,) = operation.values
    return span.lo if span.lo == span.hi else None


def centre(picture: np.ndarray, side: int | None) -> np.ndarray:
    """The centre crop of at most side × side pixels: (h, w, c) -> (≤ side, ≤ side, c)."""
    if side is None:
        return picture
    height, width = picture.shape[:2]
    top, left = max(0, (height - side) // 2), max(0, (width - side) // 2)
    return np.ascontiguousarray(picture[top : top + side, left : left + side])


def evaluate(
    methods: Sequence[Method],
    network: Network,
    source: Source,
    protocol: Protocol,
    *,
    threads: int,
    onnx: Path | None = None,
    perceptual: Perceptual | None = None,
    keep_views: bool = False,
) -> Iterator[Tuning | ImageScore]:
    """Yields, per picture, its own score and each method's, in turn; a picture that cannot be read is told, and
    the others go on. With `keep_views` the first method's pictures come along."""
    torch.set_num_threads(threads)
    tuned = []
    for method in methods:
        if method.classical:
            yield Tuning(method)
            method = tune_method(method, source, protocol)
        elif is_peer(method.kind):
            method = replace(method, hints=hints_for(source.degradation, [d for d, _ in _few(source)]))
        tuned.append(method)
    runs = [(method, _runner(method, network, threads, onnx)) for method in tuned]
    warm: set[tuple[Method, tuple[int, ...]]] = set()
    for sample in source.samples:
        try:
            degraded, clean, right = load(source, sample)
        except RestormerError as error:
            yield ImageScore(sample, None, 0, 0, error=str(error))
            continue
        measure = partial(_measure, protocol, perceptual, clean)
        height, width = clean.shape[:2]
        yield ImageScore(sample, None, height, width, *measure(degraded))
        for index, (method, run) in enumerate(runs):
            try:
                # What compiles for a shape does so on first sight of it; the others warm up once.
                key = (method, clean.shape if method.kind == "compile" else ())
                if key not in warm:
                    warm.add(key)
                    side = None if method.kind == "compile" else WARM_UP_SIDE
                    run(centre(degraded, side), None if right is None else centre(right, side))
                begun = time.perf_counter()
                restored = run(degraded, right)
                seconds = time.perf_counter() - begun
            except RestormerError as error:
                yield ImageScore(sample, method, height, width, error=f"{one_line(str(sample.clean))}: {error}")
                continue
            views = Views(*map(round8, (degraded, restored, clean))) if keep_views and index == 0 else None
            yield ImageScore(sample, method, height, width, *measure(restored), seconds=seconds, views=views)


def _measure(
    protocol: Protocol, perceptual: Perceptual | None, clean: np.ndarray, result: np.ndarray
) -> tuple[Scores, tuple[tuple[str, float], ...]]:
    return protocol.score(result, clean), () if perceptual is None else perceptual(result, clean)


def tune_method(method: Method, source: Source, protocol: Protocol) -> Method:
    """A classical method, told what can be known, with the strength that is given, or else the best one for crops of
    these very pictures."""
    pairs = _few(source)
    hints = hints_for(source.degradation, [degraded for degraded, _ in pairs])
    METHODS[method.kind].prepare(hints)  # refuses what it cannot do
    if method.strength is not None or not pairs:
        return replace(method, hints=replace(hints, strength=method.strength))

    def score(result: np.ndarray, clean: np.ndarray) -> float:
        return protocol.score(result.astype(np.float32), clean).psnr

    strength, _ = tune(method.kind, hints, pairs, score)
    return replace(method, hints=replace(hints, strength=strength))


def _few(source: Source) -> list[tuple[np.ndarray, np.ndarray]]:
    """(degraded, clean) crops of a few of the pictures."""
    step = max(1, len(source.samples) // TUNING_PICTURES)
    pairs = []
    for sample in source.samples[::step][:TUNING_PICTURES]:
        try:
            degraded, clean, _ = load(source, sample)
        except RestormerError:
            continue  # told when its turn comes
        pairs.append((centre(degraded, TUNING_SIDE), centre(clean, TUNING_SIDE)))
    return pairs


def _runner(method: Method, network: Network, threads: int, onnx: Path | None) -> Any:
    """(degraded, right or None) -> restored: channels are matched as in `restore`."""
    if method.classical or is_peer(method.kind):
        return partial(_classical, method.kind, prepare(method, network, threads, onnx))
    restorer = prepare_network(method, network, threads, onnx)

    def restore(degraded: np.ndarray, right: np.ndarray | None) -> np.ndarray:
        try:
            return restore_pixels(restorer, degraded, right)
        except Failed as error:
            raise Failed(f"{method.name}: {error}") from None

    return restore


def _classical(kind: str, run: Restore, degraded: np.ndarray, right: np.ndarray | None) -> np.ndarray:
    try:
        return run(degraded)
    except (ValueError, ArithmeticError, MemoryError) as error:  # a picture that the method is not made for
        raise Failed(f"{kind}: {one_line(str(error))}") from None
