"""One decoded picture through one network, whatever their channels: the step that restoring is made of.

    clean = restore_pixels(restorer, picture.pixels)                    # (h, w, 1 or 3) -> the same shape

Gray pictures and colour weights, colour pictures and gray weights, two views for dual-pixel weights,
self-ensemble and strength are all settled here, so that photographs and video frames are treated alike.
"""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from typing import Any

import numpy as np

from restormer_cli.engine.positions import Position
from restormer_cli.engine.progress import Progress
from restormer_cli.engine.restorer import Restorer
from restormer_cli.errors import Failed, UserError
from restormer_cli.hardware import is_out_of_memory, lacks_compiler
from restormer_cli.pixels import LUMA

Network = Callable[[list[np.ndarray]], list[np.ndarray]]
"""Pictures of one shape -> their answers."""


def restore_pixels(
    restorer: Restorer,
    pixels: np.ndarray,
    right: np.ndarray | None = None,
    *,
    strength: float = 1.0,
    ensemble: bool = False,
    notice: Callable[[str], None] | None = None,
    progress: Progress | None = None,
) -> np.ndarray:
    """float32 (h, w, 1 or 3) in [0, 1] -> the restored picture, the same shape, not clamped.

    right: the second view, of the same shape, for dual-pixel weights and only for them.
    strength: 0 gives the input back bit for bit, 1 the network's answer, between them a blend.
    ensemble: average over the turned and mirrored picture, 8 ways (4 with two views, or by weights that only know rain
        that falls), at 8 (4) times the cost.
    notice: called with what people should know, each a short sentence. progress: called with the share that is done,
        from 0 to 1, in this thread.

    Raises UserError for channels that do not fit, Failed for lack of memory or a result that is not finite; the
    messages do not name the picture.
    """
    check_views(restorer, pixels, right)
    if strength == 0:
        return pixels
    if right is None and pixels.shape[2] == 3 and _is_gray(pixels):  # or its answer would have faint colours
        options: dict[str, Any] = {"strength": strength, "ensemble": ensemble, "notice": notice, "progress": progress}
        return np.repeat(restore_pixels(restorer, pixels[..., :1], **options), 3, axis=2)
    done, times = 0, (4 if right is not None else len(restorer.positions)) if ensemble else 1

    def network(pictures: list[np.ndarray]) -> list[np.ndarray]:
        nonlocal done
        heard: dict[str, Any] = {} if notice is None else {"notice": notice}
        if progress is not None:
            hear, before, count = progress, done, len(pictures)
            heard["progress"] = lambda share: hear((before + count * share) / times)
        done += len(pictures)
        return restorer.several(pictures, **heard) if len(pictures) > 1 else [restorer(pictures[0], **heard)]

    try:
        at_once = _at_once(restorer, *pixels.shape[:2]) if ensemble else 0
        turned = partial(_turned, positions=restorer.positions) if right is None else _mirrored
        restored = _through(network, restorer.config.in_channels, pixels, right, turned, at_once)
    except (MemoryError, RuntimeError) as error:  # torch raises RuntimeError, on a GPU a kind of it
        if lacks_compiler(error):
            raise Failed("--compile: needs a C++ compiler, and there is none: install g++, or leave it out") from None
        if not is_out_of_memory(error):
            raise
        if not restorer.backend.replans:
            smaller = f"a --tile smaller than {restorer.tile}" if restorer.tile else "--tile 512"
            raise Failed(f"not enough memory: try {smaller}") from None
        raise Failed("not enough memory, not even for small tiles: close other programs, or make it smaller") from None
    if not np.isfinite(restored).all():
        cure = "these weights cannot restore it" if restorer.precision == "fp32" else "try --precision fp32"
        raise Failed(f"the result is not finite: {cure}")
    return restored if strength == 1 else pixels + np.float32(strength) * (restored - pixels)


def _is_gray(pixels: np.ndarray) -> bool:
    """Whether a picture's three channels are equal, as in black and white photographs that are stored as colour."""
    red, green, blue = (pixels[..., channel] for channel in range(3))
    return bool(np.array_equal(red, green) and np.array_equal(green, blue))


