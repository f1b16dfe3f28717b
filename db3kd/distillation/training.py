"""Training of a network for a fixed number of steps, on any device and in several processes.

A training never sees a test set, and equal arguments give equal weights.
"""

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from db3kd.data.arguments import ImagesLike, as_image_source
from db3kd.data.image_reader import image_reader
from db3kd.distillation.training_process import TrainingProcess
from db3kd.models.channels_last import to_channels_last

Model = nn.Module | Callable[[], nn.Module]
"""A network to start from, or a function that makes one."""

StepCallback = Callable[[int, int, float], None]
"""Called with the steps done, the steps of the training and the mean loss since the last call."""

_PRECISIONS = ("no", "fp16", "bf16")
_SCHEDULES = ("constant", "cosine")

_REPORTS = 100
"""About how often a training calls its `StepCallback`."""

_MAX_REPEATS = 30
"""Maximum number of times that a sample of a rare class occurs among the rows."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a network is trained with Adam.

    Example:
        >>> db3kd.TrainSettings(steps=2000, schedule="cosine", seed=1)

    Attributes:
        epochs: passes over the rows.
        steps: the exact number of batches; replaces `epochs`. Students that are compared should
            train for the same number of steps.
        batch_size: maximum number of rows in a step, over all processes. The batches of an epoch
            differ in size by at most one row.
        learning_rate: initial learning rate of Adam.
        schedule: "constant", or "cosine", which lowers the learning rate to 0 over the steps.
        seed: seed of the initial weights, the order of the rows and dropout.
        device: "auto", "cpu", "cuda" or "cuda:<n>". Use "auto" under `accelerate launch`.
        precision: "no" (float32), "fp16" (CUDA only) or "bf16".
        shuffle: whether to shuffle the rows in each epoch.

    Raises:
        ValueError: if a value is out of range.
    """

    epochs: int = 20
    steps: int | None = None
    batch_size: int = 128
    learning_rate: float = 1e-3
    schedule: str = "constant"
    seed: int = 0
    device: str = "auto"
    precision: str = "no"
    shuffle: bool = True

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size") + (("steps",) if self.steps is not None else ()):
            if getattr(self, name) < 1:
                raise ValueError(f"{name}: expected at least 1, got {getattr(self, name)}")
        check_positive("learning_rate", self.learning_rate)
        if self.seed < 0:
            raise ValueError(f"seed: expected at least 0, got {self.seed}")
        check_choice("precision", self.precision, _PRECISIONS)
        check_choice("schedule", self.schedule, _SCHEDULES)
        if self.device != "auto" and torch.device(self.device).type not in ("cpu", "cuda"):
            raise ValueError(
                f'device: expected "auto", "cpu", "cuda" or "cuda:<n>", got {self.device!r}'
            )
        if self.device == "cpu" and self.precision == "fp16":
            raise ValueError(
                'precision: fp16 needs a CUDA device, got device="cpu"; use "bf16" or "no"'
            )

    def batches(self, rows: int) -> int:
        """Returns the number of batches in an epoch over `rows` rows."""
        return math.ceil(rows / self.batch_size)

    def total_steps(self, rows: int) -> int:
        """Returns the number of steps of a training on `rows` rows."""
        return self.epochs * self.batches(rows) if self.steps is None else self.steps


def train(
    model: Model,
    images: ImagesLike,
    decisions: Tensor,
    soft_labels: Tensor | None,
    loss: Callable[..., Tensor],
    settings: TrainSettings,
    *,
    rows: Tensor | None = None,
    progress: StepCallback | None = None,
) -> nn.Module:
    """Trains a network for a fixed number of steps.

    The result depends only on the arguments, bit for bit on a CPU with the same number of threads.
    The global random state is restored. Under `accelerate launch` each process takes an equal part
    of every batch, and gradients are averaged.

    Args:
        model: a function that makes a network, called under the seed; or a network, of which a copy
            is trained.
        images: N images in [0, 1], as for `db3kd.label`.
        decisions: [N] int64, the class of each image; -1 (unanswered) is left out.
        soft_labels: [N, C] float, rows sum to 1, or are all 0 for images without a soft label; or
            None.
        loss: called with logits [n, C], decisions [n] and, unless they are None, soft labels
            [n, C]; returns a scalar.
        settings: steps, learning rate, seed, device and precision.
        rows: [R] int64, the images to train on; all by default. An image that occurs twice is
            trained on twice as often.
        progress: called about a hundred times.

    Returns:
        The trained network, in eval mode, on the device of the training.

    Raises:
        ValueError: if an argument has a wrong shape, dtype or value, or if no row is answered.
        FloatingPointError: if the loss became infinite or NaN.
    """
    images = as_image_source(images)
    _check_targets(decisions, soft_labels, len(images))
    rows = torch.arange(len(images)) if rows is None else rows.cpu()
    rows = rows[decisions.cpu()[rows] >= 0]
    if len(rows) == 0:
        raise ValueError("decisions: expected at least one answered row to train on, got none")
    process = TrainingProcess.current(settings.device, settings.precision)
    device = process.device
    with _seeded(settings.seed):
        network = copy.deepcopy(model) if isinstance(model, nn.Module) else model()
        to_channels_last(network.to(device))
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        schedule = _schedule(optimizer, settings, len(rows))
        scaler = process.grad_scaler()
        read = image_reader(images, device)
        targets = [t.to(device) for t in (decisions, soft_labels) if t is not None]
        _check_classes(network, read(rows[:1]), decisions, soft_labels)
        meter = _Meter(settings.total_steps(len(rows)), device, progress)
        distributed = process.distributed(network)
        distributed.train()
        for batch in _batches(rows.to(device), settings):
            index = process.own_part(batch)
            optimizer.zero_grad()
            with process.autocast():
                logits = distributed(read(index))
            value = loss(logits.float(), *(t[index] for t in targets))
            scaler.scale(value).backward()
            scaler.step(optimizer)
            scaler.update()
            schedule.step()
            meter.add(value)
        return network.eval()


