"""`--skip-existing` tells where what is there was made otherwise, and goes on skipping."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from restormer_cli.cli import app
from restormer_cli.commands.restore import settings as room


def restore(*arguments: object) -> str:
    result = CliRunner().invoke(app, ["restore", "--device", "cpu", *map(str, arguments)])
    assert result.exit_code == 0, result.output
    return " ".join(result.stderr.split())


@pytest.fixture
def folders(tmp_path: Path, write_png) -> tuple[Path, Path]:
    """IN with two pictures, and an OUT that is not there yet."""
    for name in ("a.png", "deep/b.png"):
        write_png(tmp_path / "in" / name)
    return tmp_path / "in", tmp_path / "out"


def test_other_settings_are_told_once_with_their_names(folders, gray_weights, colour_weights, write_png):
    weights = ("--weights", colour_weights)
    restore(*folders, *weights)
    write_png(folders[0] / "c.png")
    same = restore(*folders, *weights, "--skip-existing", "--threads", "1", "--quality", "50", "--deinterlace")
    assert "other settings" not in same
    assert "1 restored, 2 skipped" in same
    other = restore(*folders, *weights, "--skip-existing", "--strength", "0.5", "--tile", "64")
    told = "3 of the results that are there were made with other settings (--strength, --tile, --overlap)"
    assert f"note: {told}: --overwrite makes them anew" in other
    assert "0 restored, 3 skipped" in other
    assert "(--weights)" in restore(*folders, "--weights", gray_weights, "--skip-existing", "--dry-run")


def test_the_newest_result_of_a_name_counts(folders):
    restore(*folders, "--degrade", "gaussian:9")
    restore(*folders, "--degrade", "gaussian:25", "--overwrite")
    assert "other settings" not in restore(*folders, "--degrade", "gaussian:25", "--skip-existing")
    assert "(--degrade)" in restore(*folders, "--degrade", "gaussian:9", "--skip-existing")


def test_quality_concerns_lossy_formats_alone(folders):
    flags = ("--degrade", "gaussian:9", "--ext", "jpg")
    restore(*folders, *flags)
    assert "(--quality)" in restore(*folders, *flags, "--skip-existing", "--quality", "50")


def test_a_result_that_is_another_file_by_now_is_not_spoken_of(folders):
    flags = ("--degrade", "gaussian:9")
    restore(*folders, *flags)
    (folders[1] / "a.png").write_bytes(b"mine")
    told = restore(*folders, *flags, "--skip-existing", "--seed", "5")
    assert "1 of the results that are there was made with other settings (--seed)" in told


def test_a_record_that_is_damaged_or_cannot_be_written_costs_nothing(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path / "cache"))
    flags = ("--degrade", "gaussian:9")
    restore(*folders, *flags)
    (record,) = (tmp_path / "cache" / "results").iterdir()
    with record.open("ab") as stream:
        stream.write(b'\xff\n["x"]\n[1, 2, {}]\nnull\n' + json.dumps(["x", "./a.png", 5]).encode()[:-3])
    assert "2 of the results" in restore(*folders, *flags, "--skip-existing", "--seed", "5")
    monkeypatch.setenv("RESTORMER_CACHE", "/dev/null/no")
    assert "2 skipped" in restore(*folders, *flags, "--skip-existing", "--seed", "5")


def test_nothing_is_written_beside_results_nor_of_single_pictures(folders, monkeypatch, tmp_path):
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path / "cache"))
    restore(folders[0] / "a.png", tmp_path / "one.png", "--degrade", "gaussian:9")
    assert not (tmp_path / "cache" / "results").exists()
    restore(*folders, "--degrade", "gaussian:9")
    assert sorted(path.name for path in folders[1].iterdir()) == ["a.png", "deep"]


def test_graphs_of_two_files_are_both_looked_at(tmp_path):
    for name, text in (("a.xml", "1"), ("a.bin", "2")):
        (tmp_path / name).write_text(text)
    before = room._contents(tmp_path / "a.xml")
    (tmp_path / "a.bin").write_text("3")
    assert room._contents(tmp_path / "a.xml") != before


def test_deinterlacing_concerns_videos_alone():
    before, now = {"deinterlace": False, "subsampling": "4:4:4"}, {"deinterlace": True, "subsampling": "4:2:0"}
    assert room._differences(before, now, Path("a.mkv")) == ["--deinterlace"]
    assert room._differences(before, now, Path("a.jpg")) == ["--subsampling"]
    assert room._differences(before, now, Path("a.png")) == []
