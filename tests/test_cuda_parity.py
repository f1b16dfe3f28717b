"""CUDA gives what the CPU gives: every op over a grid of shapes, and a whole labelling run."""

import copy

import op_cases as cases
import pytest
import torch
from teachers_analytic import LinearTeacher
from torch import Tensor

from db3kd import ops
from db3kd.labels import LabelSettings, label


def _reason() -> str | None:
    """Why nothing can be compared here."""
    if not ops.build_config()["cuda"]:
        return "db3kd is built for the CPU"
    return None if torch.cuda.is_available() else "torch sees no GPU"


pytestmark = pytest.mark.skipif(_reason() is not None, reason=str(_reason()))

MANY = 1_000_003
STATE = ("low", "high", "radius", "winner")
sizes = pytest.mark.parametrize("size", cases.SIZES)
rows = pytest.mark.parametrize("rows", cases.ROWS)
layouts = pytest.mark.parametrize("layout", [dict, cases.strided], ids=["rows", "strided"])
draws = pytest.mark.parametrize(("noise", "frequencies"), cases.DRAWS)


def moved(arguments: dict, device: str = "cuda") -> dict:
    """Tensors to the device, with strides of their own kept; the rest as it is."""
    return {
        name: value.to(device) if isinstance(value, Tensor) else value
        for name, value in arguments.items()
    }


def compare(op, arguments: dict, layout=dict, tolerance: float = 3e-6, device: str = "cuda"):
    """Asserts that the op gives the same on both; returns what it gave on CUDA."""
    result = op(**layout(moved(arguments, device)))
    assert result.device.type == "cuda"
    torch.testing.assert_close(result.cpu(), op(**arguments), rtol=tolerance, atol=tolerance)
    return result


# Every op


@layouts
@rows
@sizes
def test_ray_lengths(size, rows, layout):
    compare(ops.ray_lengths, cases.ray_lengths(rows, size), layout, 1e-6)


@layouts
@pytest.mark.parametrize("dtype", cases.DTYPES)
@rows
@sizes
def test_bracket_queries(size, rows, dtype, layout):
    arguments = cases.bracket_queries(rows, size) | cases.BOUNDS | {"dtype": dtype}
    result = compare(ops.bracket_queries, arguments, layout, cases.TOLERANCE[dtype])
    assert result.dtype == dtype


@pytest.mark.parametrize("size", [1, 64])
def test_a_million_bracket_queries(size):
    arguments = cases.bracket_queries(MANY, size) | cases.BOUNDS
    compare(ops.bracket_queries, arguments)


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("rows", [*cases.ROWS, 500, MANY])
def test_bracket_update(rows, targeted):
    here = cases.bracket_update(rows)
    there = moved(here)
    rules = {"targeted": targeted, "absolute": 0.1, "relative": 0.2}
    survivors = ops.bracket_update(**there, **rules)
    assert torch.equal(survivors.cpu(), ops.bracket_update(**here, **rules))
    for name in STATE:
        assert torch.equal(there[name].cpu(), here[name]), name


def test_rays_of_a_pair_that_do_not_stand_side_by_side_are_an_error():
    arguments = moved(cases.bracket_update(4))
    arguments["pair_of"] = torch.tensor([0, 1, 0, 1], device="cuda")
    with pytest.raises(ValueError, match=r"active: .* side by side, got those of one again at 2"):
        ops.bracket_update(**arguments, targeted=True, absolute=0.0, relative=0.0)


@layouts
@pytest.mark.parametrize("dtype", cases.DTYPES)
@draws
@sizes
def test_probe_queries(size, noise, frequencies, dtype, layout):
    drawn = cases.directions(noise, frequencies, size)
    if drawn is None:
        pytest.skip("an image of one pixel has no frequencies")
    arguments = cases.probe_queries(3, size) | drawn | cases.BOUNDS | {"count": 5, "dtype": dtype}
    compare(ops.probe_queries, arguments, layout, cases.TOLERANCE[dtype])


@pytest.mark.parametrize(("points", "count"), [(0, 5), (1, 0), (1, 1), (31, 1001)])
@draws
def test_probe_queries_of_any_number(points, count, noise, frequencies):
    drawn = cases.directions(noise, frequencies, 64)
    arguments = cases.probe_queries(points, 64) | drawn | cases.BOUNDS | {"count": count}
    compare(ops.probe_queries, arguments)


