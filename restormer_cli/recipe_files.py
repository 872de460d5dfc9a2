"""Recipes as files: found, read, overridden, explained, written and compared."""

import difflib
import json
import re
import tomllib
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from restormer_cli.errors import UserError
from restormer_cli.model.config import ModelConfig
from restormer_cli.recipe import PAPER_STAGES, Recipe, Table


def find_recipe(name: str) -> Path:
    """A path, or the name of a bundled recipe (`defocus`, `compact/denoise`, `recipes/defocus.toml`) -> its file.

    Raises UserError, naming the nearest bundled recipe.
    """
    try:
        if Path(name).is_file():
            return Path(name)
    except OSError as error:  # a name too long, a folder that may not be searched
        raise UserError(f"no recipe {name!r}: {error.strerror}") from None
    bundled = bundled_recipes()
    short = name.removeprefix("./").removeprefix("recipes/").removesuffix(".toml")
    if short in bundled:
        return bundled[short]
    near = difflib.get_close_matches(short, bundled, n=1, cutoff=0.4)
    hint = f"did you mean {near[0]}?" if near else "bundled ones:"
    raise UserError(f"no recipe {name!r}: {hint} (bundled: {', '.join(listed_recipes())})")


def bundled_recipes() -> dict[str, Path]:
    """Name -> file of every recipe in the package (or, in a checkout, beside it)."""
    inside = Path(str(files("restormer_cli"))) / "recipes"
    folder = inside if inside.is_dir() else inside.parent.parent / "recipes"
    return {path.relative_to(folder).with_suffix("").as_posix(): path for path in sorted(folder.rglob("*.toml"))}


def listed_recipes() -> list[str]:
    """Names of the bundled recipes, without the legs that made the bundled checkpoints."""
    return [name for name in bundled_recipes() if "/legs/" not in name]


def read_recipe(name: str, overrides: tuple[str, ...] = ()) -> Recipe:
    """Read, override (`optimizer.lr=1e-4`, `stage.0.patch=64`) and validate. Raises UserError."""
    path = find_recipe(name)
    try:
        values = _parsed(path, path.read_bytes())
    except OSError as error:
        raise UserError(f"{path}: cannot be read: {error.strerror}") from None
    for override in overrides:
        _override(values, override)
    if values.get("name") in (None, ""):
        values["name"] = path.stem
    return parse_recipe(values, where=str(path))


