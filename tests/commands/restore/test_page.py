"""`restore --report`: what the page tells of a real restoration, and that it spoils nothing."""

import html
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from restormer_cli.cli import app
from restormer_cli.commands.restore import page as page_module
from restormer_cli.commands.restore.page import RestorePage
from restormer_cli.commands.restore.types import Request, Restored, Started
from restormer_cli.errors import UserError


def restore(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["restore", "--device", "cpu", *map(str, arguments)])


def said(page: Path) -> str:
    """What a reader sees, without the tags."""
    body = page.read_text(encoding="utf-8").partition("<main>")[2].partition("<dialog")[0]
    return re.sub(r"\s+", " ", re.sub(r"<[^>]*>", " ", body))


def test_the_page_of_a_folder(tmp_path, colour_weights, write_png):
    write_png(tmp_path / "in" / "a.png", 30, 40)
    write_png(tmp_path / "in" / "deep" / "b & c.png", 20, 50, channels=1, bits=16)
    (tmp_path / "in" / "torn.png").write_bytes(write_png(tmp_path / "x.png").read_bytes()[:60])
    page = tmp_path / "new" / "page.html"
    arguments = (tmp_path / "in", tmp_path / "out", "--weights", colour_weights, "--report", page, "--strength", "0.5")
    assert restore(*arguments).exit_code == 3
    text = said(page)
    for wanted in ("2 restored", "1 failed", "deep/b &amp; c.png", "40 × 30", "colour.safetensors", "strength 0.5",
                   "cpu", "fp32", "torn.png", "ends too early"):  # fmt: skip
        assert wanted in text, wanted
    assert page.read_text().count('<div class="slider"') == 2
    # Again: the page is ours and may be replaced; pictures that are there already are shown too.
    assert restore(*arguments, "--skip-existing").exit_code == 3
    assert "2 skipped" in said(page)
    assert page.read_text().count('<div class="slider"') == 2
    assert sorted(path.name for path in page.parent.iterdir()) == ["page.html"]


def test_a_page_is_refused_before_any_work(tmp_path, colour_weights, write_png):
    source = write_png(tmp_path / "a.png")
    (tmp_path / "mine.html").write_text("<p>my thesis</p>")
    (tmp_path / "folder.html").mkdir()
    for name, reason in (
        ("page.txt", "ends in .html"),
        ("mine.html", "not a page by restormer"),
        ("folder.html", "is a folder"),
        ("a.png/page.html", "is a file"),
    ):
        result = restore(source, tmp_path / "out", "--weights", colour_weights, "--report", tmp_path / name)
        assert result.exit_code == 2
        assert reason in result.stderr
    assert not (tmp_path / "out").exists()
    assert (tmp_path / "mine.html").read_text() == "<p>my thesis</p>"


STARTED = Started(3, Path("denoise.safetensors"), "denoise", False, "cpu", "fp32", None)


def test_an_interrupted_run_leaves_a_page_of_what_was_done(tmp_path, write_png):
    source, target = write_png(tmp_path / "in" / "a.png"), write_png(tmp_path / "out" / "a.png")

    def interrupted():
        yield replace(STARTED, left_out="1 left out: 1 .gif")
        yield Restored(source, target, 13, 9, 1.0)
        raise KeyboardInterrupt

    page = RestorePage(tmp_path / "page.html", Request(source.parent, target.parent))
    with pytest.raises(KeyboardInterrupt):
        list(page.watch(interrupted()))
    text = said(tmp_path / "page.html")
    assert "1 restored" in text
    assert "Ended early: 2 of 3 files were not reached." in text
    assert "1 left out: 1 .gif" in text


def test_a_picture_that_is_gone_is_listed_without_a_slider(tmp_path, write_png):
    source = write_png(tmp_path / "in" / "a.png")
    page = RestorePage(tmp_path / "page.html", Request(source.parent, tmp_path / "out"))
    events = [STARTED, Restored(source, tmp_path / "out" / "a.png", 13, 9, 1.0), Restored(Path("-"), Path("-"))]
    assert list(page.watch(events)) == events
    assert "cannot be shown: " in said(tmp_path / "page.html")
    assert "standard input" in said(tmp_path / "page.html")
    assert '<div class="slider"' not in (tmp_path / "page.html").read_text()


def test_a_refused_run_writes_no_page(tmp_path):
    def refused():
        yield STARTED
        raise UserError("no")

    page = RestorePage(tmp_path / "page.html", Request(tmp_path, tmp_path))
    with pytest.raises(UserError):
        list(page.watch(refused()))
    assert list(tmp_path.iterdir()) == []


def test_past_the_limit_pictures_are_listed_only(tmp_path, write_png, monkeypatch):
    monkeypatch.setattr(page_module, "MOST_SLIDERS", 2)
    source, target = write_png(tmp_path / "in" / "a.png"), write_png(tmp_path / "out" / "a.png")
    page = RestorePage(tmp_path / "page.html", Request(source, target))
    list(page.watch([STARTED, *[Restored(source, target, 13, 9, 1.0)] * 3]))
    assert (tmp_path / "page.html").read_text().count('<div class="slider"') == 2
    assert "The first 2 of 3 files are shown" in said(tmp_path / "page.html")
    assert "3 restored" in said(tmp_path / "page.html")


def test_a_page_has_knobs_where_all_of_the_change_was_kept(tmp_path, colour_weights, write_png):
    picture, page = write_png(tmp_path / "in pictures" / "a.png", 30, 40), tmp_path / "page.html"
    arguments = (picture.parent, tmp_path / "out", "--weights", colour_weights, "--report", page, "--overwrite")
    assert restore(*arguments, "--tile", 64).exit_code == 0
    text = page.read_text()
    command = re.search(r'<fieldset class="knobs" data-command="([^"]*)"', text)
    assert command is not None
    words = shlex.split(html.unescape(command[1]))
    assert words[:4] == ["restormer", "restore", str(picture.parent), str(tmp_path / "out")]
    assert words[4:] == ["--weights", str(colour_weights), "--tile", "64", "--overwrite"]
    assert restore(*words[2:], "--luma", "0.5").exit_code == 0  # the command is one
    assert "data-detail=" in text
    for flags in (("--luma", 0.5), ("--strength", 0.5), ("--protect", "highlights")):
        assert restore(*arguments, *flags).exit_code == 0
        assert "data-detail=" not in page.read_text()
        assert '<fieldset class="knobs"' not in page.read_text()
        hint = f"Sliders for luma, chroma and detail are on the page of a run without {flags[0]}."
        assert (hint in page.read_text()) == (flags[0] != "--protect")
