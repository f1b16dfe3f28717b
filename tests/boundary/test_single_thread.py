"""Work on several threads, of which each lets PyTorch compute on one."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from db3kd.boundary.single_thread import in_parallel


def in_new_thread(function):
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function).result(timeout=60)


@pytest.mark.parametrize(("threads", "parts"), [(1, 3), (3, 1), (3, 0), (3, 7)])
def test_results_keep_their_order_and_the_number_of_threads_stays(threads, parts):
    before = torch.get_num_threads()
    seen = set()

    def work(part):
        seen.add(torch.get_num_threads())
        return 2 * part

    torch.set_num_threads(threads)
    try:
        assert in_parallel(work, range(parts)) == [2 * part for part in range(parts)]
        assert torch.get_num_threads() == threads
        assert seen <= {1}
        assert in_new_thread(torch.get_num_threads) == threads
    finally:
        torch.set_num_threads(before)


def test_parts_run_at_the_same_time():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    meeting = threading.Barrier(2, timeout=60)
    try:
        in_parallel(lambda part: meeting.wait(), [0, 1])
    finally:
        torch.set_num_threads(before)


def test_an_error_reaches_the_caller_and_the_number_of_threads_stays():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(ZeroDivisionError):
            in_parallel(lambda part: 1 // part, [1, 0, 1])
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("first_ends_first", [True, False])
def test_overlapping_calls_leave_the_number_of_threads_as_it_was(first_ends_first):
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    second_runs, first_ended, second_ends = (threading.Event() for _ in range(3))

    def second():
        def work(_):
            second_runs.set()
            assert not first_ends_first or first_ended.wait(60)

        in_parallel(work, [0, 1])
        second_ends.set()
        return torch.get_num_threads()

    def first(part):
        if part:
            return
        running.append(pool.submit(second))
        assert (second_runs if first_ends_first else second_ends).wait(60)

    running = []
    try:
        with ThreadPoolExecutor(1) as pool:
            in_parallel(first, [0, 1])
            first_ended.set()
            assert running[0].result(timeout=60) == torch.get_num_threads() == 3
        assert in_new_thread(torch.get_num_threads) == 3
    finally:
        torch.set_num_threads(before)
