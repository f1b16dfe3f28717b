"""A module's forward pass as CUDA graphs: one launch a batch, however many kernels it has."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError
from db3kd.teachers.batching import bucket_of

_WARM_UPS = 3

Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Graph:
    """A captured pass.

    images: [B, *shape], what it reads. decisions: int64 [B], what it writes. replay: runs it.
    """

    images: Tensor
    decisions: Tensor
    replay: Callable[[], None]


class GraphedClassifier:
    """Answers a batch by the graph of the next power of two, captured when first needed.

    The rows that a batch leaves empty hold older images, and what comes of them is not looked at.
    Graphs share their memory, so one runs at a time, whatever streams they are asked for on: the
    device sees to that, not the host.

    classify: images [n, *shape] on the device -> int64 [n]; must not make the host wait. empty:
    makes a batch of so many images, as `classify` wants them. capture: makes a `Graph` of it.
    idle: a torch.cuda.Event, or what takes its place.
    """

    def __init__(
        self,
        classify: Classify,
        empty: Callable[[int], Tensor],
        capture: Callable[[Classify, Tensor], Graph],
        idle: Any,
    ) -> None:
        self._classify = classify
        self._empty = empty
        self._capture = capture
        self._idle = idle
        self._graphs: dict[int, Graph] = {}

    def __call__(self, images: Tensor) -> Tensor:
        """images [n, *shape] on the device -> int64 [n], queued on its current stream."""
        graph = self._graph(bucket_of(len(images)))
        self._idle.wait()
        graph.images[: len(images)].copy_(images)
        graph.replay()
        decisions = graph.decisions[: len(images)].clone()
        self._idle.record()
        return decisions

    def _graph(self, size: int) -> Graph:
        if size not in self._graphs:
            self._graphs[size] = self._capture(self._classify, self._empty(size))
        return self._graphs[size]


class CudaCapture:
    """Captures passes on a CUDA device, all on one stream and in one memory pool.

    Memory of a pool is given out again only on the stream that it was given to.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side: Any = None
        self._pool: Any = None

    def __call__(self, classify: Classify, images: Tensor) -> Graph:
        """A graph of the pass.

        Raises:
            TeacherError: if the pass cannot be captured. The current stream stays what it was.
        """
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)
        here, side = torch.cuda.current_stream(self._device), self._side
        graph = torch.cuda.CUDAGraph()
        side.wait_stream(here)
        try:
            # A capture that fails may leave its own stream current (pytorch#180395).
            with torch.cuda.stream(here):
                decisions = self._captured(graph, classify, images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise TeacherError(
                f"cuda_graphs: expected a module whose forward pass can be captured, got "
                f"{type(error).__name__}: {error}; it may make the host wait, or do something else "
                "for each batch; leave cuda_graphs out"
            ) from error
        finally:
            here.wait_stream(side)
        self._pool = graph.pool()
        return Graph(images, decisions, graph.replay)

    def _captured(self, graph: Any, classify: Classify, images: Tensor) -> Tensor:
        with torch.cuda.stream(self._side):
            for _ in range(_WARM_UPS):  # what is set up at first use cannot be captured
                classify(images)
            with _no_waits():
                classify(images)
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"
        ):
            return classify(images)


@contextmanager
def _no_waits() -> Iterator[None]:
    """An operation that makes the host wait is an error here, before it spoils a capture."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)
