"""SIGINT and SIGTERM: a running step may finish, so that what it has learnt can be kept."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any


class StopRequest:
    """Stop requests by signals; calling it tells whether to stop after this step."""

    def __init__(self) -> None:
        self.asked = False
        self.gentle = False

    def __call__(self) -> bool:
        return self.asked

    def be_gentle(self) -> None:
        """From now on the first signal only asks; until then there is nothing to keep, and it stops at once."""
        self.gentle = True

    def handle(self, number: int, frame: FrameType | None) -> None:
        """The first asks; a second SIGINT stops at once (launchers may well send a second SIGTERM)."""
        if not self.gentle or (self.asked and number == signal.SIGINT):
            signal.signal(signal.SIGINT, signal.SIG_DFL)  # a third reaches even what does not listen
            raise KeyboardInterrupt
        self.asked = True


@contextmanager
def stop_requests() -> Iterator[StopRequest]:
    """Listen to signals; outside the main thread, where Python has none, never asked."""
    request = StopRequest()
    before: dict[signal.Signals, Any] = {}
    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, request.handle)
    except ValueError:
        before.clear()
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
