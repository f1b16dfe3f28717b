"""Runs a module's forward pass as CUDA graphs: one launch per batch instead of one per kernel.

torch's own wrappers do not give the same guarantees:

- `torch.cuda.make_graphed_callables` captures one input shape, in the capture error mode "global",
  so CUDA calls of other threads break the capture. It returns static output tensors, so this module
  would still have to choose the graph by batch size, copy the decisions and order the streams.
- `torch.compile(mode="reduce-overhead")` itself decides when it records: it may record again in the
  middle of a run, for another shape or stream, and a later call overwrites earlier outputs.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from db3kd.teachers.base import TeacherError
from db3kd.teachers.torch_modules.batching import bucket_of

_WARM_UPS = 3

Classify = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Graph:
    """A captured forward pass.

    Attributes:
        images: [B, *shape], the memory that the graph reads.
        decisions: [B] int64, the memory that the graph writes.
        replay: Runs the graph.
    """

    images: Tensor
    decisions: Tensor
    replay: Callable[[], None]


class GraphedClassifier:
    """Classifies a batch with the graph of the next power of two, captured when first needed.

    Rows beyond the batch hold older images; their decisions are ignored. The graphs share memory,
    so an event makes the device run one at a time, whatever streams they are called on.

    Args:
        classify: Takes images [n, *shape] on the device and returns [n] int64 without a sync.
        empty: Returns a batch of the given size, in the layout that `classify` expects.
        capture: Captures a `Graph` of `classify` on such a batch.
        idle: A torch.cuda.Event that is recorded after each replay.
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
        """Returns [n] int64 for images [n, *shape], queued on the device's current stream."""
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
    """Captures forward passes on a CUDA device, all on one stream and in one memory pool.

    A pool reuses memory only on the stream on which it was allocated.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._side: Any = None
        self._pool: Any = None

    def __call__(self, classify: Classify, images: Tensor) -> Graph:
        """Captures a graph of `classify(images)`.

        Raises:
            TeacherError: If the pass cannot be captured. The current stream does not change.
        """
        if self._side is None:
            self._side = torch.cuda.Stream(self._device)
        here, side = torch.cuda.current_stream(self._device), self._side
        graph = torch.cuda.CUDAGraph()
        side.wait_stream(here)
        try:
            # A failed capture may leave its own stream as the current one (pytorch#180395).
            with torch.cuda.stream(here):
                decisions = self._captured(graph, classify, images)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:
            raise TeacherError(
                f"cuda_graphs: expected a module whose forward pass can be captured, got "
                f"{type(error).__name__}: {error}; it may synchronise with the GPU or do "
                "different work for each batch; omit cuda_graphs"
            ) from error
        finally:
            here.wait_stream(side)
        self._pool = graph.pool()
        return Graph(images, decisions, graph.replay)

    def _captured(self, graph: Any, classify: Classify, images: Tensor) -> Tensor:
        with torch.cuda.stream(self._side):
            for _ in range(_WARM_UPS):  # initialisation at first use cannot be captured
                classify(images)
            with _no_synchronization():
                classify(images)
        with torch.cuda.graph(
            graph, pool=self._pool, stream=self._side, capture_error_mode="thread_local"
        ):
            return classify(images)


@contextmanager
def _no_synchronization() -> Iterator[None]:
    """Makes operations that wait for the GPU raise, before they can break a capture."""
    mode = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(mode)
