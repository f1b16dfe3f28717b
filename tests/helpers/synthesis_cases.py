"""A teacher and settings that the tests of pseudo samples share."""

import torch
from teachers_analytic import (
    LinearTeacher,
)

from db3kd.data.pseudo_samples import PseudoSamples
from db3kd.synthesis.moves import Moves
from db3kd.synthesis.settings import SynthesisSettings

SHAPE = (1, 6, 6)
CLASSES = 4
UNIT = (0.0, 1.0)
WALK = Moves(count=2, length=0.2, queries_per_move=40, queries_per_sample=200)


def linear(bounds: tuple[float, float] = UNIT, max_batch: int = 512) -> LinearTeacher:
    """Four classes, for which smooth images are no rare thing."""
    generator = torch.Generator().manual_seed(2)
    weights = torch.randn(CLASSES, 36, generator=generator, dtype=torch.float64)
    weights -= weights.mean(1, keepdim=True)
    return LinearTeacher(weights, torch.zeros(4), SHAPE, bounds=bounds, max_batch=max_batch)


def plan(**changes: object) -> SynthesisSettings:
    return SynthesisSettings(
        **{"samples": 40, "query_batch_size": 64, "starting_points": 5} | changes
    )


def moved(**changes: object) -> SynthesisSettings:
    return plan(**{"moves": WALK, "snapshots": (0, 1)} | changes)


def same(one: PseudoSamples, other: PseudoSamples) -> bool:
    """To the bit."""
    names = ("pixels", "decision", "start", "moves", "distance", "queries")
    tensors = [(getattr(one, name), getattr(other, name)) for name in names]
    for count, noted in one.snapshots.items():
        tensors += zip(noted, other.snapshots[count], strict=True)
    return one.status == other.status and all(torch.equal(a, b) for a, b in tensors)
