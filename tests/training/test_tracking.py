"""Metrics reach a tracker; a missing one is told with its install command."""

from importlib.util import find_spec
from pathlib import Path

import pytest

from restormer_cli.errors import UserError
from restormer_cli.recipe import Recipe
from restormer_cli.training import tracking
from restormer_cli.training.trainer import fit


def recipe(folder: Path, track: str) -> Recipe:
    return Recipe.model_validate(
        {
            "task": "denoise",
            "model": {"dim": 2, "blocks": [0, 1, 0, 1], "heads": [1, 1, 1, 1], "refinement": 0},
            "data": {"train": {"clean": str(folder)}, "validate": {"clean": str(folder)}},
            "degrade": {"steps": ["gaussian:25"]},
            "validation": {"crop": 8},
            "stage": [{"iterations": 2, "patch": 8, "batch": 1}],
            "run": {"track": track},
        }
    )


@pytest.mark.parametrize("name", ["tensorboard", "trackio", "wandb"])
def test_a_missing_tracker_is_one_line_with_its_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda package: None)
    with pytest.raises(UserError, match=f"^--track {name}: {name} is not installed: pip install {name}$"):
        list(fit(recipe(tmp_path, name), tmp_path / "run", device="cpu"))
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(find_spec("tensorboard") is None, reason="pip install tensorboard")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_receives_losses_and_scores(tmp_path: Path, write_png) -> None:
    write_png(tmp_path / "clean" / "a.png", 16, 16)
    list(fit(recipe(tmp_path / "clean", "tensorboard"), tmp_path / "run", device="cpu"))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = (tmp_path / "run" / "restormer").glob("events.*")
    found = EventAccumulator(str(events))
    found.Reload()
    assert [event.step for event in found.Scalars("loss")] == [1, 2]
    assert [event.step for event in found.Scalars("validation/psnr")] == [2]
