"""The scale of soft labels, which `choose_scale` chooses for `Labels` without a query."""

from db3kd.scale.choice import ScaleChoice
from db3kd.scale.search import choose_scale

__all__ = [
    "ScaleChoice",
    "choose_scale",
]
