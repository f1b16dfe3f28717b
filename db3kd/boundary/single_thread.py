"""Computes with PyTorch on one thread per task, so that results do not depend on the threads.

The sums of a matrix product may be rounded in another order if more threads compute it.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from threading import Lock
from typing import TypeVar

import torch

Part = TypeVar("Part")
Result = TypeVar("Result")

_lock = Lock()
_numbers: list[int] = []
"""The numbers of threads that the calls in progress set again when they end."""


def in_parallel(work: Callable[[Part], Result], parts: Sequence[Part]) -> list[Result]:
    """Applies a function to each part, on as many threads as PyTorch uses, one thread per part.

    Small batches also finish earlier this way than if all threads share each of them.

    Args:
        work: The function. Several threads call it at the same time.
        parts: Its arguments.

    Returns:
        The results, in the order of the parts.
    """
    with _lock:
        before = torch.get_num_threads()
        if before == 1:  # the caller's thread may have been started during another call
            before = max(_numbers, default=1)
        _numbers.append(before)
        torch.set_num_threads(1)
    threads = min(before, len(parts))
    try:
        if threads < 2:
            return [work(part) for part in parts]
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            return list(pool.map(work, parts))
    finally:
        # A new thread of PyTorch takes the number of threads that was set last, so the old number
        # is set again only when all of them have started.
        with _lock:
            _numbers.remove(before)
            torch.set_num_threads(before)
