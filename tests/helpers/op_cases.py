"""Arguments of every native op over one grid of shapes."""

import torch
from torch import Tensor

from db3kd import ops
from db3kd.boundary.probes import dct_basis

SIZES = (1, 64, 81, 100, 130, 784, 3072, 150_528)
ROWS = (0, 1, 7)
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
TOLERANCE = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
BOUNDS = {"lower": 0.1, "upper": 0.9}
DRAWS = (
    ("rademacher", "all pixels"),
    ("gaussian", "all pixels"),
    ("rademacher", "low frequencies"),
    ("gaussian", "low frequencies"),
    ("rademacher", "all frequencies but one"),
)
_IMAGES = {64: (1, 8), 81: (1, 9), 100: (1, 10), 784: (1, 28), 3072: (3, 32), 150_528: (3, 224)}
"""Channels and side of the square images of these sizes."""


def bracket_queries(rows: int, size: int, seed: int = 0) -> dict[str, Tensor]:
    """`rows` active rays of images of `size` components, some of them of length 0."""
    g = torch.Generator().manual_seed(seed)
    pairs, count = 5, rows + 3
    samples = torch.rand(3, size, generator=g)
    ends = torch.cat([torch.rand(4, size, generator=g), samples[:1]])
    sample_of = torch.arange(pairs) % 3
    pair_of = torch.arange(count) * pairs // count
    end_of = torch.randint(5, (count,), generator=g)
    return {
        "samples": samples,
        "ends": ends,
        "sample_of": sample_of,
        "pair_of": pair_of,
        "end_of": end_of,
        "lengths": ops.ray_lengths(samples, ends, sample_of[pair_of], end_of),
        "radius": torch.rand(pairs, generator=g) * size**0.5 / 3,
        "active": torch.randperm(count, generator=g)[:rows],
    }


def ray_lengths(rows: int, size: int) -> dict[str, Tensor]:
    rays = bracket_queries(rows, size)
    chosen = rays["active"]
    return {
        "samples": rays["samples"],
        "ends": rays["ends"],
        "sample_of": rays["sample_of"][rays["pair_of"][chosen]],
        "end_of": rays["end_of"][chosen],
    }


def bracket_step(rows: int, size: int = 8, seed: int = 0) -> dict[str, object]:
    """`rows` active rays of about a third as many pairs, with all kinds of decisions."""
    g = torch.Generator().manual_seed(seed)
    pair_of = torch.randint(rows // 3 + 1, (rows,), generator=g).sort().values
    pairs = rows // 3 + 1
    low = torch.rand(pairs, generator=g)
    high = low + torch.rand(pairs, generator=g)
    state = {
        "low": low,
        "high": high,
        "radius": low + (high - low) * torch.rand(pairs, generator=g),
        "winner": torch.full((pairs,), -1),
        "active": torch.arange(rows),
        "decisions": torch.randint(-1, 9, (rows,), generator=g),
        "criterion_class": torch.randint(3, (pairs,), generator=g),
    }
    samples = torch.rand(3, size, generator=g)
    ends = torch.cat([torch.rand(4, size, generator=g), samples[:1]])
    sample_of, end_of = torch.arange(pairs) % 3, torch.randint(5, (rows,), generator=g)
    return state | {
        "samples": samples,
        "ends": ends,
        "sample_of": sample_of,
        "pair_of": pair_of,
        "end_of": end_of,
        "lengths": ops.ray_lengths(samples, ends, sample_of[pair_of], end_of),
        "limit": rows,
    }


STATE = ("low", "high", "radius", "winner")
"""What bracket_step updates in place."""


def directions(noise: str, frequencies: str, size: int) -> dict[str, object] | None:
    """How probes are drawn; None if images of this size have no frequencies."""
    if frequencies == "all pixels":
        return {"noise": noise}
    if size not in _IMAGES:
        return None
    channels, side = _IMAGES[size]
    basis = dct_basis(side // 2 if frequencies == "low frequencies" else side - 1, side)
    return {"noise": noise, "row_basis": basis, "column_basis": basis, "channels": channels}


def probe_queries(points: int, size: int) -> dict[str, object]:
    g = torch.Generator().manual_seed(1)
    return {
        "origins": torch.rand(points, size, generator=g),
        "points": torch.rand(points, size, generator=g),
        "step": torch.rand(points, generator=g) * 2,
        "counters": counters(points),
        "seed": -9,
    }


def probe_gradient(points: int, count: int, size: int) -> dict[str, object]:
    """Arguments of probe_gradient.

    With one component all probes hit. Otherwise they could cancel, and rounding would decide the
    sign.
    """
    g = torch.Generator().manual_seed(2)
    decisions = torch.randint(-1, 3, (points, count), generator=g)
    criterion_class = torch.randint(3, (points,), generator=g)
    return {
        "decisions": criterion_class[:, None].expand(-1, count).clone() if size == 1 else decisions,
        "criterion_class": criterion_class,
        "counters": counters(points),
        "targeted": True,
        "seed": 2**40 + 3,
        "components": size,
    }


def soft_labels(rows: int, classes: int) -> dict[str, Tensor]:
    g = torch.Generator().manual_seed(3)
    distances = torch.rand(rows, classes, generator=g) + 0.1
    distances[torch.rand(rows, classes, generator=g) < 0.1] = torch.inf
    return {"distances": distances, "predicted": torch.randint(classes, (rows,), generator=g)}


def counters(points: int) -> Tensor:
    number = torch.arange(points)
    return torch.stack([2**32 - 1 - number, number * 7 % 65536, 65535 - number % 9], dim=1)


def strided(arguments: dict) -> dict:
    """The same arguments as strided views of larger tensors."""
    return {
        name: _spread(value) if isinstance(value, Tensor) else value
        for name, value in arguments.items()
    }


def _spread(tensor: Tensor) -> Tensor:
    wide = tensor.new_zeros(*tensor.shape[:-1], 2 * tensor.shape[-1] + 1)
    wide[..., 1::2] = tensor
    return wide[..., 1::2]
