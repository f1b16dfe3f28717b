"""Training a network for a fixed number of steps, through `accelerate`.

Devices, mixed precision and several processes are accelerate's. Nothing here looks at a test set,
and equal arguments give equal weights.
"""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from db3kd.data.image_source import Images, image_reader
from db3kd.models.channels_last import to_channels_last

if TYPE_CHECKING:
    from accelerate import Accelerator

Model = nn.Module | Callable[[], nn.Module]
StepCallback = Callable[[int, int, float], None]

_PRECISIONS = ("no", "fp16", "bf16")
_SCHEDULES = ("constant", "cosine")
_REPORTS = 100

_MOST_REPEATS = 30
"""A sample of a rare class is trained on at most this much more often than one of the commonest."""


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How a network is trained, with Adam. Nothing here depends on a test set.

    Attributes:
        epochs: times through the training rows.
        steps: exactly this many batches instead, however many rows there are (for comparisons at
            equal training).
        batch_size: the most rows in a step, over all processes. An epoch is cut into batches of
            equal size (to one row).
        learning_rate: Adam's, at the start.
        schedule: "constant", or "cosine", which lowers the rate to 0 over the steps.
        seed: of the initial weights, the order of the rows and dropout.
        device: "auto", "cpu", "cuda" or "cuda:1"; under `accelerate launch` leave the choice of a
            card to it ("auto").
        precision: "no" (float32), "fp16" (CUDA only) or "bf16".
        shuffle: a new order every epoch.
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
                'precision: fp16 needs a CUDA device, got device "cpu"; take "bf16" or "no"'
            )

    def batches(self, rows: int) -> int:
        """Batches in an epoch over so many rows."""
        return math.ceil(rows / self.batch_size)

    def total_steps(self, rows: int) -> int:
        """Steps of a whole training on so many rows."""
        return self.epochs * self.batches(rows) if self.steps is None else self.steps


def train(
    model: Model,
    images: Images,
    decisions: Tensor,
    soft_labels: Tensor | None,
    loss: Callable[..., Tensor],
    settings: TrainSettings,
    *,
    rows: Tensor | None = None,
    progress: StepCallback | None = None,
) -> nn.Module:
    """Train a network for a fixed number of steps.

    The result depends on the arguments alone (bit for bit on the CPU with as many threads), and the
    global random state is left as found. Under `accelerate launch` each process takes an equal
    share of every batch and gradients are averaged.

    Args:
        model: a function that makes a network (called under the seed, so its weights follow from
            it), or a network, whose weights are the start; the network itself is left as it is, a
            copy is trained.
        images: [N, *shape] float32 in [0, 1], or an `ImageSource` of N images.
        decisions: [N] int64, the class of each image; rows with -1 (unanswered) are left out.
        soft_labels: [N, C], rows sum to 1, or are all 0 where an image has no soft label; or None.
        loss: called with logits [n, C], decisions [n] and, unless None, soft_labels [n, C]; returns
            a scalar.
        settings: steps, rate, seed, device and precision.
        rows: [R] int64, the images to train on; a row named twice is trained on twice as often. All
            by default.
        progress: called about a hundred times with (steps done, steps, mean loss since the last
            call).

    Returns:
        The trained network, in eval mode, on the device it was trained on.

    Raises:
        ValueError: an argument has a wrong shape, type or value, or no row is left to train on.
        FloatingPointError: the loss became infinite or NaN.
    """
    _check_targets(decisions, soft_labels, len(images))
    rows = torch.arange(len(images)) if rows is None else rows.cpu()
    rows = rows[decisions.cpu()[rows] >= 0]
    if len(rows) == 0:
        raise ValueError("decisions: expected at least one answered row to train on, got none")
    with _seeded(settings.seed), _accelerator(settings) as accelerator:
        device = accelerator.device
        network = copy.deepcopy(model) if isinstance(model, nn.Module) else model()
        to_channels_last(network)
        optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
        schedule = _schedule(optimizer, settings, len(rows))
        prepared, optimizer = accelerator.prepare(network, optimizer)
        read = image_reader(images, device)
        targets = [t.to(device) for t in (decisions, soft_labels) if t is not None]
        _check_classes(network, read(rows[:1]), decisions, soft_labels)
        meter = _Meter(settings.total_steps(len(rows)), device, progress)
        prepared.train()
        for batch in _batches(rows.to(device), settings):
            index = batch.tensor_split(accelerator.num_processes)[accelerator.process_index]
            optimizer.zero_grad()
            value = loss(prepared(read(index)), *(t[index] for t in targets))
            accelerator.backward(value)
            optimizer.step()
            schedule.step()
            meter.add(value)
        return accelerator.unwrap_model(prepared, keep_fp32_wrapper=False).eval()


