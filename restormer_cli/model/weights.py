"""Weights by name: a file, a bundled checkpoint, or one to be fetched (model/hub.py)."""

import os
from pathlib import Path

from restormer_cli.errors import UserError
from restormer_cli.model.cards import CHECKPOINTS
from restormer_cli.model.weights_file import Weights, load_file


def bundled_tasks() -> list[str]:
    """Names of the checkpoints in the package."""
    return sorted(path.stem for path in CHECKPOINTS.glob("*.safetensors"))


def find_weights(name: str | Path) -> Path:
    """A path, the name of a bundled checkpoint, or one to be fetched (model/hub.py) -> its file.

    Raises UserError for a name without a file, Failed for a file that cannot be fetched.
    """
    if str(name).startswith(("official/", "hf:")) and not os.path.lexists(name):
        from restormer_cli.model.hub import fetch  # which in turn loads what it has fetched

        return fetch(str(name))
    path = Path(name)
    try:
        if path.is_file():
            return path
    except OSError as error:  # a name too long, a folder that may not be searched
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    bundled = CHECKPOINTS / f"{name}.safetensors"
    if str(name) in bundled_tasks():
        return bundled
    if path.is_dir():
        raise UserError(f"{path}: is a folder; name the weights file in it")
    bundled_names = ", ".join(bundled_tasks()) or "none"
    raise UserError(f"{name}: no such weights file (bundled: {bundled_names}); official/… and hf:… are fetched")


def load_weights(name: str | Path) -> Weights:
    """Load safetensors (ours or not) or an official-layout `.pth`, by any name that `find_weights` knows.

    Raises UserError naming the file and the first thing wrong with it: a key, a shape, a non-finite value.
    """
    return load_file(find_weights(name))
