"""Times the native ops on a device beside eager and compiled PyTorch, and what is expected."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.common.device_timing import Stopwatch
from benchmarks.gpu.device import device_of, free_cache, is_broken
from benchmarks.gpu.expected import Cost, Expected, with_expectation
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

FREQUENCIES = ("all pixels", "low frequencies")

HALF_SHARE = Expected("share_of_copy", 0.3, 0.5)
PROBE_SHARES = {
    (784, "rademacher", "all pixels"): Expected("share_of_copy", 0.65, 0.85),
    (3072, "rademacher", "all pixels"): Expected("share_of_copy", 0.65, 0.85),
    (150_528, "rademacher", "all pixels"): Expected("share_of_copy", 0.65, 0.85),
    (3072, "gaussian", "all pixels"): Expected("share_of_copy", 0.15, 0.25),
    (3072, "rademacher", "low frequencies"): Expected("share_of_copy", 0.4, 0.6),
    (150_528, "rademacher", "low frequencies"): Expected("share_of_copy", 0.08, 0.12),
}
"""What the kernels should reach; docs/gpu.md derives it."""


@dataclass(frozen=True)
class OpCase:
    """One op on one input.

    Attributes:
        name: The op and its input, in words.
        native: Calls the op.
        reference: Calls the same in eager PyTorch; None if there is no such function.
        arguments: Makes the arguments, anew for each call, because some ops work in place.
        cost: What a call has to do at least.
        expected: The figure that its kernels should reach; None if none is known.
    """

    name: str
    native: Callable[..., Any]
    reference: Callable[..., Any] | None
    arguments: Callable[[], tuple]
    cost: Cost
    expected: Expected | None = None


MakeCase = Callable[[], OpCase]


def measure_cases(
    device: torch.device, watch: Stopwatch, bandwidth: float, cases: Sequence[MakeCase]
) -> Iterator[dict[str, Any]]:
    """Yields a row of figures for each case.

    A case that fails gives a row with its error and does not stop the others, unless the device
    needs a new process.

    Args:
        device: What is measured.
        watch: The clock of the device.
        bandwidth: Bytes a second of a copy; `share_of_copy` is over this.
        cases: Make the cases, one at a time, because each holds up to gigabytes.
    """
    for number, make in enumerate(cases):
        yield _attempt(make, f"case {number}", device, watch, bandwidth)
        free_cache(device)
        if is_broken(device):
            return


def measure_compiled(
    device: torch.device, watch: Stopwatch, cases: Sequence[MakeCase]
) -> Iterator[dict[str, Any]]:
    """Yields the time of the compiled reference of each case, which takes long to compile."""
    for make in cases:
        case = make()
        assert case.reference is not None
        time = _reference_time(torch.compile(case.reference, dynamic=False), case, device, watch)
        print(f"compiled {case.name}: {time}", flush=True)
        yield {"name": case.name, "compiled": time}
        del case
        free_cache(device)


def op_cases(device: torch.device, small: bool) -> dict[str, list[MakeCase]]:
    """The cases of each op: all sizes, and all dtypes and distributions at one size."""
    batches = SMALL if small else FULL
    main = _main_size(small)
    points, pairs, samples = (8, 32, 64) if small else (2048, 2304, 2**17)
    half = (torch.float16, torch.bfloat16)
    probes = partial(probe_queries, device)
    return {
        "bracket_queries": [
            *(partial(bracket_queries, device, *batch) for batch in batches.items()),
            *(partial(bracket_queries, device, main, batches[main], dtype) for dtype in half),
        ],
        "probe_queries": [
            *(
                partial(probes, *batch, "rademacher", frequencies)
                for batch in batches.items()
                for frequencies in FREQUENCIES
            ),
            partial(probes, main, batches[main], "gaussian", "all pixels"),
        ],
        "probe_gradient": [
            partial(probe_gradient, device, main, points, "rademacher", frequencies)
            for frequencies in FREQUENCIES
        ],
        "bracket_step": [partial(bracket_step, device, main, pairs, each=20)],
        "soft_labels": [partial(soft_labels, device, samples, classes=10)],
    }


def compiled_cases(device: torch.device, small: bool) -> list[MakeCase]:
    """The cases whose references are compiled too: the first of each op, at one size."""
    main, cases = _main_size(small), op_cases(device, small)
    batch = main, (SMALL if small else FULL)[main]
    return [
        partial(bracket_queries, device, *batch),
        partial(probe_queries, device, *batch, "rademacher", "all pixels"),
        *(cases[op][0] for op in ("probe_gradient", "bracket_step", "soft_labels")),
    ]


def _main_size(small: bool) -> int:
    return max(size for size in (SMALL if small else FULL) if size <= 3072)


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
    cost = Cost(count * size * dtype.itemsize, (64 + 512) * size * 4, 5 * count * size)
    share = Expected("share_of_copy", 0.6, 0.8) if dtype.itemsize == 4 else HALF_SHARE
    return OpCase(
        name,
        lambda *given: ops.bracket_queries(*given, **BOUNDS, dtype=dtype),
        (lambda *given: eager.bracket_queries(*given, **BOUNDS)) if dtype.itemsize == 4 else None,
        lambda: rays,
        cost,
        share if size > 64 else None,
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
        Cost(
            count * size * 4,
            points * size * (4 if frequencies == "all pixels" else 5) * 4,
            count * (10 * size if frequencies == "all pixels" else _transform(size) + 6 * size),
        ),
        PROBE_SHARES.get((size, noise, frequencies)),
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
        Cost(
            points * size * 4,
            8 * points * PROBES + 2 * points * size * 4,
            5.0 * points * PROBES * size,
        ),
        Expected("times_eager", 20) if frequencies == "all pixels" else None,
    )


def bracket_step(device: torch.device, size: int, pairs: int, each: int) -> OpCase:
    """The case of `ops.bracket_step`: the second round, in which a quarter of the rays hit."""
    rules: dict[str, Any] = {"targeted": True, "absolute": 1e-5, "relative": 1e-3, **BOUNDS}
    count = pairs * each
    active = torch.arange(count, device=device)
    rays = {
        "active": active,
        "decisions": active // 4 % 4,
        "samples": torch.rand(64, size, device=device),
        "ends": torch.rand(512, size, device=device),
        "sample_of": torch.arange(pairs, device=device) % 64,
        "pair_of": active // each,
        "end_of": active * 7 % 512,
        "lengths": torch.full((count,), 5.0, device=device),
        "criterion_class": torch.ones(pairs, dtype=torch.int64, device=device),
    }

    def arguments() -> tuple[Tensor, ...]:
        low = torch.zeros(pairs, device=device)
        return low, low + 4.0, low + 2.0, torch.full((pairs,), -1, device=device)

    def step(library: Any, *state: Tensor) -> Any:
        return library.bracket_step(*state, *rays.values(), **rules, limit=count)

    remaining = len(step(ops, *arguments()).active)
    return OpCase(
        f"bracket_step, {pairs} pairs of {each} rays, {remaining} x {size} float32",
        partial(step, ops),
        partial(step, eager),
        arguments,
        Cost(
            remaining * (4 * size + 24) + 20 * pairs,
            (64 + 512) * size * 4 + 24 * count + 20 * pairs,
            5 * remaining * size,
        ),
        Expected("share_of_copy", 0.3, 0.6) if size > 64 else None,
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
        Cost(distances.nbytes, distances.nbytes + predicted.nbytes, distances.numel()),
        Expected("times_eager", 5, 10),
    )


def _attempt(
    make: MakeCase, name: str, device: torch.device, watch: Stopwatch, bandwidth: float
) -> dict[str, Any]:
    """The row of a case, or its error. No tensor of the case lives on when this returns."""
    try:
        case = make()
        name = case.name
        row = _measured(case, device, watch)
        row["share_of_copy"] = case.cost.written / row["native"]["median"] / bandwidth
        with_expectation(row, case.cost, case.expected, device_of(device)["name"])
        print(_line(row), flush=True)
        return row
    except Exception as error:  # for example if the device has too little memory
        row = {"name": name, "error": f"{type(error).__name__}: {str(error)[:200]}"}
        print(f"{name}: {row['error']}", flush=True)
        return row


def _measured(case: OpCase, device: torch.device, watch: Stopwatch) -> dict[str, Any]:
    row: dict[str, Any] = {
        "name": case.name,
        "written_bytes": case.cost.written,
        "native": asdict(watch.time(case.native, case.arguments)),
        "native_with_launch": asdict(watch.time(case.native, case.arguments, queued=False)),
    }
    if case.reference is not None:
        row["eager"] = _reference_time(case.reference, case, device, watch)
    return row


def _reference_time(
    reference: Callable[..., Any], case: OpCase, device: torch.device, watch: Stopwatch
) -> dict[str, Any]:
    """The time of a reference with its launches, or the error that ended it."""
    try:
        return asdict(watch.time(reference, case.arguments, queued=False))
    except Exception as error:  # an error of the compiler is a result too
        free_cache(device)
        return {"error": f"{type(error).__name__}: {str(error)[:200]}"}


def _line(row: dict[str, Any]) -> str:
    """One case in words; its ratios are of times that include launches."""
    words = [f"{row['name']}: {row['native']['median'] * 1e6:,.0f} us"]
    words.append(f"{row['share_of_copy']:.0%} of copy")
    if "times_eager" in row:
        words.append(f"eager {row['times_eager']:.1f} x")
    elif "error" in row.get("eager", {}):
        words.append(f"eager failed, {row['eager']['error'].partition(':')[0]}")
    if row.get("as_expected") is False:
        words.append(f"BELOW the expected {row['expected']['figure']} {row['expected']['low']:g}")
    return ", ".join(words)


def _drawn(size: int, noise: str, frequencies: str, device: torch.device) -> dict[str, Any]:
    """The keyword arguments of the draw of directions."""
    if frequencies == "all pixels":
        return {"noise": noise}
    channels, side = SIDES[size]
    basis = dct_basis(side // 2, side).to(device)
    return {"noise": noise, "row_basis": basis, "column_basis": basis, "channels": channels}


def _transform(size: int) -> float:
    """Operations of the transform of one query with half of the frequencies per side."""
    channels, side = SIDES[size]
    few = side // 2
    return 2.0 * channels * (few * few * side + few * side * side)


def _counters(points: int, device: torch.device) -> Tensor:
    number = torch.arange(points, device=device)
    return torch.stack([number, number % 10, torch.full_like(number, 3)], dim=1)


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
