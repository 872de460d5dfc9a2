"""A crew's threads, and what they leave behind."""

import threading

import pytest
import torch

from restormer_cli.engine.workers import WorkerPool


def test_jobs_run_side_by_side_and_answer_in_order():
    crew, together = WorkerPool(), threading.Barrier(3)

    def job(item: int) -> tuple[int, bool, int]:
        together.wait(60)  # for ever, were they done one after the other
        return item, torch.is_inference_mode_enabled(), torch.get_num_threads()

    with crew.running(3):
        assert crew.map(job, [5, 6, 7]) == [(item, True, 1) for item in (5, 6, 7)]


@pytest.mark.parametrize(("size", "items"), [(1, [1, 2]), (3, [1])])
def test_a_single_thread_or_job_is_left_to_the_caller(size, items):
    crew, here = WorkerPool(), threading.get_ident()
    with crew.running(size):
        assert set(crew.map(lambda _: threading.get_ident(), items)) == {here}


def test_the_number_of_threads_is_as_before_for_everybody_else():
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        with WorkerPool().running(2):
            assert torch.get_num_threads() == 4
            seen = []
            other = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
            other.start()
            other.join()
            assert seen == [4]
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_a_failure_reaches_the_caller_and_ends_the_crew():
    crew = WorkerPool()

    def fail(item: int) -> None:
        raise MemoryError(item)

    with pytest.raises(MemoryError), crew.running(2):
        crew.map(fail, [1, 2])
    assert crew.map(lambda item: item, [1, 2]) == [1, 2]
