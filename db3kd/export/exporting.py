"""`export_model`: a student as one file for deployment."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from db3kd.arguments.plain import check_path
from db3kd.data.arguments import ImagesLike
from db3kd.errors import ArgumentError
from db3kd.export.check import ExportError, check_decides_alike
from db3kd.export.check_images import CHECKED_IMAGES, check_batches
from db3kd.export.formats import encode, format_of
from db3kd.export.student import DeployedStudent
from db3kd.models.factories import NetworkFactory
from db3kd.models.random_state import kept_random_state
from db3kd.storage.filesystem import check_new_file, write_atomically
from db3kd.teachers.torch_modules.module import ModuleTeacher
from db3kd.wording import InputNoun, input_noun


@dataclass(frozen=True)
class ExportResult:
    """A written file, and how it was checked.

    Attributes:
        path: The file.
        images: Number of images that were compared; the file decides like the student on all of
            them.
        classes_decided: Number of different classes among these decisions.
        largest_difference: The largest absolute difference between two scores of the file and the
            student.
        noun: What messages call an image: "image", or "row" for tables.
    """

    path: Path
    images: int
    classes_decided: int
    largest_difference: float
    noun: InputNoun = "image"


def export_model(
    student: str | Path | ModuleTeacher,
    out: str | Path,
    *,
    model: str | NetworkFactory | None = None,
    image_shape: tuple[int, ...] | None = None,
    classes: int | None = None,
    images: ImagesLike | None = None,
) -> ExportResult:
    """Writes a student as one file that can be used without options.

    The new file is loaded and run on 1,000 images, in batches of 1, 37 and more. It is kept only if
    it decides like the student on all of them. An existing file is replaced.

    Example:
        >>> db3kd.export_model("runs/mine", "student.onnx", images=db3kd.load_data("mnist5k"))
        >>> db3kd.load_teacher("student.onnx").class_names
        >>> db3kd.export_model("runs/own", "own.onnx", model=make_student)

    Args:
        student: A file of `save_model`, a folder with one such file named `student*.safetensors`,
            a description file with preprocessing steps (`.toml` or `.json`; see
            `db3kd.teachers.descriptions.description`), or a `ModuleTeacher`.
        out: The new file. Its suffix chooses the format: `.onnx`, `.pt` or `.ts` (TorchScript),
            `.pt2` (an exported program), or `.safetensors` (weights).
        model: The architecture of the weights, as `build_model` takes it. Needed if the file
            declares none, as that of a student that was passed to `distill` as a network or a
            function; if it declares a `package.module:factory`; and, as a name, to write the
            weights of a `ModuleTeacher`.
        image_shape: Shape of one image, if the student's file does not declare it.
        classes: Number of classes, if the student's file does not declare it.
        images: Images in [0, 1] to compare the decisions on; they are mapped to the student's
            bounds. If there are more than 1,000, every n-th is used; if there are fewer, random
            images are added. By default, all images are random.

    Returns:
        The path, and what the check found.

    Raises:
        ExportError: If the network cannot be converted, or the file decides differently.
        FileNotFoundError: If there is no such student.
        ModuleNotFoundError: If the format needs a package that is not installed.
        IsADirectoryError: If `out` is a folder.
        NotADirectoryError: If `out` leads through a file.
        OSError: If no file can be written at `out`.
        TeacherError: If the student returns no scores.
        TypeError: If the student has another type.
        ValueError: If an argument is invalid or missing, or the suffix is unknown.
    """
    out = check_path(out, "out")
    kind = format_of(out)
    check_new_file(out)
    if not _is_utf8(out.name):
        raise ArgumentError(
            "out", f"expected a name in UTF-8, which every runtime opens, got {out.name!r}"
        )
    deployed = DeployedStudent.open(student, model, image_shape, classes)
    teacher = deployed.teacher
    teacher.decide(torch.full((1, *teacher.image_shape), teacher.bounds[0]))  # names wrong scores
    _check_repeatable(deployed)
    content = encode(deployed, kind)
    with tempfile.TemporaryDirectory() as folder:
        candidate = Path(folder, f"student{out.suffix}")
        candidate.write_bytes(content)
        batches = check_batches(deployed.teacher, images)
        classes_decided, difference = check_decides_alike(deployed, candidate, batches)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(out, content)
    noun = input_noun(deployed.teacher.image_shape)
    return ExportResult(out, CHECKED_IMAGES, classes_decided, difference, noun)


def _check_repeatable(student: DeployedStudent) -> None:
    """Checks that two calls of the student give the same scores, as a file of it must."""
    network = student.make_network()
    with kept_random_state(), torch.inference_mode():
        images = torch.rand(2, *student.teacher.image_shape, dtype=torch.float32)
        first, second = (network(images.clone()) for _ in range(2))
    if not torch.allclose(first, second, equal_nan=True):
        raise ExportError(
            "student",
            f"expected a network with the same scores each time, got {student.teacher.name}, which "
            "is random or changes in eval mode; let it draw numbers in training only "
            "(if self.training)",
        )


def _is_utf8(name: str) -> bool:
    """Returns whether a name of a file is UTF-8; otherwise it contains lone surrogates."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
