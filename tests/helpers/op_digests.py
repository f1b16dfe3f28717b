"""Digests of the results of every native op on the CPU: proof that a change moved no bit.

    python tests/helpers/op_digests.py > tests/ops/op_digests.json

writes them anew. The arguments are drawn by torch's generator and by Python's `math`, so they are
the same with every version of torch and on every x86-64 machine.
"""

import hashlib
import json
import math
from collections.abc import Iterator

import op_cases as cases
import torch
from torch import Tensor

from db3kd import ops


def exact_basis(rows: int, side: int) -> Tensor:
    """An orthonormal cosine basis `[rows, side]`, without torch's own cosine."""
    basis = [
        [
            math.sqrt((1 if k == 0 else 2) / side)
            * math.cos(math.pi * (2 * x + 1) * k / (2 * side))
            for x in range(side)
        ]
        for k in range(rows)
    ]
    return torch.tensor(basis, dtype=torch.float64).float()


def directions(noise: str, frequencies: str, size: int) -> dict[str, object] | None:
    """As cases.directions, with exact bases."""
    drawn = cases.directions(noise, frequencies, size)
    if drawn is not None and "row_basis" in drawn:
        drawn |= dict.fromkeys(
            ("row_basis", "column_basis"), exact_basis(*drawn["row_basis"].shape)
        )
    return drawn


def calls() -> Iterator[tuple[str, str, dict]]:
    """Yields (case, op, arguments) over the grid of shapes, dtypes and strides."""
    for size in cases.SIZES:
        for rows in cases.ROWS:
            yield f"{rows} x {size}", "ray_lengths", cases.ray_lengths(rows, size)
            for dtype in cases.DTYPES:
                rays = cases.bracket_queries(rows, size) | cases.BOUNDS | {"dtype": dtype}
                yield f"{rows} x {size} {dtype}", "bracket_queries", rays
                yield f"{rows} x {size} {dtype} strided", "bracket_queries", cases.strided(rays)
        for noise, frequencies in cases.DRAWS:
            drawn = directions(noise, frequencies, size)
            if drawn is None:
                continue
            name = f"{size} {noise} {frequencies}"
            probes = cases.probe_queries(3, size) | drawn | cases.BOUNDS | {"count": 5}
            for dtype in cases.DTYPES:
                yield f"{name} {dtype}", "probe_queries", probes | {"dtype": dtype}
            yield name, "probe_gradient", cases.probe_gradient(3, 33, size) | drawn
    for rows in (0, 1, 6, 300):
        for targeted in (True, False):
            rules = {"targeted": targeted, "absolute": 0.1, "relative": 0.2}
            step = cases.bracket_step(rows) | rules | cases.BOUNDS
            yield f"{rows} {targeted}", "bracket_step", step
    for classes in (2, 10, 40):
        for normalisation in ("inverse", "margin"):
            labels = cases.soft_labels(50, classes) | {"normalisation": normalisation}
            yield f"{classes} {normalisation}", "soft_labels", labels | {"temperature": 0.7}


def digest(tensors: list[Tensor]) -> str:
    """The first 16 digits of the SHA-256 of shapes, dtypes and bytes."""
    total = hashlib.sha256()
    for tensor in tensors:
        total.update(f"{tuple(tensor.shape)} {tensor.dtype}".encode())
        total.update(tensor.contiguous().view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


def digests() -> dict[str, str]:
    """Returns a digest for each call, of its result and of the state that it updates."""
    found = {}
    for case, op, arguments in calls():
        result = getattr(ops, op)(**arguments)
        if op == "bracket_step":
            # Apart, because the rays and the state have the digests of an earlier op.
            found[f"{op} {case} queries"] = digest([result.pairs, result.queries])
            result = [result.active, *(arguments[name] for name in cases.STATE)]
        found[f"{op} {case}"] = digest(result if isinstance(result, list) else [result])
    return found


if __name__ == "__main__":
    print(json.dumps(digests(), indent=1))
