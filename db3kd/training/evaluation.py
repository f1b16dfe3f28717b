"""Predictions of a network or teacher, and how often they match labels or decisions."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from db3kd.arguments.arrays import IntegersLike, as_classes, as_index
from db3kd.arguments.plain import check_count
from db3kd.data.arguments import ImagesLike, as_image_source, as_teacher, with_labels
from db3kd.data.class_names import matched
from db3kd.data.image_reader import image_reader
from db3kd.data.image_set import ImageSet
from db3kd.data.image_source import ImageSource
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.models.state import to_weight_dtype
from db3kd.querying.driver import decide_all
from db3kd.querying.single_process import check_single_process
from db3kd.teachers.base import Teacher
from db3kd.teachers.cpu_batch import batch_for_module
from db3kd.teachers.rescaled import takes_unit_images
from db3kd.wording import counted

_DEVICE_BATCH = 512
"""Images per forward pass on an accelerator."""


def predict_logits(
    model: nn.Module, images: ImagesLike, batch: int | None = None, rows: IntegersLike | None = None
) -> Tensor:
    """Computes a network's logits in eval mode.

    The network keeps its device, and each of its modules its mode. It gets images of the dtype of
    its weights.

    Args:
        model: The network.
        images: N images in [0, 1], as for `db3kd.label`.
        batch: Images per forward pass; by default 512, or on a CPU a number that suits the network
            and the size of its images.
        rows: [n] int64, the images to use; all by default.

    Returns:
        [n, C] float32 on the CPU.

    Raises:
        TypeError: If the model is no network, or returns no tensor.
        ValueError: If it does not return scores of at least two classes.
    """
    if not isinstance(model, nn.Module):
        raise ArgumentTypeError(
            "model",
            f"expected a torch.nn.Module, got {type(model).__name__}; use predict for the "
            "classes of a teacher",
        )
    if batch is not None:
        batch = check_count(batch, "batch")
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    images = as_image_source(images)
    rows = torch.arange(len(images)) if rows is None else as_index(rows, len(images), "rows")
    return _logits(model, image_reader(images, device), rows, batch)


def _logits(
    model: nn.Module, read: Callable[[Tensor], Tensor], rows: Tensor, batch: int | None
) -> Tensor:
    with _in_eval_mode(model):
        if batch is None:
            batch = batch_of_forward(model, read(rows[:1]))
        with torch.inference_mode():
            parts = (_scores(model, read(part)) for part in rows.split(batch))
            logits = torch.cat([part.float().cpu() for part in parts])
    return logits.clone()  # A tensor made in inference mode cannot be used in training.


@contextmanager
def _in_eval_mode(model: nn.Module) -> Iterator[None]:
    """Restores the mode of each module afterwards: parts of a network may be kept in eval mode."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])  # not only the attributes, because a network may override this
        for module, training in modes:
            module.training = training


def _scores(model: nn.Module, images: Tensor) -> Tensor:
    scores = model(to_weight_dtype(images, model))
    expected = f"expected a network that returns scores [{len(images)}, C] of at least 2 classes"
    if not isinstance(scores, Tensor):
        raise ArgumentTypeError(
            "model",
            f"{expected}, got {type(scores).__name__}; wrap it in a module that returns the scores "
            "alone",
        )
    if scores.ndim != 2 or len(scores) != len(images) or scores.shape[1] < 2:
        raise ArgumentError(
            "model",
            f"{expected}, got {list(scores.shape)}; if it has one score per image, pass "
            "db3kd.ModuleTeacher(network, image_shape, 2, threshold=...)",
        )
    return scores


def batch_of_forward(model: nn.Module, image: Tensor) -> int:
    """Returns how many images a forward pass without gradients should have.

    On a CPU, the number suits the network and the size of its images.

    Args:
        model: A network, in eval mode.
        image: [1, *image_shape], on the network's device.
    """
    if image.is_cpu:
        return batch_for_module(model, model, image.shape[1:], to_weight_dtype(image, model))
    return _DEVICE_BATCH


