"""Training data are named by their pixels, in the words of scripts/photographs.py."""

from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image

from restormer_cli.data.cache import PictureCache
from restormer_cli.data.pairs import find_pairs
from restormer_cli.data.pictures import Pictures, manifest_hash
from restormer_cli.recipe import Pairs


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "clean"


def opened(where: Pairs, kind: Literal["disk", "memory", "off"]) -> Pictures:
    pairs, decoded = find_pairs(where, role="train"), PictureCache(3, kind)
    for pair in pairs:
        for path in pair.paths:
            decoded.read(path)
    return Pictures(pairs, decoded)


def save(path: Path, pixels: np.ndarray, level: int = 6) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=level)


@pytest.mark.parametrize("kind", ["disk", "memory", "off"])
def test_the_hash_is_the_prepared_photographs_and_of_their_pixels_alone(
    folder: Path, kind: Literal["disk", "memory", "off"]
) -> None:
    pictures = {"b": np.arange(16 * 24 * 3, dtype=np.uint8).reshape(16, 24, 3), "a": np.zeros((8, 40, 3), np.uint8)}
    for name, pixels in pictures.items():
        save(folder / f"{name}.png", pixels)
    # The manifest's lines, as scripts/photographs.py writes them.
    lines = [f"train/{n} {p.shape[1]}x{p.shape[0]} {sha256(p.tobytes()).hexdigest()}\n" for n, p in pictures.items()]
    expected = sha256("".join(sorted(lines)).encode()).hexdigest()
    where = Pairs(clean=str(folder))
    assert manifest_hash(opened(where, kind), "train") == expected
    assert manifest_hash(opened(where, kind), "train") == expected  # where it was kept, it is the same
    save(folder / "b.png", pictures["b"], level=1)  # another file of the same pixels
    assert manifest_hash(opened(where, kind), "train") == expected
    pictures["b"][3, 5, 1] ^= 1
    save(folder / "b.png", pictures["b"])
    assert manifest_hash(opened(where, kind), "train") != expected


def test_degraded_twins_count_and_are_not_taken_for_clean_ones(folder: Path) -> None:
    one, two = np.zeros((8, 8, 3), np.uint8), np.ones((8, 8, 3), np.uint8)
    hashes = set()
    for clean, degraded in ((one, two), (two, one), (one, one)):
        save(folder / "a.png", clean)
        save(folder.parent / "degraded" / "a.png", degraded)
        where = Pairs(clean=str(folder), degraded=str(folder.parent / "degraded"))
        hashes.add(manifest_hash(opened(where, "memory"), "train"))
    hashes.add(manifest_hash(opened(Pairs(clean=str(folder)), "memory"), "train"))
    assert len(hashes) == 4
