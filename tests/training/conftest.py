"""A training small enough for tests of the loop: one picture, two blocks."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from restormer_cli.recipe import Recipe


@pytest.fixture
def small_recipe(tmp_path: Path, write_png) -> Callable[..., Recipe]:
    """Makes the recipe, with other tables or more: `small_recipe(stage=[…], ema={…})`."""
    write_png(tmp_path / "clean" / "a.png", 24, 24)
    values: dict[str, Any] = {
        "name": "tiny",
        "task": "denoise",
        "model": {"dim": 2, "blocks": [0, 1, 0, 1], "heads": [1, 1, 1, 1], "refinement": 0},
        "data": {"train": {"clean": str(tmp_path / "clean")}},
        "degrade": {"steps": ["gaussian:25"]},
    }
    return lambda **tables: Recipe.model_validate(values | tables)
