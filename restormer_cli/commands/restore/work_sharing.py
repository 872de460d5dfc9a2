"""Several processes that share the work, on one machine or more: `accelerate launch` or `torchrun` starts them.

The first process says what each has to do, and hears from the others as they go on; nothing else is exchanged, so a
key-value store does, and no process ever waits for another's picture.
"""

import json
import time
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

from restormer_cli import launcher

PATIENCE = timedelta(days=365)  # the launcher ends everybody when one of us dies


class Team:
    """This process's place among those that the launcher started. What is sent is JSON."""

    def __init__(self) -> None:
        from torch.distributed.rendezvous import rendezvous

        self.store, self.rank, self.size = next(iter(rendezvous("env://", timeout=PATIENCE)))
        self._sent = 0
        self._heard = [0] * self.size
        self._over = {self.rank}

    @staticmethod
    def join() -> "Team | None":
        """None where there is but one process."""
        return Team() if launcher.processes() > 1 else None

    def assign(self, shares: Sequence[Any]) -> None:
        """From the first process: what each of the others has to do; None for nothing at all."""
        for rank in range(1, self.size):
            self.store.set(f"share/{rank}", json.dumps(shares[rank]))

    def dismiss(self) -> None:
        """From the first process: those that have not been assigned anything are not needed."""
        for rank in range(1, self.size):
            self.store.compare_set(f"share/{rank}", "", "null")

    def share(self) -> Any:
        """What this process has to do; waits until the first one has said so."""
        return json.loads(self.store.get(f"share/{self.rank}"))

    def send(self, message: Any) -> None:
        """Tell the first process; None says that this one is done."""
        self.store.set(f"message/{self.rank}/{self._sent}", json.dumps(message))
        self._sent += 1

    def heard(self) -> Iterator[Any]:
        """In the first process: what the others have sent since the last call; does not wait."""
        for rank in range(1, self.size):
            while rank not in self._over and self.store.check([key := f"message/{rank}/{self._heard[rank]}"]):
                message = json.loads(self.store.get(key))
                self.store.delete_key(key)
                self._heard[rank] += 1
                if message is None:
                    self._over.add(rank)
                else:
                    yield message

    def remaining(self) -> Iterator[Any]:
        """In the first process: everything that the others still send, until all are done."""
        while len(self._over) < self.size:
            yield from self.heard()
            time.sleep(0.05)


def split(weights: Sequence[float], parts: int) -> list[list[int]]:
    """Indices in `parts` shares of about the same weight, each in ascending order.

    The heaviest first, each to the share that has the least: no share exceeds the best possible one by a third.
    """
    shares: list[list[int]] = [[] for _ in range(parts)]
    loads = [0.0] * parts
    for index in sorted(range(len(weights)), key=lambda index: -weights[index]):
        least = loads.index(min(loads))
        shares[least].append(index)
        loads[least] += weights[index] or 1e-9  # weightless ones are spread too
    return [sorted(share) for share in shares]
