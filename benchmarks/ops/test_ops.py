"""Each native op beside what one would use instead; a group's ratios are the result.

    python -m pytest benchmarks/ops/test_ops.py --benchmark-json benchmarks/results/ops.json

native    db3kd's own.
eager     the same numbers in batched PyTorch (benchmarks/ops/eager.py).
compiled  the eager way under torch.compile, for few rows of three sizes and two threads alone: a
          graph takes seconds to compile, and is made again for every shape.
numpy     the paper's procedure, one row or direction at a time (benchmarks/ops/numpy_loops.py),
          for few rows only.
stored    the probe ops with other random directions: drawn by torch for the queries, read back
          from memory for the gradient: cheaper than to draw them anew, where there is room.

Rows are FEW, and as many as fit into BOUND bytes. Bytes that an op must move are its results and
every input once; `of_copy` is how fast they were moved over how fast a plain copy moves bytes.
"""

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.ops import eager, numpy_loops
from benchmarks.ops.timing import Place, copy_bandwidth, measure
from db3kd import ops
from db3kd.boundary.probes import dct_basis

SHAPES = {64: (1, 8, 8), 784: (1, 28, 28), 3072: (3, 32, 32), 150528: (3, 224, 224)}
COMPILED = (10, 784, 3072)
FEW = 256
BOUND = {"rays": 512 * 2**20, "probes": 32 * 2**20}
"""Bytes of an op's results. Eager probes hold a dozen times as much between."""
PROBES = 32
"""Of a point: rows of the probe ops are as many points times PROBES."""
BOUNDS = {"lower": 0.0, "upper": 1.0}

HAS_CUDA = ops.build_config()["cuda"] and torch.cuda.is_available()
PLACES = [Place(torch.device("cpu"), threads) for threads in (1, 2)]
PLACES += [Place(torch.device("cuda"), torch.get_num_threads())] * HAS_CUDA

kinds = pytest.mark.parametrize("kind", ["rademacher, low frequencies", "gaussian, all pixels"])


@dataclass(frozen=True)
class Case:
    """One way on one place. many: as many rows as fit, or FEW. bound: bytes of the result."""

    place: Place
    size: int
    many: bool
    way: str
    bound: int

    @property
    def device(self) -> torch.device:
        return self.place.device

    @property
    def rows(self) -> int:
        return self.bound // (4 * self.size) if self.many else FEW

    @property
    def is_measured(self) -> bool:
        """Loops and compiled graphs are for few rows, on the CPU one and all threads."""
        if self.many and self.rows <= FEW:
            return False
        if self.way == "numpy":
            return self.place == PLACES[0] and not self.many
        if self.way == "compiled":
            return self.place in PLACES[1:] and not self.many and self.size in COMPILED
        return True

    def __str__(self) -> str:
        return f"{self.place}-{self.size}-{'many' if self.many else 'few'}-{self.way}"


def cases(bound: int, *ways: str, sizes: Iterable[int] = SHAPES) -> pytest.MarkDecorator:
    """A test for each case; an op of one size, which has no bound, is measured with few rows."""
    crossed = product(PLACES, sizes, (False, True), ways)
    all_cases = [Case(*case, bound) for case in crossed]
    chosen = [case for case in all_cases if case.is_measured]
    return pytest.mark.parametrize("case", chosen, ids=str, indirect=True)


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

    def add(self, call: Callable[[Any], Any]) -> None:
        """Adds the native and the eager way, which differ in their module alone.

        The compiled way is compiled where it is run.
        """
        self.ways["native"] = lambda: call(ops)
        self.ways["eager"] = self.ways["compiled"] = lambda: call(eager)


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    chosen = request.param
    if request.config.getoption("--benchmark-disable") and not _is_quick(chosen):
        pytest.skip("not in a smoke run")
    before = torch.get_num_threads()
    torch.set_num_threads(chosen.place.threads)
    torch.manual_seed(0)
    yield chosen
    torch.set_num_threads(before)


def _is_quick(case: Case) -> bool:
    """A graph takes seconds to compile, and large images in eager PyTorch take as long."""
    quick = not case.many and case.size < max(SHAPES) and case.way != "compiled"
    return quick and case.place != PLACES[1]


@pytest.fixture
def run(case, benchmark) -> Callable[[Contest], Any]:
    """Times one way of a contest and notes what it is to be compared by."""
    place, way = case.place, case.way

    def run_one(contest: Contest) -> Any:
        if way not in contest.ways:
            pytest.skip(f"{contest.op}{contest.what}: nothing to measure {way}")
        if way == "compiled":
            _compile(contest)
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


