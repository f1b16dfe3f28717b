"""Times each native op beside its alternatives; the ratios within a group are the result.

    python -m pytest benchmarks/ops/test_ops.py --benchmark-json benchmarks/results/ops.json

native    the ops of db3kd.
eager     the same numbers in batched PyTorch (benchmarks/ops/eager.py).
compiled  the eager way under torch.compile, only for few rows of three sizes on two threads: a
          graph takes seconds to compile, and each shape needs a new one.
numpy     the paper's procedure, one row or direction at a time (benchmarks/ops/numpy_loops.py),
          for few rows only.
stored    the probe ops with directions that torch draws for the queries and that the gradient
          reads back from memory, which is cheaper than drawing them again if they fit.

The numbers of rows are FEW, and as many as fit into BOUND bytes. An op must move its results and
every input once; `of_copy` is its speed at that over the speed of a plain copy.
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
from benchmarks.ops.timing import COPIED, Place, copy_of, copy_seconds, measure
from db3kd import ops
from db3kd.boundary.probes import dct_basis

SHAPES = {64: (1, 8, 8), 784: (1, 28, 28), 3072: (3, 32, 32), 150528: (3, 224, 224)}
COMPILED = (10, 784, 3072)
FEW = 256
BOUND = {"rays": 512 * 2**20, "probes": 32 * 2**20}
"""Bytes of an op's results. Eager probes hold a dozen times as much in between."""
PROBES = 32
"""Probes of a point; the rows of the probe ops are points times probes."""
BOUNDS: dict[str, Any] = {"lower": 0.0, "upper": 1.0}

HAS_CUDA = bool(ops.build_config()["cuda"]) and torch.cuda.is_available()
PLACES = [Place(torch.device("cpu"), threads) for threads in (1, 2)]
PLACES += [Place(torch.device("cuda"), torch.get_num_threads())] * HAS_CUDA

kinds = pytest.mark.parametrize("kind", ["rademacher, low frequencies", "gaussian, all pixels"])


@dataclass(frozen=True)
class Case:
    """One way of one op on one place.

    Attributes:
        place: Where it runs.
        size: Numbers in a row.
        many: Whether there are as many rows as fit, instead of FEW.
        way: See above.
        bound: Bytes of the result.
    """

    place: Place
    size: int
    many: bool
    way: str
    bound: int

    @property
    def device(self) -> torch.device:
        """The device of the place."""
        return self.place.device

    @property
    def rows(self) -> int:
        """The number of rows."""
        return self.bound // (4 * self.size) if self.many else FEW

    @property
    def is_measured(self) -> bool:
        """Whether the case is measured: loops and compiled graphs only run on few rows."""
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
    """Parametrises a test by its cases; an op without a bound is measured with few rows."""
    crossed = product(PLACES, sizes, (False, True), ways)
    all_cases = [Case(*case, bound) for case in crossed]
    chosen = [case for case in all_cases if case.is_measured]
    return pytest.mark.parametrize("case", chosen, ids=str, indirect=True)


@dataclass
class Comparison:
    """One op on the same arguments in several ways.

    Attributes:
        op: The name of the op.
        what: Words that follow it, for example its kind of noise.
        size: Numbers in a row.
        rows: Rows of the result, or of what the op reads.
        moved: Bytes that must be read or written.
        ways: Runs each way; missing ways are skipped.
    """

    op: str
    what: str
    size: int
    rows: int
    moved: int
    ways: dict[str, Callable[[], Any]] = field(default_factory=dict)

    def add(self, call: Callable[[Any], Any]) -> None:
        """Adds the native, eager and compiled ways of a call, which is given the module of ops.

        The compiled way is compiled when it runs.
        """
        self.ways["native"] = lambda: call(ops)
        self.ways["eager"] = self.ways["compiled"] = lambda: call(eager)


Run = Callable[[Comparison], Any]


@pytest.fixture
def case(request: pytest.FixtureRequest) -> Iterator[Case]:
    """Sets the threads and the seed of a case."""
    chosen = request.param
    if request.config.getoption("--benchmark-disable") and not _is_quick(chosen):
        pytest.skip("not in a smoke run")
    before = torch.get_num_threads()
    torch.set_num_threads(chosen.place.threads)
    torch.manual_seed(0)
    yield chosen
    torch.set_num_threads(before)


