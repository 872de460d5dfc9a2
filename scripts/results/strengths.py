#!/usr/bin/env python3
"""Tune the classical methods of comparisons.toml on training photographs: writes strengths.json beside this file.

    python scripts/results/strengths.py [--photographs datasets/photographs] [--only denoise-25] [--again]

Each method gets the strength with the best mean PSNR over centre crops of a few training photographs, one of each
source in turn: first the best of `benchmark/classical.py`'s list, then a search around it. The validation photographs
take no part. May be interrupted and repeated: what is there is kept.
"""

import argparse
import json
import math
import sys
import tomllib
from collections.abc import Callable
from itertools import chain, zip_longest
from pathlib import Path

import numpy as np

from restormer_cli.benchmark.classical import METHODS, Hints, hints_for
from restormer_cli.benchmark.scoring import centre, degrade
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.files import write_atomically
from restormer_cli.images.io import read_picture
from restormer_cli.metrics.protocols import PROTOCOLS

HERE = Path(__file__).resolve().parent
STRENGTHS = HERE / "strengths.json"
PICTURES, SIDE = 8, 144
WHOLE = ("median", "opening", "richardson-lucy")
"""Methods whose strength is a number of pixels or iterations."""
Pairs = list[tuple[np.ndarray, np.ndarray]]


def read_rows() -> list[dict]:
    """The rows of comparisons.toml."""
    return tomllib.loads((HERE / "comparisons.toml").read_text(encoding="utf-8"))["row"]


def choose(folder: Path) -> list[Path]:
    """Photographs of all sources in turn (a name begins with its package), the middle ones of each first."""
    sources: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*.png")):
        sources.setdefault(path.stem.partition("--")[0], []).append(path)
    if not sources:
        sys.exit(f"{folder}: no photographs; prepare them with python scripts/photographs.py")
    middle = [paths[len(paths) // 2 :] + paths[: len(paths) // 2] for paths in sources.values()]
    return [path for path in chain(*zip_longest(*middle)) if path is not None][:PICTURES]


def make_pairs(spec: str, paths: list[Path]) -> Pairs:
    """(degraded, clean) crops, degraded as `bench` does it."""
    degradation = parse_degradation(spec)
    cleans = [centre(read_picture(path).pixels, SIDE) for path in paths]
    return [degrade(clean, degradation, path.name, 0) for clean, path in zip(cleans, paths, strict=True)]


def tune(name: str, hints: Hints, pairs: Pairs) -> tuple[float, float]:
    """The best strength found and its mean PSNR: the list's best, then between it and its neighbours, twice."""
    method, score = METHODS[name], PROTOCOLS["plain"].score
    known: dict[float, float] = {}

    def mean(strength: float) -> float:
        if strength not in known:
            known[strength] = float(
                np.mean([score(method.run(bad, hints, strength), good).psnr for bad, good in pairs])
            )
        return known[strength]

    for strength in method.grid(hints):
        mean(strength)
    best = _refine(known, mean, whole=name in WHOLE, odd=name in ("median", "opening"))
    return best, known[best]


def _refine(known: dict[float, float], mean: Callable[[float], float], *, whole: bool, odd: bool) -> float:
    for _ in range(2):
        best = max(known, key=known.__getitem__)
        below, above = max((s for s in known if s < best), default=0), min((s for s in known if s > best), default=0)
        # Between the best and its neighbours; at an end of the list, beyond it.
        for strength in (
            math.sqrt(best * below) if below else best / 2,
            math.sqrt(best * above) if above else best * 2,
        ):
            strength = float(max(1, round(strength))) if whole else float(f"{strength:.3g}")
            if not (odd and strength % 2 == 0):
                mean(strength)
    return max(known, key=known.__getitem__)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, default=Path("datasets/photographs"))
    parser.add_argument("--only", action="append", metavar="KEY", help="rows of comparisons.toml (repeat for several)")
    parser.add_argument("--again", action="store_true", help="tune again what is there")
    options = parser.parse_args()
    paths = choose(options.photographs / "train")
    result = json.loads(STRENGTHS.read_text()) if STRENGTHS.exists() else {}
    result["tuned_on"] = {"side": SIDE, "photographs": [path.stem for path in paths]}
    for row in read_rows():
        if (options.only and row["key"] not in options.only) or not row["against"]:
            continue
        found = result.setdefault("strengths", {}).setdefault(row["degrade"], {})
        pairs: Pairs = []
        for name in row["against"]:
            if name in found and not options.again:
                continue
            pairs = pairs or make_pairs(row["degrade"], paths)
            hints = hints_for(parse_degradation(row["degrade"]), [degraded for degraded, _ in pairs])
            strength, psnr = tune(name, hints, pairs)
            before = np.mean([PROTOCOLS["plain"].score(bad, good).psnr for bad, good in pairs])
            print(f"{row['degrade']}  {name}={strength:g}: {before:.2f} -> {psnr:.2f} dB", flush=True)
            found[name] = strength
            text = json.dumps(result, indent=1, ensure_ascii=False) + "\n"
            write_atomically(STRENGTHS, lambda stream, text=text: stream.write(text.encode()))


if __name__ == "__main__":
    main()
