"""The work of the native ops as the paper's procedure does it: in NumPy, one row at a time.

The code follows the paper (DB3KD, sections 3.2 and 3.3). Names and arguments are those of
`db3kd.ops`, with arrays instead of tensors. Directions are Gaussian in all pixels, as in the paper,
so that results of the probe ops agree with the native ones in shape only.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from db3kd import ops

Array = NDArray[np.float32]
Indices = NDArray[np.int64]


def ray_lengths(samples: Array, ends: Array, sample_of: Indices, end_of: Indices) -> Array:
    """See `db3kd.ops.ray_lengths`."""
    return np.array(
        [np.linalg.norm(ends[e] - samples[s]) for s, e in zip(sample_of, end_of, strict=True)]
    )


def bracket_queries(
    samples: Array,
    ends: Array,
    sample_of: Indices,
    pair_of: Indices,
    end_of: Indices,
    lengths: Array,
    radius: Array,
    active: Indices,
    *,
    lower: float,
    upper: float,
) -> Array:
    """See `db3kd.ops.bracket_queries`."""
    queries = []
    for ray in active:
        start = samples[sample_of[pair_of[ray]]]
        direction = (ends[end_of[ray]] - start) / lengths[ray]
        queries.append(np.clip(start + radius[pair_of[ray]] * direction, lower, upper))
    return np.stack(queries)


def bracket_step(
    low: Array,
    high: Array,
    radius: Array,
    winner: Indices,
    active: Indices,
    decisions: Indices,
    samples: Array,
    ends: Array,
    sample_of: Indices,
    pair_of: Indices,
    end_of: Indices,
    lengths: Array,
    criterion_class: Indices,
    *,
    targeted: bool,
    absolute: float,
    relative: float,
    lower: float,
    upper: float,
    limit: int,
) -> tuple[Indices, Indices, Array]:
    """See `db3kd.ops.bracket_step`."""
    survivors: list[int] = []
    for pair, rows in _rows_of_pairs(active, pair_of):
        answered = [row for row in rows if decisions[row] >= 0]
        hits = [row for row in answered if (decisions[row] == criterion_class[pair]) == targeted]
        if hits:
            high[pair], winner[pair] = radius[pair], active[hits[0]]
        elif answered:
            low[pair] = radius[pair]
        radius[pair] = low[pair] + (high[pair] - low[pair]) / 2
        wide = high[pair] - low[pair] > max(absolute, relative * high[pair])
        if len(answered) == len(rows) and wide and low[pair] < radius[pair] < high[pair]:
            survivors += [active[row] for row in hits or rows]
    remaining = np.array(survivors, np.int64)
    queries = bracket_queries(
        samples, ends, sample_of, pair_of, end_of, lengths, radius, remaining[:limit],
        lower=lower, upper=upper,
    )  # fmt: skip
    return remaining, pair_of[remaining], queries


def soft_labels(
    distances: Array,
    predicted: Indices,
    *,
    normalisation: ops.Normalisation,
    scale: float = 1.0,
    temperature: float = 1.0,
) -> Array:
    """See `db3kd.ops.soft_labels`."""
    labels = []
    for row, label in zip(distances, predicted, strict=True):
        others = np.delete(row, label)
        if normalisation == "inverse":
            logits = np.insert(1 / others, label, (1 / others).sum())
        else:
            logits = np.insert(-scale * others, label, 0.0)
        weights = np.exp((logits - logits.max()) / temperature)
        labels.append(weights / weights.sum())
    return np.stack(labels)


def probe_queries(
    origins: Array,
    points: Array,
    step: Array,
    directions: Iterator[Iterator[Array]],
    *,
    lower: float,
    upper: float,
) -> Array:
    """Probes around points; `directions` yields the directions of each point (see `drawn`)."""
    queries = []
    for origin, point, length in zip(origins, points, step, strict=True):
        radius = np.linalg.norm(point - origin)
        for direction in next(directions):
            moved = point - origin + length * direction
            queries.append(np.clip(origin + moved * radius / np.linalg.norm(moved), lower, upper))
    return np.stack(queries)


def probe_gradient(
    decisions: Indices, criterion_class: Indices, directions: Array, *, targeted: bool
) -> Array:
    """Normals from decisions; `directions` [P, K, D] are those of the queries."""
    gradients = []
    for row, target, drawn_before in zip(decisions, criterion_class, directions, strict=True):
        gradient = np.zeros(directions.shape[2], dtype=np.float32)
        for decision, direction in zip(row, drawn_before, strict=True):
            if decision >= 0:
                hit = (decision == target) == targeted
                gradient += direction if hit else -direction
        gradients.append(gradient / np.linalg.norm(gradient))
    return np.stack(gradients)


def drawn(points: int, count: int, size: int) -> Iterator[Iterator[Array]]:
    """For each point, `count` Gaussian directions of unit length, drawn lazily."""
    generator = np.random.default_rng(0)

    def direction() -> Array:
        numbers = generator.standard_normal(size, dtype=np.float32)
        return numbers / np.linalg.norm(numbers)

    return ((direction() for _ in range(count)) for _ in range(points))


def _rows_of_pairs(active: Indices, pair_of: Indices) -> Iterator[tuple[int, list[int]]]:
    """Each pair among the active rays, with the rows of its rays, which are adjacent."""
    rows: list[int] = []
    for row, ray in enumerate(active):
        if rows and pair_of[ray] != pair_of[active[rows[0]]]:
            yield pair_of[active[rows[0]]], rows
            rows = []
        rows.append(row)
    if rows:
        yield pair_of[active[rows[0]]], rows