def _is_quick(case: Case) -> bool:
    """Whether a case takes far less than a second; compiling and large images do not."""
    quick = not case.many and case.size < max(SHAPES) and case.way != "compiled"
    return quick and case.place != PLACES[1]


@pytest.fixture
def run(case: Case, benchmark: Any) -> Run:
    """Times one way of a comparison and records what identifies it."""
    place, way = case.place, case.way

    def run_one(comparison: Comparison) -> Any:
        if way not in comparison.ways:
            pytest.skip(f"{comparison.op}{comparison.what}: no way {way}")
        if way == "compiled":
            _compile(comparison)
        benchmark.group = (
            f"{comparison.op}{comparison.what}, {comparison.rows} x {comparison.size}, {place}"
        )
        benchmark.extra_info |= {
            "op": comparison.op + comparison.what,
            "size": comparison.size,
            "rows": comparison.rows,
            "place": str(place),
            "way": way,
            "moved": comparison.moved,
        }
        copied, native = copy_of(place), comparison.ways["native"]
        beside = copied if way == "native" else native
        result = measure(benchmark, comparison.ways[way], place, beside)
        info = benchmark.extra_info
        if not benchmark.disabled and way == "native":
            copy = info.get("beside") or copy_seconds(place)
            info["of_copy"] = comparison.moved / info["seconds"] * copy / (2 * COPIED)
        return result

    return run_one


@cases(BOUND["rays"], "eager", "compiled", "numpy", "native")
def test_ray_lengths(run: Run, case: Case) -> None:
    """Times `ops.ray_lengths`."""
    size, count = case.size, case.rows
    rays = _rays(size, count, ends=count, device=case.device)
    places = rays["sample_of"][rays["pair_of"]], rays["end_of"]
    comparison = Comparison(
        "ray_lengths", "", size, count, moved=_bytes(rays["ends"], rays["lengths"])
    )
    comparison.add(lambda library: library.ray_lengths(rays["samples"], rays["ends"], *places))
    if case.way == "numpy":
        arrays = _arrays(rays)
        sample_of = arrays["sample_of"][arrays["pair_of"]]
        comparison.ways["numpy"] = lambda: numpy_loops.ray_lengths(
            arrays["samples"], arrays["ends"], sample_of, arrays["end_of"]
        )
    lengths = _tensor(run(comparison), case.device)
    torch.testing.assert_close(lengths, rays["lengths"], rtol=1e-5, atol=0)


@cases(BOUND["rays"], "eager", "compiled", "numpy", "native")
def test_bracket_queries(run: Run, case: Case) -> None:
    """Times `ops.bracket_queries`."""
    size, count = case.size, case.rows
    rays = _rays(size, count, ends=64, device=case.device)
    moved = _bytes(*rays.values()) + 4 * size * count
    comparison = Comparison("bracket_queries", "", size, count, moved)
    comparison.add(lambda library: library.bracket_queries(**rays, **BOUNDS))
    if case.way == "numpy":
        arrays = _arrays(rays)
        comparison.ways["numpy"] = lambda: numpy_loops.bracket_queries(**arrays, **BOUNDS)
    queries = run(comparison)
    if not case.many:
        expected = ops.bracket_queries(**rays, **BOUNDS)
        torch.testing.assert_close(_tensor(queries, case.device), expected)


@cases(0, "eager", "numpy", "native", sizes=[784])
def test_bracket_step(run: Run, case: Case) -> None:
    """Brackets are updated in place, so each timed call also makes new ones."""
    pairs, each, size = 2304, 20, case.size
    start = {name: value.to(case.device) for name, value in _brackets(pairs, each, size).items()}
    rules: dict[str, Any] = {"targeted": True, "absolute": 1e-5, "relative": 1e-3, "limit": 2048}

    def step(library: Any) -> Any:
        state = {name: start[name].clone() for name in ("low", "high", "radius", "winner")}
        return library.bracket_step(**(start | state), **rules, **BOUNDS)

    remaining = step(ops)
    moved = 24 * len(start["active"]) + 40 * pairs + _bytes(*remaining)
    comparison = Comparison("bracket_step", f", {each} rays a pair", size, pairs * each, moved)
    comparison.add(step)
    if case.way == "numpy":
        arrays = _arrays(start)
        names = ("low", "high", "radius", "winner")
        comparison.ways["numpy"] = lambda: numpy_loops.bracket_step(
            **(arrays | {name: arrays[name].copy() for name in names}), **rules, **BOUNDS
        )
    for found, expected in zip(run(comparison), remaining, strict=True):
        torch.testing.assert_close(_tensor(found, case.device), expected)


