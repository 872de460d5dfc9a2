"""Pairs of clean and degraded pictures, found by their names before anything is decoded, for training and bench."""

from collections import defaultdict
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from restormer_cli.errors import UserError, one_line
from restormer_cli.images.listing import find_pictures
from restormer_cli.recipe import Pairs, Recipe

SKIMAGE_PHOTOGRAPHS = (
    "astronaut.png", "brick.png", "camera.png", "chelsea.png", "coffee.png", "grass.png", "gravel.png",
    "motorcycle_left.png", "motorcycle_right.png", "rocket.jpg",
)  # fmt: skip
"""The photographs that scikit-image's wheel carries in its `data` folder (some other pictures there are not)."""

MOST_TOLD = 50
"""Problems that one error names; the rest is counted."""


@dataclass(frozen=True)
class Pair:
    """A clean picture, where its degraded twin is (None: made on the fly), and a dual-pixel camera's second view."""

    name: str
    """Path below the folder, without its extension (but where two clean pictures would share it)."""
    clean: Path
    degraded: Path | None = None
    right: Path | None = None

    @property
    def group(self) -> str:
        """The folder that it lies in, such as `indoor`; nothing at the top."""
        return self.name.rpartition("/")[0]

    @property
    def paths(self) -> tuple[Path, ...]:
        """The files of the pair, the clean picture first."""
        return tuple(path for path in (self.clean, self.degraded, self.right) if path is not None)


def check_names(recipe: Recipe) -> None:
    """Look at the folders of a recipe, not into the files. Raises UserError listing everything that is wrong."""
    rows = (("train", recipe.data.train), ("validate", recipe.data.validate_))
    complain([f"{role}: {problem}" for role, row in rows if row is not None for problem in _pair_up(row)[1]])


def find_pairs(where: Pairs, *, role: str, table: str = "[data] ") -> list[Pair]:
    """Return the pairs in natural order. Raises UserError listing everything that is wrong with names.

    `role` (train, validate or --clean) and `table`, the recipe's, stand in the message.
    """
    pairs, problems = _pair_up(where)
    complain([f"{role}: {problem}" for problem in problems], table)
    return pairs


def complain(problems: list[str], table: str = "[data] ") -> None:
    """Raise UserError with all of the problems in one line, if there are any."""
    if problems:
        told = "; ".join(one_line(problem) for problem in problems[:MOST_TOLD])
        count = "" if len(problems) == 1 else f"{len(problems)} problems: "
        more = f"; … and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        raise UserError(f"{table}{count}{told}{more}")


def missing_folders(where: Pairs) -> list[str]:
    """Folders of a [data] row that are not there."""
    named = [place for place in (where.degraded, where.right, where.clean) if place is not None]
    return [place for place in named if not place.startswith("package:") and not Path(place).is_dir()]


def _pair_up(where: Pairs) -> tuple[list[Pair], list[str]]:
    """The pairs of a row, and everything that is wrong with its names."""
    missing = missing_folders(where)
    if missing:
        return [], [f"there is no folder {place}" for place in missing]
    problems: list[str] = []
    clean = _pictures(where.clean, where, problems)
    if not clean and not problems:
        problems.append(f"no pictures in {where.clean}")
    views = [_pictures(place, where, problems) for place in (where.degraded, where.right) if place is not None]
    if where.match == "order":
        folders = [place for place in (where.degraded, where.right) if place is not None]
        for place, view in zip(folders, views, strict=True):
            problems += _order_problems(where.clean, clean, place, view)
        if problems:
            return [], problems
        rows = [dict(zip(clean, view.values(), strict=True)) for view in views]
        return [_pair(name, clean, rows) for name in clean], []
    everything = sorted({*clean, *(name for view in views for name in view)})
    for place, view in zip((where.clean, where.degraded, where.right), (clean, *views), strict=False):
        problems += [f"{name} has no partner in {place}" for name in everything if name not in view]
    return [_pair(name, clean, views) for name in clean if all(name in view for view in views)], problems


def _pair(name: str, clean: dict[str, Path], views: list[dict[str, Path]]) -> Pair:
    return Pair(name, clean[name], *(view[name] for view in views))


def _order_problems(clean_place: str, clean: dict[str, Path], place: str, view: dict[str, Path]) -> list[str]:
    """Reasons against pairing two folders by their order."""
    if len(clean) != len(view):
        return [f"{clean_place} has {len(clean)} pictures, {place} has {len(view)}: no pairs by order"]
    ranks = {name: rank for rank, name in enumerate(view)}
    moved = [name for rank, name in enumerate(clean) if ranks.get(name, rank) != rank]
    return [f"{name} is at another place in {clean_place} than in {place}: pair them by name" for name in moved]


def _pictures(place: str, where: Pairs, problems: list[str]) -> dict[str, Path]:
    """Name (path below the folder, without extension) -> file, in natural order."""
    if place.startswith("package:"):
        paths = _from_package(place)
        named = {path: path.stem for path in paths}
    else:
        paths = find_pictures(place, recursive=True)
        named = {path: path.relative_to(place).with_suffix("").as_posix() for path in paths}
    known = set(named.values())
    problems += [f"{place}: no picture named {name!r}" for name in (*where.only, *where.exclude) if name not in known]
    found: dict[str, list[Path]] = defaultdict(list)
    for path, name in named.items():
        if (not where.only or name in where.only) and name not in where.exclude:
            found[name].append(path)
    for name, same in found.items():
        if len(same) > 1 and where.degraded is not None:
            problems.append(f"{place}: {' and '.join(path.name for path in same)} share the name {name}")
    if where.degraded is None:  # without partners to find, names need not differ
        return {name if len(same) == 1 else name + path.suffix: path for name, same in found.items() for path in same}
    return {name: same[0] for name, same in found.items()}


def _from_package(place: str) -> list[Path]:
    if place != "package:skimage":
        raise UserError(f"{place}: unknown; the photographs in scikit-image are package:skimage")
    spec = find_spec("skimage")  # finds the folder without importing the package
    assert spec is not None
    assert spec.origin is not None
    paths = [Path(spec.origin).parent / "data" / name for name in SKIMAGE_PHOTOGRAPHS]
    return [path for path in paths if path.is_file()]
