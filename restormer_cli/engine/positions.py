"""Positions of a picture, turned and mirrored, over which answers are averaged (Timofte, Rothe and Van Gool 2016)."""

import re
from itertools import product
from typing import Any

Position = tuple[bool, int]
"""Mirrored or not, then so many quarter turns."""

ALL: tuple[Position, ...] = tuple(product((False, True), range(4)))
AS_IT_IS: Position = (False, 0)
UPRIGHT = tuple((mirrored, quarters) for mirrored, quarters in ALL if quarters % 2 == 0)
"""Those that leave what is vertical vertical."""


def positions_of(recipe: Any) -> tuple[Position, ...]:
    """Positions that weights have learnt from, by their header's `recipe`, which may be missing or odd.

    Streaks that training drew itself fall: a quarter turn would show the network rain that it has never seen. Turned
    pairs of rainy and clean photographs, as in the published training, have rain of all directions.
    """
    degrade = recipe.get("degrade") if isinstance(recipe, dict) else None
    steps = degrade.get("steps") if isinstance(degrade, dict) else None
    if not isinstance(steps, list | tuple):
        return ALL
    falls = re.compile(r"(^|\|)\s*rain(fall)?\b")
    return UPRIGHT if any(isinstance(step, str) and falls.search(step) for step in steps) else ALL
