"""Extraction without images, translated from what papers and project pages describe.

IDEAL (Zhang et al., ICLR 2023): in each round a fresh generator is trained by the student alone,
with cross-entropy towards random classes and an information loss that balances them. Each generated
image is asked about once, and the student learns from all answers.

DFHL-RS (Yuan et al., AAAI 2024) trains a fresh generator in each round as well, and its latent
noise. It moves the generated images to where the clone is least sure ("high-entropy examples"), and
asks only about these. Its rates, steps, smoothing and balance are those of its project page.

Scaled down: the generators have half of the usual width; a round has 250 images; students
train for as many steps as all others, divided over the rounds, instead of hundreds of epochs; an
answer is used again in later rounds, while DFHL-RS asks about new examples in each of 500 steps a
round (some 38 million queries). Where the descriptions leave them open, our settings are: for
IDEAL, 20 steps of the generator at 1e-3, a balance of 5; for both, SGD at 0.01, because a LeNet
without batch normalisation does not bear the 0.1 of DFHL-RS. Its robustness is not measured.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.extraction.generated_images import GeneratorSettings, generate, high_entropy_images
from benchmarks.extraction.task import Extracted, Task
from db3kd.pipelines.distill_settings import LEARNING_RATES
from db3kd.training.optimization import make_optimizer, make_schedule
from db3kd.training.settings import TrainSettings

PER_ROUND = 250
IDEAL = GeneratorSettings(steps=20, rate=1e-3, noise_rate=0.0, balance=5.0, smoothing=0.0)
DFHL_RS = GeneratorSettings(steps=10, rate=2e-3, noise_rate=1e-2, balance=3.0, smoothing=0.2)
ENTROPY_STEPS, ENTROPY_STEP = 10, 0.03

PUBLISHED = "sgd", 0.01, 5e-4
OURS = "adam", LEARNING_RATES[0], 0.0
"""Optimizer, learning rate and weight decay of the student of the rounds."""

Propose = Callable[[nn.Module, int, torch.Generator], Tensor]
"""From a student and a count to as many images to ask about."""


class GrowingStudent:
    """A student that is trained further whenever there are more answers.

    Args:
        task: The task.
        settings: How it is trained over all rounds.

    Attributes:
        network: The student.
    """

    def __init__(self, task: Task, settings: TrainSettings) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(task.seed)
            self.network = task.new_student()
        self._optimizer = make_optimizer(self.network.parameters(), settings)
        self._schedule = make_schedule(self._optimizer, settings, task.steps)
        self._batch_size = settings.batch_size

    def train(
        self, images: Tensor, decisions: Tensor, steps: int, generator: torch.Generator
    ) -> None:
        """Trains on random batches of all answers, and leaves the network in eval mode."""
        self.network.train()
        for _ in range(steps):
            rows = torch.randint(len(images), (self._batch_size,), generator=generator)
            self._optimizer.zero_grad()
            F.cross_entropy(self.network(images[rows]), decisions[rows]).backward()
            self._optimizer.step()
            self._schedule.step()
        self.network.eval()


def uniform_noise(task: Task) -> Extracted:
    """Asks about uniform noise and trains on the answers."""
    images = torch.rand(task.budget, *task.teacher.image_shape, generator=task.generator())
    decisions = task.teacher.decide(images)
    return Extracted(task.train(images, decisions), _classes(decisions, task))


def ideal(task: Task, *, published: bool) -> Extracted:
    """Runs IDEAL; `published` is as for `in_rounds`."""
    return in_rounds(task, partial(_generated, task, IDEAL), published)


def dfhl_rs(task: Task, *, published: bool) -> Extracted:
    """Runs DFHL-RS; `published` is as for `in_rounds`."""

    def propose(student: nn.Module, count: int, generator: torch.Generator) -> Tensor:
        images = _generated(task, DFHL_RS, student, count, generator)
        return high_entropy_images(student, images, steps=ENTROPY_STEPS, step=ENTROPY_STEP)

    return in_rounds(task, propose, published)


def in_rounds(task: Task, propose: Propose, published: bool) -> Extracted:
    """Asks about proposed images in rounds, and trains a student on all answers after each.

    Args:
        task: The task.
        propose: Proposes the images of a round.
        published: Whether the student of the rounds is the result, trained by SGD as published.
            Otherwise it is trained by Adam, and all answers teach a fresh student, as the students
            of all methods are trained.
    """
    generator = task.generator()
    optimizer, rate, decay = PUBLISHED if published else OURS
    settings = replace(task.training, optimizer=optimizer, learning_rate=rate, weight_decay=decay)
    growing = GrowingStudent(task, settings)
    growing.network.eval()
    counts = [len(part) for part in torch.arange(task.budget).split(PER_ROUND)]
    images = torch.empty(0, *task.teacher.image_shape)
    decisions = torch.empty(0, dtype=torch.int64)
    for number, count in enumerate(counts):
        proposed = propose(growing.network, count, generator)
        images = torch.cat([images, proposed])
        decisions = torch.cat([decisions, task.teacher.decide(proposed)])
        steps = task.steps * (number + 1) // len(counts) - task.steps * number // len(counts)
        growing.train(images, decisions, steps, generator)
    student = growing.network if published else task.train(images, decisions)
    return Extracted(student, {"rounds": len(counts), **_classes(decisions, task)})


def _generated(
    task: Task,
    settings: GeneratorSettings,
    student: nn.Module,
    count: int,
    generator: torch.Generator,
) -> Tensor:
    channels, height, width = task.teacher.image_shape
    shape = (channels, height, width)
    return generate(student, shape, task.teacher.classes, count, settings, generator)


def _classes(decisions: Tensor, task: Task) -> dict[str, int]:
    counts = decisions.bincount(minlength=task.teacher.classes)
    return {"classes": int((counts > 0).sum()), "rarest_class": int(counts.min())}
