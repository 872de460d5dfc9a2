"""What is written is read back as the same."""

import tomllib
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from restormer_cli.recipe_files import bundled_recipes, parse_recipe, read_recipe, to_toml

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
