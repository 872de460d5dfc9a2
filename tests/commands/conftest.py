import io
import time

import pytest
from rich.console import Console

from restormer_cli.commands.restore import view as restore_view
from restormer_cli.commands.train import view as train_view
from restormer_cli.report import console as console_module


class Clock:
    """Time that passes when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(time, "monotonic", clock.monotonic)
    return clock


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """A terminal with colours, 100 columns wide."""
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system="standard", width=100, highlight=False)
    for module in (console_module, restore_view, train_view):
        monkeypatch.setattr(module, "stderr", console)
    return stream
