"""The extraction attacks of ART, run as the library offers them.

The teacher is a `BlackBoxClassifier` that returns one-hot rows, so that nothing else leaks. The
student is a `PyTorchClassifier` with the batches, the optimizer and the cosine schedule of all
students. Its API differs in these points:

- It trains for whole epochs, so that the number of steps is the nearest multiple of those of an
  epoch. The last batch of an epoch is smaller. The schedule is driven by the optimizer, because the
  attacks do not pass one on.
- Adaptive KnockoffNets trains on every image alone before the next is asked about: as many further
  steps of one image as there are queries, at a thirtieth of the rate, because the full rate ruins
  a student on such batches. It needs a class for each image of the pool, and gets the
  true one, which no other method does. It may ask about an image again, which counts again.
- Its default reward divides by the variance of the teacher's certainty, which is 0 for a teacher
  that only returns a class. The probabilities of the bandit then become NaN, and the attack stops.
  The reward is therefore "loss".
"""

import math
import warnings
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from benchmarks.extraction.task import Extracted, Task
from db3kd.training.optimization import make_optimizer

QUERY_BATCH = 256

SINGLE_IMAGE_RATE = 1 / 30
"""The rate of steps on one image, as a share of the initial one."""


class RecordedAnswers:
    """Answers ART's questions, and keeps them.

    Attributes:
        images: The batches that were asked about.
        decisions: Their classes.
    """

    def __init__(self, task: Task) -> None:
        self._task = task
        self.images: list[Tensor] = []
        self.decisions: list[Tensor] = []

    def one_hot(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Asks about images [n, *image_shape] and returns one-hot rows [n, C]."""
        batch = torch.from_numpy(images.astype(np.float32))
        decisions = self._task.teacher.decide(batch)
        self.images.append(batch)
        self.decisions.append(decisions)
        return F.one_hot(decisions, self._task.teacher.classes).float().numpy()


def knockoff(
    task: Task, *, strategy: Literal["random", "adaptive"], retrain: bool = False
) -> Extracted:
    """Runs KnockoffNets (Orekondy et al., CVPR 2019).

    Args:
        task: The task.
        strategy: How ART chooses images.
        retrain: Whether the answers teach a fresh student as all others are trained.
    """
    extraction = _extraction_module()
    adaptive = strategy == "adaptive"
    labels = task.images.labels
    if adaptive and labels is None:
        raise ValueError("pool: expected images with labels for the adaptive strategy, got none")
    return _run(
        task,
        extraction.KnockoffNets,
        {"sampling_strategy": strategy, "reward": "loss", "verbose": False},
        y=labels.numpy() if adaptive and labels is not None else None,
        single_steps=task.budget if adaptive else 0,
        retrain=retrain,
    )


def copycat(task: Task) -> Extracted:
    """Runs CopycatCNN (Correia-Silva et al., IJCNN 2018)."""
    return _run(task, _extraction_module().CopycatCNN, {}, y=None, single_steps=0, retrain=False)


def _run(
    task: Task,
    attack: Any,
    options: dict[str, Any],
    *,
    y: NDArray[np.int64] | None,
    single_steps: int,
    retrain: bool,
) -> Extracted:
    from art.estimators.classification import BlackBoxClassifier, PyTorchClassifier

    shape, classes = tuple(task.teacher.image_shape), task.teacher.classes
    batch_size = task.training.batch_size
    an_epoch = math.ceil(task.budget / batch_size)
    epochs = max(1, round(task.steps / an_epoch))
    answers = RecordedAnswers(task)
    pool = task.images.read(torch.arange(len(task.images))).numpy()
    state = np.random.get_state()
    np.random.seed(task.seed)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            network = task.new_student()
            victim = BlackBoxClassifier(answers.one_hot, shape, classes, clip_values=(0.0, 1.0))
            thief = PyTorchClassifier(
                network,
                nn.CrossEntropyLoss(),
                shape,
                classes,
                optimizer=_scheduled_optimizer(network, task, epochs * an_epoch, single_steps),
                clip_values=(0.0, 1.0),
                device_type="cpu",
            )
            attack(
                victim,
                batch_size_fit=batch_size,
                batch_size_query=QUERY_BATCH,
                nb_epochs=epochs,
                nb_stolen=task.budget,
                **options,
            ).extract(pool, y, thieved_classifier=thief)
    finally:
        np.random.set_state(state)
    images, decisions = torch.cat(answers.images), torch.cat(answers.decisions)
    facts = {"student_steps": epochs * an_epoch, "single_image_steps": single_steps}
    if retrain:
        return Extracted(task.train(images, decisions), {})
    return Extracted(network.eval(), facts)


def _scheduled_optimizer(
    network: nn.Module, task: Task, steps: int, first: int
) -> torch.optim.Optimizer:
    """The optimizer of all students, after `first` slow steps; it lowers its own rate to 0."""
    optimizer = make_optimizer(network.parameters(), task.training)
    done = 0

    def set_rate() -> None:
        share = 0.5 * (1 + math.cos(math.pi * min(max(done - first, 0), steps) / steps))
        for group in optimizer.param_groups:
            group["lr"] = task.training.rate * (SINGLE_IMAGE_RATE if done < first else share)

    def after_step(*_: object) -> None:
        nonlocal done
        done += 1
        set_rate()

    set_rate()
    optimizer.register_step_post_hook(after_step)
    return optimizer


def _extraction_module() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from art.attacks import extraction
    return extraction
