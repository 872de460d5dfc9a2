"""Threads that compute the pieces of a map side by side, each with its share of the processor's cores.

On a CPU that beats all cores on one operation after the other: an operation on a strip takes a millisecond, and after
each the cores would wait for the slowest, which on a busy machine is one that somebody else is using (docs/log.md).
"""

import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerPool:
    """Does lists of jobs on `size` threads, which live as long as the pool; with fewer than two, in the caller's."""

    def __init__(self, size: int | None = None) -> None:
        self._size = size
        self._pool: ThreadPoolExecutor | None = None
        self._threads = 0
        self._local = threading.local()

    @property
    def size(self) -> int:
        """How many jobs run at once: as many as PyTorch has threads, where nothing else was said."""
        return self._size or torch.get_num_threads()

    def map(
        self, job: Callable[[Item], Result], items: Sequence[Item], done: Callable[[], None] | None = None
    ) -> list[Result]:
        """The job's result for every item, in order; the jobs share the cores. A single one has all cores, here.

        `done` is called here, in the caller's thread, for each result.
        """
        if len(items) < 2 or self.size < 2:
            return _told(map(job, items), done)
        return self._map(job, items, max(1, torch.get_num_threads() // min(self.size, len(items))), done)

    def alone(self, job: Callable[[], Result]) -> Result:
        """The job's result, by a single core: for little work between lists of jobs. OpenMP's threads, once they have
        shared an operation, may spin for milliseconds in expectation of another, on cores that jobs want."""
        if self.size < 2:
            return job()
        return self._map(lambda job: job(), [job], 1)[0]

    def _map(
        self, job: Callable[[Item], Result], items: Sequence[Item], share: int, done: Callable[[], None] | None = None
    ) -> list[Result]:
        cores = torch.get_num_threads()

        def infer(item: Item) -> Result:
            self._take(share)
            with torch.inference_mode():  # a thread has a mode of its own
                return job(item)

        try:
            return _told(self._executor().map(infer, items), done)
        finally:
            torch.set_num_threads(cores)  # the number for threads yet to come, which `_take` has changed too

    def _take(self, share: int) -> None:
        """Give this thread so many cores."""
        if getattr(self._local, "share", None) != share:
            torch.get_num_threads()  # a thread's first such question sets its number anew: here, not later
            torch.set_num_threads(share)
            self._local.share = share

    def _executor(self) -> ThreadPoolExecutor:
        if self._pool is None or self._threads != self.size:
            if self._pool is not None:
                self._pool.shutdown()
            self._threads = self.size
            self._pool = ThreadPoolExecutor(self._threads, thread_name_prefix="piece")
        return self._pool


def _told(results: Iterable[Result], done: Callable[[], None] | None) -> list[Result]:
    if done is None:
        return list(results)
    told = []
    for result in results:
        told.append(result)
        done()
    return told
