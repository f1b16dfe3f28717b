"""CUDA equals the CPU: every op over a grid of shapes, and whole labelling runs.

The tests run on a GPU, and on the emulated GPU of `make emulate`: the same kernels, compiled for
the CPU.
"""

import copy
import os
from dataclasses import dataclass, replace
from types import ModuleType, SimpleNamespace

import emulated
import op_cases as cases
import pytest
import torch
from teachers_analytic import LinearTeacher
from torch import Tensor

from db3kd import ops
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings


@dataclass(frozen=True)
class Place:
    """Where kernels run.

    Attributes:
        ops: The functions of db3kd.ops for tensors on `device`.
        device: The device of the tensors.
        many: A number of rows that exceeds the threads of a grid.
        large: Whether many images of 150,528 components are computed at once.
    """

    ops: ModuleType | SimpleNamespace
    device: str
    many: int
    large: bool

    def move(self, arguments: dict) -> dict:
        """Copies tensors to the device with their strides; other values stay as they are."""
        return {
            name: value.to(self.device, copy=True) if isinstance(value, Tensor) else value
            for name, value in arguments.items()
        }

    def fewer(self, size: int, count: int) -> int:
        """How many rows of this size to compute."""
        return count if self.large or size < 10_000 else min(count, 1)


GPU = Place(ops, "cuda", 1_000_003, True)
EMULATION = Place(emulated.ops, "cpu", 5_003, False)


def _reason() -> str | None:
    """Why no GPU can be used here; None if one can."""
    if not ops.build_config()["cuda"]:
        return "db3kd is built for the CPU"
    return None if torch.cuda.is_available() else "torch sees no GPU"


needs_gpu = pytest.mark.skipif(_reason() is not None, reason=str(_reason()))


@pytest.fixture(
    params=[
        pytest.param(GPU, marks=needs_gpu, id="cuda"),
        pytest.param(
            EMULATION,
            marks=pytest.mark.skipif(emulated.ops is None, reason="runs in make emulate"),
            id="emulated",
        ),
    ]
)
def place(request: pytest.FixtureRequest) -> Place:
    if request.param is EMULATION:
        emulated.seed(int(os.environ.get("DB3KD_EMULATION_SEED", "0")))
    return request.param


sizes = pytest.mark.parametrize("size", cases.SIZES)
rows = pytest.mark.parametrize("rows", cases.ROWS)
layouts = pytest.mark.parametrize("layout", [dict, cases.strided], ids=["rows", "strided"])
draws = pytest.mark.parametrize(("noise", "frequencies"), cases.DRAWS)


def compare(
    place: Place, name: str, arguments: dict, layout=dict, tolerance: float = 3e-6
) -> Tensor:
    """Asserts that the op gives the same at the place, and returns the result."""
    result = getattr(place.ops, name)(**layout(place.move(arguments)))
    assert result.device.type == torch.device(place.device).type
    expected = getattr(ops, name)(**arguments)
    torch.testing.assert_close(result.cpu(), expected, rtol=tolerance, atol=tolerance)
    return result


# Every op


@layouts
@rows
@sizes
def test_ray_lengths(place, size, rows, layout):
    compare(place, "ray_lengths", cases.ray_lengths(rows, size), layout, 1e-6)


@layouts
@pytest.mark.parametrize("dtype", cases.DTYPES)
@rows
@sizes
def test_bracket_queries(place, size, rows, dtype, layout):
    rows = place.fewer(size, rows)
    arguments = cases.bracket_queries(rows, size) | cases.BOUNDS | {"dtype": dtype}
    result = compare(place, "bracket_queries", arguments, layout, cases.TOLERANCE[dtype])
    assert result.dtype == dtype


@pytest.mark.parametrize("size", [1, 64])
def test_many_bracket_queries(place, size):
    compare(place, "bracket_queries", cases.bracket_queries(place.many, size) | cases.BOUNDS)


def compare_step(place: Place, here: dict, **rules) -> None:
    """Asserts that a step gives the same at the place: rays, state and queries."""
    rules = {"absolute": 0.1, "relative": 0.2, **cases.BOUNDS, **rules}
    there = place.move(here)
    step = place.ops.bracket_step(**(there | rules))
    expected = ops.bracket_step(**(here | rules))
    assert torch.equal(step.active.cpu(), expected.active)
    assert torch.equal(step.pairs.cpu(), expected.pairs)
    torch.testing.assert_close(step.queries.cpu(), expected.queries, rtol=3e-6, atol=3e-6)
    for name in cases.STATE:
        assert torch.equal(there[name].cpu(), here[name]), name


