#!/usr/bin/env python3
"""Pack the sharp training photographs into one archive that travels to a machine without a network.

    python scripts/gpu/pack.py --photographs FOLDER --out .gpu/photographs.zip --megabytes 35
    python scripts/gpu/pack.py --wheels .whl      # instead: what measure.py and learn.py want there, for Python 3.12

FOLDER holds the files that scripts/sharp_photographs.csv lists (role `train`). They are cut into tiles of 512 × 512;
the sharpest go first, at most `--per-picture` of each, and tiles are added until the archive is full. Tiles are stored
as AVIF 4:4:4; what that loses is measured on every one and told (PSNR in dB against what was read).
"""

from __future__ import annotations

import argparse
import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from sharp_photographs import rows

TILE = 512
WHEELS = (
    "accelerate", "annotated-types", "anyio", "click", "einops", "filelock", "fsspec", "h11", "hf-xet",
    "httpcore2", "httpx2", "huggingface-hub", "idna", "packaging", "pillow", "platformdirs", "psutil",
    "pydantic", "pydantic-core", "pyyaml", "safetensors", "spandrel", "spandrel-extra-arches", "tomli-w",
    "tqdm", "truststore", "typing-extensions", "typing-inspection",
)  # fmt: skip
"""Of `pip download --no-deps`, since one of them would bring PyTorch along, which is there."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photographs", type=Path, help="folder of the listed AVIF files")
    parser.add_argument("--wheels", type=Path, help="download wheels to this folder, and pack nothing")
    parser.add_argument("--out", type=Path, default=Path(".gpu/photographs.zip"))
    parser.add_argument(
        "--megabytes", type=float, default=35, help="largest size of the archive, in units of 10⁶ bytes"
    )
    parser.add_argument("--per-picture", type=int, default=6, help="tiles of one photograph")
    parser.add_argument("--quality", type=int, default=93, help="of AVIF, 0 to 100")
    arguments = parser.parse_args()
    if arguments.wheels is not None:
        return download(arguments.wheels)
    if arguments.photographs is None:
        parser.error("--photographs FOLDER, or --wheels FOLDER")
    names = [row["file"] for row in rows("train")]
    missing = [name for name in names if not (arguments.photographs / name).is_file()]
    if missing:
        print(f"{len(missing)} of {len(names)} photographs are not in {arguments.photographs}", file=sys.stderr)
        return 3
    with ThreadPoolExecutor(2) as pool:
        pictures = pool.map(lambda name: best_tiles(arguments.photographs / name, arguments.per_picture), names)
        tiles = [
            (sharpness, name, tile) for name, found in zip(names, pictures, strict=True) for sharpness, tile in found
        ]
        # Every photograph's best tile before any photograph's second best: many scenes count more than many pixels.
        ranks: dict[str, int] = {}
        tiles.sort(key=lambda entry: -entry[0])
        order = []
        for sharpness, name, tile in tiles:
            ranks[name] = ranks.get(name, 0) + 1
            order.append((ranks[name], -sharpness, name, tile))
        order.sort(key=lambda entry: entry[:3])
        used, losses = 0, []
        arguments.out.parent.mkdir(parents=True, exist_ok=True)
        with zipfile.ZipFile(arguments.out, "w", zipfile.ZIP_STORED) as archive:
            encoded = pool.map(lambda entry: encode(entry[3], arguments.quality), order)
            for number, ((data, loss), (rank, _, name, _)) in enumerate(zip(encoded, order, strict=True)):
                if used + len(data) > arguments.megabytes * 1e6 - 100_000:
                    break
                archive.writestr(f"{number:04d}-{Path(name).stem}-{rank}.avif", data)
                used += len(data)
                losses.append(loss)
            about = {"tiles": len(losses), "side": TILE, "quality": arguments.quality, "psnr": float(np.mean(losses))}
            archive.writestr("about.json", json.dumps(about))
    print(
        f"{len(losses)} tiles, {len(losses) * TILE**2 / 1e6:.0f} megapixels, {used / 1e6:.1f} MB; "
        f"PSNR {np.mean(losses):.1f} dB on average, {np.min(losses):.1f} at least"
    )
    return 0


def download(folder: Path) -> int:
    """Wheels for Python 3.12 on Linux; pip's own exit code."""
    platforms = ("manylinux_2_28_x86_64", "manylinux_2_17_x86_64", "manylinux2014_x86_64")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", str(folder)]
    command += ["--python-version", "3.12", *(f"--platform={name}" for name in platforms), *WHEELS]
    return subprocess.run(command, check=False).returncode


def best_tiles(path: Path, count: int) -> list[tuple[float, np.ndarray]]:
    """The sharpest tiles of a picture, with their sharpness: the mean difference of neighbours, colours apart."""
    with Image.open(path) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    found = []
    for tile in cut(pixels):
        x = tile.astype(np.float32)
        differences = [np.abs(np.diff(x, axis=axis)).mean() for axis in (0, 1)]
        colours = [np.abs(np.diff(x[..., 0] - x[..., 1], axis=axis)).mean() for axis in (0, 1)]
        found.append((float(np.sum(differences) + 2 * np.sum(colours)), tile))
    found.sort(key=lambda entry: -entry[0])
    return [(sharpness, np.ascontiguousarray(tile)) for sharpness, tile in found[:count]]


def cut(pixels: np.ndarray) -> Iterator[np.ndarray]:
    """Tiles side by side, as many as fit; nothing of a picture that is smaller than one."""
    h, w = pixels.shape[:2]
    for top in range((h % TILE) // 2, h - TILE + 1, TILE):
        for left in range((w % TILE) // 2, w - TILE + 1, TILE):
            yield pixels[top : top + TILE, left : left + TILE]


def encode(tile: np.ndarray, quality: int) -> tuple[bytes, float]:
    """An AVIF file, and its PSNR in dB."""
    file = io.BytesIO()
    Image.fromarray(tile).save(file, "AVIF", quality=quality, subsampling="4:4:4", speed=7, max_threads=1)
    data = file.getvalue()
    decoded = np.asarray(Image.open(io.BytesIO(data)).convert("RGB")).astype(np.float32)
    return data, float(10 * np.log10(255**2 / max(1e-9, np.square(decoded - tile).mean())))


if __name__ == "__main__":
    sys.exit(main())
