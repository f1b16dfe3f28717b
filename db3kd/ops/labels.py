"""The op that turns distances into soft labels."""

from typing import Any, Literal

import torch
from torch import Tensor

from db3kd.ops.extension import call

Normalisation = Literal["inverse", "margin"]
"""How `soft_labels` turns distances into logits."""


def soft_labels(
    distances: Tensor,
    predicted: Tensor,
    *,
    normalisation: Normalisation,
    scale: float = 1.0,
    temperature: float = 1.0,
) -> Tensor:
    """Turns the distances of samples to other classes into distributions over all classes.

    A row of the result is `softmax(z / temperature)`, with the logits z_m for the other classes m
    and z_own for the predicted class:

    - "inverse", from the paper (DB3KD; Wang, ICML 2021): `z_m = 1 / d_m`, 0 if m was not reached,
      and `z_own = Σ z_m`. If no class was reached, all classes have the same weight.
    - "margin": `z_m = -scale · d_m`, no weight if m was not reached, and `z_own = 0`.

    On CUDA the op waits for the device once, to learn whether a distance is invalid.

    Example:
        >>> distances = torch.tensor([[0.0, 1.0, 2.0]])
        >>> soft_labels(distances, torch.tensor([0]), normalisation="margin")
        tensor([[0.6652, 0.2447, 0.0900]])

    Args:
        distances: [N, C] float32, above 0, in input units; +inf if a class was not reached. The
            column of the predicted class is not read.
        predicted: [N] int64, the predicted class of each sample.
        normalisation: "inverse" or "margin".
        scale: The factor of "margin", above 0.
        temperature: The temperature, above 0.

    Returns:
        [N, C] float32; each row sums to 1.

    Raises:
        ValueError: If a distance is NaN, zero or negative.
    """
    return call(
        torch.ops.db3kd.soft_labels, distances, predicted, normalisation, scale, temperature
    )


@torch.library.register_fake("db3kd::soft_labels")
def _(distances: Tensor, *rest: Any) -> Tensor:
    return distances.new_empty(distances.shape)