def predict(
    model: nn.Module | Teacher,
    images: ImagesLike,
    batch: int | None = None,
    rows: IntegersLike | None = None,
) -> Tensor:
    """Predicts classes with a network, or with a teacher, which receives one query per image.

    Example:
        >>> decisions = db3kd.predict(teacher, images)

    Args:
        model: A network, or a teacher.
        images: N images in [0, 1], as for `db3kd.label`.
        batch: See `predict_logits`; not used for a teacher.
        rows: [n] int64, the images to use; all by default.

    Returns:
        [n] int64 on the CPU.

    Raises:
        TypeError: If the model is neither, or the images have an unsupported type.
        TeacherError: If the teacher fails.
    """
    if isinstance(model, nn.Module):
        return predict_logits(model, images, batch, rows).argmax(1)
    teacher = takes_unit_images(as_teacher(model))
    if not hasattr(teacher, "decide_async"):  # a module in this process costs nothing
        check_single_process()
    source = as_image_source(images)
    rows = torch.arange(len(source)) if rows is None else as_index(rows, len(source), "rows")
    return decide_all(teacher, image_reader(source, "cpu"), rows)


def predict_read(model: nn.Module, read: Callable[[Tensor], Tensor], rows: Tensor) -> Tensor:
    """Predicts classes of images that are read repeatedly, without reopening their set.

    `read` is an `image_reader` for the network's device.

    Returns:
        [n] int64 on the CPU.
    """
    return _logits(model, read, rows, None).argmax(1)


def evaluate(
    model: nn.Module | Teacher,
    images: ImagesLike,
    labels: IntegersLike | None = None,
    batch: int | None = None,
) -> float:
    """Computes the accuracy of a network or teacher.

    Example:
        >>> accuracy = db3kd.evaluate(student, db3kd.load_data("mnist5k", "test"))

    Args:
        model: See `predict`.
        images: N images, as for `predict_logits`.
        labels: [N] int64, the true classes; by default the labels of `images`, in the numbering of
            a teacher whose classes have names. Images with -1 are left out.
        batch: See `predict_logits`.

    Returns:
        The share of labelled images, in [0, 1], whose predicted class is their label.

    Raises:
        ValueError: If there are no labels, or not one per image.
    """
    if labels is None and isinstance(images, ImageSet) and not isinstance(model, nn.Module):
        images = matched(images, as_teacher(model))
    source, expected = with_labels(images, labels)
    return _share_known(model, source, expected, batch, "labels")


def agreement(
    model: nn.Module | Teacher,
    images: ImagesLike,
    decisions: IntegersLike,
    batch: int | None = None,
) -> float:
    """Computes how often a network, or another teacher, predicts what the teacher decided.

    Example:
        >>> db3kd.agreement(student, images, db3kd.predict(teacher, images))
        0.97

    Args:
        model: See `predict`.
        images: N images, as for `predict_logits`.
        decisions: [N] int64, the teacher's classes, as from `predict(teacher, images)`; -1
            (unanswered) is left out.
        batch: See `predict_logits`.

    Returns:
        The share of answered images, in [0, 1].

    Raises:
        TypeError: If the decisions are not integers.
        ValueError: If there is not one decision per image, or none is answered.
    """
    for name, given in (("images", images), ("decisions", decisions)):
        if isinstance(given, nn.Module) or hasattr(given, "decide"):
            raise ArgumentTypeError(
                name,
                f"expected no model, got {type(given).__name__}; pass the teacher's classes "
                "last: agreement(student, images, db3kd.predict(teacher, images))",
            )
    source = as_image_source(images)
    classes = as_classes(decisions, len(source), "decisions", least=-1)
    return _share_known(model, source, classes, batch, "decisions")


def _share_known(
    model: nn.Module | Teacher, images: ImageSource, classes: Tensor, batch: int | None, name: str
) -> float:
    """Computes how often a model predicts the class of an image, among those that have one."""
    classes = classes.cpu()
    known = (classes >= 0).nonzero().flatten()
    if len(known) == 0:
        raise ArgumentError(name, "expected the class of at least one image, got only -1")
    return share_equal(predict(model, images, batch, known), classes[known])


def share_equal(predicted: Tensor, expected: Tensor) -> float:
    """Computes the share, in [0, 1], of equal entries of two class vectors [n].

    Raises:
        ValueError: If the lengths differ or are 0.
    """
    if expected.shape != predicted.shape or len(expected) == 0:
        raise ArgumentError(
            "expected",
            f"expected a class for each of {counted(len(predicted), 'sample')}, "
            f"got {list(expected.shape)}",
        )
    return (predicted.cpu() == expected.cpu()).double().mean().item()
