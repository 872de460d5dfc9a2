"""The bundled checkpoint on the shipped sample photographs, which it was not trained on."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from restormer_cli.cli import app
from restormer_cli.images.io import read_picture
from restormer_cli.metrics.measures import psnr

DOCS = Path(__file__).parents[3] / "docs"
NAMES = [f"{photograph}-sigma{sigma}" for photograph in ("chelsea", "rocket") for sigma in (15, 25, 50)]


@pytest.fixture(scope="module")
def gains(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """How many dB each restored sample, as stored in 8 bits, is nearer to the original than the noisy one."""
    out = tmp_path_factory.mktemp("samples") / "out"
    result = CliRunner().invoke(app, ["restore", str(DOCS / "samples"), str(out), "--device", "cpu"])
    assert result.exit_code == 0, result.output
    assert sorted(path.stem for path in out.iterdir()) == NAMES

    def score(picture: Path) -> float:
        original = DOCS / "originals" / f"{picture.stem.partition('-')[0]}.png"
        return psnr(read_picture(picture).pixels, read_picture(original).pixels, peak=1.0)

    return {name: score(out / f"{name}.png") - score(DOCS / "samples" / f"{name}.png") for name in NAMES}


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_is_better_than_it_was(gains, name):
    assert gains[name] > 0


def test_the_gain_at_sigma_25_is_9_db_or_more(gains):
    assert np.mean([gain for name, gain in gains.items() if name.endswith("25")]) >= 9


@pytest.mark.slow
def test_a_budget_holds_for_every_picture_of_a_folder(tmp_path: Path) -> None:
    """Six of six, each as the dry run says, and never more than was allowed."""
    command = [
        sys.executable,
        "-m",
        "restormer_cli",
        "restore",
        str(DOCS / "samples"),
        str(tmp_path / "out"),
        "--memory",
    ]

    def files(budget: str, *more: str) -> list[dict]:
        done = subprocess.run([*command, budget, "--json", "--device", "cpu", *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)["files"]

    for budget, more in (("860MB", []), ("600MB", ["--overwrite"])):
        promised, done = files(budget, "--dry-run", *more), files(budget, *more)
        assert [file["plan"] for file in done] == [file["plan"] for file in promised]
        assert max(file["memory"] for file in done) <= int(budget[:-2]) * 1_000_000
