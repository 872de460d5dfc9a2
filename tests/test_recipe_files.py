"""Recipes are found, read, changed from the command line, and written as they were."""

import subprocess
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.errors import UserError
from restormer_cli.recipe import Recipe
from restormer_cli.recipe_files import (
    bundled_recipes,
    change_recipe,
    find_recipe,
    listed_recipes,
    parse_recipe,
    read_recipe,
    to_toml,
)

RECIPES = Path(__file__).resolve().parent.parent / "recipes"

Read = Callable[..., Recipe]
MINIMAL = (Path(__file__).parent / "minimal.toml").read_text()

PLAIN = (
    st.booleans()
    | st.integers(-(2**62), 2**62)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]))
)
KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
TABLES = st.recursive(
    st.dictionaries(KEYS, PLAIN | st.lists(PLAIN)),
    lambda inner: st.dictionaries(KEYS, PLAIN | inner | st.lists(inner, min_size=1)),
    max_leaves=8,
)


def test_bytes_that_are_no_text_are_not_toml(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_bytes(b"task = '\xff\xfe'")
    with pytest.raises(UserError, match="is not UTF-8"):
        read_recipe(str(tmp_path / "mine.toml"))


def test_overrides_reach_every_place(read: Read) -> None:
    recipe = read(
        MINIMAL,
        "optimizer.lr=1e-4",
        "optimizer.betas=[0.8, 0.9]",
        "stage.0.patch=96",
        "stage.1.iterations=7",
        "data.train.clean=/some/where",  # not TOML: taken as it is
        "model.blocks=[1, 2, 3, 5]",
        "run.activation_checkpointing=true",
        'name="other"',
        "expected=31 dB = enough",
        "teacher.weights=denoise",  # a table that is not there
    )
    assert recipe.teacher is not None
    assert recipe.teacher.weights == "denoise"
    assert recipe.optimizer.lr == 1e-4
    assert recipe.optimizer.betas == (0.8, 0.9)
    assert recipe.stage[0].patch == 96
    assert recipe.iterations == 107
    assert recipe.data.train.clean == "/some/where"
    assert recipe.data.train.degraded == "in"
    assert recipe.model.blocks == (1, 2, 3, 5)
    assert recipe.run.activation_checkpointing
    assert recipe.name == "other"
    assert recipe.expected == "31 dB = enough"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("optimizer.lr", "write KEY=VALUE"),
        ("stage.7.patch=64", r"no key stage\.7\.patch"),
        ("stage.first.patch=64", r"no key stage\.first\.patch"),
        ("stage.patch=64", r"no key stage\.patch"),
        ("task.name=3", r"no key task\.name"),
        ("task.name.more=3", r"no key task\.name\.more"),
        ("stage.0.patch.more=3", r"no key stage\.0\.patch\.more"),
        ("stage.-1.patch=64", r"no key stage\.-1\.patch"),
        ("stage.0.patch=100", r"stage\.0\.patch = 100: must be a multiple of 8"),
        ("optimizer.rate=1", r"unknown key optimizer\.rate; nearest: optimizer\."),
        ("=3", "unknown key"),
    ],
)
def test_a_bad_override_is_named(read: Read, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(MINIMAL, override)


@pytest.mark.parametrize("name", ["quick/denoise", "recipes/quick/denoise.toml", "./recipes/quick/denoise.toml"])
def test_bundled_recipes_are_found_from_any_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name).read_bytes() == (RECIPES / "quick" / "denoise.toml").read_bytes()
    assert read_recipe(name).name == "denoise"


def test_a_file_at_hand_wins_over_a_bundled_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "quick").mkdir()
    (tmp_path / "quick" / "denoise").write_text(MINIMAL)
    assert read_recipe("quick/denoise").task == "deblur"


def test_an_unknown_recipe_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"did you mean quick/denoise\?") as error:
        find_recipe("quick/denoies.toml")
    assert all(name in str(error.value) for name in listed_recipes())
    assert "legs/" not in str(error.value)
    with pytest.raises(UserError, match=r"no recipe 'zzzzzzzzzzzzz'.*quick/denoise"):
        find_recipe("zzzzzzzzzzzzz")
    with pytest.raises(UserError, match="no recipe"):
        find_recipe(str(tmp_path))
    with pytest.raises(UserError, match="no recipe"):
        find_recipe("x" * 5000)


def test_bundled_recipes_are_the_ones_in_the_folder() -> None:
    found = {path.relative_to(RECIPES).with_suffix("").as_posix() for path in RECIPES.rglob("*.toml")}
    assert set(bundled_recipes()) == found
    assert "quick/denoise" in found


@pytest.mark.parametrize("path", sorted(RECIPES.rglob("*.toml")), ids=lambda path: path.stem)
def test_every_shipped_recipe_parses(path: Path) -> None:
    recipe = read_recipe(str(path))
    values: dict[str, Any] = tomllib.loads(path.read_text(encoding="utf-8"))
    assert recipe.task == values["task"]
    assert recipe.iterations == (sum(row["iterations"] for row in values["stage"]) if "stage" in values else 300_000)


def test_reading_a_recipe_needs_no_torch() -> None:
    code = (
        "import sys; from restormer_cli.recipe_files import read_recipe; read_recipe('quick/denoise'); "
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'accelerate', 'matplotlib')))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=RECIPES.parent)
    assert done.stdout.strip() == "[]", done.stderr


def test_a_recipe_with_a_byte_order_mark_is_read(tmp_path):
    path = tmp_path / "a.toml"
    path.write_bytes(b"\xef\xbb\xbf" + MINIMAL.replace("\n", "\r\n").encode())
    assert read_recipe(str(path)).task == "deblur"


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (MINIMAL.encode("utf-16"), "is saved in UTF-16: save it as UTF-8"),
        (MINIMAL.replace('"in"', r'"D:\new\train"').encode(), "backslashes in double quotes"),
        (MINIMAL.replace('"in"', r'"C:\Users\me"').encode(), "backslashes in double quotes"),
        (MINIMAL.replace('"in"', '"f\xfcr"').encode("latin-1"), "is not UTF-8"),
    ],
)
def test_what_windows_does_to_a_recipe_is_named(tmp_path, data, cause):
    path = tmp_path / "a.toml"
    path.write_bytes(data)
    with pytest.raises(UserError, match=cause):
        read_recipe(str(path))


@given(TABLES)
def test_any_table_survives(values: dict[str, Any]) -> None:
    assert tomllib.loads(to_toml(values)) == values


def test_none_is_left_out() -> None:
    assert to_toml({"a": None, "b": 1, "c": {"d": None}}) == "b = 1\n\n[c]\n"


@pytest.mark.parametrize("name", bundled_recipes())
def test_every_bundled_recipe_survives(name: str) -> None:
    recipe = read_recipe(name)
    values = tomllib.loads(to_toml(recipe.model_dump(mode="json", by_alias=True)))
    assert parse_recipe(values, where=name) == recipe


def test_tables_that_a_recipe_leaves_out_can_be_set_in_what_was_read(read: Read) -> None:
    """As an arm of `ablate` sets them: every key is there, and none is what such a table is."""
    changed = change_recipe(read(MINIMAL), ("teacher.weights=denoise", "data.cut.side=128"), "x")
    assert changed.teacher is not None
    assert changed.teacher.weights == "denoise"
    assert changed.data.cut is not None
    assert changed.data.cut.side == 128


def test_an_empty_name_is_the_files(read: Read) -> None:
    assert read(MINIMAL, "name=").name == read(MINIMAL).name != ""
