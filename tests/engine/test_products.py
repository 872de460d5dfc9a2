"""A choice that was measured once is the machine's: equal commands write equal pixels."""

import json
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from restormer_cli.engine import products
from restormer_cli.engine.products import kept


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("RESTORMER_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def chooser(answer: bool, asked: list, possible: Callable[..., bool] = lambda *_: True):
    """A measurement that comes out so; as a process of its own would have it."""

    @kept(possible)
    def prefers(outputs: int, inputs: int, dtype: torch.dtype, widths: tuple[int, ...] = ()) -> bool:
        asked.append((outputs, inputs, dtype, widths))
        return answer

    return prefers


@pytest.mark.parametrize("first", [True, False])
def test_a_busy_machine_does_not_change_the_choice(first: bool) -> None:
    asked = []
    assert chooser(first, asked)(96, 48, torch.float32) is first
    assert chooser(not first, asked)(96, 48, torch.float32) is first  # measured, it would be the other
    assert asked == [(96, 48, torch.float32, ())]
    assert chooser(not first, asked)(96, 48, torch.bfloat16) is not first
    assert chooser(not first, asked)(96, 48, torch.float32, (48, 48)) is not first
    assert len(asked) == 3


def test_another_processor_or_pytorch_is_asked_again(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    chooser(True, asked)(8, 8, torch.float32)
    monkeypatch.setattr(products, "processor_name", lambda: "An abacus")
    assert not chooser(False, asked)(8, 8, torch.float32)
    monkeypatch.setattr(products.torch, "__version__", "99.0")
    assert not chooser(False, asked)(8, 8, torch.float32)
    assert len(asked) == 3
    documents = [json.loads(path.read_text()) for path in (folder / "products").glob("*.json")]
    assert sum(document["machine"].startswith("An abacus · ") for document in documents) == 2


def test_processes_that_begin_together_agree() -> None:
    """Whoever holds the lock measures, and the others take that."""
    asked = []
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda turn: chooser(turn % 2 == 0, asked)(8, 8, torch.float32), range(8)))
    assert len(set(answers)) == len(asked) == 1


@pytest.mark.parametrize(
    "damage", ["[]", "{", '{"choices": 3}', '{"choices": {"prefers(8, 8, torch.float32)": "yes"}}']
)
def test_a_damaged_file_is_made_again(folder: Path, damage: str) -> None:
    asked = []
    chooser(True, asked)(8, 8, torch.float32)
    (path,) = (folder / "products").glob("*.json")
    path.write_text(damage)
    assert not chooser(False, asked)(8, 8, torch.float32)
    assert not chooser(True, asked)(8, 8, torch.float32)
    assert len(asked) == 2


@pytest.mark.parametrize("mkl", [True, False])
def test_where_nothing_can_be_kept_nothing_is_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, mkl: bool
) -> None:
    asked = []
    folder.write_text("a file in the folder's place")
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: mkl)
    assert chooser(mkl, asked)(8, 8, torch.float32) is not mkl
    assert not asked


def test_without_a_choice_nothing_is_asked_or_kept(folder: Path) -> None:
    asked = []
    assert not chooser(True, asked, lambda outputs, *_: outputs > 8)(8, 8, torch.float32)
    assert not asked
    assert not folder.exists()
