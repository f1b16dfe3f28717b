"""Each native op beside what one would use instead; a group's ratios are the result.

    python -m pytest benchmarks/test_ops.py --benchmark-json benchmarks/results/ops.json

native    db3kd's own.
eager     the same numbers in batched PyTorch (benchmarks/eager.py).
compiled  the eager way under torch.compile, for two sizes and all threads alone: a graph takes
          seconds to compile, and is made again for every shape.
numpy     the published procedure, a row or a direction at a time (benchmarks/numpy_loops.py), for
          few rows alone.
stored    the probe ops with other random directions: drawn by torch for the queries, read back
          from memory for the gradient: cheaper than to draw them anew, where there is room.

Rows are FEW, and as many as fit into BOUND bytes. Bytes that an op must move are its results and
every input once; `of_copy` is how fast they were moved over how fast a plain copy moves bytes.
"""

import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks import eager, numpy_loops
from benchmarks.timing import Place, copy_bandwidth, measure
from db3kd import ops
from db3kd.boundary.probes import dct_basis

SHAPES = {64: (1, 8, 8), 784: (1, 28, 28), 3072: (3, 32, 32), 150528: (3, 224, 224)}
COMPILED = (784, 3072)
FEW = 256
BOUND = {"rays": 512 * 2**20, "probes": 64 * 2**20}
"""Bytes of an op's results. Eager probes hold a dozen times as much between."""
PROBES = 32
"""Of a point: rows of the probe ops are as many points times PROBES."""
BOUNDS = {"lower": 0.0, "upper": 1.0}

HAS_CUDA = ops.build_config()["cuda"] and torch.cuda.is_available()
PLACES = [Place(torch.device("cpu"), threads) for threads in (1, 2)]
PLACES += [Place(torch.device("cuda"), torch.get_num_threads())] * HAS_CUDA

sizes = pytest.mark.parametrize("size", SHAPES)
ways = pytest.mark.parametrize("way", ["eager", "compiled", "numpy", "native"])
probe_ways = pytest.mark.parametrize("way", ["eager", "compiled", "numpy", "stored", "native"])
kinds = pytest.mark.parametrize("kind", ["rademacher, low frequencies", "gaussian, all pixels"])


@dataclass
class Contest:
    """One op on the same arguments in several ways.

    Attributes:
        op, what: names the group, with the place.
        size: numbers in a row.
        rows: of the result, or what the op goes through.
        moved: bytes that must be read or written.
        ways: what runs each way; missing ways are skipped.
    """

    op: str
    what: str
    size: int
    rows: int
    moved: int
    ways: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def both(self, call: Callable[[Any], Any], compilable: bool) -> None:
        """Adds the native and the eager way, which differ in their module alone.

        The compiled way is compiled where it is run.
        """
        self.ways["native"] = lambda: call(ops)
        self.ways["eager"] = lambda: call(eager)
        if compilable:
            self.ways["compiled"] = self.ways["eager"]


@pytest.fixture(params=PLACES, ids=str)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.config.getoption("--benchmark-disable") and request.param == PLACES[1]:
        pytest.skip("one thread will do for a smoke run")
    before = torch.get_num_threads()
    torch.set_num_threads(request.param.threads)
    torch.manual_seed(0)
    yield request.param
    torch.set_num_threads(before)


@pytest.fixture(params=[False, True], ids=["few", "many"])
def many(request: pytest.FixtureRequest) -> bool:
    """Whether an op gets as many rows as fit, or FEW."""
    if request.param and request.config.getoption("--benchmark-disable"):
        pytest.skip("few rows will do for a smoke run")
    return request.param


@pytest.fixture
def run(benchmark, place) -> Callable[[Contest, str], Any]:
    """Times one way of a contest and notes what it is to be compared by."""

    def run_one(contest: Contest, way: str) -> Any:
        if way not in contest.ways:
            pytest.skip(f"{contest.op}: not measured {way} here")
        if way == "compiled":
            _compile(benchmark, contest)
        benchmark.group = f"{contest.op}{contest.what}, {contest.rows} x {contest.size}, {place}"
        benchmark.extra_info |= {
            "op": contest.op + contest.what,
            "size": contest.size,
            "rows": contest.rows,
            "place": str(place),
            "way": way,
            "moved": contest.moved,
        }
        result = measure(benchmark, contest.ways[way], place)
        if not benchmark.disabled:
            speed = contest.moved / benchmark.extra_info["seconds"]
            benchmark.extra_info["of_copy"] = speed / copy_bandwidth(place)
        return result

    return run_one


@ways
@sizes
def test_ray_lengths(run, place, size, many, way):
    count = BOUND["rays"] // (4 * size) if many else FEW
    rays = _rays(size, count, ends=count, device=place.device)
    places = rays["sample_of"][rays["pair_of"]], rays["end_of"]
    contest = Contest("ray_lengths", "", size, count, moved=_bytes(rays["ends"], rays["lengths"]))
    contest.both(
        lambda library: library.ray_lengths(rays["samples"], rays["ends"], *places),
        compilable=_compilable(place, size, many),
    )
    if _loopable(place, many):
        arrays = _arrays(rays)
        sample_of = arrays["sample_of"][arrays["pair_of"]]
        contest.ways["numpy"] = lambda: numpy_loops.ray_lengths(
            arrays["samples"], arrays["ends"], sample_of, arrays["end_of"]
        )
    torch.testing.assert_close(
        _tensor(run(contest, way), place), rays["lengths"], rtol=1e-5, atol=0
    )


