#!/usr/bin/env python3
"""Teach `--task auto` when to be sure: the weights and thresholds of restormer_cli/analysis/detectors.py.

    python scripts/results/thresholds.py datasets/sharp/train datasets/photographs/train --json signs.json

Training photographs only, in an order by chance (--pictures takes the first of them): each is looked at clean, as a
JPEG, in two of the first eight other WAYS of choices.py by turns, and under streaks; every fourth with noise in two
more ways. A logistic regression on standardised signs tells each defect from clean pictures, what TRIAL asks for from
all that show no rain; a sign counts in its own direction or not at all. The threshold is set on scores of photographs
that the regression has not seen (five parts by file name): the one that costs least, where a picture without the defect
that is changed counts as much as COST degraded ones that are left alone. choices.py then judges on photographs that
took no part. About 7 s a photograph on one core; with --json FILE it may be interrupted and repeated.
"""

import argparse
import json
import random
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from choices import WAYS, centre
from scipy.optimize import minimize

from restormer_cli.analysis.blur import NOTABLE, estimate_blur
from restormer_cli.analysis.decision import BLURRED, FAINT, MOVED, NOISY
from restormer_cli.analysis.noise import estimate_noise
from restormer_cli.analysis.traces import estimate_rain
from restormer_cli.analysis.trial import try_derainer
from restormer_cli.commands.restore.trial import derained
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.images.io import read_picture

COST = 30
"""Degraded pictures that may be left alone for each clean one that is not changed, both as shares of their kind."""
MARGIN = 0.5
"""Added to each threshold: the highest scores of other clean pictures will be a little higher."""
TIED = 1e-3
"""Weight of the squared, standardised weights in the regression."""
SEED = 1
"""choices.py judges with 0."""
MORE_NOISE = (
    ("noise in a coarse JPEG", "gaussian:8-30+jpeg:80-95,subsampling=420"),
    ("gray noise", "gaussian:5-30+round8"),
)
STREAKS = tuple((way, spec) for way, _, spec in WAYS if way == "streaks")
NOISE = ("white noise", "shot and read noise", "noise in a JPEG", *(way for way, _ in MORE_NOISE))
DETECTORS = {
    "NOISE": (
        "noise",
        {"strength": 1, "correlation": -1, "floor": -1, "misfit": -1, "coupling": -1, "coupled correlation": -1},
        NOISE,
    ),
    "DISC": (
        "blur",
        {"disc": 1, "disc alone": 1, "sharpest": -1, "sharpest place": -1, "radius": 1},
        ("out of focus",),
    ),
    "LINE": ("blur", {"line": 1, "line alone": 1, "bluntest": -1, "length": 1, "everywhere": 1}, ("moved",)),
    "SHAKE": (
        "blur",
        {"misfit": 1, "line": 1, "slope": -1, "direction": 1, "bluntest": -1, "sharpest": -1, "sharpest place": -1},
        ("shaken",),
    ),
    "RAIN": (
        "rain",
        {"bias": 1, "peak": 1, "colour": 1, "low": 1, "agreement": 1, "height": 1, "contrast": 1},
        ("soft rain", "even rain"),
    ),
    "TRIAL": ("trial", {"change": 1, "darker": 1}, ("soft rain", "even rain", "streaks")),
}
"""Which estimate; its signs, each with the direction in which it speaks for the defect; the ways that show it."""
CLEAN = ("clean", "clean JPEG")
NO_RAIN = tuple(way for way, right, _ in WAYS if right != "derain")
ASKED = {
    "NOISE": lambda signs: signs["strength"] >= np.log(NOISY + 0.3),
    "DISC": lambda signs: signs["disc alone"] > 0 and signs["radius"] >= np.log(BLURRED),
    "LINE": lambda signs: signs["line alone"] > 0 and signs["length"] >= np.log(MOVED),
    "SHAKE": lambda signs: max(signs["soft"], signs["disc"], signs["line"]) < NOTABLE,
    "RAIN": lambda signs: True,
    "TRIAL": lambda signs: signs["change"] >= np.log(FAINT),
}
"""Whether decision.py asks the detector at all."""
ESTIMATES = {
    "noise": estimate_noise,
    "blur": estimate_blur,
    "rain": estimate_rain,
    "trial": lambda pixels: try_derainer(pixels, derained),
}
"""What is estimated of a picture, each with `signs`."""