def _parsed(path: Path, data: bytes) -> dict[str, Any]:
    """TOML as Windows' editors save it too. Raises UserError that names what they did to it."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: is saved in UTF-16: save it as UTF-8")
    backslashes = f"{path}: backslashes in double quotes: write D:/new/train, or 'D:\\new\\train' in single quotes"
    try:
        text = data.decode("utf-8-sig").replace("\r\n", "\n")
        values = tomllib.loads(text)
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}): save it as UTF-8") from None
    except tomllib.TOMLDecodeError as error:
        line = re.search(r"at line (\d+)", str(error))
        rows = text.splitlines()
        if line is not None and re.search(r'"[^"]*\\', rows[min(int(line[1]), len(rows)) - 1]):
            raise UserError(f"{backslashes} ({error})") from None
        raise UserError(f"{path}: not valid TOML: {error}") from None
    if any(_has_controls(table) for table in (values.get("data"), values.get("init"))):  # "\n" and "\t" of a path
        raise UserError(backslashes)
    return values


def _has_controls(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_controls, value.values()))
    if isinstance(value, list):
        return any(map(_has_controls, value))
    return isinstance(value, str) and any(ord(character) < 32 for character in value)


def parse_recipe(values: dict[str, Any], where: str) -> Recipe:
    """Validate plain values, as TOML or JSON give them. Raises UserError, one line, first problem first."""
    try:
        # By way of JSON: only there is pydantic strict about "48" and 48.0 without refusing a list for a tuple.
        return Recipe.model_validate_json(json.dumps(values, default=str), strict=True)
    except ValidationError as error:
        problems = error.errors()
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        raise UserError(f"{where}: {_explain(problems[0])}{more}") from None


def change_recipe(recipe: Recipe | dict[str, Any], overrides: tuple[str, ...], where: str) -> Recipe:
    """A recipe (or its values) with other values, written as for `read_recipe`. Raises UserError."""
    values = recipe.model_dump(mode="json", by_alias=True) if isinstance(recipe, Recipe) else recipe
    for override in overrides:
        _override(values, override)
    return parse_recipe(values, where=where)


def _override(values: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals:
        raise UserError(f"--set {override}: write KEY=VALUE, as in --set optimizer.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = text
    *parents, last = key.split(".")
    node: Any = values
    if parents[:1] == ["stage"]:
        values.setdefault("stage", [stage.model_dump() for stage in PAPER_STAGES])
    try:
        for part in parents:
            if isinstance(node, list):
                node = node[_row(part)]
                continue
            if node.get(part) is None:  # not there, or a table that a recipe may leave out
                node[part] = {}
            node = node[part]
        if isinstance(node, list):
            node[_row(last)] = value
        else:
            node[last] = value
    except (ValueError, IndexError, AttributeError, TypeError):  # no such row, or a value that has no parts
        raise UserError(f"--set {override}: the recipe has no key {key}") from None


def _row(part: str) -> int:
    index = int(part)
    if index < 0:
        raise IndexError(part)
    return index


def _explain(problem: Any) -> str:
    place = ".".join(str(part) for part in problem["loc"])
    if problem["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        *parents, unknown = problem["loc"]
        known = _keys_of(parents)
        near = difflib.get_close_matches(str(unknown), known, n=1, cutoff=0)
        return (
            f"unknown key {place}; nearest: {'.'.join([*map(str, parents), near[0]])}"
            if near
            else f"unknown key {place}"
        )
    if problem["type"] == "missing":
        return f"{place} is missing"
    if problem["type"] == "multiple_of":
        return f"{place} = {problem['input']}: must be a multiple of 8"
    message = problem["msg"].removeprefix("Value error, ")
    given = f" = {problem['input']!r}" if isinstance(problem["input"], str | int | float) and place else ""
    return f"{place}{given}: {message}" if place else message


def _keys_of(parents: list[Any]) -> list[str]:
    """The keys that a table of the recipe knows."""
    fields: Any = Recipe.model_fields
    for part in parents:
        if isinstance(part, int):
            continue
        annotation = next((f.annotation for n, f in fields.items() if part in (n, f.alias)), None)
        nested = [t for t in (annotation, *getattr(annotation, "__args__", ())) if isinstance(t, type)]
        table = next((t for t in nested if t is ModelConfig or issubclass(t, Table)), None)
        if table is ModelConfig:
            return list(ModelConfig.__dataclass_fields__)
        if table is None:
            return []
        fields = table.model_fields  # type: ignore[attr-defined]
    return [field.alias or name for name, field in fields.items()]


FREE = ("data.cache", "data.cache_gb", "data.workers", "data.prefetch", "run.track", "expected", "licence")
"""Keys that may differ on resuming: they do not touch the results."""


def resolved(recipe: Recipe) -> str:
    """Every value of a recipe, as JSON."""
    return recipe.model_dump_json(by_alias=True, indent=1)


def recipe_toml(recipe: Recipe) -> str:
    """Every value of a recipe, as the TOML that makes the same recipe again."""
    heading = "# Every value in force. The same run again: restormer train THIS_FILE --out ANOTHER_FOLDER\n\n"
    return heading + to_toml(json.loads(resolved(recipe)))


def differences(was: dict[str, Any], now: dict[str, Any]) -> Iterator[str]:
    """`optimizer.lr 0.0003 -> 0.001` for every value that differs and matters; a key that only one has is `none`."""
    old, new = dict(_leaves(was)), dict(_leaves(now))
    for key in [*new, *(key for key in old if key not in new)]:
        a, b = old.get(key), new.get(key)
        if a != b and key not in FREE:
            yield f"{key} {_short(a)} -> {_short(b)}"


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list) and any(isinstance(v, dict) for v in value):
        items = enumerate(value)
    else:
        yield path, value
        return
    for key, inner in items:
        yield from _leaves(inner, f"{path}.{key}" if path else str(key))


def _short(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)


def to_toml(values: dict[str, Any]) -> str:
    """Tables, lists of tables and plain values to text that `tomllib` reads back as the same; None is left out."""
    return tomli_w.dumps(_without_none(values))


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(inner) for key, inner in value.items() if inner is not None}
    return [_without_none(inner) for inner in value] if isinstance(value, list) else value
