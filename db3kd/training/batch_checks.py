"""Checks what the functions of a user return during training: batches, logits and losses."""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from db3kd.arguments.plain import brief
from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.training.process import TrainingProcess


def check_source(batches: Any) -> None:
    """Checks that `batches` is a `BatchSource`.

    Raises:
        TypeError: If it has no method `open`.
    """
    if isinstance(batches, type) or not callable(getattr(batches, "open", None)):
        raise ArgumentTypeError(
            "batches",
            "expected an object with a method open(process) that returns a function from a step to "
            f"its batch, got {brief(batches)}; see db3kd.training.BatchSource",
        )


def check_loss(loss: Any) -> None:
    """Checks that a loss can be called.

    Raises:
        TypeError: If it cannot.
    """
    if not callable(loss):
        raise ArgumentTypeError(
            "loss", f"expected a function from logits and targets to a scalar, got {brief(loss)}"
        )


def open_checked(batches: Any, process: TrainingProcess) -> Callable[[int], tuple[Tensor, ...]]:
    """Opens a `BatchSource`, whose batches are then checked when they are drawn.

    Raises:
        TypeError: If `open` returns no function. The function raises it if a batch is no tuple
            that begins with images, and a ValueError if there is no image in it.
    """
    draw: Any = batches.open(process)
    if not callable(draw):
        raise ArgumentTypeError(
            "batches",
            "expected a function from a step to its batch from open(process), got "
            f"{brief(draw)}; does it return its function?",
        )

    def batch(step: int) -> tuple[Tensor, ...]:
        drawn = draw(step)
        expected = (
            f"expected images [n, *shape] and the other arguments of the loss for step {step}"
        )
        if not isinstance(drawn, tuple | list):
            advice = "; return a tuple (images, …)" if isinstance(drawn, Tensor) else ""
            raise ArgumentTypeError(
                "batches", f"{expected} as a tuple, got {_described(drawn)}{advice}"
            )
        images = drawn[0] if drawn else None
        if not isinstance(images, Tensor):
            found = "an empty tuple" if not drawn else f"{_described(images)} as the images"
            raise ArgumentTypeError("batches", f"{expected}, got {found}")
        if not images.ndim or not len(images):
            raise ArgumentError(
                "batches", f"{expected}, at least one image, got images {list(images.shape)}"
            )
        return tuple(drawn)

    return batch


def check_logits(logits: Any) -> None:
    """Checks what a network returns.

    Raises:
        TypeError: If it is no tensor.
    """
    if not isinstance(logits, Tensor):
        raise ArgumentTypeError(
            "model",
            f"expected logits [n, C] from the network, got {_described(logits)}; wrap it so that "
            "it returns only the logits",
        )


def check_loss_value(value: Any, logits: Tensor) -> None:
    """Checks what a loss returns for logits.

    Raises:
        TypeError: If it is no tensor.
        ValueError: If it is no scalar, or has no gradient.
    """
    if not isinstance(value, Tensor):
        raise ArgumentTypeError(
            "loss",
            f"expected a scalar tensor, got {_described(value)}; compute it from the logits with "
            "functions of torch",
        )
    if value.ndim:
        raise ArgumentError("loss", f"expected a scalar, got {list(value.shape)}; take its mean")
    if not logits.requires_grad:
        raise ArgumentError(
            "model",
            "expected a network with weights to train, got logits without a gradient; does "
            "it freeze its weights, or run under torch.no_grad?",
        )
    if not value.requires_grad:
        raise ArgumentError(
            "loss",
            "expected a scalar with a gradient, got a detached one; compute it from the logits "
            "without detach, item or torch.no_grad",
        )


def _described(value: Any) -> str:
    """Returns what errors call a value; a tensor by its shape."""
    return f"a tensor {list(value.shape)}" if isinstance(value, Tensor) else brief(value)
