"""Alignment by a homography that maximises the enhanced correlation coefficient (Evangelidis and Psarakis, 2008).

RealBlur's pairs were taken through a beam splitter and do not quite coincide, so its protocol aligns each result
with the sharp picture before the two are compared. Written from the paper's equations: no OpenCV needed.
"""

from dataclasses import dataclass

import numpy as np
from scipy.ndimage import gaussian_filter, map_coordinates

ITERATIONS = 100
BLUR = 1.1
"""Standard deviation of the blur that both pictures get while they are aligned: a 5×5 Gaussian's."""

SMALLEST = 8
"""Pictures with a side of fewer pixels are left where they are."""


@dataclass(frozen=True, eq=False)
class Aligned:
    """A picture moved onto another: pixels (h, w, c), where they are valid (h, w), and how (3, 3)."""

    pixels: np.ndarray
    mask: np.ndarray
    homography: np.ndarray


def align(picture: np.ndarray, target: np.ndarray) -> Aligned:
    """Move `picture` (h, w, c), floats, onto `target` of the same shape: cubic interpolation, mirrored border.

    The mask is what came from inside the picture. Where the correlation has nothing to hold on to (a flat picture)
    nothing is moved.
    """
    homography = find_homography(picture.mean(axis=2), target.mean(axis=2))
    if np.array_equal(homography, np.eye(3)):
        return Aligned(picture, np.ones(picture.shape[:2], bool), homography)
    rows, columns = _places(homography, *picture.shape[:2])
    moved = [map_coordinates(picture[..., c], (rows, columns), order=3, mode="mirror") for c in range(picture.shape[2])]
    return Aligned(np.stack(moved, axis=-1), _inside(rows, columns, *picture.shape[:2]), homography)


def find_homography(picture: np.ndarray, target: np.ndarray, iterations: int = ITERATIONS) -> np.ndarray:
    """The homography (3, 3) by which target coordinates (x, y, 1) are looked up in `picture`, both (h, w)."""
    if min(picture.shape) < SMALLEST:
        return np.eye(3)
    picture, target = (gaussian_filter(plane.astype(np.float64), BLUR, mode="nearest") for plane in (picture, target))
    down, across = np.gradient(picture)
    homography, best = np.eye(3), -np.inf
    current = homography
    for _ in range(iterations):
        rows, columns = _places(current, *target.shape)
        inside = _inside(rows, columns, *target.shape)
        if inside.sum() < SMALLEST**2:
            break
        places = (rows[inside], columns[inside])
        warped, slope_y, slope_x = (map_coordinates(plane, places, order=1) for plane in (picture, down, across))
        ours, theirs = warped - warped.mean(), target[inside] - target[inside].mean()
        size = np.sqrt((ours @ ours) * (theirs @ theirs))
        if size < 1e-12:
            break
        correlation = float(ours @ theirs / size)
        if correlation > best:
            homography = current
        if abs(correlation - best) < 1e-9:
            break
        best = max(best, correlation)
        step = _step(_steepest(current, inside, slope_x, slope_y), ours, theirs)
        if step is None:
            break
        current = current + np.append(step, 0.0).reshape(3, 3)
    return homography


def _step(slopes: np.ndarray, ours: np.ndarray, theirs: np.ndarray) -> np.ndarray | None:
    """The change of the eight parameters (equations 16 to 20 of the paper); None where it is undetermined."""
    try:
        inverse = np.linalg.inv(slopes.T @ slopes)
    except np.linalg.LinAlgError:
        return None
    on_ours, on_theirs = slopes.T @ ours, slopes.T @ theirs
    above = ours @ ours - on_ours @ inverse @ on_ours
    below = ours @ theirs - on_theirs @ inverse @ on_ours
    if below <= 0:
        return None
    return inverse @ (slopes.T @ (above / below * theirs - ours))


def _steepest(homography: np.ndarray, inside: np.ndarray, slope_x: np.ndarray, slope_y: np.ndarray) -> np.ndarray:
    """How the warped picture changes with each of the eight parameters: (pixels, 8)."""
    y, x = (axis.astype(np.float64) for axis in np.nonzero(inside))
    across, down, depth = homography @ np.stack([x, y, np.ones_like(x)])
    to_x, to_y = slope_x / depth, slope_y / depth
    back = -(to_x * across + to_y * down) / depth
    return np.stack([to_x * x, to_x * y, to_x, to_y * x, to_y * y, to_y, back * x, back * y], axis=1)


def _places(homography: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Where each target pixel is found: rows and columns, (h, w) each."""
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    across, down, depth = np.tensordot(homography, np.stack([x, y, np.ones_like(x)]), axes=1)
    return down / depth, across / depth


def _inside(rows: np.ndarray, columns: np.ndarray, height: int, width: int) -> np.ndarray:
    return (rows >= 0) & (rows <= height - 1) & (columns >= 0) & (columns <= width - 1)
