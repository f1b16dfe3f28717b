"""Compares an exported file with the student that it was made from."""

from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import Tensor

from db3kd.errors import ArgumentError
from db3kd.export.student import DeployedStudent
from db3kd.models.state import weight_dtype
from db3kd.tables import Features
from db3kd.teachers.base import Teacher, TeacherError, class_names_of
from db3kd.teachers.loading import load_teacher
from db3kd.teachers.torch_modules.module import ModuleTeacher
from db3kd.wording import counted, first_line, input_noun


class ExportError(ArgumentError):
    """A student cannot be converted, or its file would decide differently."""


def check_decides_alike(
    student: DeployedStudent, path: Path, batches: Iterable[Tensor]
) -> tuple[int, float]:
    """Loads a file without options, and compares its answers with those of the student.

    The batches, [n, *image_shape] float32 each, are within the student's bounds.

    Returns:
        The number of different classes among the decisions, and the largest absolute difference
        between two scores.

    Raises:
        ExportError: If the file cannot be used, declares something else, or decides differently.
        TeacherError: If the student itself fails.
    """
    name, noun = student.teacher.name, input_noun(student.teacher.image_shape)
    network = student.make_network()
    seen: set[int] = set()
    largest, count, different, first = 0.0, 0, 0, ""
    try:
        exported = load_teacher(path, model=student.model, trust_code=True)
        scores = _scores_of(exported, path)
    except TeacherError as error:
        raise ExportError(
            "student", f"the file made from {name} cannot be used: {error}"
        ) from error
    _check_declared(student, exported)
    for images in batches:
        expected = student.teacher.decide(images)
        with torch.inference_mode():
            truth = network(images.clone())
        try:
            decided = exported.decide(images)
            answers = scores(images)
        except Exception as error:  # errors of a graph or of ONNX Runtime
            first = first_line(error)
            raise ExportError(
                "student",
                f"the file made from {name} fails on a batch of "
                f"{counted(len(images), noun)}: {first}",
            ) from error
        seen.update(expected.tolist())
        largest = max(largest, _difference(answers, truth))
        wrong = (decided != expected).nonzero().flatten()
        if len(wrong) and not different:
            row = int(wrong[0])
            first = f"class {int(decided[row])} instead of {int(expected[row])} for {noun} {row}"
            first += f" of a batch of {len(images)}"
        different += len(wrong)
        count += len(images)
    if different:
        raise ExportError(
            "student",
            "expected a file that makes the same decisions as "
            f"{name} on {counted(count, noun)}, got {counted(different, 'other decision')}, first "
            f"{first} (largest difference of scores {largest:.2g}); nothing was written. Choose "
            f"another format, and check that the network processes each {noun} independently",
        )
    return len(seen), largest


def _scores_of(exported: Teacher, path: Path) -> Callable[[Tensor], Tensor]:
    """Returns the function of the file from images to scores [N, classes], [N, 1] or [N]."""
    if isinstance(exported, ModuleTeacher):
        module = exported.module
        dtype = weight_dtype(module)

        def run(images: Tensor) -> Tensor:
            with torch.inference_mode():
                return module(images.to(dtype, copy=True))

        return run
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(str(path), options)
    (source,) = session.get_inputs()
    return lambda images: torch.from_numpy(session.run(None, {source.name: images.numpy()})[0])


def _check_declared(student: DeployedStudent, exported: Teacher) -> None:
    """Checks that the file declares what the student does.

    Raises:
        ExportError: If it does not.
    """
    expected = student.metadata
    declared = {
        "image_shape": tuple(exported.image_shape),
        "classes": exported.classes,
        "bounds": tuple(exported.bounds),
        "class_names": class_names_of(exported),
        "features": Features.of(exported),
    }
    for name, value in declared.items():
        if value != getattr(expected, name):
            raise ExportError(
                "student",
                f"expected {name} {getattr(expected, name)} in the file made from "
                f"{student.teacher.name}, got {value}",
            )


def _difference(answers: Tensor, truth: Tensor) -> float:
    """Returns the largest absolute difference; equal infinities do not differ."""
    answers, truth = answers.float().reshape(-1), truth.float().reshape(-1)
    if answers.shape != truth.shape:
        return float("inf")
    return float((answers - truth).where(answers != truth, 0.0).abs().max())
