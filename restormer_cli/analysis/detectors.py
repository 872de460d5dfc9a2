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
        "strength": 3.09,
        "correlation": -4.48,
        "floor": -1.03,
        "misfit": 2.09,
        "coupling": -1.63,
        "coupled correlation": -4.51,
    },
    3.39,
)
DISC = Detector({"disc": 1.38, "disc alone": 6.24, "sharpest": -5.35, "sharpest place": -1.67, "radius": 3.17}, 9.5)
LINE = Detector({"line": 1.26, "line alone": 2.43, "bluntest": -6.53, "length": 0.127, "everywhere": 3.28}, 11.1)
SHAKE = Detector(
    {
        "misfit": 2.43,
        "line": 2.8,
        "slope": 0.759,
        "direction": 0.362,
        "bluntest": -4.12,
        "sharpest": -7.76,
        "sharpest place": -3.04,
    },
    6.62,
)
RAIN = Detector(
    {"bias": 0.826, "peak": 9.67, "colour": 0.325, "low": -0.153, "agreement": 6.26, "height": 0.953, "contrast": 1.79},
    10.4,
)
