"""`Projection`: the nearest unit vectors that encode valid rows."""

from collections.abc import Sequence

import torch
from torch import Tensor

from db3kd.errors import ArgumentError
from db3kd.tables.feature import Feature


class Projection:
    """Maps unit vectors to unit vectors of valid rows.

    Every dimension is clamped to [0, 1]. An integer feature is rounded to a whole number. For a
    categorical feature, the highest dimension becomes 1 and the others 0; the first one wins a tie.
    A projected vector is projected to itself, bit for bit.

    Example:
        >>> features = Features([Feature.integer("rooms", 1, 5)])
        >>> features.project(torch.tensor([[0.3]]))
        tensor([[0.2500]])

    Args:
        features: The features, in the order of their dimensions.

    Attributes:
        groups: [D'] int64, for each dimension the number of its integer or categorical feature,
            counting only these features, or -1 if its feature is continuous. A mixture of two valid
            rows takes all dimensions of a group from the same row.
    """

    def __init__(self, features: Sequence[Feature]) -> None:
        groups: list[int] = []
        steps: list[float] = []
        self._one_hot: list[slice] = []
        discrete = 0
        for feature in features:
            start = len(groups)
            if feature.kind == "continuous" or not feature.width:
                groups += [-1] * feature.width
                steps += [0.0] * feature.width
                continue
            groups += [discrete] * feature.width
            discrete += 1
            if feature.lower is not None and feature.upper is not None:
                steps.append(feature.upper - feature.lower)
            else:
                steps += [0.0] * feature.width
                self._one_hot.append(slice(start, start + feature.width))
        self.groups = torch.tensor(groups, dtype=torch.int64)
        self._integer = torch.tensor(steps).nonzero().flatten()
        self._steps = torch.tensor(steps, dtype=torch.float64)[self._integer]

    def __call__(self, unit: Tensor) -> Tensor:
        """Projects unit vectors.

        Args:
            unit: [n, D'] float32, without NaN.

        Returns:
            [n, D'] float32, a new tensor on the same device.

        Raises:
            ValueError: If the shape is wrong.
        """
        if unit.ndim != 2 or unit.shape[1] != len(self.groups):
            raise ArgumentError(
                "unit", f"expected vectors [n, {len(self.groups)}], got {list(unit.shape)}"
            )
        valid = unit.clamp(0, 1)
        if len(self._integer):
            places = self._integer.to(unit.device)
            steps = self._steps.to(unit.device)
            numbers = valid[:, places].double().mul_(steps).round_()
            valid[:, places] = numbers.div_(steps).to(unit.dtype)
        for span in self._one_hot:
            highest = valid[:, span].argmax(1, keepdim=True)
            valid[:, span] = torch.zeros_like(valid[:, span]).scatter_(1, highest, 1.0)
        return valid
