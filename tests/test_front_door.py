"""`import restormer_cli` costs nothing, and what it offers is what the rooms define."""

import subprocess
import sys

import pytest

import restormer_cli

HEAVY = ("torch", "numpy", "PIL", "typer", "rich", "pydantic", "scipy.stats")


def loaded(code: str) -> set[str]:
    """Which heavy packages a fresh interpreter has loaded after some code."""
    code += f"\nimport sys; print(*[name for name in {HEAVY} if name in sys.modules])"
    return set(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split())


def test_the_import_alone_loads_nothing_heavy():
    assert loaded("import restormer_cli; restormer_cli.__version__") == set()


def test_pictures_are_read_without_torch():
    assert "torch" not in loaded("from restormer_cli import read_picture, write_picture")


def test_an_ablations_verdict_needs_no_statistics_that_take_a_second_to_import():
    assert "scipy.stats" not in loaded("import restormer_cli.commands.ablate.verdict")


def test_its_names_are_those_of_the_rooms():
    from restormer_cli import Restorer, load_weights, read_picture, write_picture
    from restormer_cli.engine.restorer import Restorer as engine_restorer
    from restormer_cli.images import io
    from restormer_cli.model.weights import load_weights as model_load_weights

    assert Restorer is engine_restorer
    assert load_weights is model_load_weights
    assert (read_picture, write_picture) == (io.read_picture, io.write_picture)
    assert set(restormer_cli.__all__) <= set(dir(restormer_cli))


def test_another_name_is_refused():
    with pytest.raises(AttributeError, match="has no attribute 'Restore'"):
        restormer_cli.Restore  # noqa: B018  # pyright: ignore[reportAttributeAccessIssue]