@pytest.mark.parametrize("targeted", [True, False])
@pytest.mark.parametrize("rows", [*cases.ROWS, 500, None], ids=str)
def test_bracket_step(place, rows, targeted):
    compare_step(place, cases.bracket_step(place.many if rows is None else rows), targeted=targeted)


@sizes
def test_bracket_step_of_images_of_any_size(place, size):
    compare_step(place, cases.bracket_step(place.fewer(size, 40), size), targeted=True)


@pytest.mark.parametrize("limit", [0, 1, 37, 10_000])
def test_bracket_step_builds_the_first_queries(place, limit):
    compare_step(place, cases.bracket_step(300), targeted=False, limit=limit)


@pytest.mark.parametrize("length", [255, 256, 257, 700])
@pytest.mark.parametrize("hits", [True, False])
def test_bracket_step_of_pairs_that_are_longer_than_a_block(place, length, hits):
    here = cases.bracket_step(1_500)
    here["pair_of"] = torch.arange(1_500) // length
    here["high"] += 1.0
    # A hit at the end of a pair decides about its first ray.
    here["decisions"] = torch.full((1_500,), 5)
    here["decisions"][length - 1 :: length] = 1 if hits else 5
    here["criterion_class"].fill_(1)
    compare_step(place, here, targeted=True, absolute=0.0, relative=0.0)


@pytest.mark.parametrize(
    ("pair_of", "row"), [([0, 1, 0, 1], 2), ([0, 0, 1, 1, 2, 0, 0], 5), ([0, 1] * 400, 2)]
)
def test_rays_that_are_not_in_the_order_of_their_pairs_are_an_error(place, pair_of, row):
    arguments = cases.bracket_step(len(pair_of)) | {"pair_of": torch.tensor(pair_of)}
    with pytest.raises(ValueError, match=rf"active: .* order of their pairs.* at {row}$"):
        place.ops.bracket_step(
            **place.move(arguments), **cases.BOUNDS, targeted=True, absolute=0.0, relative=0.0
        )


@layouts
@pytest.mark.parametrize("dtype", cases.DTYPES)
@draws
@sizes
def test_probe_queries(place, size, noise, frequencies, dtype, layout):
    drawn = cases.directions(noise, frequencies, size)
    if drawn is None:
        pytest.skip("an image of one pixel has no frequencies")
    if place.fewer(size, 2) == 1 and "row_basis" in drawn and dtype != torch.float32:
        pytest.skip("takes seconds: the transform of a large image is emulated in float32 alone")
    arguments = cases.probe_queries(place.fewer(size, 3), size) | drawn | cases.BOUNDS
    arguments |= {"count": place.fewer(size, 5), "dtype": dtype}
    compare(place, "probe_queries", arguments, layout, cases.TOLERANCE[dtype])


@pytest.mark.parametrize(("points", "count"), [(0, 5), (1, 0), (1, 1), (31, None)])
@draws
def test_probe_queries_of_any_number(place, points, count, noise, frequencies):
    drawn = cases.directions(noise, frequencies, 64)
    arguments = cases.probe_queries(points, 64) | drawn | cases.BOUNDS
    count = place.many // 1000 + 1 if count is None else count
    compare(place, "probe_queries", arguments | {"count": count})


