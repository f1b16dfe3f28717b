"""Shows the loss and the measures of a training."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from db3kd.progress import Progress, ProgressListener, listening
from db3kd.training.callbacks import ProgressCallback, TrainingCallback, TrainingState
from db3kd.training.checkpoint import Checkpoint
from db3kd.training.loop import BatchSource, train_batches
from db3kd.training.settings import TrainSettings


class _Display(TrainingCallback):
    """Updates a `Progress` at each report."""

    def __init__(self, progress: Progress, title: str) -> None:
        self._progress = progress
        self._title = title
        self._reports = 0

    def on_report(self, state: TrainingState) -> None:
        parts = [f"loss {state.loss:.3g}"]
        parts += [f"{name} {value:.1%}" for name, value in state.measures.items()]
        self._progress.title = f"{self._title} ({', '.join(parts)})"
        self._progress.samples = state.steps
        self._progress.update(samples=state.step)
        self._reports += 1
        if self._reports == 1:
            self._progress.restart_rates()


@contextmanager
def show_training(
    title: str, steps: int, progress: ProgressListener | bool
) -> Iterator[TrainingCallback]:
    """Shows the progress of a training, with its loss and its measures, or tells a listener.

    Example:
        >>> with show_training("training the student", steps, progress) as show:
        ...     train_batches(make, batches, loss, settings, progress=False, callbacks=[show])

    Yields:
        A callback, to be placed after those that measure.
    """
    with listening(progress, lambda: Progress(steps, title=title, unit="steps")) as listener:
        if isinstance(listener, Progress):
            yield _Display(listener, title)
        else:
            yield ProgressCallback(listener)


def shown_training(
    make: Callable[[], nn.Module],
    batches: BatchSource,
    loss: Callable[..., Tensor],
    settings: TrainSettings,
    callbacks: Sequence[TrainingCallback] = (),
    *,
    title: str = "",
    progress: ProgressListener | bool,
) -> Callable[[Checkpoint], nn.Module]:
    """Returns a training for `NetworkStore.get` that shows its progress.

    The title is that of the display. The other arguments are those of `train_batches`;
    `settings.steps` must be set.
    """

    def train(checkpoint: Checkpoint) -> nn.Module:
        with show_training(title, settings.steps or 0, progress) as show:
            return train_batches(
                make,
                batches,
                loss,
                settings,
                progress=False,
                checkpoint=checkpoint,
                callbacks=[*callbacks, show],
            )

    return train
