"""The state of torch.cuda after a capture, successful or not, with doubles of torch.cuda."""

from collections.abc import Callable
from contextlib import contextmanager

import pytest
import torch

from db3kd.teachers import TeacherError
from db3kd.teachers.torch_modules.cuda_graphs import CudaCapture


class Stream:
    def __init__(self, device: torch.device | None = None) -> None:
        self.waited_for: list[Stream] = []

    def wait_stream(self, other: "Stream") -> None:
        self.waited_for.append(other)


class CUDAGraph:
    def pool(self) -> str:
        return "pool"

    def replay(self) -> None:
        pass


class Cuda:
    """The part of torch.cuda that CudaCapture uses.

    As in torch, a failed capture leaves its own stream as the current one.
    """

    OutOfMemoryError = torch.OutOfMemoryError
    Stream, CUDAGraph = Stream, CUDAGraph

    def __init__(self) -> None:
        self.main = self.current = Stream()
        self.mode: int | str = "warn"
        self.captured: list[tuple] = []
        self.capturing = False

    def current_stream(self, device: torch.device) -> Stream:
        return self.current

    @contextmanager
    def stream(self, stream: Stream):
        before, self.current = self.current, stream
        try:
            yield
        finally:
            self.current = before

    @contextmanager
    def graph(self, graph: CUDAGraph, pool: object, stream: Stream, capture_error_mode: str):
        before, self.current = self.current, stream
        self.captured.append((pool, stream))
        self.capturing = True
        try:
            yield
        finally:
            self.capturing = False
        self.current = before

    def get_sync_debug_mode(self) -> int | str:
        return self.mode

    def set_sync_debug_mode(self, mode: int | str) -> None:
        self.mode = mode


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Cuda:
    double = Cuda()
    for name in vars(Cuda).keys() - vars(object).keys():
        if not name.startswith("_") and name != "OutOfMemoryError":
            monkeypatch.setattr(torch.cuda, name, getattr(double, name))
    return double


def waiting(cuda: Cuda) -> Callable:
    """A pass that waits for the GPU."""

    def classify(images: torch.Tensor) -> torch.Tensor:
        if cuda.mode == "error" or cuda.capturing:
            raise RuntimeError("called a synchronizing CUDA operation")
        return images

    return classify


def spoiling(cuda: Cuda) -> Callable:
    """A pass that fails only during a capture."""

    def classify(images: torch.Tensor) -> torch.Tensor:
        if cuda.capturing:
            raise RuntimeError("operation not permitted when stream is capturing")
        return images

    return classify


@pytest.mark.parametrize(("failing", "captures"), [(waiting, 0), (spoiling, 1)])
def test_a_failed_capture_changes_neither_stream_nor_mode(cuda, failing, captures):
    capture = CudaCapture(torch.device("cuda"))
    with pytest.raises(TeacherError, match="cuda_graphs: expected a module whose forward pass"):
        capture(failing(cuda), torch.zeros(2))
    assert cuda.current is cuda.main
    assert cuda.mode == "warn"
    assert len(cuda.captured) == captures
    capture(lambda images: images, torch.zeros(2))  # a later capture succeeds
    assert cuda.current is cuda.main


def test_captures_share_one_stream_and_one_pool(cuda):
    capture = CudaCapture(torch.device("cuda"))
    for _ in range(3):
        capture(lambda images: images, torch.zeros(2))
    (first, stream), *others = cuda.captured
    assert first is None
    assert others == [("pool", stream)] * 2
    assert cuda.main.waited_for == [stream] * 3 and stream.waited_for == [cuda.main] * 3


def test_out_of_memory_is_passed_on(cuda):
    def classify(images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        CudaCapture(torch.device("cuda"))(classify, torch.zeros(2))
    assert cuda.current is cuda.main
