"""Finding pictures in folders as people keep them."""

import os
from pathlib import Path

import pytest

from restormer_cli.errors import UserError
from restormer_cli.images.listing import find_pictures, left_out


def make(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path, *, recursive: bool = False) -> list[str]:
    return [path.relative_to(root).as_posix() for path in find_pictures(root, recursive=recursive)]


def test_natural_order(tmp_path):
    make(tmp_path, "img10.png", "img2.png", "IMG1.png", "img02.png", "a.png", "007.png", "12.png")
    assert found(tmp_path) == ["007.png", "12.png", "a.png", "IMG1.png", "img02.png", "img2.png", "img10.png"]


def test_only_pictures_by_any_spelling_of_their_extension(tmp_path):
    make(tmp_path, "a.PNG", "b.JpEg", "c.tif", "d.TIFF", "e.webp", "f.bmp", "g.jxl", "h.avif", "i.jpg")
    make(tmp_path, "a.txt", "b.gif", "png", "c.png.part", "noextension")
    assert [name[0] for name in found(tmp_path)] == list("abcdefghi")
    told = left_out([tmp_path], {}, lambda folder: False, lambda folder: set(), tmp_path / "out")
    assert told == "1 left out: 1 .gif (convert it to PNG, or name it alone: a video)"
    make(tmp_path, "j.ppm", "k.TGA", "l.ico", "m.exr")
    told = left_out([tmp_path], {}, lambda folder: False, lambda folder: set(), tmp_path / "out")
    assert told is not None
    assert told.startswith("5 left out: 1 .exr (convert it to TIFF), 1 .gif (")
    assert told.endswith("1 .ico (convert it to PNG), 1 .ppm (convert it to PNG), 1 .tga (convert it to PNG)")


def test_results_beside_inputs_are_told_where_results_go_elsewhere(tmp_path):
    make(tmp_path, "a.png", "a_x.png")

    def told(out: Path) -> str | None:
        return left_out([tmp_path], {}, lambda folder: False, lambda folder: {"a_x.png", "gone_x.png"}, out)

    assert told(tmp_path / "out") == "1 left out: 1 earlier result"
    assert told(tmp_path) is None


def test_what_systems_leave_behind_is_ignored(tmp_path):
    make(tmp_path, "._a.png", ".DS_Store", "Thumbs.db", "desktop.ini", ".hidden.png", ".cache/b.png", "a.png")
    assert found(tmp_path, recursive=True) == ["a.png"]


def test_subfolders_only_when_asked(tmp_path):
    make(tmp_path, "b.png", "sub10/a.png", "sub2/a.png", "sub2/deep/er.png")
    assert found(tmp_path) == ["b.png"]
    assert found(tmp_path, recursive=True) == ["b.png", "sub2/a.png", "sub2/deep/er.png", "sub10/a.png"]


def test_links_are_followed_and_loops_end(tmp_path):
    inside = tmp_path / "in"
    make(inside, "a.png", "sub/b.png")
    make(tmp_path, "elsewhere/c.png")
    (inside / "sub" / "loop").symlink_to(inside)
    (inside / "twin").symlink_to(inside / "sub")
    (inside / "self").symlink_to(inside / "self")
    (inside / "linked").symlink_to(tmp_path / "elsewhere")
    (inside / "linked.png").symlink_to(inside / "a.png")
    (inside / "broken.png").symlink_to(inside / "nowhere.png")
    assert found(inside, recursive=True) == ["a.png", "linked/c.png", "linked.png", "sub/b.png"]


def test_folders_and_pipes_named_like_pictures_are_no_pictures(tmp_path):
    make(tmp_path, "folder.png/a.png")
    os.mkfifo(tmp_path / "pipe.png")
    assert found(tmp_path) == []
    assert found(tmp_path, recursive=True) == ["folder.png/a.png"]


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path, monkeypatch):
    make(tmp_path, "a.png")
    with pytest.raises(UserError, match="no such folder; check the path"):
        find_pictures(tmp_path / "missing")
    with pytest.raises(UserError, match=r"a\.png: is not a folder"):
        find_pictures(tmp_path / "a.png")

    def denied(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "listdir", denied)
    with pytest.raises(UserError, match="cannot be listed"):
        find_pictures(tmp_path)
