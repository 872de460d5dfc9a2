"""Reading, computing and writing at the same time, in order, with bounded memory.

The caller's thread computes, since one thread must drive the network; other threads read ahead and write behind.
All of them sleep while they wait: a thread that spins would cost the network a core.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from threading import Condition
from typing import TypeVar

Job = TypeVar("Job")
Read = TypeVar("Read")
Computed = TypeVar("Computed")
Written = TypeVar("Written")

AHEAD = 16
"""At most so many pictures wait to be computed, and as many to be written."""


def overlapped(
    jobs: Iterable[Job],
    read: Callable[[Job], Read],
    compute: Callable[[Read], Computed],
    write: Callable[[Computed], Written],
    *,
    size: Callable[[Read | Computed], int],
    room: int,
    threads: int = 1,
) -> Generator[Written, None, None]:
    """`write(compute(read(job)))` of every job, in order; each as soon as it and all before it are written.

    `read` and `write` run in `threads` threads each and must not raise: their values say what went wrong.
    On either side at most `room` bytes wait, as `size` measures them, and one more picture per thread.
    An interrupt while it computes or waits is raised after what is computed has been written and yielded.
    Closing the iterator abandons what is not begun and waits for what is.
    """
    pressure = Backpressure(room)
    reading: deque[Future[Read]] = deque()
    writing: deque[tuple[Future[Written], int]] = deque()
    readers, writers = (ThreadPoolExecutor(threads, thread_name_prefix=name) for name in ("read", "write"))
    upcoming = enumerate(jobs)

    def read_one(index: int, job: Job) -> Read:
        pressure.wait(index)
        picture = read(job)
        pressure.add(size(picture))
        return picture

    def read_ahead() -> None:
        for index, job in islice(upcoming, AHEAD - len(reading)):
            reading.append(readers.submit(read_one, index, job))

    try:
        read_ahead()
        while reading:
            picture = reading.popleft().result()
            pressure.take(size(picture))
            read_ahead()
            computed = compute(picture)
            del picture
            writing.append((writers.submit(write, computed), size(computed)))
            del computed
            while writing and (writing[0][0].done() or len(writing) > AHEAD or _waiting(writing) > room):
                yield writing.popleft()[0].result()
        while writing:
            yield writing.popleft()[0].result()
    except KeyboardInterrupt:
        pressure.open()
        readers.shutdown(wait=False, cancel_futures=True)
        while writing:  # what is computed is written, and what is written is told
            yield writing.popleft()[0].result()
        raise
    finally:
        pressure.open()
        for pool in (readers, writers):
            pool.shutdown(wait=True, cancel_futures=True)


class Backpressure:
    """Holds readers back while enough pictures wait; the one that comes next may always be read."""

    def __init__(self, room: float) -> None:
        self._room = room
        self._waiting = 0
        self._next = 0
        self._changed = Condition()

    def wait(self, index: int) -> None:
        """Sleep until there is room, or until this is the picture that the others wait for."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting < self._room or index <= self._next)

    def add(self, size: int) -> None:
        """A picture has been read."""
        with self._changed:
            self._waiting += size

    def take(self, size: int) -> None:
        """The next picture is no longer waiting."""
        with self._changed:
            self._waiting -= size
            self._next += 1
            self._changed.notify_all()

    def open(self) -> None:
        """Let everybody through: the end."""
        with self._changed:
            self._room = float("inf")
            self._changed.notify_all()


def _waiting(writing: Iterable[tuple[Future[Written], int]]) -> int:
    """Bytes behind the picture that is being written."""
    return sum(size for _, size in list(writing)[1:])
