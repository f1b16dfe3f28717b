"""Processes forked from a server that has imported everything, so that they start quickly."""

import multiprocessing
from multiprocessing.context import ForkServerContext

_IMPORTED = (
    # Optimizers import torch._dynamo, which takes longer than torch.
    *("db3kd.pipelines", "db3kd.synthesis.sample_run", "torch._dynamo", "accelerate"),
    *("aiohttp", "hypothesis", "pyarrow.parquet", "pytest", "sklearn.datasets"),
)


def forked_processes() -> ForkServerContext:
    """Returns a context that makes processes, as `multiprocessing` does.

    They are not copies of this process, in which threads of PyTorch and pyarrow may hold locks that
    a copy would wait for.
    """
    processes = multiprocessing.get_context("forkserver")
    # The first process starts the server, so all tests import the same. Tests of benchmarks, which
    # make their processes themselves, call this function for its effect.
    processes.set_forkserver_preload(list(_IMPORTED))
    return processes