@cases(0, "eager", "compiled", "numpy", "native", sizes=[10])
@pytest.mark.parametrize("normalisation", ["inverse", "margin"])
def test_soft_labels(run: Run, case: Case, normalisation: ops.Normalisation) -> None:
    """Times `ops.soft_labels`."""
    samples, classes = 16_384, 10
    distances = torch.rand(samples, classes, device=case.device) + 0.5
    distances[torch.rand_like(distances) < 0.05] = torch.inf
    predicted = torch.randint(classes, (samples,), device=case.device)
    settings: dict[str, Any] = {"normalisation": normalisation, "scale": 2.0, "temperature": 4.0}
    moved = 2 * _bytes(distances) + _bytes(predicted)
    comparison = Comparison("soft_labels", f", {normalisation}", classes, samples, moved)
    comparison.add(lambda library: library.soft_labels(distances, predicted, **settings))
    if case.way == "numpy":
        arrays = distances.numpy(), predicted.numpy()
        comparison.ways["numpy"] = lambda: numpy_loops.soft_labels(*arrays, **settings)
    soft = _tensor(run(comparison), case.device)
    torch.testing.assert_close(soft, ops.soft_labels(distances, predicted, **settings))


@cases(BOUND["probes"], "eager", "compiled", "numpy", "stored", "native")
@kinds
def test_probe_queries(run: Run, case: Case, kind: str) -> None:
    """Times `ops.probe_queries`."""
    size, points = case.size, max(case.rows // PROBES, 1)
    drawn = _drawn(kind, size, case.device)
    steps = torch.full((points,), 0.1, device=case.device)
    ends = torch.rand(2, points, size, device=case.device)
    arguments: dict[str, Any] = {
        "counters": _counters(points, case.device),
        "seed": 7,
        "count": PROBES,
    }
    count = points * PROBES
    comparison = Comparison(
        "probe_queries", f", {kind}", size, count, moved=4 * size * (count + 2 * points)
    )
    comparison.add(
        lambda library: library.probe_queries(*ends, steps, **arguments, **drawn, **BOUNDS)
    )

    def with_stored() -> Tensor:
        u = _to_pixels(_torch_coefficients(points, drawn, size, case.device), drawn)
        return eager.queries_along(u, ends[0], ends[1], steps, **BOUNDS)

    comparison.ways["stored"] = with_stored
    if case.way == "numpy" and drawn["noise"] == "gaussian":
        arrays = ends[0].numpy(), ends[1].numpy(), steps.numpy()
        comparison.ways["numpy"] = lambda: numpy_loops.probe_queries(
            *arrays, numpy_loops.drawn(points, PROBES, size), **BOUNDS
        )
    queries = run(comparison)
    assert queries.shape == (count, size)
    if case.way == "eager" and not case.many:
        torch.testing.assert_close(queries, comparison.ways["native"](), rtol=0, atol=1e-5)


@cases(BOUND["probes"], "eager", "compiled", "numpy", "stored", "native")
@kinds
def test_probe_gradient(run: Run, case: Case, kind: str) -> None:
    """Times `ops.probe_gradient`."""
    size, points = case.size, max(case.rows // PROBES, 1)
    drawn = _drawn(kind, size, case.device)
    decisions = torch.randint(-1, 3, (points, PROBES), device=case.device)
    criterion_class = torch.ones(points, dtype=torch.int64, device=case.device)
    counters = _counters(points, case.device)
    named: dict[str, Any] = {"counters": counters, "seed": 7, "targeted": True, "components": size}
    moved = 4 * size * points + _bytes(decisions)
    comparison = Comparison("probe_gradient", f", {kind}", size, points * PROBES, moved)
    comparison.add(
        lambda library: library.probe_gradient(decisions, criterion_class, **named, **drawn)
    )
    stored = torch.empty(0)
    if case.way in ("stored", "numpy"):
        stored = _torch_coefficients(points, drawn, size, case.device)

    def with_stored() -> Tensor:
        total = eager.weighted_sum(stored, decisions, criterion_class, True)
        return torch.nn.functional.normalize(_to_pixels(total, drawn), dim=1)

    comparison.ways["stored"] = with_stored
    if case.way == "numpy" and drawn["noise"] == "gaussian":
        comparison.ways["numpy"] = lambda: numpy_loops.probe_gradient(
            decisions.numpy(), criterion_class.numpy(), stored.numpy(), targeted=True
        )
    normals = run(comparison)
    assert normals.shape == (points, size)
    if case.way == "eager" and not case.many:
        torch.testing.assert_close(normals, comparison.ways["native"](), rtol=0, atol=1e-5)


def _compile(comparison: Comparison) -> None:
    """Compiles the compiled way, or skips the test if that fails."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.compiler.reset()
            comparison.ways["compiled"] = torch.compile(comparison.ways["compiled"], dynamic=False)
            comparison.ways["compiled"]()
        except Exception as error:
            pytest.skip(f"torch.compile: {type(error).__name__}: {str(error)[:200]}")


def _rays(size: int, count: int, ends: int, device: torch.device) -> dict[str, Any]:
    """The arguments of bracket_queries: 16 rays a pair, towards the ends in turn."""
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


def _brackets(pairs: int, each: int, size: int) -> dict[str, Tensor]:
    """The arguments of bracket_step: brackets, rays, and random decisions, some of them missing."""
    pair_of = torch.arange(pairs).repeat_interleave(each)
    return {
        "low": torch.zeros(pairs),
        "high": torch.full((pairs,), 4.0),
        "radius": torch.full((pairs,), 2.0),
        "winner": torch.full((pairs,), -1),
        "active": torch.arange(pairs * each),
        "decisions": torch.randint(-1, 20, (pairs * each,)),
        "samples": torch.rand(256, size),
        "ends": torch.rand(1024, size),
        "sample_of": torch.arange(pairs) % 256,
        "pair_of": pair_of,
        "end_of": torch.arange(pairs * each) % 1024,
        "lengths": torch.full((pairs * each,), 5.0),
        "criterion_class": torch.arange(pairs) % 10,
    }


def _drawn(kind: str, size: int, device: torch.device) -> dict[str, Any]:
    """How directions are drawn: as by default, or as in the paper."""
    noise, _, frequencies = kind.partition(", ")
    if frequencies == "all pixels":
        return {"noise": noise}
    channels, side, _ = SHAPES[size]
    basis = dct_basis(side // 2, side).to(device)
    return {"noise": noise, "row_basis": basis, "column_basis": basis, "channels": channels}


def _torch_coefficients(
    points: int, drawn: dict[str, Any], size: int, device: torch.device
) -> Tensor:
    basis, channels = drawn.get("row_basis"), drawn.get("channels", 1)
    coefficients = size if basis is None else channels * basis.size(0) ** 2
    return eager.torch_directions(points, PROBES, drawn["noise"], coefficients, device)


def _to_pixels(coefficients: Tensor, drawn: dict[str, Any]) -> Tensor:
    basis, channels = drawn.get("row_basis"), drawn.get("channels", 1)
    return eager.to_pixels(coefficients, basis, basis, channels)


def _counters(points: int, device: torch.device) -> Tensor:
    number = torch.arange(points, device=device)
    return torch.stack([number, number % 10, torch.full_like(number, 3)], dim=1)


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.nbytes for tensor in tensors)


def _arrays(tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def _tensor(result: Tensor | np.ndarray, device: torch.device) -> Tensor:
    """A result as a tensor; NumPy makes some results wider than float32."""
    tensor = torch.as_tensor(result).to(device)
    return tensor.float() if tensor.dtype == torch.float64 else tensor
