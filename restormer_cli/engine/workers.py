"""Threads that compute the pieces of a map side by side, each with its share of the processor's cores.

On a CPU that beats all cores on one operation after the other: an operation on a strip takes a millisecond, and after
each the cores would wait for the slowest, which on a busy machine is one that somebody else is using (docs/log.md).
"""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

STARTING = 10.0
"""Seconds that threads wait for each other to start; after that, those that could start do the work."""


class WorkerPool:
    """Does lists of jobs on `size` threads, which live as long as the pool; with fewer than two, in the caller's."""

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 0

    @property
    def size(self) -> int:
        """How many jobs run at once: as many as PyTorch has threads, where nothing else was said."""
        return self._size or torch.get_num_threads()

    def map(self, job: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The job's result for every item, in order. A single item is left to this thread and all cores."""
        if len(items) < 2 or self.size < 2:
            return [job(item) for item in items]

        def infer(item: Item) -> Result:
            with torch.inference_mode():  # a thread has a mode of its own
                return job(item)

        return list(self._executor().map(infer, items))

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None or self._threads != self.size:
            if self._pool is not None:
                self._pool.shutdown()
            cores, self._threads = torch.get_num_threads(), self.size
            share = max(1, cores // self._threads)
            started = threading.Barrier(self._threads)

            def prepare(_: int) -> None:
                # A thread's number of OpenMP threads stays only once the thread has computed something in parallel.
                # PyTorch also keeps the number for threads yet to come: it is put back below.
                torch.zeros(1 << 16).add_(1)
                torch.set_num_threads(share)
                with suppress(threading.BrokenBarrierError):
                    started.wait(STARTING)

            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="piece")
            list(self._pool.map(prepare, range(self._threads)))
            torch.set_num_threads(cores)
        return self._pool