@ways
@sizes
def test_bracket_queries(run, place, size, many, way):
    count = BOUND["rays"] // (4 * size) if many else FEW
    rays = _rays(size, count, ends=64, device=place.device)
    contest = Contest("bracket_queries", "", size, count, moved=4 * size * (count + 64))
    contest.both(
        lambda library: library.bracket_queries(**rays, **BOUNDS),
        compilable=_compilable(place, size, many),
    )
    if _loopable(place, many):
        arrays = _arrays(rays)
        contest.ways["numpy"] = lambda: numpy_loops.bracket_queries(**arrays, **BOUNDS)
    queries = run(contest, way)
    if not many:
        expected = ops.bracket_queries(**rays, **BOUNDS)
        torch.testing.assert_close(_tensor(queries, place), expected)


@ways
def test_bracket_update(run, place, way):
    """Brackets are updated in place, so each call gets new ones, in the time measured."""
    pairs, each = 2304, 20
    decisions = torch.randint(-1, 20, (pairs * each,)).to(place.device)
    rules = {"targeted": True, "absolute": 1e-5, "relative": 1e-3}
    start = {name: value.to(place.device) for name, value in _brackets(pairs, each).items()}

    def update(library: Any) -> Tensor:
        low, high, radius, winner = (
            start[name].clone() for name in ("low", "high", "radius", "winner")
        )
        rest = start["active"], start["pair_of"], decisions, start["wanted"]
        return library.bracket_update(low, high, radius, winner, *rest, **rules)

    moved = 8 * pairs * each * 4
    contest = Contest("bracket_update", f", {each} rays a pair", 1, pairs * each, moved)
    contest.both(update, compilable=False)
    if place.device.type == "cpu":
        arrays = _arrays(start | {"decisions": decisions})
        names = ("low", "high", "radius", "winner")
        contest.ways["numpy"] = lambda: numpy_loops.bracket_update(
            **(arrays | {name: arrays[name].copy() for name in names}), **rules
        )
    assert torch.equal(_tensor(run(contest, way), place), update(ops))


@ways
@pytest.mark.parametrize("normalisation", ["inverse", "margin"])
def test_soft_labels(run, place, normalisation, way):
    samples, classes = 16_384, 10
    distances = torch.rand(samples, classes, device=place.device) + 0.5
    distances[torch.rand_like(distances) < 0.05] = torch.inf
    own = torch.randint(classes, (samples,), device=place.device)
    settings = {"normalisation": normalisation, "scale": 2.0, "temperature": 4.0}
    moved = 2 * _bytes(distances) + _bytes(own)
    contest = Contest("soft_labels", f", {normalisation}", classes, samples, moved)
    contest.both(
        lambda library: library.soft_labels(distances, own, **settings),
        compilable=_compilable(place, COMPILED[0], many=False),
    )
    if place.device.type == "cpu":
        arrays = distances.numpy(), own.numpy()
        contest.ways["numpy"] = lambda: numpy_loops.soft_labels(*arrays, **settings)
    soft = _tensor(run(contest, way), place)
    torch.testing.assert_close(soft, ops.soft_labels(distances, own, **settings))


@probe_ways
@kinds
@sizes
def test_probe_queries(run, place, size, kind, many, way):
    points = _points(size, many)
    drawn = _drawn(kind, size, place.device)
    steps = torch.full((points,), 0.1, device=place.device)
    ends = torch.rand(2, points, size, device=place.device)
    arguments = {"counters": _counters(points, place), "seed": 7, "count": PROBES}
    count = points * PROBES
    contest = Contest(
        "probe_queries", f", {kind}", size, count, moved=4 * size * (count + 2 * points)
    )
    contest.both(
        lambda library: library.probe_queries(*ends, steps, **arguments, **drawn, **BOUNDS),
        compilable=_compilable(place, size, many),
    )

    def with_stored() -> Tensor:
        u = _to_pixels(_own_coefficients(points, drawn, size, place), drawn)
        return eager.queries_along(u, *ends, steps, *BOUNDS.values())

    contest.ways["stored"] = with_stored
    if _loopable(place, many) and drawn["noise"] == "gaussian":
        arrays = ends[0].numpy(), ends[1].numpy(), steps.numpy()
        contest.ways["numpy"] = lambda: numpy_loops.probe_queries(
            *arrays, numpy_loops.drawn(points, PROBES, size), **BOUNDS
        )
    queries = run(contest, way)
    assert queries.shape == (count, size)
    if way == "eager" and not many:
        torch.testing.assert_close(queries, contest.ways["native"](), rtol=0, atol=1e-5)


