"""Threads that walk the bands of a map side by side, each with its share of the processor's cores.

On a CPU that beats all cores on one operation after the other: an operation on a strip takes a millisecond, and after
each the cores would wait for the slowest, which on a busy machine is one that somebody else is using (docs/log.md).
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TypeVar

import torch

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkerPool:
    """Does a list of jobs: on threads while `running`, otherwise one after the other."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    @contextmanager
    def running(self, size: int) -> Iterator[None]:
        """`size` threads for as long as the `with` lasts; for fewer than two, none."""
        if size < 2:
            yield
            return
        cores = torch.get_num_threads()
        ready = threading.Barrier(size)

        def prepare(_: int) -> None:
            # This thread's share. PyTorch also keeps the number for threads yet to come: it is put back below.
            torch.set_num_threads(max(1, cores // size))
            ready.wait()

        with ThreadPoolExecutor(size, thread_name_prefix="band") as pool:
            list(pool.map(prepare, range(size)))
            torch.set_num_threads(cores)
            self._pool = pool
            try:
                yield
            finally:
                self._pool = None

    def map(self, job: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
        """The job's result for every item, in order. A single item is left to this thread and all cores."""
        if self._pool is None or len(items) < 2:
            return [job(item) for item in items]

        def infer(item: Item) -> Result:
            with torch.inference_mode():  # a thread has a mode of its own
                return job(item)

        return list(self._pool.map(infer, items))
