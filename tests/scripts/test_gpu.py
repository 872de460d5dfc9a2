"""The scripts for a lent GPU, rehearsed on a CPU: what fails there cannot be mended in the minutes that there are."""

import io
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from restormer_cli.model.weights import load_weights

ROOT = Path(__file__).resolve().parents[2]
GPU = ROOT / "scripts" / "gpu"


def run(*command: str | Path) -> str:
    done = subprocess.run([sys.executable, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_leg_by_the_clock_ends_with_its_decay(tmp_path: Path) -> None:
    archive, out, recipe = tmp_path / "tiles.zip", tmp_path / "out", tmp_path / "tiny.toml"
    with zipfile.ZipFile(archive, "w") as file:
        for number, picture in enumerate((data.astronaut(), data.coffee()[:400, :400])):
            stream = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(picture[:400, :400])).save(stream, "AVIF", quality=95)
            file.writestr(f"{number}.avif", stream.getvalue())
    text = (ROOT / "recipes/gpu/denoise-fast.toml").read_text()
    for old, new in (("dim = 16", "dim = 8"), ("patch = 160", "patch = 32"), ("patch = 224", "patch = 48")):
        text = text.replace(old, new)
    recipe.write_text(text.replace("batch = 24", "batch = 6").replace("batch = 12", "batch = 4"))
    run(GPU / "learn.py", recipe, "--minutes", "2", "--steps", "3", "--photographs", archive, "--out", out)
    log = [json.loads(line) for line in (out / "tiny.jsonl").read_text().splitlines()]
    assert log[-1]["event"] == "end"
    assert log[-1]["step"] == 3
    weights = load_weights(out / "tiny.safetensors")
    assert weights.config.dim == 8
    assert weights.task == "denoise"
    assert load_weights(out / "tiny-last.safetensors").config == weights.config


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_what_measures_a_gpu_runs_through(tmp_path: Path) -> None:
    run(GPU / "measure.py", "--out", tmp_path, "--dry-run")
    document = json.loads((tmp_path / "measure.json").read_text())
    assert {"rows", "tests", "train"} <= document.keys()
    assert not [key for key, row in document["rows"].items() if isinstance(row, dict) and "error" in row]


def test_the_sharpest_tiles_are_packed_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(GPU))
    import pack

    rng = np.random.default_rng(0)
    picture = np.full((1100, 600, 3), 128, np.uint8)
    picture[560:1090, 40:560] = rng.integers(0, 256, (530, 520, 3))
    path = tmp_path / "x.png"
    Image.fromarray(picture).save(path)
    (first, tile), (second, _) = pack.best_tiles(path, 2)
    assert first > second
    assert tile.std() > 50
    data_, loss = pack.encode(np.ascontiguousarray(data.coffee()[:256, :256]), 94)
    assert len(data_) > 1000
    assert loss > 38
