"""Training data named by one hash: of their names, sizes and pixels, not of files, which encoders change."""

from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path

import numpy as np

from restormer_cli.data.batches import Pictures


def manifest_hash(pictures: Pictures, role: str, workers: int = 4) -> str:
    """SHA-256 over a line for each file, `role/name WIDTHxHEIGHT SHA-256 of its pixels`, sorted.

    It is what `scripts/photographs.py` prints for a role of the prepared photographs. A degraded twin's name ends in
    `:1`, a second view's in `:2`. With a cache on disk each picture's hash is kept beside it.
    """
    files = [
        (f"{pair.name}:{view}" if view else pair.name, path)
        for pair in pictures.pairs
        for view, path in enumerate(pair.paths)
    ]

    def line(entry: tuple[str, Path]) -> str:
        name, path = entry
        height, width = pictures.decoded.size(path)
        digest = pictures.decoded.derived(path, "sha256", _digest)
        return f"{role}/{name} {width}x{height} {digest.tobytes().hex()}\n"

    with ThreadPoolExecutor(max_workers=workers, thread_name_prefix="hashing") as pool:
        return sha256("".join(sorted(pool.map(line, files))).encode()).hexdigest()


def _digest(pixels: np.ndarray) -> np.ndarray:
    """SHA-256 of the pixels (h, w, c), row by row: (32,) uint8."""
    return np.frombuffer(sha256(np.ascontiguousarray(pixels).data).digest(), np.uint8)
