"""Checks of networks before anything is paid for: their scores, and that files can hold them."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from db3kd.errors import ArgumentError, ArgumentTypeError
from db3kd.models.random_state import kept_random_state
from db3kd.models.state import changed_buffers, to_weight_dtype
from db3kd.wording import shortened


def check_scores(
    network: nn.Module,
    image_shape: tuple[int, ...],
    classes: int,
    images: int,
    argument: str = "model",
) -> None:
    """Checks what a network returns for a few random images, in its current mode.

    Args:
        network: The network.
        image_shape: Shape of one image.
        classes: Number of classes.
        images: Number of images.
        argument: The name of the argument in errors.

    Raises:
        TypeError: If it returns no tensor.
        ValueError: If it fails, or if it does not return finite scores of each class.
    """
    mode = "in training" if network.training else "in eval mode"
    device = next((each.device for each in network.parameters()), torch.device("cpu"))
    with torch.no_grad():
        try:
            tried = torch.rand(images, *image_shape, device=device)
            scores = network(to_weight_dtype(tried, network))
        except Exception as error:
            hint = ""
            if network.training and images == 1:
                hint = "; batch normalisation needs a batch_size of at least 2 and two images"
            raise ArgumentError(
                argument,
                f"expected a network for images of shape {image_shape}, got "
                f"{type(network).__name__}, which fails {mode} on {images} ({error}){hint}",
            ) from error
    expected = f"expected finite scores [{images}, {classes}] {mode}"
    if not isinstance(scores, Tensor):
        raise ArgumentTypeError(
            argument,
            f"{expected}, got {type(scores).__name__}; wrap the network in a module that returns "
            "the scores alone",
        )
    if tuple(scores.shape) != (images, classes):
        raise ArgumentError(argument, f"{expected}, got {list(scores.shape)}")
    if not bool(scores.isfinite().all()):
        raise ArgumentError(argument, f"{expected}, got scores that are infinite or NaN")


def check_rebuilt(
    network: nn.Module,
    make: Callable[[], nn.Module],
    image_shape: tuple[int, ...],
    argument: str = "model",
) -> None:
    """Checks that a network's state dict alone defines its scores, as files hold nothing else.

    If chance or training sets anything else that they depend on, such as a buffer that is not
    persistent, the network in a file differs from the trained one.

    Args:
        network: The network, which has been called in training; it is left in eval mode.
        make: Makes it with fresh weights.
        image_shape: Shape of one image.
        argument: The name of the argument in errors.

    Raises:
        ValueError: If the state dict cannot be loaded, or if it does not define the scores.
    """
    device = next((each.device for each in network.parameters()), torch.device("cpu"))
    expected = (
        "expected a network whose scores depend on its state_dict alone, which files store, got "
        f"{type(network).__name__}, "
    )
    with kept_random_state(seed=1), torch.no_grad():
        rebuilt = make().to(device)
        try:
            rebuilt.load_state_dict(network.state_dict())
        except RuntimeError as error:
            raise ArgumentError(
                argument, f"{expected}whose state_dict does not fit a new one ({error})"
            ) from error
        images = to_weight_dtype(torch.rand(2, *image_shape, device=device), network)
        scores, again = (_scores(each, images) for each in (network, rebuilt))
    if scores.shape == again.shape and torch.allclose(scores, again, 1e-4, 1e-5, equal_nan=True):
        return
    reason = (
        "which also keeps what chance or training sets outside of it; keep that in parameters, or "
        "in buffers (register_buffer)"
    )
    if changed := changed_buffers(network, rebuilt):
        reason = (
            f"whose scores also depend on {shortened(map(repr, changed))}; register such a buffer "
            "with persistent=True"
        )
    raise ArgumentError(argument, expected + reason)


def _scores(network: nn.Module, images: Tensor) -> Tensor:
    with kept_random_state(seed=2):  # layers that are random in eval mode draw alike
        scores: Tensor = network.eval()(images.clone())
        return scores