def collect(paths: list[Path], side: int, file: Path | None, only: str | None) -> list[dict]:
    """The signs of every photograph in its ways; `only`: of one estimate."""
    records = json.loads(file.read_text(encoding="utf-8")) if file and file.exists() else []
    known = {(record["picture"], record["way"]) for record in records}
    for number, path in enumerate(paths):
        turn = number // 2
        chosen = [WAYS[0], WAYS[1], WAYS[2 + turn % 8], WAYS[2 + (turn + turn // 8 + 3) % 8]]
        ways = {way: spec for way, _, spec in chosen} | dict(STREAKS) | (dict(MORE_NOISE) if number % 4 == 0 else {})
        missing = {way: spec for way, spec in ways.items() if (path.name, way) not in known}
        if not missing:
            continue
        clean = centre(read_picture(path).pixels, side)
        for way, spec in missing.items():
            before = clean.mean(axis=2, keepdims=True) if way == "gray noise" else clean
            pixels = parse_degradation(spec).of_file(before, f"{way} {path.name}", SEED)
            asked = ("noise",) if way in dict(MORE_NOISE) else ("trial",) if way in dict(STREAKS) else tuple(ESTIMATES)
            signs = {name: ESTIMATES[name](pixels).signs for name in asked if only in (None, name)}
            records.append({"picture": path.name, "way": way, "signs": signs})
        print(f"{number + 1} of {len(paths)}: {path.name}", file=sys.stderr)
        if file:
            file.write_text(json.dumps(records) + "\n", encoding="utf-8")
    return records


def regression(signs: np.ndarray, defect: np.ndarray, directions: Sequence[int]) -> np.ndarray:
    """Weights of the signs (n, k), and last the constant: logistic, both kinds counting the same.

    A weight of the wrong direction is chance: it is held at 0.
    """
    middle, spread = signs.mean(axis=0), signs.std(axis=0) + 1e-9
    scaled = np.column_stack([(signs - middle) / spread, np.ones(len(signs))])
    share = np.where(defect, 0.5 / defect.mean(), 0.5 / (1 - defect.mean()))
    sign = np.where(defect, 1, -1)

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        by = sign * (scaled @ weights)
        tied = np.append(weights[:-1], 0)
        slope = -scaled.T @ (share * sign / (1 + np.exp(np.clip(by, -50, 50)))) / len(by)
        return float((share * np.logaddexp(0, -by)).mean() + TIED * tied @ tied), slope + 2 * TIED * tied

    bounds = [(0, None) if direction > 0 else (None, 0) for direction in directions] + [(None, None)]
    found = minimize(loss, np.zeros(scaled.shape[1]), jac=True, method="L-BFGS-B", bounds=bounds).x
    weights = found[:-1] / spread
    return np.append(weights, found[-1] - weights @ middle)


def threshold(scores: np.ndarray, defect: np.ndarray) -> float:
    """The cheapest; midway between the scores that it parts."""
    ordered = np.sort(scores)
    candidates = np.append((ordered[1:] + ordered[:-1]) / 2, ordered[-1] + 1)
    costs = [COST * (scores[~defect] > at).mean() + (scores[defect] <= at).mean() for at in candidates]
    cheapest = candidates[np.array(costs) <= min(costs) + 1e-12]
    return float(cheapest[len(cheapest) // 2])


def teach(name: str, records: list[dict]) -> None:
    """Print one detector."""
    estimate, signs, ways = DETECTORS[name]
    without = NO_RAIN if name == "TRIAL" else CLEAN
    used = [r for r in records if r["way"] in (*without, *ways) and r["signs"].get(estimate)]
    values = np.array([[record["signs"][estimate][sign] for sign in signs] for record in used])
    defect = np.array([record["way"] in ways for record in used])
    part = np.array([zlib.crc32(record["picture"].encode()) % 5 for record in used])
    scores, directions = np.empty(len(used)), list(signs.values())
    for each in range(5):
        weights = regression(values[part != each], defect[part != each], directions)
        scores[part == each] = values[part == each] @ weights[:-1] + weights[-1]
    asked = np.array([ASKED[name](record["signs"][estimate]) for record in used])
    scores[~asked] = -99
    at = threshold(scores, defect) + MARGIN
    weights = regression(values, defect, directions)
    table = ", ".join(f'"{sign}": {weight:.3g}' for sign, weight in zip(signs, weights[:-1], strict=True))
    print(f"{name} = Detector({{{table}}}, {at - weights[-1]:.3g})")
    passed, caught = scores[~defect] > at, scores[defect] > at
    print(f"# unseen: {passed.sum()} of {len(passed)} without it pass, {caught.sum()} of {len(caught)} are caught")
    for score, record in sorted(zip(scores[~defect] - at, np.array(used)[~defect], strict=True), key=lambda x: -x[0])[
        :4
    ]:
        print(f"#   {score:+.2f} {record['picture']}, {record['way']}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--pictures", type=int)
    parser.add_argument("--side", type=int, default=768)
    parser.add_argument("--only", choices=DETECTORS, help="one detector alone, with a --json of its own")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    paths = [path for folder in options.folders for path in sorted(folder.glob("*.png"))]
    if not paths:
        sys.exit(f"{options.folders[0]}: no photographs; prepare them with python scripts/photographs.py")
    random.Random(0).shuffle(paths)
    only = DETECTORS[options.only][0] if options.only else None
    records = collect(paths[: options.pictures], options.side, options.json, only)
    for name in [options.only] if options.only else DETECTORS:
        teach(name, records)


if __name__ == "__main__":
    main()
