"""Restore photographs with the Restormer transformer, from the command line and from Python.

    from restormer_cli import Restorer, load_weights, read_picture, write_picture

    restore = Restorer(load_weights("denoise"))
    picture = read_picture("noisy.png")
    write_picture("clean.png", restore(picture.pixels), like=picture)

What is named here is imported when it is first used, so that `import restormer_cli` loads no PyTorch.
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from restormer_cli.engine.restorer import Restorer
    from restormer_cli.images.io import read_picture, write_picture
    from restormer_cli.model.weights import load_weights

__version__ = "0.1.0"

# Entries of oneDNN's cache of what it has made for a shape, and of PyTorch's own above it, set up when torch is
# loaded. Each holds 1,024 by default and gives none back: megabytes for every new size of picture. One size needs 20 to
# 70, a training patch some 110.
for _cache in ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY"):
    os.environ.setdefault(_cache, "256")
# OpenMP's threads turn in circles for a while when they have nothing to do, in the way of ours, which compute a map's
# pieces (native/workers.py): 1.4 times the time at 128² on two cores, 1.3 that of a training step (docs/log.md).
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

_HOMES = {
    "Restorer": "restormer_cli.engine.restorer",
    "load_weights": "restormer_cli.model.weights",
    "read_picture": "restormer_cli.images.io",
    "write_picture": "restormer_cli.images.io",
}

__all__ = ["Restorer", "__version__", "load_weights", "read_picture", "write_picture"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
