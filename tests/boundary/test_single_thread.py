"""Work on several threads, of which each lets PyTorch compute on one."""

import threading

import pytest
import torch

from db3kd.boundary.single_thread import in_parallel


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
        later = []
        other = threading.Thread(target=lambda: later.append(torch.get_num_threads()))
        other.start()
        other.join()
        assert later == [threads]
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
