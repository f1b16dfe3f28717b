"""The batch size of a module: measured on CUDA, and halved if memory runs out."""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

MIN_BATCH = 64
MAX_BATCH = 2**16

_MIN_GAIN = 1.05
"""A batch of twice the size must classify this many times more images per second."""

_MAX_MEMORY_SHARE = 0.3
"""The share of the free memory that one batch may take. A concurrent search takes as much again,
and the searches' own tensors need room too."""

_REPEATS = 3


class Batches:
    """Classifies images in batches. If memory runs out, the batch size is halved for good.

    Attributes:
        max_batch: Maximum number of images per batch.
    """

    def __init__(self, max_batch: int) -> None:
        self.max_batch = max_batch

    def classify(self, images: Tensor, classify: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns the class of each image.

        Args:
            images: [N, ...] with N of at least 1.
            classify: Takes a batch of images and returns [n] int64.

        Returns:
            [N] int64.

        Raises:
            BatchError: If `classify` raises anything else than torch.OutOfMemoryError, or raises
                that for a single image.
        """
        decisions: list[Tensor] = []
        start = 0
        while start < len(images):
            batch = images[start : start + self.max_batch]
            try:
                decisions.append(self._classify_some(batch, classify))
            except Exception as error:
                raise BatchError(error, decisions, min(len(batch), self.max_batch)) from error
            start += len(decisions[-1])
        return decisions[0] if len(decisions) == 1 else torch.cat(decisions)

    def _classify_some(self, batch: Tensor, classify: Callable[[Tensor], Tensor]) -> Tensor:
        """Classifies the first images of the batch, as many as fit in memory."""
        while True:
            try:
                return classify(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
            # The except block has ended, because its traceback keeps the batch's tensors alive.
            _free_memory()
            self.max_batch = len(batch) // 2
            batch = batch[: self.max_batch]


class BatchError(Exception):
    """A batch failed.

    Attributes:
        cause: The error.
        decisions: [n] int64: The decisions of the earlier batches.
        count: Number of images in the failed batch.
    """

    def __init__(self, cause: Exception, decisions: list[Tensor], count: int) -> None:
        super().__init__(str(cause))
        self.cause = cause
        self.decisions = torch.cat(decisions) if decisions else torch.empty(0, dtype=torch.int64)
        self.count = count


def bucket_of(count: int) -> int:
    """Returns the smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def useful_batch(
    seconds: Callable[[int], float], smallest: int = MIN_BATCH, largest: int = MAX_BATCH
) -> int:
    """Returns the power of two beyond which a larger batch is hardly faster per image.

    Args:
        seconds: Returns the duration of a batch of the given size, or raises
            torch.OutOfMemoryError if the batch does not fit in memory.
        smallest: The smallest candidate. It is returned even if it does not fit in memory, because
            `Batches` halves it then.
        largest: The largest candidate.
    """
    best, best_rate = smallest, 0.0
    size = smallest
    while size <= largest:
        try:
            rate = size / seconds(size)
        except torch.OutOfMemoryError:
            break
        if rate < best_rate * _MIN_GAIN:
            break
        best, best_rate = size, rate
        size *= 2
    return best


def batch_on_cuda(
    classify: Callable[[Tensor], Tensor], image_shape: tuple[int, ...], device: torch.device
) -> int:
    """Returns the `useful_batch` of a module on a CUDA device, measured with images of zeros."""
    free_before, _ = torch.cuda.mem_get_info(device)

    def seconds(count: int) -> float:
        torch.cuda.empty_cache()
        images = torch.zeros(count, *image_shape, dtype=torch.float32, device=device)
        times = [_timed(classify, images, device) for _ in range(_REPEATS + 1)][1:]
        free, _ = torch.cuda.mem_get_info(device)
        if free < free_before * (1 - _MAX_MEMORY_SHARE):
            raise torch.OutOfMemoryError(f"a batch of {count} takes more than its share")
        return min(times)

    try:
        return useful_batch(seconds)
    finally:
        _free_memory()


def _timed(classify: Callable[[Tensor], Tensor], images: Tensor, device: torch.device) -> float:
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    stream = torch.cuda.current_stream(device)
    start.record(stream)
    classify(images)
    end.record(stream)
    end.synchronize()
    return start.elapsed_time(end) / 1000


def _free_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
