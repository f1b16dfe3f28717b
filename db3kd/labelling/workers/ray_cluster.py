"""Ray: the number and place of the workers, and the connection to a cluster."""

import math
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from db3kd.arguments.plain import check_count
from db3kd.errors import ArgumentError, Db3kdError, MissingPackageError
from db3kd.teachers.base import Teacher

_RAY_SESSION = "session_2026-01-01_00-00-00_000000_0000000"
"""A Ray session name of maximum length."""

_MAX_SOCKET_BYTES = 107


class ClusterConnectionError(Db3kdError, ConnectionError):
    """No Ray cluster accepts a connection at an address."""


@dataclass(frozen=True)
class Workers:
    """How many processes label a run, and where.

    Example:
        >>> execution = RunExecution(workers=Workers(8))
        >>> planned = plan_source_run("runs/mine", teacher, source, settings, execution=execution)
        >>> totals = carry_out(planned)

    Attributes:
        count: The number of processes. No more processes are busy than the run has shards.
        address: The address of a Ray cluster, HOST:PORT or "auto". By default Ray is started on
            this machine, unless this process is already connected.
        gpus: Whether to give each worker a GPU, or a share of one, if Ray has any.
        make_teacher: A function that builds the teacher in each worker; by default the teacher is
            pickled.
    """

    count: int
    address: str | None = None
    gpus: bool = True
    make_teacher: Callable[[], Teacher] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "count", check_count(self.count, "workers"))


def import_ray() -> Any:
    """Imports Ray, which a single process does not need.

    Raises:
        ImportError: If Ray is not installed.
    """
    try:
        import ray
    except ImportError as error:
        raise MissingPackageError(
            'workers: more than one needs Ray: pip install "db3kd[ray]", or use one worker'
        ) from error
    return ray


@contextmanager
def connect(workers: Workers) -> Iterator[tuple[Any, int]]:
    """Connects to Ray, or starts it and stops it at the end.

    Yields:
        The module `ray`, and the number of CPUs that the workers may share.

    Raises:
        ImportError: If Ray is not installed.
        ConnectionError: If there is no cluster at the address.
        ValueError: If the folder for Ray's sockets has too long a path.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray, int(ray.cluster_resources().get("CPU", 1))
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    # Otherwise Ray warns that it hides GPUs from tasks that request none.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    quiet = {"logging_level": "ERROR", "log_to_driver": False}
    if workers.address is None:
        check_socket_path()
        ray.init("local", num_cpus=workers.count, include_dashboard=False, **quiet)
        cpus = torch.get_num_threads()
    else:
        try:
            ray.init(workers.address, **quiet)
        except ConnectionError as error:
            raise ClusterConnectionError(
                f"address: no Ray cluster accepted a connection at {workers.address}; "
                "check that it is running, and if it requires a token, set "
                "RAY_AUTH_TOKEN and RAY_AUTH_MODE=token"
            ) from error
        cpus = int(ray.cluster_resources().get("CPU", 1))
    try:
        yield ray, cpus
    finally:
        ray.shutdown()


def check_socket_path() -> None:
    """Checks that the paths of Ray's sockets are short enough for the system.

    Raises:
        ValueError: If they are too long.
    """
    base = os.environ.get("RAY_TMPDIR") or tempfile.gettempdir()
    longest = os.path.join(base, "ray", _RAY_SESSION, "sockets", "plasma_store")
    if len(os.fsencode(longest)) > _MAX_SOCKET_BYTES:
        raise ArgumentError(
            "workers",
            f"the path of {base} has {len(os.fsencode(base))} bytes, which is too long "
            "for Ray's sockets below it; set RAY_TMPDIR to a short path, such as /tmp",
        )


def gpu_share(ray: Any, workers: Workers) -> float:
    """The share of a GPU for each worker, so that all workers have one; 0 without GPUs.

    It is the same for all, because Ray could not place workers with different shares.
    """
    gpus = int(ray.cluster_resources().get("GPU", 0)) if workers.gpus else 0
    return 1 / math.ceil(workers.count / gpus) if gpus else 0
