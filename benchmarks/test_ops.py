"""Each native op beside its eager PyTorch equivalent; a group's ratios are the result.

    python -m pytest benchmarks/test_ops.py --benchmark-columns=median,rounds

What is called eager here gives the same numbers. "torch noise" draws other directions than the
native probe ops, by torch's generator, and its gradient reads them back from memory: cheaper than
to draw them anew, where there is room for them.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from benchmarks import eager
from db3kd import ops
from db3kd.boundary.probes import dct_basis

SHAPES = {784: (1, 28, 28), 3072: (3, 32, 32)}
RAYS, PAIRS = 2048, 128
POINTS, PROBES = 64, 32
BOUNDS = {"lower": 0.0, "upper": 1.0}

sizes = pytest.mark.parametrize("size", SHAPES)
native_and_eager = pytest.mark.parametrize("library", [ops, eager], ids=["native", "eager"])
kinds = pytest.mark.parametrize("kind", ["rademacher, low frequencies", "gaussian, all pixels"])
three_ways = pytest.mark.parametrize("way", ["native", "eager", "eager, torch noise"])


@pytest.fixture(autouse=True)
def _same_numbers() -> None:
    torch.manual_seed(0)


@native_and_eager
@sizes
def test_ray_lengths(benchmark, size, library):
    benchmark.group = f"ray_lengths, {RAYS} x {size}"
    rays = _rays(size)
    places = rays["sample_of"][rays["pair_of"]], rays["end_of"]
    lengths = benchmark(library.ray_lengths, rays["samples"], rays["ends"], *places)
    torch.testing.assert_close(lengths, rays["lengths"])


@native_and_eager
@sizes
def test_bracket_queries(benchmark, size, library):
    benchmark.group = f"bracket_queries, {RAYS} x {size}"
    rays = _rays(size)
    queries = benchmark(library.bracket_queries, **rays, **BOUNDS)
    torch.testing.assert_close(queries, ops.bracket_queries(**rays, **BOUNDS))


@native_and_eager
def test_bracket_update(benchmark, library):
    pairs, each = 2304, 20
    benchmark.group = f"bracket_update, {pairs} pairs of {each} rays"
    decisions = torch.randint(-1, 20, (pairs * each,))
    rules = {"targeted": True, "absolute": 1e-5, "relative": 1e-3}

    def contests() -> tuple[tuple, dict]:
        """Updated in place, so new ones for each call."""
        brackets = {
            "low": torch.zeros(pairs),
            "high": torch.full((pairs,), 4.0),
            "radius": torch.full((pairs,), 2.0),
            "winner": torch.full((pairs,), -1),
            "active": torch.arange(pairs * each),
            "pair_of": torch.arange(pairs).repeat_interleave(each),
            "wanted": torch.arange(pairs) % 10,
        }
        return (), brackets | {"decisions": decisions} | rules

    active = benchmark.pedantic(library.bracket_update, setup=contests, rounds=100)
    ours, theirs = contests()[1], contests()[1]
    assert torch.equal(active, ops.bracket_update(**ours))
    assert torch.equal(active, eager.bracket_update(**theirs))
    for name in ("low", "high", "radius", "winner"):
        assert torch.equal(ours[name], theirs[name]), name


@native_and_eager
@pytest.mark.parametrize("normalisation", ["inverse", "margin"])
def test_soft_labels(benchmark, normalisation, library):
    samples, classes = 16_384, 10
    benchmark.group = f"soft_labels, {normalisation}, {samples} x {classes}"
    distances = torch.rand(samples, classes) + 0.5
    distances[torch.rand_like(distances) < 0.05] = torch.inf
    own = torch.randint(classes, (samples,))
    settings = {"normalisation": normalisation, "scale": 2.0, "temperature": 4.0}
    soft = benchmark(library.soft_labels, distances, own, **settings)
    torch.testing.assert_close(soft, ops.soft_labels(distances, own, **settings))


@three_ways
@kinds
@sizes
def test_probe_queries(benchmark, size, kind, way):
    benchmark.group = f"probe_queries, {kind}, {POINTS * PROBES} x {size}"
    drawn = _drawn(kind, size)
    points = torch.rand(POINTS, size), torch.rand(POINTS, size), torch.full((POINTS,), 0.1)
    arguments = {"counters": _counters(), "seed": 7, "count": PROBES, **drawn, **BOUNDS}

    def with_own_noise() -> Tensor:
        u = _to_pixels(_own_coefficients(drawn, size), drawn)
        return eager.queries_along(u, *points, *BOUNDS.values())

    run: dict[str, Callable[[], Tensor]] = {
        "native": lambda: ops.probe_queries(*points, **arguments),
        "eager": lambda: eager.probe_queries(*points, **arguments),
        "eager, torch noise": with_own_noise,
    }
    queries = benchmark(run[way])
    assert queries.shape == (POINTS * PROBES, size)
    if way == "eager":
        torch.testing.assert_close(queries, run["native"](), rtol=0, atol=1e-5)


@three_ways
@kinds
@sizes
def test_probe_gradient(benchmark, size, kind, way):
    benchmark.group = f"probe_gradient, {kind}, {POINTS} x {PROBES} x {size}"
    drawn = _drawn(kind, size)
    decisions, wanted = torch.randint(-1, 3, (POINTS, PROBES)), torch.ones(POINTS).long()
    arguments = {"counters": _counters(), "seed": 7, "targeted": True, **drawn}
    stored = _own_coefficients(drawn, size)

    def with_own_noise() -> Tensor:
        total = eager.weighted_sum(stored, decisions, wanted, True)
        return torch.nn.functional.normalize(_to_pixels(total, drawn), dim=1)

    run: dict[str, Callable[[], Tensor]] = {
        "native": lambda: ops.probe_gradient(decisions, wanted, **arguments, components=size),
        "eager": lambda: eager.probe_gradient(decisions, wanted, **arguments, components=size),
        "eager, torch noise": with_own_noise,
    }
    normals = benchmark(run[way])
    assert normals.shape == (POINTS, size)
    if way == "eager":
        torch.testing.assert_close(normals, run["native"](), rtol=0, atol=1e-5)


def _rays(size: int) -> dict[str, Tensor]:
    """The arguments of bracket_queries: a batch of the size that searches build."""
    samples, ends = torch.rand(16, size), torch.rand(512, size)
    sample_of = torch.arange(PAIRS) % len(samples)
    pair_of = torch.arange(RAYS) * PAIRS // RAYS
    end_of = torch.randint(len(ends), (RAYS,))
    return {
        "samples": samples,
        "ends": ends,
        "sample_of": sample_of,
        "pair_of": pair_of,
        "end_of": end_of,
        "lengths": ops.ray_lengths(samples, ends, sample_of[pair_of], end_of),
        "radius": torch.rand(PAIRS),
        "active": torch.arange(RAYS),
    }


def _drawn(kind: str, size: int) -> dict[str, object]:
    """How directions are drawn: as by default, or as published."""
    noise, _, frequencies = kind.partition(", ")
    if frequencies == "all pixels":
        return {"noise": noise}
    channels, side, _ = SHAPES[size]
    basis = dct_basis(side // 2, side)
    return {"noise": noise, "row_basis": basis, "column_basis": basis, "channels": channels}


def _own_coefficients(drawn: dict, size: int) -> Tensor:
    basis, channels = drawn.get("row_basis"), drawn.get("channels", 1)
    coefficients = size if basis is None else channels * basis.size(0) ** 2
    return eager.own_directions(POINTS, PROBES, drawn["noise"], coefficients)


def _to_pixels(coefficients: Tensor, drawn: dict) -> Tensor:
    basis, channels = drawn.get("row_basis"), drawn.get("channels", 1)
    return eager.to_pixels(coefficients, basis, basis, channels)


def _counters() -> Tensor:
    number = torch.arange(POINTS)
    return torch.stack([number, number % 10, torch.full_like(number, 3)], dim=1)
