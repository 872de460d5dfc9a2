"""Reading, computing and writing at the same time, in order, with bounded memory.

The caller's thread computes, since one thread must drive the network; other threads read ahead and write behind.
All of them sleep while they wait: a thread that spins would cost the network a core.
"""

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
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
    At most `room` bytes wait on either side, as `size` measures them, or a single picture that is larger.
    Closing the iterator abandons what is not begun and waits for what is.
    """
    reading: deque[Future[Read]] = deque()
    writing: deque[tuple[Future[Written], int]] = deque()
    readers, writers = (ThreadPoolExecutor(threads, thread_name_prefix=name) for name in ("read", "write"))
    upcoming, largest = iter(jobs), 0

    def read_ahead() -> None:
        """Pictures still being read count as the largest one so far."""
        while len(reading) < AHEAD:
            waiting = sum(size(each.result()) if each.done() else largest for each in reading)
            if reading and waiting + largest > room:
                return
            try:
                reading.append(readers.submit(read, next(upcoming)))
            except StopIteration:
                return

    try:
        read_ahead()
        while reading:
            picture = reading.popleft().result()
            largest = max(largest, size(picture))
            read_ahead()
            computed = compute(picture)
            del picture
            writing.append((writers.submit(write, computed), size(computed)))
            del computed
            while writing and (writing[0][0].done() or len(writing) > AHEAD or _waiting(writing) > room):
                yield writing.popleft()[0].result()
        while writing:
            yield writing.popleft()[0].result()
    finally:
        for pool in (readers, writers):
            pool.shutdown(wait=True, cancel_futures=True)


def _waiting(writing: Iterable[tuple[Future[Written], int]]) -> int:
    """Bytes behind the picture that is being written."""
    return sum(size for _, size in list(writing)[1:])
