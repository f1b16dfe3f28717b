"""How many images a module answers at once, and what happens where memory does not hold them."""

import gc
from collections.abc import Callable

import torch
from torch import Tensor

LEAST_BATCH = 64
MOST_BATCH = 2**16

_GAIN = 1.05
"""What a batch twice as large must gain in images a second to be worth its memory."""

_SHARE = 0.3
"""Of the memory that is free, what one batch may take: a search in flight beside it takes as much
again, and what is searched has to lie somewhere too."""

_REPEATS = 3


class Batches:
    """Answers images in batches; where memory runs out, in batches of half the size from then on.

    most: images of one batch.
    """

    def __init__(self, most: int) -> None:
        self.most = most

    def answer(self, images: Tensor, classify: Callable[[Tensor], Tensor]) -> Tensor:
        """classify's answers to all images, int64 [N]; N is at least 1.

        Whatever `classify` raises, torch.OutOfMemoryError for a single image too, becomes the cause
        of `Interrupted`, which holds the answers until then.
        """
        answers: list[Tensor] = []
        start = 0
        while start < len(images):
            batch = images[start : start + self.most]
            try:
                answers.append(self._try(batch, classify))
            except Exception as error:
                raise Interrupted(answers, min(len(batch), self.most)) from error
            start += len(answers[-1])
        return torch.cat(answers)

    def _try(self, batch: Tensor, classify: Callable[[Tensor], Tensor]) -> Tensor:
        """The answers to the first images of the batch, as many as memory holds."""
        while True:
            try:
                return classify(batch)
            except torch.OutOfMemoryError:
                if len(batch) == 1:
                    raise
            # Here the error is forgotten, which held on to what was half done.
            _free_memory()
            self.most = len(batch) // 2
            batch = batch[: self.most]


class Interrupted(Exception):
    """Some images were answered, then its cause came.

    answers: of the batches before. count: images of the batch that failed.
    """

    def __init__(self, answers: list[Tensor], count: int) -> None:
        super().__init__(count)
        self.answers = torch.cat(answers) if answers else torch.empty(0, dtype=torch.int64)
        self.count = count


def bucket_of(count: int) -> int:
    """The least power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()


def useful_batch(
    seconds: Callable[[int], float], least: int = LEAST_BATCH, most: int = MOST_BATCH
) -> int:
    """The power of two, from `least` to `most`, beyond which a larger batch gains next to nothing.

    seconds: what a batch of so many images takes; raises torch.OutOfMemoryError where memory does
    not hold it. Where it does not hold `least`, `least` is the answer: `Batches` halves it.
    """
    best, rate = least, 0.0
    size = least
    while size <= most:
        try:
            reached = size / seconds(size)
        except torch.OutOfMemoryError:
            break
        if reached < rate * _GAIN:
            break
        best, rate = size, reached
        size *= 2
    return best


def batch_on_cuda(
    classify: Callable[[Tensor], Tensor], image_shape: tuple[int, ...], device: torch.device
) -> int:
    """`useful_batch` of a module on a CUDA device, timed by its events on images of zeros."""
    free, _ = torch.cuda.mem_get_info(device)

    def seconds(count: int) -> float:
        torch.cuda.empty_cache()
        images = torch.zeros(count, *image_shape, device=device)
        times = [_timed(classify, images, device) for _ in range(_REPEATS + 1)][1:]
        left, _ = torch.cuda.mem_get_info(device)
        if left < free * (1 - _SHARE):
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
