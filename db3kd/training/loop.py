"""The training loop: a network, a loss, and a batch for each step."""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from db3kd.arguments.plain import brief, check_type
from db3kd.errors import ArgumentError, ArgumentTypeError, DivergedError
from db3kd.models.channels_last import to_channels_last
from db3kd.models.copying import copy_network
from db3kd.models.random_state import kept_random_state, random_state, set_random_state
from db3kd.models.state import load_whole_state, to_weight_dtype, whole_state
from db3kd.progress import Progress, ProgressListener, check_progress, listening
from db3kd.training.batch_checks import (
    check_logits,
    check_loss,
    check_loss_value,
    check_source,
    open_checked,
)
from db3kd.training.callbacks import (
    ProgressCallback,
    TrainingCallback,
    TrainingState,
    check_callbacks,
)
from db3kd.training.checkpoint import Checkpoint, CheckpointLike, as_checkpoint
from db3kd.training.optimization import WeightAverage, make_optimizer, make_schedule
from db3kd.training.process import TrainingProcess
from db3kd.training.settings import TrainSettings
from db3kd.wording import counted

Model = nn.Module | Callable[[], nn.Module]
"""A network to start from, or a function that makes one."""

_REPORTS = 100
"""Approximate number of reports during training."""

_SEEDED = threading.RLock()
"""Held by a training, because a process has one set of random states."""


class BatchSource(Protocol):
    """The batches of training, as a function of the number of the step.

    Example:
        >>> class Mixes:
        ...     def open(self, process):
        ...         read = image_reader(images, process.device)
        ...         def batch(step):
        ...             random = torch.Generator().manual_seed(step)
        ...             pairs = torch.randint(len(images), (128, 2), generator=random)
        ...             first, second = process.own_part(pairs).unbind(1)
        ...             mixed = (read(first) + read(second)) / 2
        ...             return mixed, teach(mixed)
        ...         return batch
    """

    def open(self, process: TrainingProcess) -> Callable[[int], tuple[Tensor, ...]]:
        """Prepares the batches for one training process.

        Args:
            process: The process: its device for the batches, and `own_part`, which returns its part
                of a batch. The parts of all processes make up the batch of a step.

        Returns:
            A function from the number of a step, from 0, to images [n, *shape] float32 and the
            other arguments of the loss, all on `process.device`. Its result depends only on the
            step, not on earlier calls or torch's global random state.
        """
        ...


def train_batches(
    model: Model,
    batches: BatchSource,
    loss: Callable[..., Tensor],
    settings: TrainSettings,
    *,
    progress: ProgressListener | bool = True,
    checkpoint: CheckpointLike | None = None,
    callbacks: Sequence[TrainingCallback] = (),
) -> nn.Module:
    """Trains a network for `settings.steps` steps on the batches of a source.

    The result depends only on the arguments, bit for bit on a CPU with the same number of threads.
    The global random states of torch, NumPy and Python are seeded, and restored afterwards; so
    trainings in several threads run one after the other, and a callback must not wait for one in
    another thread. Under `accelerate launch` each process takes its part of every batch, and
    gradients are averaged.

    Example:
        >>> settings = db3kd.TrainSettings(steps=12000, schedule="cosine", ema=0.999)
        >>> network = train_batches(make, Mixes(), F.cross_entropy, settings)

    Args:
        model: A function that makes a network, called with the seed set; or a network, of which a
            copy is trained. Images are converted to the dtype of its weights.
        batches: The batch of each step.
        loss: Called with logits [n, C] float32 and everything in the batch except its images;
            returns a scalar.
        settings: `steps` must be set. `batch_size` and `shuffle` have no effect here;
            they are up to the source.
        progress: True shows the steps on standard error; False shows nothing; a listener receives
            their number about a hundred times (docs/guide.md, "Progress").
        checkpoint: The file to continue from and to write; see `Checkpoint`.
        callbacks: Called in this order; see `TrainingCallback`.

    Returns:
        The trained network, in eval mode, on the device of the training.

    Raises:
        TypeError: If `batches` is no `BatchSource`, or if a batch, the logits or the loss are not
            what they should be.
        ValueError: If `settings.steps` is None, if a batch is empty, if the loss is not a scalar
            with a gradient, or if the checkpoint is damaged or belongs to another training run.
        DivergedError: If the loss became infinite or NaN.
    """
    check_type(settings, TrainSettings, "settings", "TrainSettings")
    steps = settings.steps
    if steps is None:
        raise ArgumentError("settings.steps", "expected the number of steps, got None")
    if not callable(model):
        raise ArgumentTypeError(
            "model", f"expected a torch.nn.Module, or a function that makes one, got {brief(model)}"
        )
    check_callbacks(callbacks)
    check_progress(progress)
    check_source(batches)
    check_loss(loss)
    checkpoint = as_checkpoint(checkpoint)
    process = TrainingProcess.current(settings.device, settings.precision)
    shown = listening(progress, lambda: Progress(steps, title="training", unit="steps"))
    devices = range(torch.cuda.device_count())
    with _SEEDED, shown as listener, kept_random_state(settings.seed, devices):
        if progress is not False:  # in every process, because each report waits for all of them
            callbacks = (*callbacks, ProgressCallback(listener))
        network = copy_network(model, "model") if isinstance(model, nn.Module) else model()
        check_type(network, nn.Module, "model", "a function that makes a torch.nn.Module")
        network.to(process.device)
        batch = open_checked(batches, process)
        _initialize_lazy(network, batch)
        to_channels_last(network)
        training = _Training(network, loss, settings, steps, process, callbacks)
        return training.run(batch, checkpoint)