@pytest.mark.parametrize("size", [1, 64])
def test_many_probe_queries(place, size):
    arguments = cases.probe_queries(place.many // 1000, size) | cases.BOUNDS
    compare(place, "probe_queries", arguments | {"noise": "rademacher", "count": 1000})


@layouts
@pytest.mark.parametrize("count", [1, 33])
@draws
@sizes
def test_probe_gradient(place, size, noise, frequencies, count, layout):
    drawn = cases.directions(noise, frequencies, size)
    if drawn is None:
        pytest.skip("an image of one pixel has no frequencies")
    if place.fewer(size, 2) == 1 and count > 1:
        pytest.skip("several probes of such images take long in emulation")
    points = place.fewer(size, 3)
    compare(place, "probe_gradient", cases.probe_gradient(points, count, size) | drawn, layout)


@pytest.mark.parametrize("normalisation", ["inverse", "margin"])
@pytest.mark.parametrize("classes", [2, 4, 5, 10, 17, 32, 33, 100])
@pytest.mark.parametrize("rows", [*cases.ROWS, None], ids=str)
def test_soft_labels(place, rows, classes, normalisation):
    settings = {"normalisation": normalisation, "scale": 2.0, "temperature": 3.0}
    rows = place.many // 10 if rows is None else rows
    compare(place, "soft_labels", cases.soft_labels(rows, classes) | settings, tolerance=1e-6)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan")])
def test_an_invalid_distance_is_an_error(place, bad):
    arguments = place.move(cases.soft_labels(50, 10))
    arguments["distances"][31, (arguments["predicted"][31] + 1) % 10] = bad
    with pytest.raises(ValueError, match=r"distances: expected positive .* in row 31"):
        place.ops.soft_labels(**arguments, normalisation="margin")


def test_images_that_start_after_2_31_components(place):
    size, first = 1024, 2**21 + 5
    few = cases.bracket_queries(7, size)
    small = place.move(few)
    large = place.move(few)
    for name in ("samples", "ends"):
        # Memory is allocated only when it is written.
        large[name] = torch.empty(first + len(few[name]), size, device=place.device)
        large[name][first:] = small[name]
    large["sample_of"] = small["sample_of"] + first
    large["end_of"] = small["end_of"] + first
    near, far = (
        place.ops.bracket_queries(**arguments, **cases.BOUNDS) for arguments in (small, large)
    )
    assert torch.equal(near, far)
    rays = {name: large[name] for name in ("samples", "ends", "end_of")}
    lengths = place.ops.ray_lengths(**rays, sample_of=large["sample_of"][large["pair_of"]])
    torch.testing.assert_close(lengths, large["lengths"], rtol=1e-6, atol=1e-6)


def test_a_row_has_the_same_bits_beside_any_rows(place):
    drawn = cases.directions("gaussian", "low frequencies", 784)
    probes = place.move(cases.probe_queries(7, 784) | drawn | cases.BOUNDS)
    together = place.ops.probe_queries(**probes, count=9).view(7, 9, 784)
    some = {name: probes[name][2:4] for name in ("origins", "points", "step", "counters")}
    alone = place.ops.probe_queries(**(probes | some), count=3).view(2, 3, 784)
    assert torch.equal(alone, together[2:4, :3])


# Streams and devices


def calls(device: str) -> dict:
    """Each op that does not work in place, with arguments."""
    drawn = cases.directions("rademacher", "low frequencies", 784)
    probes = cases.probe_queries(3, 784) | drawn | cases.BOUNDS | {"count": 9}
    arguments = {
        ops.ray_lengths: cases.ray_lengths(7, 784),
        ops.bracket_queries: cases.bracket_queries(7, 784) | cases.BOUNDS,
        ops.probe_queries: probes,
        ops.probe_gradient: cases.probe_gradient(3, 9, 784) | drawn,
        ops.soft_labels: cases.soft_labels(7, 10) | {"normalisation": "margin"},
    }
    place = replace(GPU, device=device)
    return {op: place.move(given) for op, given in arguments.items()}


@needs_gpu
def test_every_op_runs_on_the_current_stream():
    stream = torch.cuda.Stream()
    for op, arguments in calls("cuda").items():
        expected = op(**arguments)
        # Values that appear after a while, on this stream only.
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


@needs_gpu
@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="torch sees one GPU")
def test_every_op_runs_on_the_device_of_its_tensors():
    second = replace(GPU, device="cuda:1")
    for op, arguments in calls("cpu").items():
        result = compare(second, op.__name__, arguments)
        assert result.device.index == 1
    assert torch.cuda.current_device() == 0


# A whole run


def on(place: Place, teacher: LinearTeacher) -> LinearTeacher:
    there = copy.copy(teacher)
    there.device = torch.device(place.device)
    there.weights, there.bias = (t.to(place.device) for t in (teacher.weights, teacher.bias))
    return there


@pytest.mark.parametrize("measure", ["bd", "mbd"])
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 16, 16)])
def test_a_labelling_run_gives_the_same_distances(place, shape, measure, monkeypatch):
    # A difference in the last bit can change the path of a search: of few pairs, and not by much.
    g = torch.Generator().manual_seed(0)
    weights = torch.randn(5, *shape, generator=g)
    teacher = LinearTeacher((weights - weights.mean(0)).flatten(1), torch.zeros(5), shape)
    images = torch.rand(60, *shape, generator=g)
    settings = LabelSettings(measure, starting_points=5, queries_per_pair=150)
    index = torch.arange(12 if place.large else 4)
    here = label(teacher, images, settings, index=index)
    for name in emulated.NAMES:
        monkeypatch.setattr(ops, name, getattr(place.ops, name))
    there = label(on(place, teacher), images, settings, index=index)
    assert torch.equal(here.decision, there.decision)
    assert torch.equal(there.distances.isfinite().cpu(), here.distances.isfinite())
    wanted = here.distances.isfinite() & (here.distances > 0)
    difference = (there.distances.cpu()[wanted] / here.distances[wanted] - 1).abs()
    assert (difference > 1e-4).float().mean() <= 0.05, difference.sort().values[-10:]
    assert difference.max() < 0.05
