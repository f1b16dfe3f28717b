"""The student to export, and what its file will declare."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from db3kd.arguments.plain import check_path
from db3kd.errors import ArgumentError, ArgumentTypeError, InputNotFoundError
from db3kd.models.copying import copy_network
from db3kd.models.factories import NetworkFactory
from db3kd.models.metadata import ModelMetadata
from db3kd.models.state import weight_dtype
from db3kd.models.weights import read_saved_model, student_in_folder
from db3kd.teachers.loading import load_teacher
from db3kd.teachers.preprocessing import PreprocessedModule
from db3kd.teachers.torch_modules.module import ModuleTeacher
from db3kd.teachers.torch_modules.programs import ExportedModule

_STUDENT_SUFFIXES = (".safetensors", ".toml", ".json")


@dataclass(frozen=True)
class DeployedStudent:
    """A student on the CPU.

    Attributes:
        teacher: The student, as a teacher that decides as the file must.
        model: The name of the architecture, as `build_model` takes it; None if unknown.
    """

    teacher: ModuleTeacher
    model: str | None

    @classmethod
    def open(
        cls,
        student: str | Path | ModuleTeacher,
        model: str | NetworkFactory | None,
        image_shape: tuple[int, ...] | None,
        classes: int | None,
    ) -> "DeployedStudent":
        """Loads a student; the arguments are those of `export_model`.

        Raises:
            FileNotFoundError: If there is no such student.
            TeacherError: If the file is corrupt or does not fit.
            TypeError: If the student is not a network with weights.
            ValueError: If an argument is missing or does not apply, or the file has another type.
        """
        if isinstance(student, ModuleTeacher):
            if image_shape is not None or classes is not None:
                raise ArgumentError(
                    "student", f"{student.name} declares its image_shape and classes; omit both"
                )
            teacher = student
        elif isinstance(student, str | Path):
            path = student_file(student)
            opened = load_teacher(path, model=model, image_shape=image_shape, classes=classes)
            if not isinstance(opened, ModuleTeacher):
                raise _unsupported(path.name, opened)
            teacher = opened
            if path.suffix == ".safetensors" and model is None:
                model = read_saved_model(path).model
        else:
            raise ArgumentTypeError(
                "student",
                "expected a weights file, a folder or a ModuleTeacher, got "
                f"{type(student).__name__}; wrap a network: db3kd.ModuleTeacher(network, "
                "image_shape, classes)",
            )
        programs = (torch.jit.ScriptModule, ExportedModule)
        if any(isinstance(part, programs) for part in teacher.module.modules()):
            raise _unsupported(teacher.name, "a program")
        if teacher.autocast is not None:
            raise ArgumentError(
                "autocast",
                f"expected a student without it, got {teacher.name} with "
                f"{teacher.autocast}; convert its weights instead: network.to({teacher.autocast})",
            )
        return cls(teacher, model if isinstance(model, str) else None)

    def make_network(self) -> nn.Module:
        """Returns a copy of the network with float32 images and scores, on the CPU in eval mode."""
        return _Float32Network(self.teacher.module).eval()

    @property
    def metadata(self) -> ModelMetadata:
        """What the file must declare."""
        teacher = self.teacher
        return ModelMetadata(
            teacher.image_shape,
            teacher.classes,
            teacher.bounds,
            teacher.class_names,
            teacher.threshold,
            teacher.features,
        )

    @property
    def preprocessing(self) -> dict[str, str]:
        """The preprocessing steps by name; none unless a description declares them."""
        module = self.teacher.module
        if not isinstance(module, PreprocessedModule):
            return {}
        return {name: text for name, text in module.preprocessing.details() if name != "dtype"}


def student_file(student: str | Path) -> Path:
    """Returns the file of a student: the path itself, or the one student in a folder.

    Raises:
        FileNotFoundError: If there is no such file or folder, or no student in it.
        ValueError: If there are several students in the folder, or the file has another type.
    """
    path = check_path(student, "student")
    if path.is_dir():
        return student_in_folder(path, "student")
    if not path.is_file():
        raise InputNotFoundError(
            f"student: there is no {path}; expected a weights file or a run folder"
        )
    if path.suffix not in _STUDENT_SUFFIXES:
        raise ArgumentError(
            "student",
            f"expected a file of save_model (.safetensors) or a description "
            f"(.toml, .json), got {path.name!r}",
        )
    return path


def _unsupported(name: str, found: Any) -> TypeError:
    kind = found if isinstance(found, str) else type(found).__name__
    return ArgumentTypeError(
        "student",
        f"expected a network with weights, got {kind} from {name}, which cannot be converted",
    )


class _Float32Network(nn.Module):
    """Converts float32 images to the dtype of a network's weights, and its scores to float32."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._dtype = weight_dtype(network)
        self.network = copy_network(network, "student").cpu().requires_grad_(False)
        for parameter in self.network.parameters():
            parameter.data = parameter.data.contiguous()  # a teacher's channels are last

    def forward(self, images: Tensor) -> Tensor:
        """Returns the scores of images [N, *image_shape] float32."""
        if self._dtype == torch.float32:
            return self.network(images)
        return self.network(images.to(self._dtype)).float()