def check_views(restorer: Restorer, pixels: np.ndarray, right: np.ndarray | None) -> None:
    """Raises UserError where these weights cannot take this picture, or these two views."""
    takes, has = restorer.config.in_channels, pixels.shape[2]
    if restorer.config.dual_pixel:
        if right is None:
            raise UserError("dual-pixel weights take two views of a scene: name the second by --right")
        if right.shape != pixels.shape:
            (h, w, c), (h2, w2, c2) = pixels.shape, right.shape
            raise UserError(f"its views differ: {w} × {h} × {c} and {w2} × {h2} × {c2}: give two views of one scene")
        if takes == 6 and has in (1, 3):
            return
    elif right is not None:
        raise UserError("these weights take one picture: leave --right out, or use dual-pixel weights")
    elif takes in (1, 3) and has in (1, 3):
        return
    raise UserError(f"has {has} channels, these weights take {takes}: use weights for gray or colour pictures")


def _through(
    network: Network,
    takes: int,
    pixels: np.ndarray,
    right: np.ndarray | None,
    turned: Callable[[Network, np.ndarray, int], np.ndarray],
    at_once: int,
) -> np.ndarray:
    """The network's answer in the picture's own channels; `at_once`: positions of an ensemble, 0 for none."""
    has = pixels.shape[2]

    def answer(picture: np.ndarray) -> np.ndarray:
        if at_once:
            return turned(network, picture, at_once)
        return network([picture])[0]

    if takes == 1 and has == 3:  # the luma is restored, the differences of the colours from it stay
        luma = (pixels @ LUMA)[..., None]
        return pixels + answer(luma) - luma
    if right is not None:
        wide = np.concatenate([np.repeat(view, 3 // has, axis=2) for view in (pixels, right)], axis=2)
    else:
        wide = np.repeat(pixels, takes // has, axis=2) if takes > has else pixels
    restored = answer(wide)
    return restored.mean(axis=2, keepdims=True) if restored.shape[2] > has else restored


def _turned(network: Network, pixels: np.ndarray, at_once: int, positions: tuple[Position, ...]) -> np.ndarray:
    """The mean of the network's answers to the picture in these positions, each turned back: (h, w, c)."""
    total = np.zeros(pixels.shape, np.float32)
    if at_once > 1:  # those of one shape together
        positions = tuple(sorted(positions, key=lambda position: position[1] % 2))
    for group in _groups(positions, min(at_once, 4)):
        there = [np.rot90(pixels[:, ::-1] if mirrored else pixels, quarters).copy() for mirrored, quarters in group]
        for (mirrored, quarters), answer in zip(group, network(there), strict=True):
            back = np.rot90(answer, -quarters)
            total += back[:, ::-1] if mirrored else back
    return total / len(positions)


def _mirrored(network: Network, views: np.ndarray, at_once: int) -> np.ndarray:
    """As `_turned`, for a left and a right view, (h, w, 6) -> (h, w, 3).

    The views differ horizontally, so a quarter turn would show the network what it has never seen, and a mirrored
    left view is a right one.
    """
    swapped = np.concatenate([views[..., 3:], views[..., :3]], axis=2)
    total = np.zeros((*views.shape[:2], 3), np.float32)
    for group in _groups(list(product((1, -1), (1, -1))), at_once):
        there = [(views if across == 1 else swapped)[::down, ::across].copy() for down, across in group]
        for (down, across), answer in zip(group, network(there), strict=True):
            total += answer[::down, ::across]
    return total / 4


def _at_once(restorer: Restorer, height: int, width: int) -> int:
    """How many positions of a picture the network is given at once: of one in tiles, whose tiles go together, one."""
    plan = restorer.plan(height, width)
    return plan.together if plan.tile is None else 1


def _groups(positions: Sequence[tuple[Any, int]], size: int) -> list[list[tuple[Any, int]]]:
    return [list(positions[begin : begin + size]) for begin in range(0, len(positions), size)]
