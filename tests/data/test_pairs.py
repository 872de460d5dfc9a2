"""Pairs are found by name or by order, and everything that is wrong with the names is said at once."""

from pathlib import Path

import pytest

from restormer_cli.data.pairs import MOST_TOLD, Pair, check_names, find_pairs, missing_folders
from restormer_cli.errors import UserError
from restormer_cli.recipe import Pairs, Recipe


def make(folder: Path, *names: str) -> str:
    """A folder with empty files: names are all that counts here."""
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return str(folder)


def test_pairs_are_by_name_in_natural_order(tmp_path: Path) -> None:
    clean = make(tmp_path / "clean", "p10.png", "p2.png", "p1.png")
    degraded = make(tmp_path / "degraded", "p10.jpg", "p2.tif", "p1.png")
    where = Pairs(clean=clean, degraded=degraded)
    pairs = find_pairs(where, role="train")
    assert [pair.name for pair in pairs] == ["p1", "p2", "p10"]
    assert pairs[2] == Pair("p10", tmp_path / "clean" / "p10.png", tmp_path / "degraded" / "p10.jpg")
    chosen = find_pairs(where.model_copy(update={"only": ("p1", "p10"), "exclude": ("p1",)}), role="train")
    assert [pair.name for pair in chosen] == ["p10"]


def test_triples_have_two_views(tmp_path: Path) -> None:
    where = Pairs(
        clean=make(tmp_path / "c", "a.png"), degraded=make(tmp_path / "l", "a.png"), right=make(tmp_path / "r", "a.tif")
    )
    (pair,) = find_pairs(where, role="train")
    assert pair.paths == (tmp_path / "c" / "a.png", tmp_path / "l" / "a.png", tmp_path / "r" / "a.tif")


def test_folders_are_searched_with_all_below_them(tmp_path: Path) -> None:
    clean = make(tmp_path / "clean", "one/a.png", "two/a.png", "two/deep/b.png", ".hidden/c.png")
    assert [pair.name for pair in find_pairs(Pairs(clean=clean), role="train")] == ["one/a", "two/a", "two/deep/b"]
    degraded = make(tmp_path / "degraded", "one/a.png", "two/a.png", "two/deep/b.png")
    pairs = find_pairs(Pairs(clean=clean, degraded=degraded), role="train")
    assert [pair.degraded for pair in pairs] == [tmp_path / "degraded" / f"{pair.name}.png" for pair in pairs]


def test_pairs_by_order_need_no_names(tmp_path: Path) -> None:
    clean = make(tmp_path / "target", "1P12.png", "1P9.png", "1P20.png")
    where = Pairs(clean=clean, degraded=make(tmp_path / "source", "1P8.png", "1P13.png", "1P21.png"), match="order")
    pairs = [(pair.clean.name, pair.degraded and pair.degraded.name) for pair in find_pairs(where, role="train")]
    assert pairs == [("1P9.png", "1P8.png"), ("1P12.png", "1P13.png"), ("1P20.png", "1P21.png")]


def test_order_is_refused_where_numbers_or_names_speak_against_it(tmp_path: Path) -> None:
    clean = make(tmp_path / "target", "a.png", "b.png", "c.png")
    where = Pairs(clean=clean, degraded=make(tmp_path / "source", "b.png", "c.png"), match="order")
    with pytest.raises(UserError, match=r"target has 3 pictures, .*source has 2: no pairs by order$"):
        find_pairs(where, role="train")
    make(tmp_path / "source", "d.png")  # b and c have moved up by one
    with pytest.raises(UserError, match=r"2 problems: train: b is at another place in .*; train: c is .*by name$"):
        find_pairs(where, role="train")


def test_every_problem_of_every_row_is_in_one_line(tmp_path: Path) -> None:
    clean = make(tmp_path / "clean", "a.png", "b.png", "b.jpg", "only-clean.png")
    degraded = make(tmp_path / "degraded", "a.png", "b.png", "only-degraded.png")
    recipe = Recipe.model_validate(
        {
            "task": "deblur",
            "data": {
                "train": {"clean": clean, "degraded": degraded, "only": [], "exclude": ["zebra"]},
                "validate": {"clean": str(tmp_path / "none"), "degraded": degraded},
            },
        }
    )
    with pytest.raises(UserError) as error:
        check_names(recipe)
    message = str(error.value)
    assert "\n" not in message
    assert message.startswith("[data] 6 problems: train: ")
    assert message.count("; ") == 5
    for part in (
        f"train: {clean}: no picture named 'zebra'",
        f"train: {degraded}: no picture named 'zebra'",
        f"train: {clean}: b.jpg and b.png share the name b",
        f"train: only-degraded has no partner in {clean}",
        f"train: only-clean has no partner in {degraded}",
        f"validate: there is no folder {tmp_path}/none",
    ):
        assert part in message, part


def test_a_third_view_that_is_missing_is_named(tmp_path: Path) -> None:
    where = Pairs(
        clean=make(tmp_path / "c", "a.png", "b.png"),
        degraded=make(tmp_path / "l", "a.png", "b.png"),
        right=make(tmp_path / "r", "a.png"),
    )
    with pytest.raises(UserError, match=rf"^\[data\] train: b has no partner in {tmp_path}/r$"):
        find_pairs(where, role="train")


def test_a_flood_of_problems_is_counted(tmp_path: Path) -> None:
    clean = make(tmp_path / "clean", *(f"{number}.png" for number in range(MOST_TOLD + 7)))
    (tmp_path / "degraded").mkdir()
    with pytest.raises(UserError, match=rf"{MOST_TOLD + 7} problems: .*; … and 7 more$") as error:
        find_pairs(Pairs(clean=clean, degraded=str(tmp_path / "degraded")), role="train")
    assert str(error.value).count("has no partner") == MOST_TOLD


def test_clean_pictures_without_partners_may_share_a_name(tmp_path: Path) -> None:
    clean = make(tmp_path / "clean", "a.png", "a.jpg", "b.png")
    assert {pair.name for pair in find_pairs(Pairs(clean=clean), role="train")} == {"a.png", "a.jpg", "b"}
    make(tmp_path / "clean", "x/a.png", "x/a.jpg", "y/a.png", "y/a.jpg")  # in two folders: none hides another
    assert len(find_pairs(Pairs(clean=clean), role="train")) == 7


def test_the_photographs_in_scikit_image() -> None:
    where = Pairs(clean="package:skimage", exclude=("chelsea", "rocket"))
    names = [pair.name for pair in find_pairs(where, role="train")]
    assert len(names) >= 6
    assert "coffee" in names
    assert not {"chelsea", "rocket"} & set(names)
    with pytest.raises(UserError, match="package:skimage"):
        find_pairs(Pairs(clean="package:scipy"), role="train")


def test_missing_folders_are_all_named(tmp_path: Path) -> None:
    where = Pairs(clean=str(tmp_path / "a"), degraded=str(tmp_path / "b"), right=str(tmp_path / "c"))
    assert missing_folders(where) == [str(tmp_path / name) for name in "bca"]
    with pytest.raises(UserError, match=r"3 problems: train: there is no folder .*/b; .*/c; .*/a$"):
        find_pairs(where, role="train")


def test_an_empty_folder_is_a_user_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"\[data\] validate: no pictures in"):
        find_pairs(Pairs(clean=str(tmp_path)), role="validate")
    make(tmp_path, "a.png")
    with pytest.raises(UserError, match="no pictures"):
        find_pairs(Pairs(clean=str(tmp_path), exclude=("a",)), role="train")
