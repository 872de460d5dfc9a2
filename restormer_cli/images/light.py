"""What light is and how signals stand for it: transfer curves, primaries and white points by ITU-T H.273's numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

Numbers = np.ndarray
Point = tuple[float, float]

D65: Point = (0.3127, 0.3290)
SRGB_POINTS = ((0.64, 0.33), (0.30, 0.60), (0.15, 0.06))
PRIMARIES: dict[int, tuple[Sequence[Point], Point]] = {
    1: (SRGB_POINTS, D65),
    5: (((0.64, 0.33), (0.29, 0.60), (0.15, 0.06)), D65),
    6: (((0.63, 0.34), (0.31, 0.595), (0.155, 0.07)), D65),
    9: (((0.708, 0.292), (0.170, 0.797), (0.131, 0.046)), D65),
    11: (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.314, 0.351)),
    12: (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), D65),
}
"""Red, green, blue and white by ITU-T H.273's numbers."""
WHITE_NITS = 203.0
"""Of a sheet of paper in PQ, and in HLG the signal 0.75 (ITU-R BT.2408)."""
BRADFORD = np.array([[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]])
D50_XYZ = np.array([0.9642, 1.0, 0.8249])


@dataclass(frozen=True, eq=False)
class Curve:
    """A transfer: signal -> light where white is 1, and back; both odd around zero, and going on beyond one."""

    light: Callable[[Numbers], Numbers]
    signal: Callable[[Numbers], Numbers]


def gamma_curve(gamma: float) -> Curve:
    return Curve(lambda v: v**gamma, lambda v: v ** (1 / gamma))


SRGB = Curve(
    lambda v: np.where(v <= 0.04045, v / 12.92, ((v + 0.055) / 1.055) ** 2.4),
    lambda v: np.where(v <= 0.0031308, v * 12.92, 1.055 * np.maximum(v, 1e-9) ** (1 / 2.4) - 0.055),
)
LINEAR = Curve(lambda v: v, lambda v: v)
_M1, _M2, _C1, _C2, _C3 = 2610 / 16384, 2523 / 32, 3424 / 4096, 2413 / 128, 2392 / 128


def _pq_light(v: Numbers) -> Numbers:
    """SMPTE ST 2084, in units of a sheet of paper."""
    power = np.minimum(v, 1) ** (1 / _M2)
    return 10_000 / WHITE_NITS * (np.maximum(power - _C1, 0) / (_C2 - _C3 * power)) ** (1 / _M1)


def _pq_signal(light: Numbers) -> Numbers:
    power = np.clip(light * (WHITE_NITS / 10_000), 0, 1) ** _M1
    return ((_C1 + _C2 * power) / (1 + _C3 * power)) ** _M2


_A, _B, _C = 0.17883277, 0.28466892, 0.55991073


def _hlg_scene(v: Numbers) -> Numbers:
    return np.where(v <= 0.5, v * v / 3, (np.exp((np.maximum(v, 0.5) - _C) / _A) + _B) / 12)


HLG_WHITE = float(_hlg_scene(np.array([0.75]))[0])
"""Light of the scene at a sheet of paper, where the most that HLG holds is 1."""


def _hlg_signal(light: Numbers) -> Numbers:
    scene = light * HLG_WHITE
    return np.where(scene <= 1 / 12, np.sqrt(3 * scene), _A * np.log(np.maximum(12 * scene, 1) - _B) + _C)


PQ = Curve(_pq_light, _pq_signal)
HLG = Curve(lambda v: _hlg_scene(v) / HLG_WHITE, _hlg_signal)
BY_CODE = {4: gamma_curve(2.2), 5: gamma_curve(2.8), 8: LINEAR, 13: SRGB, 16: PQ, 18: HLG}
HDR = (16, 18)
"""PQ and HLG, by H.273's numbers."""
VIDEO = (1, 6, 14, 15)
"""H.273's numbers for what cameras of films write and screens show as they show sRGB."""


def of_points(points: Sequence[Point], white: Point) -> np.ndarray:
    """Linear light of these primaries -> sRGB's, 3 × 3, with white staying white."""
    return np.linalg.inv(to_xyz_d50(SRGB_POINTS, D65)) @ to_xyz_d50(points, white)


def to_xyz_d50(points: Sequence[Point], white: Point) -> np.ndarray:
    """Linear light -> XYZ under D50."""
    cones = (BRADFORD @ D50_XYZ) / (BRADFORD @ _xyz(white))
    return np.linalg.inv(BRADFORD) @ np.diag(cones) @ BRADFORD @ _lights(points, white)


def to_xyz_d65(points: Sequence[Point]) -> np.ndarray:
    """Linear light of primaries with a white of D65 -> XYZ under D65."""
    return _lights(points, D65)


def _lights(points: Sequence[Point], white: Point) -> np.ndarray:
    columns = np.stack([_xyz(point) for point in points], axis=1)
    return columns * np.linalg.solve(columns, _xyz(white))


def _xyz(point: Point) -> np.ndarray:
    x, y = point
    return np.array([x / y, 1, (1 - x - y) / y])


def curve_both_ways(values: Numbers, *, back: bool = False) -> Numbers:
    """sRGB's numbers -> linear light, or back: float32, of any range and shape."""
    return odd(SRGB.signal if back else SRGB.light, values).astype(np.float32)


def odd(curve: Callable[[Numbers], Numbers], values: Numbers) -> Numbers:
    """A curve for values from 0 on, for those below 0 as well."""
    return np.copysign(curve(np.abs(values)), values)
