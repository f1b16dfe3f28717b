"""The student of a distillation: a network by name, a network, or a function that makes one."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.arguments.arrays import tensor_bytes
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.models.checks import check_rebuilt, check_scores
from db3kd.models.copying import copy_network
from db3kd.models.factories import NetworkFactory, factory_name
from db3kd.models.networks import build_model, check_model, is_own_model
from db3kd.models.random_state import kept_random_state
from db3kd.models.state import to_weight_dtype
from db3kd.pipelines.distill_settings import default_student
from db3kd.training.optimization import WeightAverage, make_optimizer
from db3kd.training.settings import TrainSettings

StudentLike = str | nn.Module | NetworkFactory
"""What may be passed as a student: a name for `build_model`, a network (a copy is trained), or a
function or class that makes one, called as `build_model` does."""


@dataclass(frozen=True)
class Student:
    """How the student is made.

    Attributes:
        make: Makes the network, with fresh weights unless the caller passed a network.
        name: Its name for `build_model`; None if it has none.
        identity: What identifies its architecture and its initial weights.
    """

    make: Callable[[], nn.Module]
    name: str | None
    identity: str

    @classmethod
    def of(
        cls,
        student: StudentLike | None,
        image_shape: tuple[int, ...],
        classes: int,
        training: TrainSettings,
    ) -> "Student":
        """Returns how to make the student that a caller passed, after checking that it fits.

        Raises:
            TypeError: If the student has none of the supported types.
            ValueError: If the student cannot be trained on such images, or has another number of
                classes.
        """
        if student is None:
            student = default_student(image_shape)
        if isinstance(student, str):
            make: Callable[[], nn.Module] = partial(build_model, student, image_shape, classes)
            if ":" in student:
                _check_factory(make, student)
            else:
                check_model(student, image_shape, classes, "student")
        elif isinstance(student, nn.Module):
            make = partial(copy_network, student, "student")
        elif callable(student):
            make = partial(build_model, student, image_shape, classes)
            _check_factory(make, factory_name(student))
        else:
            raise ArgumentTypeError(
                "student",
                "expected a name, a torch.nn.Module or a function that makes one, got "
                f"{type(student).__name__}",
            )
        name = student if isinstance(student, str) else None
        with kept_random_state(seed=0):
            network = _made(make)
            check_scores(network.eval(), image_shape, classes, 1, "student")
            known = _identity(network)
            if not any(each.requires_grad for each in network.parameters()):
                raise ArgumentError(
                    "student",
                    f"expected a network with weights to train, got "
                    f"{type(network).__name__} without any",
                )
            images = min(training.batch_size, 2)
            check_scores(network.train(), image_shape, classes, images, "student")
            _check_training(network, image_shape, classes, replace(training, batch_size=images))
            if name is None or not is_own_model(name):
                check_rebuilt(network, make, image_shape, "student")
        return cls(make, name, known)

    @property
    def title(self) -> str:
        """The name of the student in reports."""
        return self.name or self.identity.partition(" ")[0]


def _made(make: Callable[[], nn.Module]) -> nn.Module:
    # A copy, as `load_teacher` and `export_model` make one, so that the checks change no network.
    network = copy_network(make(), "student")
    for key, value in network.state_dict().items():
        if not isinstance(value, Tensor):
            raise ArgumentTypeError(
                "student",
                "expected a network whose state_dict holds tensors, which can be stored, "
                f"got {type(value).__name__} at {key!r} of {type(network).__name__}",
            )
        if value.is_meta:
            raise ArgumentError(
                "student",
                f"expected a network with weights in memory, got {key!r} of "
                f"{type(network).__name__} on the meta device",
            )
    return network


def _check_factory(make: Callable[[], nn.Module], who: str) -> None:
    """Checks that a caller's function makes a new network each time."""
    with kept_random_state():
        try:
            first, second = make(), make()
        except Exception as error:
            if isinstance(error, ArgumentError | ArgumentTypeError) and error.argument == "model":
                raise type(error)("student", error.problem) from error
            raise ArgumentTypeError(
                "student",
                f"expected a function or class that makes a network, got {who}, which "
                f"fails ({type(error).__name__}: {error})",
            ) from error
    if set(map(id, first.parameters())) & set(map(id, second.parameters())):
        raise ArgumentError(
            "student",
            f"expected {who} to make a new network each time, got the same weights twice; "
            "pass the network itself, which is copied",
        )


def _check_training(
    network: nn.Module, image_shape: tuple[int, ...], classes: int, training: TrainSettings
) -> None:
    """Trains a network for a step on random images, as a training does after its queries."""
    device = next(each.device for each in network.parameters())
    images = to_weight_dtype(torch.rand(training.batch_size, *image_shape, device=device), network)
    decisions = torch.arange(len(images), device=device) % classes
    try:
        optimizer = make_optimizer(network.parameters(), training.completed())
        F.cross_entropy(network(images).float(), decisions).backward()
        optimizer.step()
        if training.ema is not None:
            WeightAverage(network, training.ema)
    except torch.OutOfMemoryError:
        raise
    except Exception as error:
        raise ArgumentError(
            "student",
            f"expected a network that can be trained, got {type(network).__name__}, "
            f"whose first training step fails ({type(error).__name__}: {error})",
        ) from error


def _identity(network: nn.Module) -> str:
    """Returns the type of a network and a digest of its weights."""
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(tensor_bytes(value))
    return f"{type(network).__name__} {digest.hexdigest()}"
