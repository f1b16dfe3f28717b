"""Times the native ops on a device beside eager and compiled PyTorch."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.device_timing import Stopwatch
from benchmarks.ops import eager
from db3kd import ops
from db3kd.boundary.probes import dct_basis

PROBES = 32
BOUNDS: dict[str, Any] = {"lower": 0.0, "upper": 1.0}
SIDES = {64: (1, 8), 784: (1, 28), 3072: (3, 32), 150_528: (3, 224)}
"""Channels and side of the square images of these sizes."""

FULL = {64: 2**20, 784: 2**18, 3072: 2**16, 150_528: 2**11}
SMALL = {64: 2**9, 784: 2**7}
"""Queries of a batch, by their size."""


@dataclass(frozen=True)
class OpCase:
    """One op on one input.

    Attributes:
        name: The op and its input, in words.
        native: Calls the op.
        reference: Calls the same in eager PyTorch; None if there is no such function.
        arguments: Makes the arguments, anew for each call, because some ops work in place.
        written: Bytes that a call has to write.
        compiled: Whether to compile the reference too, which takes far longer than to time it.
    """

    name: str
    native: Callable[..., Any]
    reference: Callable[..., Any] | None
    arguments: Callable[[], tuple]
    written: int
    compiled: bool = True


def measure_ops(
    device: torch.device, watch: Stopwatch, bandwidth: float, *, small: bool, compiled: bool
) -> Iterator[dict[str, Any]]:
    """Yields a row of figures for each case.

    A case that fails gives a row with its error and does not stop the others.

    Args:
        device: What is measured.
        watch: The clock of the device.
        bandwidth: Bytes a second of a copy; `share_of_copy` is over this.
        small: Whether to use tiny inputs.
        compiled: Whether to compile references too.
    """
    for number, make in enumerate([*query_cases(device, small), *other_cases(device, small)]):
        name = f"case {number}"
        try:
            case = make()
            name = case.name
            row = _measured(case, watch, compiled and case.compiled)
            row["share_of_copy"] = case.written / row["native"]["median"] / bandwidth
            print(_line(row), flush=True)
        except Exception as error:  # for example if the device has too little memory
            row = {"name": name, "error": f"{type(error).__name__}: {str(error)[:200]}"}
            print(f"{name}: {row['error']}", flush=True)
        yield row


def query_cases(device: torch.device, small: bool) -> list[Callable[[], OpCase]]:
    """The cases of both ops that write queries: all sizes, and all dtypes at one size."""
    batches = SMALL if small else FULL
    main = max(size for size in batches if size <= 3072)

    def plain(size: int) -> OpCase:
        case = bracket_queries(device, size, batches[size])
        return replace(case, compiled=size == main)

    def probes(size: int, noise: str, frequencies: str) -> OpCase:
        case = probe_queries(device, size, batches[size], noise, frequencies)
        is_main = (size, noise, frequencies) == (main, "rademacher", "all pixels")
        return replace(case, compiled=is_main)

    kinds = [
        (size, "rademacher", frequencies)
        for size in batches
        for frequencies in ("all pixels", "low frequencies")
    ]
    half = (torch.float16, torch.bfloat16)
    return [
        *(partial(plain, size) for size in batches),
        *(partial(bracket_queries, device, main, batches[main], dtype) for dtype in half),
        *(partial(probes, *kind) for kind in [*kinds, (main, "gaussian", "all pixels")]),
    ]


def other_cases(device: torch.device, small: bool) -> list[Callable[[], OpCase]]:
    """The cases of the other ops."""
    size, points = (784, 8) if small else (3072, 2048)
    pairs, samples = (32, 64) if small else (2304, 2**17)
    return [
        partial(probe_gradient, device, size, points, "rademacher", "all pixels"),
        partial(probe_gradient, device, size, points, "rademacher", "low frequencies"),
        partial(bracket_update, device, pairs, each=20),
        partial(soft_labels, device, samples, classes=10),
    ]


def bracket_queries(
    device: torch.device, size: int, count: int, dtype: torch.dtype = torch.float32
) -> OpCase:
    """The case of `ops.bracket_queries` with 16 rays a pair."""
    samples, ends = torch.rand(64, size, device=device), torch.rand(512, size, device=device)
    number = torch.arange(count, device=device)
    pair_of, end_of = number // 16, number * 7 % len(ends)
    sample_of = torch.arange(-(-count // 16), device=device) % len(samples)
    lengths = ops.ray_lengths(samples, ends, sample_of[pair_of], end_of)
    radius = torch.rand(len(sample_of), device=device)
    rays = (samples, ends, sample_of, pair_of, end_of, lengths, radius, number)
    name = f"bracket_queries, {count} x {size} {_short(dtype)}"
    written = count * size * dtype.itemsize
    return OpCase(
        name,
        lambda *given: ops.bracket_queries(*given, **BOUNDS, dtype=dtype),
        (lambda *given: eager.bracket_queries(*given, **BOUNDS)) if dtype.itemsize == 4 else None,
        lambda: rays,
        written,
    )


def probe_queries(
    device: torch.device, size: int, count: int, noise: str, frequencies: str
) -> OpCase:
    """The case of `ops.probe_queries`."""
    points = count // PROBES
    drawn = _drawn(size, noise, frequencies, device) | {"seed": 7, "count": PROBES, **BOUNDS}
    given = (
        torch.rand(points, size, device=device),
        torch.rand(points, size, device=device),
        torch.full((points,), 0.1, device=device),
        _counters(points, device),
    )
    return OpCase(
        f"probe_queries, {noise}, {frequencies}, {count} x {size} float32",
        lambda *given: ops.probe_queries(*given, **drawn),
        lambda *given: eager.probe_queries(*given, **drawn),
        lambda: given,
        count * size * 4,
    )


def probe_gradient(
    device: torch.device, size: int, points: int, noise: str, frequencies: str
) -> OpCase:
    """The case of `ops.probe_gradient`."""
    settings = {"seed": 7, "targeted": True, "components": size}
    drawn = _drawn(size, noise, frequencies, device) | settings
    decisions = torch.randint(-1, 3, (points, PROBES), device=device)
    criterion_class = torch.ones(points, dtype=torch.int64, device=device)
    given = decisions, criterion_class, _counters(points, device)
    return OpCase(
        f"probe_gradient, {noise}, {frequencies}, {points} x {PROBES} x {size}",
        lambda *given: ops.probe_gradient(*given, **drawn),
        lambda *given: eager.probe_gradient(*given, **drawn),
        lambda: given,
        points * size * 4,
    )


def bracket_update(device: torch.device, pairs: int, each: int) -> OpCase:
    """The case of `ops.bracket_update`."""
    rules: dict[str, Any] = {"targeted": True, "absolute": 1e-5, "relative": 1e-3}
    active = torch.arange(pairs * each, device=device)
    pair_of, criterion_class = active // each, torch.arange(pairs, device=device) % 10
    decisions = torch.randint(-1, 20, (pairs * each,), device=device)

    def arguments() -> tuple[Tensor, ...]:
        low = torch.zeros(pairs, device=device)
        state = low, low + 4.0, low + 2.0, torch.full((pairs,), -1, device=device)
        return *state, active, pair_of, decisions, criterion_class

    return OpCase(
        f"bracket_update, {pairs} pairs of {each} rays",
        lambda *given: ops.bracket_update(*given, **rules),
        lambda *given: eager.bracket_update(*given, **rules),
        arguments,
        len(active) * 8,
    )


def soft_labels(device: torch.device, samples: int, classes: int) -> OpCase:
    """The case of `ops.soft_labels` with margins."""
    distances = torch.rand(samples, classes, device=device) + 0.5
    predicted = torch.randint(classes, (samples,), device=device)
    settings: dict[str, Any] = {"normalisation": "margin", "scale": 2.0, "temperature": 4.0}
    return OpCase(
        f"soft_labels, margin, {samples} x {classes}",
        lambda *given: ops.soft_labels(*given, **settings),
        lambda *given: eager.soft_labels(*given, **settings),
        lambda: (distances, predicted),
        distances.nbytes,
    )


def _measured(case: OpCase, watch: Stopwatch, compiled: bool) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": case.name,
        "written_bytes": case.written,
        "native": asdict(watch.time(case.native, case.arguments)),
        "native_with_launch": asdict(watch.time(case.native, case.arguments, queued=False)),
    }
    if case.reference is None:
        return row
    references = {"eager": case.reference}
    if compiled:
        references["compiled"] = torch.compile(case.reference, dynamic=False)
    for kind, reference in references.items():
        row[kind] = _reference_time(reference, case, watch)
    return row


def _reference_time(
    reference: Callable[..., Any], case: OpCase, watch: Stopwatch
) -> dict[str, Any]:
    """The time of a reference with its launches, or the error that ended it."""
    try:
        return asdict(watch.time(reference, case.arguments, queued=False))
    except Exception as error:  # an error of the compiler is a result too
        torch.cuda.empty_cache()
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}


def _line(row: dict[str, Any]) -> str:
    """One case in words; its ratios are of times that include launches."""
    ours = row["native_with_launch"]["median"]
    beside = [
        f"{kind} {row[kind]['median'] / ours:.1f} x"
        if "median" in row[kind]
        else f"{kind} failed, {row[kind]['error'].partition(':')[0]}"
        for kind in ("eager", "compiled")
        if kind in row
    ]
    share = f"{row['native']['median'] * 1e6:,.0f} us, {row['share_of_copy']:.0%} of copy"
    return ", ".join([f"{row['name']}: {share}", *beside])


def _drawn(size: int, noise: str, frequencies: str, device: torch.device) -> dict[str, Any]:
    """The keyword arguments of the draw of directions."""
    if frequencies == "all pixels":
        return {"noise": noise}
    channels, side = SIDES[size]
    basis = dct_basis(side // 2, side).to(device)
    return {"noise": noise, "row_basis": basis, "column_basis": basis, "channels": channels}


def _counters(points: int, device: torch.device) -> Tensor:
    number = torch.arange(points, device=device)
    return torch.stack([number, number % 10, torch.full_like(number, 3)], dim=1)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
