"""A pool's threads, and what they leave behind."""

import subprocess
import sys
import threading

import pytest
import torch

from restormer_cli.native.workers import WorkerPool


def test_jobs_run_side_by_side_and_answer_in_order():
    pool, together = WorkerPool(3), threading.Barrier(3)

    def job(item: int) -> tuple[int, bool, int]:
        together.wait(60)  # for ever, were they done one after the other
        return item, torch.is_inference_mode_enabled(), torch.get_num_threads()

    assert pool.map(job, [5, 6, 7]) == [(item, True, 1) for item in (5, 6, 7)]


def test_fewer_jobs_than_threads_share_all_cores():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        pool = WorkerPool(4)
        assert pool.map(lambda _: torch.get_num_threads(), range(4)) == [1, 1, 1, 1]
        assert pool.map(lambda _: torch.get_num_threads(), range(2)) == [2, 2]
    finally:
        torch.set_num_threads(before)


def test_a_job_between_lists_has_one_core_and_is_not_the_callers():
    """OpenMP's threads spin after an operation that they shared, on the cores that the next jobs want."""
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        thread, cores = WorkerPool(4).alone(lambda: (threading.get_ident(), torch.get_num_threads()))
        assert (thread == threading.get_ident(), cores) == (False, 1)
        assert WorkerPool(1).alone(threading.get_ident) == threading.get_ident()
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(("size", "items"), [(1, [1, 2]), (3, [1])])
def test_a_single_thread_or_job_is_left_to_the_caller(size, items):
    pool, here = WorkerPool(size), threading.get_ident()
    assert set(pool.map(lambda _: threading.get_ident(), items)) == {here}


def test_the_number_of_threads_is_as_before_for_everybody_else():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        WorkerPool(2).map(lambda item: item, [1, 2])
        assert torch.get_num_threads() == 4
        seen = []
        other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert seen == [4]
    finally:
        torch.set_num_threads(before)


def test_a_failure_reaches_the_caller_and_the_pool_goes_on():
    pool = WorkerPool(2)

    def fail(item: int) -> None:
        raise MemoryError(item)

    with pytest.raises(MemoryError):
        pool.map(fail, [1, 2])
    assert pool.map(lambda item: item, [1, 2]) == [1, 2]


CROWD = """
import os, torch
from restormer_cli.native.workers import WorkerPool
torch.set_num_threads(6)
pool = WorkerPool(6)
x = torch.randn(1 << 20)
for _ in range(3):
    pool.map(lambda _: float((x * 2).sum()), range(6))
print(len(os.listdir("/proc/self/task")))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="counts threads in /proc")
def test_threads_do_not_multiply():
    """Six jobs at once are six threads; were each to compute on six of its own, there would be 36."""
    counted = int(subprocess.run([sys.executable, "-c", CROWD], capture_output=True, check=True, text=True).stdout)
    assert counted <= 6 + 6 + 6  # the pool's, the caller's, and what the libraries start for themselves
