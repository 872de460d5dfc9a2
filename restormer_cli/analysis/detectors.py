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
        "strength": 3.01,
        "correlation": -4.88,
        "floor": -0.621,
        "misfit": -0.798,
        "coupling": -1.32,
        "coupled correlation": -3.97,
    },
    2.89,
)
DISC = Detector({"disc": 1.52, "disc alone": 6.25, "sharpest": -4.63, "sharpest place": -1.15, "radius": 2.47}, 9.57)
LINE = Detector({"line": 1.4, "line alone": 1.87, "bluntest": -6.39, "length": 1.01, "everywhere": 2.86}, 11.7)
SHAKE = Detector(
    {
        "misfit": 2.89,
        "line": 3.51,
        "slope": -0.415,
        "direction": -1.25,
        "bluntest": -2.79,
        "sharpest": -11.2,
        "sharpest place": -1.6,
        "contrast": -10.2,
    },
    6.1,
)
RAIN = Detector(
    {"bias": 0.538, "peak": 11.7, "colour": 2.02, "low": 0.911, "agreement": 7.6, "height": 0.983, "contrast": 3.56},
    9.16,
)
