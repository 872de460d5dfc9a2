"""How much of a picture is done, while it is restored: shares from 0 to 1, told in the thread that restores."""

from collections.abc import Callable
from functools import partial

Progress = Callable[[float], None]

FIRST_PASS = 0.3
"""Of a block's work; the second pass has the rest."""


def silent(share: float) -> None:
    """For those who do not want to know."""


class Meter:
    """Adds work up and tells its share of all there is."""

    def __init__(self, hear: Progress, total: float) -> None:
        self._hear, self._total, self._done = hear, total, 0.0

    def add(self, work: float) -> None:
        self._done += work
        self._hear(min(1.0, self._done / self._total))

    def each(self, work: float, count: int) -> Callable[[], None]:
        """What adds one of so many equal parts of some work."""
        return partial(self.add, work / max(1, count))


def part_of(hear: Progress, index: int, count: int) -> Progress:
    """The progress of one of so many equal parts as the progress of all."""
    return lambda share: hear((index + share) / count)