@cases(BOUND["rays"], "eager", "compiled", "numpy", "native")
def test_ray_lengths(run, case):
    size, count = case.size, case.rows
    rays = _rays(size, count, ends=count, device=case.device)
    places = rays["sample_of"][rays["pair_of"]], rays["end_of"]
    contest = Contest("ray_lengths", "", size, count, moved=_bytes(rays["ends"], rays["lengths"]))
    contest.add(lambda library: library.ray_lengths(rays["samples"], rays["ends"], *places))
    if case.way == "numpy":
        arrays = _arrays(rays)
        sample_of = arrays["sample_of"][arrays["pair_of"]]
        contest.ways["numpy"] = lambda: numpy_loops.ray_lengths(
            arrays["samples"], arrays["ends"], sample_of, arrays["end_of"]
        )
    lengths = _tensor(run(contest), case.device)
    torch.testing.assert_close(lengths, rays["lengths"], rtol=1e-5, atol=0)


@cases(BOUND["rays"], "eager", "compiled", "numpy", "native")
def test_bracket_queries(run, case):
    size, count = case.size, case.rows
    rays = _rays(size, count, ends=64, device=case.device)
    contest = Contest("bracket_queries", "", size, count, moved=4 * size * (count + 64))
    contest.add(lambda library: library.bracket_queries(**rays, **BOUNDS))
    if case.way == "numpy":
        arrays = _arrays(rays)
        contest.ways["numpy"] = lambda: numpy_loops.bracket_queries(**arrays, **BOUNDS)
    queries = run(contest)
    if not case.many:
        expected = ops.bracket_queries(**rays, **BOUNDS)
        torch.testing.assert_close(_tensor(queries, case.device), expected)


@cases(0, "eager", "numpy", "native", sizes=[1])
def test_bracket_update(run, case):
    """Brackets are updated in place, so each call gets new ones, in the time measured."""
    pairs, each = 2304, 20
    decisions = torch.randint(-1, 20, (pairs * each,)).to(case.device)
    rules = {"targeted": True, "absolute": 1e-5, "relative": 1e-3}
    start = {name: value.to(case.device) for name, value in _brackets(pairs, each).items()}

    def update(library: Any) -> Tensor:
        low, high, radius, winner = (
            start[name].clone() for name in ("low", "high", "radius", "winner")
        )
        rest = start["active"], start["pair_of"], decisions, start["wanted"]
        return library.bracket_update(low, high, radius, winner, *rest, **rules)

    moved = 8 * pairs * each * 4
    contest = Contest("bracket_update", f", {each} rays a pair", 1, pairs * each, moved)
    contest.add(update)
    if case.way == "numpy":
        arrays = _arrays(start | {"decisions": decisions})
        names = ("low", "high", "radius", "winner")
        contest.ways["numpy"] = lambda: numpy_loops.bracket_update(
            **(arrays | {name: arrays[name].copy() for name in names}), **rules
        )
    assert torch.equal(_tensor(run(contest), case.device), update(ops))


@cases(0, "eager", "compiled", "numpy", "native", sizes=[10])
@pytest.mark.parametrize("normalisation", ["inverse", "margin"])
def test_soft_labels(run, case, normalisation):
    samples, classes = 16_384, 10
    distances = torch.rand(samples, classes, device=case.device) + 0.5
    distances[torch.rand_like(distances) < 0.05] = torch.inf
    own = torch.randint(classes, (samples,), device=case.device)
    settings = {"normalisation": normalisation, "scale": 2.0, "temperature": 4.0}
    moved = 2 * _bytes(distances) + _bytes(own)
    contest = Contest("soft_labels", f", {normalisation}", classes, samples, moved)
    contest.add(lambda library: library.soft_labels(distances, own, **settings))
    if case.way == "numpy":
        arrays = distances.numpy(), own.numpy()
        contest.ways["numpy"] = lambda: numpy_loops.soft_labels(*arrays, **settings)
    soft = _tensor(run(contest), case.device)
    torch.testing.assert_close(soft, ops.soft_labels(distances, own, **settings))


