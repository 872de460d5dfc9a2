"""The terminal: one console on stderr for all verbs, errors and cautions on it, and downloads as they go.

Without a terminal, or with NO_COLOR, there are plain lines instead of a live panel.
"""

import os

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TextColumn,
    TransferSpeedColumn,
)
from rich.text import Text

from restormer_cli import launcher
from restormer_cli.errors import one_line

# rich's own reading of NO_COLOR would still make text bold and draw panels.
stderr = Console(
    stderr=True, highlight=False, soft_wrap=True, color_system=None if os.environ.get("NO_COLOR") else "auto"
)


def complain(message: str) -> None:
    """One red line, whatever characters a file's name brings along."""
    line = one_line(message)
    if not launcher.is_first():
        line = f"process {launcher.rank()}: {line}"
    stderr.print(Text(f"error: {line}", style="bold red"))


def animated() -> bool:
    return stderr.is_terminal and stderr.color_system is not None


def fetched(name: str | None) -> str | None:
    """Weights as they were named; those that are elsewhere are fetched first, and become a path."""
    from restormer_cli.model.hub import fetch, is_remote

    if name is None or not is_remote(name) or os.path.lexists(name):
        return name
    first = launcher.is_first()

    def notice(text: str) -> None:
        if first:
            stderr.print(Text(f"note: {text}", style="yellow"))

    with Progress(
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        console=stderr, transient=True, disable=not (first and animated()),
    ) as bar:  # fmt: skip
        task = bar.add_task(name, total=None)
        return str(fetch(name, notice, lambda done, total: bar.update(task, completed=done, total=total)))


def caution(line: str) -> None:
    """A yellow line."""
    stderr.print(Text(line, style="yellow"))


def duration(seconds: float, digits: int = 0) -> str:
    """12 s (with digits of its own), 4 min 05 s, 2 h 03 min."""
    if round(seconds, digits) < 60:
        return f"{seconds:.{digits}f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min {rest:02d} s"