def balanced_rows(decisions: Tensor, balance: float, seed: int = 0) -> Tensor:
    """Rows to train on, int64 [R], those of rare classes named several times.

    decisions: int64 [n]. A sample of a class with k images, of at most K in any, is named
    (K/k)^balance times in the mean.
    """
    counts = torch.bincount(decisions).double()
    times = (counts.max() / counts.clamp_min(1)).pow(balance).clamp_max(_MOST_REPEATS)[decisions]
    chance = torch.rand(len(decisions), generator=torch.Generator().manual_seed(seed))
    repeats = times.floor() + (chance < times.frac())
    return torch.arange(len(decisions)).repeat_interleave(repeats.long())


class _Meter:
    """Reports the mean loss now and then, and stops a training whose loss is no longer a number."""

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
        mean = self.total.item() / self.since  # waits for the device, hence now and then
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
    """Batches of rows, epoch after epoch, as many as there are steps.

    Batches of an epoch are equal to one row: a rest of one or two rows would weigh as much as a
    full batch, and batch normalisation fails on a single one.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    left = settings.total_steps(len(rows))
    while left:
        order = (
            torch.randperm(len(rows), generator=generator).to(rows.device)
            if settings.shuffle
            else slice(None)
        )
        epoch = rows[order].tensor_split(settings.batches(len(rows)))[:left]
        yield from epoch
        left -= len(epoch)


def _schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, rows: int
) -> torch.optim.lr_scheduler.LRScheduler:
    steps = settings.total_steps(rows)

    def share(step: int) -> float:
        if settings.schedule == "constant":
            return 1.0
        return 0.5 * (1 + math.cos(math.pi * min(step, steps) / steps))

    return torch.optim.lr_scheduler.LambdaLR(optimizer, share)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch's generators, seeded; the caller's come back afterwards."""
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield


@contextmanager
def _accelerator(settings: TrainSettings) -> "Iterator[Accelerator]":
    """An accelerator for these settings.

    accelerate keeps one state for the whole process and refuses a second device or precision. A
    training gets a fresh state, and a caller who uses accelerate gets theirs back. accelerate is
    loaded here, since much that never trains reads `TrainSettings`.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState, PartialState
    from accelerate.utils import patch_environment

    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise ValueError(
            f"device: expected one that is there, got {settings.device!r} without CUDA"
        )
    states = (AcceleratorState._shared_state, PartialState._shared_state)
    kept = [dict(state) for state in states]
    for state in states:
        state.clear()
    card = (
        patch_environment(ACCELERATE_TORCH_DEVICE=settings.device)
        if ":" in settings.device
        else nullcontext()
    )
    try:
        with card:
            accelerator = Accelerator(
                mixed_precision=settings.precision, cpu=settings.device == "cpu"
            )
        yield accelerator
    finally:
        for state, before in zip(states, kept, strict=True):
            state.clear()
            state.update(before)


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
        row = (decisions >= 0).nonzero()[wrong][0].item()
        raise ValueError(
            f"soft_labels: expected probabilities that sum to 1, or zeros where there are none, "
            f"got {soft_labels[row].tolist()} in row {row}"
        )


def _check_classes(
    network: nn.Module, image: Tensor, decisions: Tensor, soft_labels: Tensor | None
) -> None:
    """Checks what only the network knows: how many classes there are.

    During training, a class out of range would be a device assertion that does not name it.
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
    if not (math.isfinite(value) and value > 0):
        raise ValueError(f"{name}: expected a finite number above 0, got {value}")


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"{name}: expected one of {', '.join(choices)}, got {value!r}")