class _Training:
    """A network in training, and everything that its next step depends on."""

    def __init__(
        self,
        network: nn.Module,
        loss: Callable[..., Tensor],
        settings: TrainSettings,
        steps: int,
        process: TrainingProcess,
        callbacks: Sequence[TrainingCallback],
    ) -> None:
        settings = settings.completed()
        self.network, self.loss, self.settings = network, loss, settings
        self.process, self.callbacks = process, callbacks
        self.open_callbacks: list[TrainingCallback] = []
        self.optimizer = make_optimizer(network.parameters(), settings)
        self.schedule = make_schedule(self.optimizer, settings, steps)
        self.scaler = process.grad_scaler()
        self.average = None if settings.ema is None else WeightAverage(network, settings.ema)
        self.state = TrainingState(
            step=0,
            steps=steps,
            network=network if self.average is None else self.average.network,
            learning_rate=settings.rate,
            is_main=process.index == 0,
        )
        self.meter = _Meter(steps, process)
        self.started = time.monotonic()

    def run(
        self, batch: Callable[[int], tuple[Tensor, ...]], checkpoint: Checkpoint | None
    ) -> nn.Module:
        """Trains from the checkpoint, or from the first step, to the end."""
        try:
            return self._run(batch, checkpoint)
        except BaseException as error:
            # Not by `_call`, which waits for other processes: this one may be the only one to fail.
            for callback in self.open_callbacks:
                try:
                    callback.on_exception(self.state, error)
                except Exception as another:
                    error.add_note(f"{type(callback).__name__}.on_exception failed: {another!r}")
            raise

    def _run(
        self, batch: Callable[[int], tuple[Tensor, ...]], checkpoint: Checkpoint | None
    ) -> nn.Module:
        state, process = self.state, self.process
        if checkpoint is not None:
            self._resume(checkpoint)
        distributed = process.distributed(self.network)
        self._call("on_start")
        distributed.train()
        while state.step < state.steps and not state.stopped:
            self._step(distributed, batch(state.step))
            reported = self.meter.due(state.step)
            if reported:
                self._report()
                distributed.train()
            # Clocks of processes differ, and the processes should not wait for each other often.
            may_write = checkpoint is not None and (process.count == 1 or reported)
            if checkpoint is not None and may_write and process.agree(checkpoint.due()):
                self._save(checkpoint)
        if checkpoint is not None:
            self._save(checkpoint)
        self._settle_buffers()
        self._call("on_end")
        return state.network.eval()

    def _step(self, distributed: nn.Module, batch: tuple[Tensor, ...]) -> None:
        images, *arguments = batch
        self.optimizer.zero_grad()
        try:
            with self.process.autocast():
                logits = distributed(to_weight_dtype(images, self.network))
        except ValueError as error:
            if len(images) != 1:
                raise
            raise ArgumentError(
                "model",
                f"expected a network that trains on a batch of one row, got "
                f"{type(self.network).__name__}, which fails ({error}); batch normalisation needs "
                "a batch_size of at least 2 and two rows",
            ) from error
        check_logits(logits)
        value = self.loss(logits.float(), *arguments)
        check_loss_value(value, logits)
        self.scaler.scale(value).backward()
        if self.settings.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)
        self.state.learning_rate = self.optimizer.param_groups[0]["lr"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.schedule.step()
        self.state.step += 1
        if self.average is not None:
            self.average.update(self.state.step)
        self.meter.add(value)

    def _report(self) -> None:
        self.state.loss = self.meter.read(self.state.step)
        self.state.measures = {}
        self._settle_buffers()
        self._call("on_report")

    def _settle_buffers(self) -> None:
        """Gives the state's network the buffers that go with its weights."""
        self.process.share_buffers(self.network)
        if self.average is not None:
            self.average.copy_buffers()

    def _call(self, method: Literal["on_start", "on_report", "on_end"]) -> None:
        if not self.callbacks:
            return
        self._count_seconds()
        with kept_random_state(devices=_cuda_devices(self.process.device)):
            for callback in self.callbacks:
                if method == "on_start":
                    self.open_callbacks.append(callback)
                elif method == "on_end":
                    self.open_callbacks.pop(0)
                getattr(callback, method)(self.state)
        self.state.stopped = self.process.agree(self.state.stopped)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.state.seconds += now - self.started
        self.started = now

    def _save(self, checkpoint: Checkpoint) -> None:
        self._count_seconds()
        own = {
            **random_state(_cuda_devices(self.process.device)),
            "meter": self.meter.total.cpu(),
        }
        content = {
            "network": whole_state(self.network),
            "average": None if self.average is None else whole_state(self.average.network),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "scaler": self.scaler.state_dict(),
            "processes": self.process.gather(own),
            "callbacks": [callback.state_dict() for callback in self._with_state()],
            "state": {name: getattr(self.state, name) for name in _KEPT},
        }
        if self.state.is_main:
            checkpoint.save(self._description(), content)

    def _resume(self, checkpoint: Checkpoint) -> None:
        content = checkpoint.load(self._description())
        if content is None:
            return
        load_whole_state(self.network, content["network"])
        if self.average is not None:
            load_whole_state(self.average.network, content["average"])
        self.optimizer.load_state_dict(content["optimizer"])
        self.schedule.load_state_dict(content["schedule"])
        self.scaler.load_state_dict(content["scaler"])
        for callback, kept in zip(self._with_state(), content["callbacks"], strict=True):
            callback.load_state_dict(kept)
        for name in _KEPT:
            setattr(self.state, name, content["state"][name])
        own = content["processes"][self.process.index]
        self.meter.restore(own["meter"], self.state.step)
        set_random_state(own, _cuda_devices(self.process.device))

    def _description(self) -> dict[str, Any]:
        """Returns what must be equal in a training run that continues this one."""
        parameters = self.network.named_parameters()
        return {
            "settings": dataclasses.asdict(self.settings),
            "network": {name: list(parameter.shape) for name, parameter in parameters},
            "device": self.process.device.type,
            "processes": self.process.count,
            "callbacks": [type(callback).__qualname__ for callback in self._with_state()],
        }

    def _with_state(self) -> list[TrainingCallback]:
        return [callback for callback in self.callbacks if callback.state_dict()]


_KEPT = ("step", "learning_rate", "loss", "seconds", "measures", "stopped")
"""What a checkpoint keeps of a `TrainingState`."""


class _Meter:
    """Computes the mean loss between two reports, and raises if it is not finite."""

    def __init__(self, steps: int, process: TrainingProcess) -> None:
        self.steps, self.process = steps, process
        self.every = math.ceil(steps / _REPORTS)
        self.total = torch.zeros((), device=process.device)
        self.since = 0

    def add(self, loss: Tensor) -> None:
        self.total += loss.detach()
        self.since += 1

    def due(self, step: int) -> bool:
        return self.since == self.every or step == self.steps

    def read(self, step: int) -> float:
        """Returns the mean. This waits for the device, so it is not called in every step."""
        mean = self.process.mean(self.total).item() / self.since
        if not math.isfinite(mean):
            raise DivergedError(
                f"training: the loss is {mean} after {step} of {counted(self.steps, 'step')}; "
                "lower the learning rate"
            )
        self.total.zero_()
        self.since = 0
        return mean

    def restore(self, total: Tensor, step: int) -> None:
        self.total.copy_(total)
        self.since = 0 if step == self.steps else step % self.every


def _initialize_lazy(network: nn.Module, batch: Callable[[int], tuple[Tensor, ...]]) -> None:
    """Initializes the weights of lazy modules, whose shapes depend on the first images."""
    if any(is_lazy(each) for each in network.parameters()):
        with torch.no_grad():
            network.eval()(to_weight_dtype(batch(0)[0][:1], network))


def _cuda_devices(device: torch.device) -> list[int]:
    if device.type != "cuda":
        return []
    return [torch.cuda.current_device() if device.index is None else device.index]
