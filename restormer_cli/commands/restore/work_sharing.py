"""Several processes that share the work, on one machine or more: `accelerate launch` or `torchrun` starts them.

The first process says what each has to do, and hears from the others as they go on; nothing else is exchanged, so a
key-value store does, and no process ever waits for another's picture. Waits are short looks, between which signals
are heard; a thread of each process shows that it lives, and one that has not for `DEAD` seconds is given up.
"""

import json
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from datetime import timedelta
from typing import Any

from restormer_cli import launcher
from restormer_cli.errors import Failed

ANSWER = timedelta(seconds=60)
"""In which the store answers a question, if it is there at all."""
BEAT, DEAD, LOOK = 5.0, 60.0, 0.05
"""Seconds between two signs of life; without one, until a process counts as dead; between two looks."""


class Team:
    """This process's place among those that the launcher started. What is sent is JSON."""

    def __init__(self) -> None:
        from torch.distributed import PrefixStore, TCPStore  # pyright: ignore[reportPrivateImportUsage]

        launcher.check()
        launcher.wait_for_first()
        self.rank, self.size = launcher.rank(), launcher.processes()
        serves = self.rank == 0 and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True"  # else torchrun does
        host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        try:
            store = TCPStore(host, port, None, serves, timeout=ANSWER, wait_for_workers=False, multi_tenant=True)
        except RuntimeError as error:
            raise Failed(f"{host}:{port}: no meeting of the processes there: {str(error).splitlines()[0]}") from None
        self.store = PrefixStore(f"restormer/{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
        self.lost: set[int] = set()
        """In the first process: those that died with work undone."""
        self._sent = 0
        self._heard = [0] * self.size
        self._over = {self.rank}
        self._beats = {rank: ("", time.monotonic()) for rank in range(self.size)}
        threading.Thread(target=self._live, name="heartbeat", daemon=True).start()

    def _live(self) -> None:
        """Show now and then that this process lives, until it ends or nobody can see it."""
        beat = 0
        with suppress(RuntimeError):
            while True:
                beat += 1
                self.store.set(f"beat/{self.rank}", str(beat))
                time.sleep(BEAT)

    def _alive(self, rank: int) -> bool:
        """Whether there was a sign of life within `DEAD` seconds (of one yet to join: within those of joining)."""
        beat, since = self._beats[rank]
        key, now = f"beat/{rank}", time.monotonic()
        newest = self.store.get(key).decode() if self.store.check([key]) else ""
        if newest != beat:
            self._beats[rank] = newest, now
            return True
        return now - since < (DEAD if beat else launcher.JOINING)

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
        """Jobs of this process; waits until the first process has shared them out."""
        key = f"share/{self.rank}"
        try:
            while not self.store.check([key]):
                if not self._alive(0):
                    raise Failed("the first process is gone: nothing says what to do")
                time.sleep(LOOK)
            return json.loads(self.store.get(key))
        except RuntimeError:  # the store was the first one's
            raise Failed("the first process is gone: nothing says what to do") from None

    def send(self, message: Any) -> None:
        """Tell the first process; None says that this one is done."""
        try:
            self.store.set(f"message/{self.rank}/{self._sent}", json.dumps(message))
        except RuntimeError:
            raise Failed("the first process is gone: what this one does is not heard") from None
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
        """In the first process: everything that the others still send, until all are done or dead (`lost`)."""
        while len(self._over) < self.size:
            yield from self.heard()
            dead = {rank for rank in range(self.size) if rank not in self._over and not self._alive(rank)}
            if dead:
                yield from self.heard()  # its last words
                self.lost |= dead - self._over
                self._over |= dead
            time.sleep(LOOK)


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