@probe_ways
@kinds
@sizes
def test_probe_gradient(run, place, size, kind, many, way):
    points = _points(size, many)
    drawn = _drawn(kind, size, place.device)
    decisions = torch.randint(-1, 3, (points, PROBES), device=place.device)
    wanted = torch.ones(points, dtype=torch.int64, device=place.device)
    named = {"counters": _counters(points, place), "seed": 7, "targeted": True, "components": size}
    moved = 4 * size * points + _bytes(decisions)
    contest = Contest("probe_gradient", f", {kind}", size, points * PROBES, moved)
    contest.both(
        lambda library: library.probe_gradient(decisions, wanted, **named, **drawn),
        compilable=_compilable(place, size, many),
    )
    stored = _own_coefficients(points, drawn, size, place) if way in ("stored", "numpy") else None

    def with_stored() -> Tensor:
        total = eager.weighted_sum(stored, decisions, wanted, True)
        return torch.nn.functional.normalize(_to_pixels(total, drawn), dim=1)

    contest.ways["stored"] = with_stored
    if _loopable(place, many) and drawn["noise"] == "gaussian":
        contest.ways["numpy"] = lambda: numpy_loops.probe_gradient(
            decisions.numpy(), wanted.numpy(), stored.numpy(), targeted=True
        )
    normals = run(contest, way)
    assert normals.shape == (points, size)
    if way == "eager" and not many:
        torch.testing.assert_close(normals, contest.ways["native"](), rtol=0, atol=1e-5)


def _compile(benchmark: Any, contest: Contest) -> None:
    """Compiles the compiled way, or skips the test where that is left out or fails."""
    if benchmark.disabled:
        pytest.skip("compiling takes seconds a graph: not in a smoke run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.compiler.reset()
            contest.ways["compiled"] = torch.compile(contest.ways["compiled"], dynamic=False)
            contest.ways["compiled"]()
        except Exception as error:
            pytest.skip(f"torch.compile: {type(error).__name__}: {str(error)[:200]}")


def _compilable(place: Place, size: int, many: bool) -> bool:
    """On the CPU a graph is compiled for all threads alone."""
    all_threads = place.device.type == "cuda" or place == PLACES[1]
    return all_threads and size in COMPILED and not many


def _loopable(place: Place, many: bool) -> bool:
    return place == PLACES[0] and not many


def _rays(size: int, count: int, ends: int, device: torch.device) -> dict[str, Tensor]:
    """The arguments of bracket_queries: 16 rays a pair. Ends are taken in turn."""
    pairs = count // 16
    samples, images = torch.rand(16, size), torch.rand(ends, size)
    sample_of = torch.arange(pairs) % len(samples)
    pair_of = torch.arange(count).div(16, rounding_mode="floor").clamp_(max=pairs - 1)
    end_of = torch.arange(count) % ends
    rays = {
        "samples": samples,
        "ends": images,
        "sample_of": sample_of,
        "pair_of": pair_of,
        "end_of": end_of,
        "lengths": ops.ray_lengths(samples, images, sample_of[pair_of], end_of),
        "radius": torch.rand(pairs),
        "active": torch.arange(count),
    }
    return {name: value.to(device) for name, value in rays.items()}


def _brackets(pairs: int, each: int) -> dict[str, Tensor]:
    return {
        "low": torch.zeros(pairs),
        "high": torch.full((pairs,), 4.0),
        "radius": torch.full((pairs,), 2.0),
        "winner": torch.full((pairs,), -1),
        "active": torch.arange(pairs * each),
        "pair_of": torch.arange(pairs).repeat_interleave(each),
        "wanted": torch.arange(pairs) % 10,
    }


def _points(size: int, many: bool) -> int:
    return max((BOUND["probes"] // (4 * size) if many else FEW) // PROBES, 1)


def _drawn(kind: str, size: int, device: torch.device) -> dict[str, Any]:
    """How directions are drawn: as by default, or as published."""
    noise, _, frequencies = kind.partition(", ")
    if frequencies == "all pixels":
        return {"noise": noise}
    channels, side, _ = SHAPES[size]
    basis = dct_basis(side // 2, side).to(device)
    return {"noise": noise, "row_basis": basis, "column_basis": basis, "channels": channels}


def _own_coefficients(points: int, drawn: dict, size: int, place: Place) -> Tensor:
    basis, channels = drawn.get("row_basis"), drawn.get("channels", 1)
    coefficients = size if basis is None else channels * basis.size(0) ** 2
    return eager.own_directions(points, PROBES, drawn["noise"], coefficients, place.device)


def _to_pixels(coefficients: Tensor, drawn: dict) -> Tensor:
    basis, channels = drawn.get("row_basis"), drawn.get("channels", 1)
    return eager.to_pixels(coefficients, basis, basis, channels)


def _counters(points: int, place: Place) -> Tensor:
    number = torch.arange(points, device=place.device)
    return torch.stack([number, number % 10, torch.full_like(number, 3)], dim=1)


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensor(result: Tensor | np.ndarray, place: Place) -> Tensor:
    return torch.as_tensor(result).to(place.device, dtype=_DTYPES.get(result.dtype))


_DTYPES = {np.dtype("float64"): torch.float32}
"""What NumPy made wider."""
