"""Overlapped reading, computing and writing: the same results in the same order, bounded, and over when closed."""

import threading
from contextlib import closing

import pytest

from restormer_cli.commands.restore.pipeline import AHEAD, overlapped


def run(jobs, read=lambda x: x, compute=lambda x: x, write=lambda x: x, *, size=lambda _: 1, room=1000, threads=2):
    return overlapped(jobs, read, compute, write, size=size, room=room, threads=threads)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("count", [0, 1, 2, 100])
def test_every_job_once_and_in_order(count, threads):
    results = run(range(count), lambda x: x + 1, lambda x: x * 2, lambda x: x + 3, threads=threads)
    assert list(results) == [2 * (x + 1) + 3 for x in range(count)]


def test_computing_happens_in_the_callers_thread_and_the_rest_elsewhere():
    seen = {"read": set(), "compute": set(), "write": set()}

    def note(stage):
        def step(x):
            seen[stage].add(threading.current_thread())
            return x

        return step

    list(run(range(20), note("read"), note("compute"), note("write")))
    here = threading.current_thread()
    assert seen["compute"] == {here}
    assert here not in seen["read"] | seen["write"]


def test_the_next_is_read_while_one_is_computed():
    """Computing picture 0 waits until picture 1 has been read: without reading ahead this would never end."""
    second = threading.Event()

    def read(x):
        if x == 1:
            second.set()
        return x

    def compute(x):
        assert second.wait(30)
        return x

    assert list(run(range(3), read, compute)) == [0, 1, 2]


def test_one_is_written_while_the_next_is_computed():
    """Writing picture 0 waits until picture 1 is being computed: without writing behind this would never end."""
    second = threading.Event()

    def compute(x):
        if x == 1:
            second.set()
        return x

    def write(x):
        assert second.wait(30)
        return x

    assert list(run(range(3), compute=compute, write=write)) == [0, 1, 2]


@pytest.mark.parametrize(("size", "room", "most"), [(1, 10**9, AHEAD + 1), (10, 35, 5), (100, 10, 3)])
def test_no_more_is_read_ahead_than_there_is_room(size, room, most):
    """Counted at each computation: pictures read and not yet computed, this one among them."""
    read, computed, ahead = [], [], []

    def compute(x):
        computed.append(x)
        ahead.append(len(read) - len(computed) + 1)
        return x

    list(run(range(60), lambda x: read.append(x) or x, compute, size=lambda _: size, room=room, threads=1))
    assert max(ahead) <= most


@pytest.mark.parametrize(("size", "room", "most"), [(1, 10**9, AHEAD + 2), (10, 35, 6), (100, 10, 3)])
def test_no_more_waits_to_be_written_than_there_is_room(size, room, most):
    computed, written, behind = [], [], []

    def compute(x):
        computed.append(x)
        behind.append(len(computed) - len(written))
        return x

    list(run(range(60), compute=compute, write=lambda x: written.append(x) or x, size=lambda _: size, room=room))
    assert max(behind) <= most


def test_closing_early_ends_the_threads_and_reads_no_further():
    read = []
    with closing(run(range(10**6), lambda x: read.append(x) or x)) as results:
        assert next(results) == 0
    assert len(read) < 100
    assert not [thread for thread in threading.enumerate() if thread.name.startswith(("read", "write"))]


def test_a_defect_in_any_stage_comes_out():
    def fail(_):
        raise ZeroDivisionError

    for stage in ("read", "compute", "write"):
        with pytest.raises(ZeroDivisionError):
            list(run(range(5), **{stage: fail}))  # pyright: ignore


def test_an_interrupt_loses_nothing_that_is_computed():
    """While picture 3 is computed: 0 is written, 1 and 2 wait behind it, 4 and later are only read."""
    begun = threading.Event()

    def compute(x):
        if x == 3:
            begun.set()
            raise KeyboardInterrupt
        return x

    def write(x):
        assert begun.wait(30)
        return x

    seen = []
    results = run(range(10), compute=compute, write=write, threads=1)
    with pytest.raises(KeyboardInterrupt):
        seen.extend(results)
    assert seen == [0, 1, 2]
