"""How sure a defect is: signs weighed by what photographs of the training sets taught.

Each detector is a logistic regression on standardised signs, told in the signs' own units. Weights and thresholds are
what `python scripts/results/thresholds.py datasets/sharp/train datasets/photographs/train` prints; no photograph that
judges has been seen by it.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Detector:
    """Weights of signs, and the weighed sum from which the defect is sure."""

    weights: Mapping[str, float]
    threshold: float

    def score(self, signs: Mapping[str, float]) -> float:
        """Above 0: sure; 1 more is e times the odds."""
        return sum(weight * signs[name] for name, weight in self.weights.items()) - self.threshold


NOISE = Detector(
    {
        "strength": 3.06,
        "correlation": -4.22,
        "floor": -0.899,
        "misfit": 0,
        "coupling": -1.63,
        "coupled correlation": -4.13,
    },
    2.95,
)
DISC = Detector({"disc": 1.38, "disc alone": 6.24, "sharpest": -5.35, "sharpest place": -1.67, "radius": 3.17}, 9.5)
LINE = Detector({"line": 1.26, "line alone": 2.43, "bluntest": -6.53, "length": 0.128, "everywhere": 3.28}, 11.1)
SHAKE = Detector(
    {
        "misfit": 2.23,
        "line": 2.91,
        "slope": 0,
        "direction": 0.46,
        "bluntest": -3.44,
        "sharpest": -7.11,
        "sharpest place": -2.83,
    },
    8.36,
)
RAIN = Detector(
    {"bias": 0.708, "peak": 9.72, "colour": 0.309, "low": 0, "agreement": 6.25, "height": 0.942, "contrast": 1.83}, 10.4
)
TRIAL = Detector({"change": 0.233, "darker": 16.7}, 14.4)
