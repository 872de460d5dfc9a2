"""Where things of the user's live between runs."""

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """Of fetched weights and decoded pictures: RESTORMER_CACHE, else `restormer` in the user's cache folder."""
    if chosen := os.environ.get("RESTORMER_CACHE"):
        return Path(chosen)
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "restormer"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "restormer"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "restormer"
