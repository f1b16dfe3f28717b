"""The global random states of torch, NumPy and Python, from which networks of callers may draw."""

import random
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


@contextmanager
def kept_random_state(seed: int | None = None, devices: Iterable[int] = ()) -> Iterator[None]:
    """Restores the global random states of torch, NumPy and Python afterwards.

    Args:
        seed: Seeds all of them, and CUDA, first; None leaves them as they are.
        devices: The CUDA devices whose states are restored too.
    """
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=devices):
        if seed is not None:
            _seed_torch(seed)
            random.seed(seed)
            np.random.seed(seed % 2**32)  # the largest seed that NumPy takes is 2^32 - 1
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def _seed_torch(seed: int) -> None:
    if torch.cuda.is_available():
        torch.manual_seed(seed)
    else:
        # `torch.manual_seed` formats the stack for each kind of device that is not initialized.
        torch.default_generator.manual_seed(seed)


def random_state(devices: Iterable[int]) -> dict[str, Any]:
    """Returns the states of the processor and of CUDA devices, as a checkpoint can hold them."""
    kind, numbers, *rest = np.random.get_state()
    return {
        "random": torch.get_rng_state(),
        "cuda_random": [torch.cuda.get_rng_state(number) for number in devices],
        "python_random": random.getstate(),
        "numpy_random": (kind, np.asarray(numbers).tolist(), *rest),
    }


def set_random_state(state: Mapping[str, Any], devices: Iterable[int]) -> None:
    """Sets what `random_state` returned."""
    torch.set_rng_state(state["random"])
    for number, kept in zip(devices, state["cuda_random"], strict=True):
        torch.cuda.set_rng_state(kept, number)
    random.setstate(state["python_random"])
    np.random.set_state(state["numpy_random"])
