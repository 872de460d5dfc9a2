"""A phone's folder, made here: everything in it is restored, or told."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from restormer_cli import cli

IMAGES = Path(__file__).parents[2] / "images"
sys.path.insert(0, str(IMAGES))


@pytest.mark.slow
def test_everything_in_a_phones_folder_is_restored_or_told(tmp_path, colour_weights):
    import test_heic  # pyright: ignore
    import test_raw  # pyright: ignore

    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("ultrahdr.jpg", "motion.jpg"):
        shutil.copy(IMAGES / "files" / name, folder)
    (folder / "IMG_1.HEIC").write_bytes(test_heic.heic(10))
    Image.fromarray(np.full((20, 20, 3), 200, np.uint8)).save(folder / "sticker.gif")
    (folder / "IMG_2.DNG").write_bytes(test_raw.dng())
    Image.fromarray(np.full((96, 54, 3), 200, np.uint8)).save(folder / "Screenshot.png")
    cut = (IMAGES / "files" / "photo.jpg").read_bytes()
    (folder / "cut.jpg").write_bytes(cut[: len(cut) * 2 // 3])
    shutil.copy(IMAGES / "films" / "rot.mp4", folder / "VID_1.MP4")
    page = tmp_path / "page.html"
    flags = ["--weights", str(colour_weights), "--device", "cpu", "--report", str(page)]
    result = CliRunner().invoke(cli.app, ["restore", str(folder), str(tmp_path / "out"), *flags])
    told = " ".join(result.output.split())
    assert result.exit_code == 3, told
    assert "6 restored, 1 failed" in told
    cut_short = "cut.jpg: truncated: the file ends too early; copy or download it again, or take what is there of it:"
    assert told.count(f"{cut_short} --salvage") == 1
    assert told.count("1 left out: 1 .gif (convert it to PNG, or name it alone: a video)") == 1
    assert "HDR gain map is not kept" in told
    assert "motion photo is not kept" in told
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"ultrahdr.jpg", "motion.jpg", "IMG_1.HEIC", "IMG_2.DNG", "Screenshot.png", "VID_1.MP4"}
    shown = page.read_text(encoding="utf-8")
    assert "--salvage" in shown
    assert shown.count("1 left out: 1 .gif (convert it to PNG, or name it alone: a video)") == 1
    assert all(name in shown for name in ("IMG_1.HEIC", "IMG_2.DNG", "cut.jpg", "VID_1.MP4"))
    salvaged = CliRunner().invoke(
        cli.app, ["restore", str(folder / "cut.jpg"), str(tmp_path / "cut.jpg"), "--salvage", *flags[:4]]
    )
    assert salvaged.exit_code == 0, salvaged.output
