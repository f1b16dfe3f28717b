"""Digits, a teacher of them, and small students that learn its decisions."""

from functools import partial

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn

from db3kd.distillation.methods import MethodResult, TrainingMethod, compare_methods
from db3kd.teachers import ModuleTeacher
from db3kd.training.evaluation import predict
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier

SETTINGS = TrainSettings(steps=60, batch_size=64, learning_rate=1e-2, device="cpu")


def network(hidden: int) -> nn.Module:
    """A perceptron for digits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


student = partial(network, 16)


class Digits:
    """Digits, a teacher trained on some of them, and its decisions for transfer and test sets."""

    def __init__(self) -> None:
        found = load_digits()
        images = torch.tensor(found.images[:, None] / 16, dtype=torch.float32)
        labels = torch.tensor(found.target)
        self.logits = train_classifier(partial(network, 32), images[:1000], labels[:1000], SETTINGS)
        self.teacher = ModuleTeacher(self.logits, (1, 8, 8), 10)
        self.images = images[1000:1200]
        self.decisions = predict(self.logits, self.images)
        self.test_images, self.test_labels = images[1200:], labels[1200:]
        self.test_decisions = predict(self.logits, self.test_images)

    def compare(
        self, *methods: TrainingMethod, seeds: tuple[int, ...] = (0, 1)
    ) -> list[MethodResult]:
        """Measures students of several methods on the test set."""
        return compare_methods(
            methods, seeds, self.test_images, self.test_labels, self.test_decisions
        )


def weights(model: nn.Module) -> Tensor:
    """All weights of a network as one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach()
