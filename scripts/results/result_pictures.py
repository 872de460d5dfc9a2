"""The pictures of docs/reference/comparisons.md and of the model cards, drawn from the two sample photographs.

They may be shipped without conditions and were never trained on; the validation photographs may not be shipped.
"""

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image, ImageFile

from restormer_cli.benchmark.classical import METHODS, hints_for
from restormer_cli.benchmark.scoring import degrade
from restormer_cli.degradations.spec import parse_degradation
from restormer_cli.engine.restorer import Restorer
from restormer_cli.images.io import read_picture
from restormer_cli.metrics.measures import psnr
from restormer_cli.model.cards import read_cards
from restormer_cli.model.weights import load_weights
from restormer_cli.pixels import round8

if TYPE_CHECKING:
    from result_pages import Measured

DOCS = Path(__file__).resolve().parents[2] / "docs"
PLACES = {"chelsea": (40, 110), "rocket": (100, 250)}
SIDE = 200
GAP = 4


@cache
def restorer(task: str) -> Restorer:
    """The bundled checkpoint, ready to run."""
    return Restorer(load_weights(task).model, device="cpu", precision="fp32")


def spoil(photograph: str, spec: str) -> tuple[np.ndarray, np.ndarray]:
    """(degraded, clean) of a sample, float32 (h, w, 3)."""
    path = DOCS / "originals" / f"{photograph}.png"
    clean = read_picture(path).pixels
    return degrade(clean, parse_degradation(spec), path.name, 0)


def save_strip(path: Path, photograph: str, pictures: list[np.ndarray]) -> None:
    """The same place of several pictures, side by side, as a JPEG without subsampling."""
    top, left = PLACES[photograph]
    cuts = [round8(picture)[top : top + SIDE, left : left + SIDE] for picture in pictures]
    gap = np.full((SIDE, GAP, 3), 255, np.uint8)
    strip = np.concatenate([part for cut in cuts for part in (cut, gap)][:-1], axis=1).astype(np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    # An optimised JPEG is encoded as one block, noise and all.
    ImageFile.MAXBLOCK = max(ImageFile.MAXBLOCK, strip.nbytes)
    Image.fromarray(strip).save(path, quality=90, subsampling=0, optimize=True)


def draw_rows(measured: "list[Measured]") -> None:
    """docs/results/KEY.jpg for every row with a rival: input, the best classical method, ours, clean."""
    for one in measured:
        rival = one.rival
        if rival is None or "photographs" in one.row:
            continue
        spec = one.row["degrade"]
        degraded, clean = spoil("chelsea", spec)
        degradation = parse_degradation(spec)
        hints = hints_for(degradation, [degraded])
        classical = METHODS[rival["kind"]].run(degraded, hints, rival["strength"])
        ours = restorer(one.row["task"])(degraded)
        save_strip(DOCS / "results" / f"{one.row['key']}.jpg", "chelsea", [degraded, classical, ours, clean])


def draw_failures(task: str) -> list[dict[str, Any]]:
    """docs/cards/TASK-N.jpg for every failure of the card, with what it does to the PSNR of the sample."""
    card: dict[str, Any] = read_cards().get(task, {})
    found = []
    for number, failure in enumerate(card.get("failures", ()), start=1):
        photograph = failure.get("photograph", "chelsea")
        degraded, clean = spoil(photograph, failure["degrade"])
        ours = restorer(task)(degraded)
        save_strip(DOCS / "cards" / f"{task}-{number}.jpg", photograph, [degraded, ours, clean])
        before, after = (psnr(round8(picture), round8(clean), peak=255.0) for picture in (degraded, ours))
        found.append({"before": round(before, 2) if np.isfinite(before) else None, "after": round(after, 2)})
    return found
