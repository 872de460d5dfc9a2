"""Draw what a command shows on a terminal: it runs in a real one (a pseudo-terminal), and the screen becomes an SVG.

    python scripts/pictures/terminal.py docs/terminal-train.svg --until 'stage +2 of' -- \\
        restormer train quick/denoise --out RUN
    python scripts/pictures/terminal.py docs/terminal-restore.svg --until '5/6' -- restormer restore docs/samples/ OUT/

`--until` waits for a screen that matches, draws it and interrupts the command; without it the last screen is drawn.
Needs `pip install pyte`, a terminal's screen in memory.
"""

import argparse
import fcntl
import io
import os
import pty
import re
import select
import shlex
import signal
import struct
import sys
import termios
from pathlib import Path

import pyte
from rich.console import Console
from rich.style import Style
from rich.text import Text

NAMES = {"brown": "yellow", "default": None}
"""pyte's names for colours, where rich has others."""


def run(command: list[str], columns: int, rows: int, until: re.Pattern[str] | None) -> pyte.Screen:
    """The screen at the moment asked for, or at the end."""
    child, terminal = pty.fork()
    if child == 0:
        for name in ("NO_COLOR", "COLUMNS", "LINES"):
            os.environ.pop(name, None)
        os.environ["TERM"] = "xterm-256color"
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
    screen = pyte.Screen(columns, rows)
    stream = pyte.ByteStream(screen)
    while True:
        ready, _, _ = select.select([terminal], [], [], 0.05)
        if ready:
            try:
                data = os.read(terminal, 1 << 16)
            except OSError:  # how Linux says that the other side has hung up
                data = b""
            if not data:
                break
            stream.feed(data)
        elif until is not None and until.search("\n".join(screen.display)):  # quiet, so no frame is half drawn
            os.kill(child, signal.SIGINT)
            break
    os.waitpid(child, 0) if until is None else os.waitpid(child, os.WNOHANG)
    return screen


def draw(screen: pyte.Screen, command: list[str], title: str) -> str:
    """The screen as SVG, the command above it; no fonts from anywhere."""
    console = Console(
        record=True, width=screen.columns, file=io.StringIO(), force_terminal=True, color_system="truecolor"
    )
    console.print(Text.assemble(("$ ", "bold green"), (shlex.join(command), "bold")), soft_wrap=True)
    last = max((row for row, line in enumerate(screen.display) if line.strip()), default=0)
    for row in range(last + 1):
        line = Text()
        for column in range(screen.columns):
            cell = screen.buffer[row][column]
            line.append(cell.data, Style(color=_colour(cell.fg), bold=cell.bold, reverse=cell.reverse))
        line.rstrip()
        console.print(line, soft_wrap=True)
    svg = console.export_svg(title=title, unique_id="terminal")
    return re.sub(r"@font-face\s*\{.*?\}\s*", "", svg, flags=re.DOTALL)


def _colour(name: str) -> str | None:
    if re.fullmatch(r"[0-9a-f]{6}", name):
        return f"#{name}"
    return NAMES.get(name, re.sub(r"^bright", "bright_", name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("--until", type=re.compile)
    parser.add_argument("--columns", type=int, default=100)
    parser.add_argument("--rows", type=int, default=30)
    parser.add_argument("--shown", help="the command as it is shown, where that is shorter")
    if "--" not in sys.argv:
        parser.error("write -- before the command")
    split = sys.argv.index("--")
    options, command = parser.parse_args(sys.argv[1:split]), sys.argv[split + 1 :]
    screen = run(command, options.columns, options.rows, options.until)
    shown = shlex.split(options.shown) if options.shown else command
    options.target.write_text(draw(screen, shown, " ".join(shown[:2])), encoding="utf-8")


if __name__ == "__main__":
    main()
