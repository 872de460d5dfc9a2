"""A run's log becomes a picture, whatever state the log is in."""

import json
from pathlib import Path

import imagecodecs
import pytest
from matplotlib.axes import Axes

from restormer_cli.commands.train.curves import draw_curves, smoothed


def test_a_log_with_gaps_becomes_a_picture(tmp_path: Path) -> None:
    steps = [{"iteration": i, "stage": i // 5, "loss": 1 / i if i != 4 else None, "lr": 1e-3} for i in range(1, 10)]
    lines = [*steps, {"validation": 9, "psnr": 30.0, "input_psnr": None}, {"rolled_back": 9, "to": 0, "scale": 0.5}]
    log = tmp_path / "metrics.jsonl"
    log.write_text("\n".join(map(json.dumps, lines)) + '\n{"iterat')
    assert draw_curves(log, tmp_path / "curves.png", "a run")
    assert imagecodecs.png_decode((tmp_path / "curves.png").read_bytes()).shape[:2] == (1080, 960)


def test_a_loss_below_0_is_drawn_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scales = []
    plain = Axes.set
    monkeypatch.setattr(
        Axes, "set", lambda self, **options: scales.append(options.get("yscale")) or plain(self, **options)
    )
    log = tmp_path / "metrics.jsonl"
    log.write_text("\n".join(json.dumps({"iteration": i, "stage": 0, "loss": -i, "lr": 1e-3}) for i in range(1, 10)))
    assert draw_curves(log, tmp_path / "curves.png", "minus a PSNR")
    assert scales[0] == "linear"


def test_nothing_logged_is_no_picture(tmp_path: Path) -> None:
    assert not draw_curves(tmp_path / "none.jsonl", tmp_path / "curves.png", "a run")
    assert not (tmp_path / "curves.png").exists()


def test_smoothing_starts_at_the_first_value_and_keeps_a_constant() -> None:
    assert smoothed([3.0] * 200) == pytest.approx([3.0] * 200)
    assert smoothed([5.0, 1.0])[0] == 5.0