@cases(BOUND["probes"], "eager", "compiled", "numpy", "stored", "native")
@kinds
def test_probe_queries(run, case, kind):
    size, points = case.size, max(case.rows // PROBES, 1)
    drawn = _drawn(kind, size, case.device)
    steps = torch.full((points,), 0.1, device=case.device)
    ends = torch.rand(2, points, size, device=case.device)
    arguments = {"counters": _counters(points, case.device), "seed": 7, "count": PROBES}
    count = points * PROBES
    contest = Contest(
        "probe_queries", f", {kind}", size, count, moved=4 * size * (count + 2 * points)
    )
    contest.add(lambda library: library.probe_queries(*ends, steps, **arguments, **drawn, **BOUNDS))

    def with_stored() -> Tensor:
        u = _to_pixels(_own_coefficients(points, drawn, size, case.device), drawn)
        return eager.queries_along(u, *ends, steps, *BOUNDS.values())

    contest.ways["stored"] = with_stored
    if case.way == "numpy" and drawn["noise"] == "gaussian":
        arrays = ends[0].numpy(), ends[1].numpy(), steps.numpy()
        contest.ways["numpy"] = lambda: numpy_loops.probe_queries(
            *arrays, numpy_loops.drawn(points, PROBES, size), **BOUNDS
        )
    queries = run(contest)
    assert queries.shape == (count, size)
    if case.way == "eager" and not case.many:
        torch.testing.assert_close(queries, contest.ways["native"](), rtol=0, atol=1e-5)


@cases(BOUND["probes"], "eager", "compiled", "numpy", "stored", "native")
@kinds
def test_probe_gradient(run, case, kind):
    size, points = case.size, max(case.rows // PROBES, 1)
    drawn = _drawn(kind, size, case.device)
    decisions = torch.randint(-1, 3, (points, PROBES), device=case.device)
    wanted = torch.ones(points, dtype=torch.int64, device=case.device)
    counters = _counters(points, case.device)
    named = {"counters": counters, "seed": 7, "targeted": True, "components": size}
    moved = 4 * size * points + _bytes(decisions)
    contest = Contest("probe_gradient", f", {kind}", size, points * PROBES, moved)
    contest.add(lambda library: library.probe_gradient(decisions, wanted, **named, **drawn))
    stored = None
    if case.way in ("stored", "numpy"):
        stored = _own_coefficients(points, drawn, size, case.device)

    def with_stored() -> Tensor:
        total = eager.weighted_sum(stored, decisions, wanted, True)
        return torch.nn.functional.normalize(_to_pixels(total, drawn), dim=1)

    contest.ways["stored"] = with_stored
    if case.way == "numpy" and drawn["noise"] == "gaussian":
        contest.ways["numpy"] = lambda: numpy_loops.probe_gradient(
            decisions.numpy(), wanted.numpy(), stored.numpy(), targeted=True
        )
    normals = run(contest)
    assert normals.shape == (points, size)
    if case.way == "eager" and not case.many:
        torch.testing.assert_close(normals, contest.ways["native"](), rtol=0, atol=1e-5)


def _compile(contest: Contest) -> None:
    """Compiles the compiled way, or skips the test where that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.compiler.reset()
            contest.ways["compiled"] = torch.compile(contest.ways["compiled"], dynamic=False)
            contest.ways["compiled"]()
        except Exception as error:
            pytest.skip(f"torch.compile: {type(error).__name__}: {str(error)[:200]}")


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


def _drawn(kind: str, size: int, device: torch.device) -> dict[str, Any]:
    """How directions are drawn: as by default, or as published."""
    noise, _, frequencies = kind.partition(", ")
    if frequencies == "all pixels":
        return {"noise": noise}
    channels, side, _ = SHAPES[size]
    basis = dct_basis(side // 2, side).to(device)
    return {"noise": noise, "row_basis": basis, "column_basis": basis, "channels": channels}


def _own_coefficients(points: int, drawn: dict, size: int, device: torch.device) -> Tensor:
    basis, channels = drawn.get("row_basis"), drawn.get("channels", 1)
    coefficients = size if basis is None else channels * basis.size(0) ** 2
    return eager.own_directions(points, PROBES, drawn["noise"], coefficients, device)


def _to_pixels(coefficients: Tensor, drawn: dict) -> Tensor:
    basis, channels = drawn.get("row_basis"), drawn.get("channels", 1)
    return eager.to_pixels(coefficients, basis, basis, channels)


def _counters(points: int, device: torch.device) -> Tensor:
    number = torch.arange(points, device=device)
    return torch.stack([number, number % 10, torch.full_like(number, 3)], dim=1)


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _arrays(tensors: dict[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensor(result: Tensor | np.ndarray, device: torch.device) -> Tensor:
    return torch.as_tensor(result).to(device, dtype=_DTYPES.get(result.dtype))


_DTYPES = {np.dtype("float64"): torch.float32}
"""What NumPy made wider."""
