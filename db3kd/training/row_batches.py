"""Batches of image-set rows: shuffled passes, with rare classes more often if requested."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from db3kd.data.arguments import ImagesLike
from db3kd.data.image_reader import image_reader
from db3kd.errors import ArgumentError
from db3kd.training.process import TrainingProcess
from db3kd.training.settings import TrainSettings
from db3kd.wording import counted

_MAX_REPEATS = 30
"""Maximum number of times that a sample of a rare class is repeated."""


class RowBatches:
    """Passes over the rows of an image set, as a `BatchSource`.

    The batches of a pass differ in size by at most one row. A short last batch would weigh as much
    as a full one, and batch normalisation fails on a single row.

    Example:
        >>> source = RowBatches(images, [decisions], torch.arange(len(images)), settings)
        >>> network = train_batches(make, source, F.cross_entropy, settings)

    Args:
        images: N images in [0, 1], as for `db3kd.label`.
        targets: Tensors [N, ...], the other arguments of the loss.
        rows: [R] int64, the images to train on.
        settings: Batch size, seed, and whether to shuffle.
    """

    def __init__(
        self,
        images: ImagesLike,
        targets: Sequence[Tensor],
        rows: Tensor,
        settings: TrainSettings,
    ) -> None:
        self._images, self._targets = images, targets
        self._rows, self._settings = rows, settings

    def open(self, process: TrainingProcess) -> Callable[[int], tuple[Tensor, ...]]:
        """Moves targets, and images if they are few enough, to the device of the process.

        Raises:
            ValueError: If a batch has fewer rows than there are processes.
        """
        count = self._settings.batches(len(self._rows))
        if len(self._rows) // count < process.count:
            raise ArgumentError(
                "rows",
                f"expected at least {process.count} in each batch, one for each process, "
                f"got {counted(len(self._rows), 'row')} in {counted(count, 'batch')}; use a larger "
                "batch_size or fewer processes",
            )
        read = image_reader(self._images, process.device)
        targets = [target.to(process.device) for target in self._targets]
        order = _Passes(self._rows.to(process.device), self._settings)

        def batch(step: int) -> tuple[Tensor, ...]:
            index = process.own_part(order.pass_of(step // count)[step % count])
            return read(index), *(target[index] for target in targets)

        return batch


class _Passes:
    """The batches of each pass; those of the last pass requested are cached."""

    def __init__(self, rows: Tensor, settings: TrainSettings) -> None:
        self._rows, self._settings = rows, settings
        self._generator = torch.Generator().manual_seed(settings.seed)
        self._batches: Sequence[Tensor] = ()
        self._next = 0

    def pass_of(self, number: int) -> Sequence[Tensor]:
        if number < self._next - 1:
            self._generator.manual_seed(self._settings.seed)
            self._next = 0
        while self._next <= number:
            # One generator draws the orders of all passes, so earlier orders must be drawn as well.
            order = self._rows
            if self._settings.shuffle:
                drawn = torch.randperm(len(self._rows), generator=self._generator)
                order = order[drawn.to(order.device)]
            self._batches = order.tensor_split(self._settings.batches(len(self._rows)))
            self._next += 1
        return self._batches


def balanced_rows(decisions: Tensor, balance: float, seed: int = 0) -> Tensor:
    """Returns rows to train on, in which samples of rare classes occur several times.

    If the most common class has K samples, a sample of a class with k samples occurs
    (K / k)^balance times on average, at most 30 times.

    Args:
        decisions: [n] int64, at least 0.
        balance: From 0 (every sample once) to 1 (all classes equally often).
        seed: Seed for choosing the samples that occur once more if that average is not an integer.

    Returns:
        [R] int64.
    """
    counts = torch.bincount(decisions).double()
    times = (counts.max() / counts.clamp_min(1)).pow(balance).clamp_max(_MAX_REPEATS)[decisions]
    chance = torch.rand(len(decisions), generator=torch.Generator().manual_seed(seed))
    repeats = times.floor() + (chance < times.frac())
    return torch.arange(len(decisions)).repeat_interleave(repeats.long())