@pytest.mark.parametrize("size", [1, 64])
def test_a_million_probe_queries(size):
    arguments = cases.probe_queries(MANY // 1000, size) | cases.BOUNDS
    compare(ops.probe_queries, arguments | {"noise": "rademacher", "count": 1000})


@layouts
@pytest.mark.parametrize("count", [1, 33])
@draws
@sizes
def test_probe_gradient(size, noise, frequencies, count, layout):
    drawn = cases.directions(noise, frequencies, size)
    if drawn is None:
        pytest.skip("an image of one pixel has no frequencies")
    compare(ops.probe_gradient, cases.probe_gradient(3, count, size) | drawn, layout)


@pytest.mark.parametrize("normalisation", ["inverse", "margin"])
@pytest.mark.parametrize("classes", [2, 4, 5, 10, 17, 32, 33, 100])
@pytest.mark.parametrize("rows", [*cases.ROWS, 100_003])
def test_soft_labels(rows, classes, normalisation):
    settings = {"normalisation": normalisation, "scale": 2.0, "temperature": 3.0}
    compare(ops.soft_labels, cases.soft_labels(rows, classes) | settings, tolerance=1e-6)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_a_distance_that_is_none_is_an_error(bad):
    arguments = moved(cases.soft_labels(50, 10))
    arguments["distances"][31, (arguments["own"][31] + 1) % 10] = bad
    with pytest.raises(ValueError, match=r"distances: expected positive .* in row 31"):
        ops.soft_labels(**arguments, normalisation="margin")


# Streams and devices


def calls(device: str) -> dict:
    """Each op that does not work in place, with the arguments of a call."""
    drawn = cases.directions("rademacher", "low frequencies", 784)
    probes = cases.probe_queries(3, 784) | drawn | cases.BOUNDS | {"count": 9}
    arguments = {
        ops.ray_lengths: cases.ray_lengths(7, 784),
        ops.bracket_queries: cases.bracket_queries(7, 784) | cases.BOUNDS,
        ops.probe_queries: probes,
        ops.probe_gradient: cases.probe_gradient(3, 9, 784) | drawn,
        ops.soft_labels: cases.soft_labels(7, 10) | {"normalisation": "margin"},
    }
    return {op: moved(given, device) for op, given in arguments.items()}


def test_every_op_runs_on_the_current_stream():
    stream = torch.cuda.Stream()
    for op, arguments in calls("cuda").items():
        expected = op(**arguments)
        # What is only there after a while, on this stream alone.
        late = {
            name: torch.ones_like(value) if value.is_floating_point() else torch.zeros_like(value)
            for name, value in arguments.items()
            if isinstance(value, Tensor)
        }
        torch.cuda.synchronize()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(20_000_000)
            for name, value in late.items():
                value.copy_(arguments[name])
            result = op(**(arguments | late))
        stream.synchronize()
        assert torch.equal(result, expected), op.__name__


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees one GPU")
def test_every_op_runs_on_the_device_of_its_tensors():
    for op, arguments in calls("cpu").items():
        result = compare(op, arguments, device="cuda:1")
        assert result.device.index == 1
    assert torch.cuda.current_device() == 0


def test_a_row_has_the_same_bits_in_any_company():
    drawn = cases.directions("gaussian", "low frequencies", 784)
    probes = moved(cases.probe_queries(7, 784) | drawn | cases.BOUNDS)
    together = ops.probe_queries(**probes, count=9).view(7, 9, 784)
    some = {name: probes[name][2:4] for name in ("origins", "points", "step", "counters")}
    alone = ops.probe_queries(**(probes | some), count=3).view(2, 3, 784)
    assert torch.equal(alone, together[2:4, :3])


# A whole run


def on_cuda(teacher: LinearTeacher) -> LinearTeacher:
    there = copy.copy(teacher)
    there.device = torch.device("cuda")
    there.weights, there.bias = teacher.weights.cuda(), teacher.bias.cuda()
    return there


@pytest.mark.parametrize("measure", ["bd", "mbd"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_a_labelling_run_gives_the_same_distances(shape, measure):
    g = torch.Generator().manual_seed(0)
    weights = torch.randn(5, *shape, generator=g)
    teacher = LinearTeacher((weights - weights.mean(0)).flatten(1), torch.zeros(5), shape)
    images = torch.rand(60, *shape, generator=g)
    settings = LabelSettings(measure, candidates=5, queries_per_pair=150)
    here = label(teacher, images, settings, index=torch.arange(12))
    there = label(on_cuda(teacher), images, settings, index=torch.arange(12))
    assert torch.equal(here.decision, there.decision)
    torch.testing.assert_close(there.distances, here.distances, rtol=1e-4, atol=0)
