"""The student of a distillation: a network by name, a network, or a function that makes one."""

import copy
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from safetensors.torch import save
from torch import nn

from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.pipelines.distill_settings import default_student
from db3kd.storage.filesystem import write_atomically


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
        student: str | nn.Module | Callable[[], nn.Module] | None,
        image_shape: tuple[int, ...],
        classes: int,
    ) -> "Student":
        """Returns the student that a caller means, after checking that it fits the teacher.

        Args:
            student: As for `distill`.
            image_shape: Shape of one image.
            classes: The teacher's number of classes.

        Raises:
            TypeError: If it is none of the supported types.
            ValueError: If it cannot take such images, or has another number of classes.
        """
        if student is None:
            student = default_student(image_shape)
        if isinstance(student, str):
            make: Callable[[], nn.Module] = partial(build_model, student, image_shape, classes)
        elif isinstance(student, nn.Module):
            make = partial(copy.deepcopy, student)
        elif callable(student):
            make = student
        else:
            raise TypeError(
                "student: expected a name, a torch.nn.Module or a function that makes one, got "
                f"{type(student).__name__}"
            )
        name = student if isinstance(student, str) else None
        return cls(make, name, _identity(make, image_shape, classes))

    @property
    def title(self) -> str:
        """What reports call the student."""
        return self.name or self.identity.partition(" ")[0]

    def save(
        self,
        file: Path,
        network: nn.Module,
        image_shape: tuple[int, ...],
        classes: int,
        class_names: Sequence[str] | None,
    ) -> None:
        """Writes the weights; a named network can be loaded by `load_teacher`, for example."""
        if self.name is not None:
            save_model(
                file,
                network,
                model=self.name,
                image_shape=image_shape,
                classes=classes,
                class_names=class_names,
            )
            return
        state = network.state_dict()
        write_atomically(
            file,
            save({key: value.detach().cpu().clone().contiguous() for key, value in state.items()}),
        )


def _identity(make: Callable[[], nn.Module], image_shape: tuple[int, ...], classes: int) -> str:
    """Returns the type of the network and a digest of its weights under a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = make()
        if not isinstance(network, nn.Module):
            raise TypeError(
                "student: expected a function that returns a torch.nn.Module, got "
                f"{type(network).__name__}"
            )
        device = next((each.device for each in network.parameters()), torch.device("cpu"))
        with torch.inference_mode():
            network.eval()
            try:
                scores = network(torch.zeros(1, *image_shape, device=device))
            except Exception as error:
                raise ValueError(
                    f"student: expected a network for images of shape {image_shape}, got "
                    f"{type(network).__name__}, which fails on one ({error})"
                ) from error
    if tuple(scores.shape) != (1, classes):
        raise ValueError(
            f"student: expected scores [1, {classes}] for one image, got {list(scores.shape)}"
        )
    digest = hashlib.sha256()
    for key, value in network.state_dict().items():
        digest.update(f"{key} {tuple(value.shape)} {value.dtype}\n".encode())
        digest.update(
            value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes()
        )
    return f"{type(network).__name__} {digest.hexdigest()}"