def balanced_rows(decisions: Tensor, balance: float, seed: int = 0) -> Tensor:
    """Returns rows to train on, in which samples of rare classes occur several times.

    If the most common class has K samples, a sample of a class with k samples occurs
    (K / k)^balance times on average, at most 30 times.

    Args:
        decisions: [n] int64, at least 0.
        balance: from 0 (every sample once) to 1 (all classes equally often).
        seed: decides which samples occur once more if that average is not an integer.

    Returns:
        [R] int64.
    """
    counts = torch.bincount(decisions).double()
    times = (counts.max() / counts.clamp_min(1)).pow(balance).clamp_max(_MAX_REPEATS)[decisions]
    chance = torch.rand(len(decisions), generator=torch.Generator().manual_seed(seed))
    repeats = times.floor() + (chance < times.frac())
    return torch.arange(len(decisions)).repeat_interleave(repeats.long())


class _Meter:
    """Reports the mean loss from time to time, and raises if the loss is not finite."""

    def __init__(self, steps: int, device: torch.device, progress: StepCallback | None) -> None:
        self.steps, self.progress = steps, progress
        self.every = math.ceil(steps / _REPORTS)
        self.done = self.since = 0
        self.total = torch.zeros((), device=device)

    def add(self, loss: Tensor) -> None:
        self.total += loss.detach()
        self.done, self.since = self.done + 1, self.since + 1
        if self.since < self.every and self.done < self.steps:
            return
        mean = self.total.item() / self.since  # Waits for the device, so not in every step.
        if not math.isfinite(mean):
            raise FloatingPointError(
                f"training: the loss is {mean} after {self.done} of {self.steps} steps; "
                "lower the learning rate"
            )
        if self.progress is not None:
            self.progress(self.done, self.steps, mean)
        self.total.zero_()
        self.since = 0


def _batches(rows: Tensor, settings: TrainSettings) -> Iterator[Tensor]:
    """Yields a batch of rows for each step.

    The batches of an epoch differ in size by at most one row. A short last batch would weigh as
    much as a full one, and batch normalisation fails on a single row.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    left = settings.total_steps(len(rows))
    while left:
        epoch = rows
        if settings.shuffle:
            epoch = rows[torch.randperm(len(rows), generator=generator).to(rows.device)]
        batches: Sequence[Tensor] = epoch.tensor_split(settings.batches(len(rows)))[:left]
        yield from batches
        left -= len(batches)


def _schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, rows: int
) -> torch.optim.lr_scheduler.LRScheduler:
    steps = settings.total_steps(rows)

    def rate_share(step: int) -> float:
        if settings.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, rate_share)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds the generators of torch, and restores them afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


def _check_targets(decisions: Tensor, soft_labels: Tensor | None, images: int) -> None:
    if decisions.dtype != torch.int64 or decisions.shape != (images,):
        raise ValueError(
            f"decisions: expected [{images}] int64, one for each image, "
            f"got {list(decisions.shape)} {str(decisions.dtype).removeprefix('torch.')}"
        )
    if soft_labels is None:
        return
    if soft_labels.ndim != 2 or len(soft_labels) != images:
        raise ValueError(
            f"soft_labels: expected [{images}, C], one row for each image, "
            f"got {list(soft_labels.shape)}"
        )
    answered = soft_labels[decisions >= 0]
    is_distribution = (answered >= 0).all(1) & ((answered.sum(1) - 1).abs() < 1e-3)
    is_absent = (answered == 0).all(1)
    wrong = ~(is_distribution | is_absent)
    if wrong.any():
        row = int((decisions >= 0).nonzero()[wrong][0])
        raise ValueError(
            f"soft_labels: expected probabilities that sum to 1, or zeros for images without "
            f"a soft label, got {soft_labels[row].tolist()} in row {row}"
        )


def _check_classes(
    network: nn.Module, image: Tensor, decisions: Tensor, soft_labels: Tensor | None
) -> None:
    """Checks the targets against the number of classes, which only the network knows.

    On a GPU, a class out of range would abort the process without naming the class.
    """
    with torch.no_grad():
        logits = network.eval()(image)
    if logits.ndim != 2:
        raise ValueError(f"model: expected logits [n, C], got {list(logits.shape)} for one image")
    classes = logits.shape[1]
    low, high = decisions.aminmax()
    if low < -1 or high >= classes:
        raise ValueError(
            f"decisions: expected classes from 0 to {classes - 1} or -1, "
            f"got {low.item()} to {high.item()}"
        )
    if soft_labels is not None and soft_labels.shape[1] != classes:
        raise ValueError(
            f"soft_labels: expected {classes} columns, the model's classes, "
            f"got {soft_labels.shape[1]}"
        )


def check_positive(name: str, value: float) -> None:
    """Raises ValueError unless `value` is a finite number above 0."""
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a finite number above 0, got {value}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Raises ValueError unless `value` is one of `choices`."""
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
