"""The native probe ops: directions drawn by counters, and the gradient estimated from them."""

import math

import native_reference as reference
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from db3kd import ops

NOISES = ["rademacher", "gaussian"]


def cosine_basis(count: int, size: int) -> torch.Tensor:
    """The first `count` rows of the orthonormal DCT-II. [count, size] float32."""
    frequency, place = torch.arange(count)[:, None], torch.arange(size) + 0.5
    rows = torch.cos(math.pi / size * frequency * place) * math.sqrt(2 / size)
    rows[0] /= math.sqrt(2)
    return rows


BASES = {
    "all components": {"channels": 1, "size": 37},
    "many components": {"channels": 1, "size": 1000},
    "low frequencies": {"channels": 1, "rows": (5, 11), "columns": (6, 13)},
    "low frequencies of a digit": {"channels": 1, "rows": (14, 28), "columns": (14, 28)},
    "low frequencies of a small image": {"channels": 3, "rows": (2, 3), "columns": (4, 5)},
}


def probes(device="cpu", points=3, noise="rademacher", seed=7, basis="all components") -> dict:
    """The arguments that both probe ops take."""
    form = BASES[basis]
    counters = torch.tensor([[2**32 - 1, 3, 0], [5, 65535, 65535], [0, 0, 1]])[:points]
    rows = columns = None
    if "rows" in form:
        rows, columns = cosine_basis(*form["rows"]), cosine_basis(*form["columns"])
        rows, columns = rows.to(device), columns.to(device)
    return {
        "counters": counters.to(device),
        "seed": seed,
        "noise": noise,
        "row_basis": rows,
        "column_basis": columns,
        "channels": form["channels"],
    }


def size_of(shared: dict, basis: str) -> int:
    if shared["row_basis"] is None:
        return BASES[basis]["size"]
    return shared["channels"] * shared["row_basis"].size(1) * shared["column_basis"].size(1)


def unit_probes(shared: dict, size: int, count: int) -> torch.Tensor:
    """Probes with a step of length 1 off a point of length 1, from the origin. [P, count, D]."""
    points = len(shared["counters"])
    device = shared["counters"].device
    queries = ops.probe_queries(
        torch.zeros(points, size, device=device),
        torch.full((points, size), size**-0.5, device=device),
        torch.ones(points, device=device),
        **shared,
        count=count,
        lower=-2.0,
        upper=2.0,
    )
    return queries.reshape(points, count, size)


def drawn(shared: dict, size: int, count: int) -> torch.Tensor:
    """The directions: the point mirrored at the ray to its probe. [P, count, D]."""
    queries = unit_probes(shared, size, count).double()
    point = size**-0.5
    return (2 * (queries * point).sum(2, keepdim=True) * queries - point).float()


# The random numbers


@pytest.mark.parametrize(
    ("counter", "key", "words"),
    [
        ([0, 0, 0, 0], (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        (
            [0xFFFFFFFF] * 4,
            (0xFFFFFFFF, 0xFFFFFFFF),
            [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD],
        ),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            (0xA4093822, 0x299F31D0),
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_reference_generator_gives_the_published_numbers(counter, key, words):
    assert reference.philox(np.array([counter]), key)[0].tolist() == words


def test_the_op_gives_the_published_numbers(device):
    shared = probes(device) | {"seed": 0, "counters": torch.zeros(1, 3).long().to(device)}
    bits = (drawn(shared, 128, count=1).flatten() > 0).reshape(4, 32).long()
    words = (bits << torch.arange(32, device=device)).sum(1)
    assert words.tolist() == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


@pytest.mark.parametrize("seed", [0, 1, -1, 2**63 - 1, -(2**63)])
@pytest.mark.parametrize("noise", NOISES)
def test_every_bit_of_the_seed_counts(device, noise, seed):
    shared = probes(device, noise=noise, seed=seed)
    expected = reference.directions(**shared, count=2, components=40)
    torch.testing.assert_close(drawn(shared, 40, count=2), expected.float())


def test_different_counters_draw_different_directions():
    counters = torch.tensor([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
    u = drawn(probes() | {"counters": counters}, 256, count=3).reshape(12, 256)
    overlap = (u @ u.T - torch.eye(12)).abs()
    assert overlap.max() < 0.35  # 5.6 standard deviations of independent signs


def test_gaussian_components_are_normal():
    numbers = drawn(probes(noise="gaussian"), 1000, count=100).double().flatten() * 1000**0.5
    assert numbers.mean().abs() < 0.01
    assert (numbers**3).mean().abs() < 0.03
    assert (numbers**4).mean() == pytest.approx(3.0, abs=0.05)
    assert (numbers.abs() < 1).double().mean() == pytest.approx(0.6827, abs=0.004)


# Queries


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("noise", NOISES)
def test_probe_queries_match_the_reference(device, noise, basis):
    shared = probes(device, noise=noise, basis=basis)
    g = torch.Generator().manual_seed(1)
    size = size_of(shared, basis)
    points = torch.rand(3, size, generator=g).to(device)
    arguments = {
        "origins": torch.rand(3, size, generator=g).to(device),
        "points": points,
        "step": torch.tensor([0.1, 0.5, 3.0], device=device),
        **shared,
        "count": 5,
        "lower": 0.0,
        "upper": 1.0,
    }
    for dtype in [torch.float32, torch.float16, torch.bfloat16]:
        queries = ops.probe_queries(**arguments, dtype=dtype)
        assert queries.shape == (15, size)
        tolerance = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}[dtype]
        expected = reference.probe_queries(**arguments, dtype=dtype)
        torch.testing.assert_close(queries, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("noise", NOISES)
def test_directions_have_length_one(device, noise, basis):
    shared = probes(device, noise=noise, basis=basis)
    lengths = drawn(shared, size_of(shared, basis), count=20).norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=2e-6)


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("noise", NOISES)
def test_a_probe_is_as_far_from_its_origin_as_its_point(device, noise, basis):
    shared = probes(device, noise=noise, basis=basis)
    lengths = unit_probes(shared, size_of(shared, basis), count=20).norm(dim=2)
    torch.testing.assert_close(lengths, torch.ones_like(lengths), rtol=0, atol=2e-6)


@pytest.mark.parametrize("noise", NOISES)
def test_directions_of_one_component_are_plus_or_minus_one(noise):
    sizes = drawn(probes(noise=noise), 1, count=50).abs()
    torch.testing.assert_close(sizes, torch.ones_like(sizes), rtol=0, atol=2e-7)


# The gradient


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("targeted", [True, False])
def test_probe_gradient_matches_the_reference(device, noise, basis, targeted):
    shared = probes(device, noise=noise, basis=basis)
    g = torch.Generator().manual_seed(2)
    decisions = torch.randint(-1, 3, (3, 40), generator=g)
    decisions[1] = 2  # all agree
    arguments = {
        "decisions": decisions.to(device),
        "criterion_class": torch.tensor([1, 2, 0], device=device),
        **shared,
        "targeted": targeted,
        "components": size_of(shared, basis),
    }
    gradient = ops.probe_gradient(**arguments)
    torch.testing.assert_close(gradient, reference.probe_gradient(**arguments), rtol=0, atol=2e-6)


@pytest.mark.parametrize("noise", NOISES)
def test_the_gradient_points_to_the_target_side_of_a_plane(device, noise):
    shared = probes(device, noise=noise)
    normal = torch.nn.functional.normalize(torch.linspace(-1, 1, 37, device=device), dim=0)
    decisions = (drawn(shared, 37, count=2000) @ normal > 0).long()
    criterion_class = torch.ones(3, dtype=torch.int64, device=device)
    towards = ops.probe_gradient(decisions, criterion_class, **shared, targeted=True, components=37)
    assert (towards @ normal > 0.97).all()
    away = ops.probe_gradient(decisions, criterion_class, **shared, targeted=False, components=37)
    assert torch.equal(away, -towards)


def test_an_unanswered_probe_has_no_weight(device):
    shared = probes(device, points=1)
    criterion_class = torch.tensor([1], device=device)
    settings = {**shared, "targeted": True, "components": 37}
    some = ops.probe_gradient(
        torch.tensor([[1, 0, -1, 1]], device=device), criterion_class, **settings
    )
    u = drawn(shared, 37, count=4)[0]
    expected = torch.nn.functional.normalize(u[0] - 2 * u[1] + u[3], dim=0)
    torch.testing.assert_close(some[0], expected)


@pytest.mark.parametrize("decisions", [[[]], [[-1, -1]]])
def test_without_answers_there_is_no_gradient(device, decisions):
    criterion_class = torch.tensor([1], device=device)
    decisions = torch.tensor(decisions, dtype=torch.int64, device=device)
    gradient = ops.probe_gradient(
        decisions, criterion_class, **probes(device, points=1), targeted=True, components=37
    )
    assert torch.equal(gradient, torch.zeros(1, 37, device=device))


# Determinism


@given(
    noise=st.sampled_from(NOISES),
    basis=st.sampled_from(list(BASES)),
    count=st.integers(1, 9),
    order=st.permutations([0, 1, 2]),
)
def test_a_probe_has_the_same_bits_beside_any_rows(noise, basis, count, order):
    shared = probes(noise=noise, basis=basis)
    size = size_of(shared, basis)
    together = unit_probes(shared, size, count=9)
    shuffled = unit_probes(shared | {"counters": shared["counters"][order]}, size, count)
    assert torch.equal(shuffled, together[order, :count])
    alone = unit_probes(shared | {"counters": shared["counters"][order[:1]]}, size, count)
    assert torch.equal(alone[0], shuffled[0])


@pytest.mark.parametrize("basis", BASES)
@pytest.mark.parametrize("noise", NOISES)
def test_results_do_not_depend_on_the_number_of_threads(noise, basis):
    shared = probes(noise=noise, basis=basis)
    shared["counters"] = torch.arange(90).reshape(30, 3)
    size = size_of(shared, basis)
    criterion_class = torch.zeros(30, dtype=torch.int64)
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2):
        torch.set_num_threads(number)
        u = unit_probes(shared, size, count=50)
        decisions = (u[:, :, 0] > 0).long()
        gradient = ops.probe_gradient(
            decisions, criterion_class, **shared, targeted=True, components=size
        )
        results.append((u, gradient))
    torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


# Invalid input and registration


@pytest.mark.parametrize(
    ("name", "bad", "error", "message"),
    [
        (
            "points",
            torch.zeros(2, 9),
            ValueError,
            r"origins: expected \[P=2, D=9\] float32 on cpu, got \[1, 9\]",
        ),
        ("step", torch.ones(2), ValueError, r"step: expected \[P=1\] float32 on cpu, got \[2\]"),
        (
            "noise",
            "uniform",
            ValueError,
            'noise: expected "rademacher" or "gaussian", got "uniform"',
        ),
        ("count", -1, ValueError, "count: expected 0 to 4294967296, got -1"),
        ("row_basis", None, ValueError, "expected both or neither, got only column_basis"),
        ("row_basis", torch.eye(2), ValueError, r"channels·H·W = 9 components, got 1·2·3 = 6"),
        ("channels", 0, ValueError, "channels: expected at least 1, got 0"),
        (
            "counters",
            torch.tensor([[2**32, 0, 0]]),
            IndexError,
            "counters: expected a sample index",
        ),
        (
            "counters",
            torch.tensor([[0, 65536, 0]]),
            IndexError,
            "target from 0 to 65535, got 65536",
        ),
        (
            "counters",
            torch.tensor([[0, 0, -1]]),
            IndexError,
            "round from 0 to 65535, got -1 in row",
        ),
        (
            "counters",
            torch.zeros(1, 2).long(),
            ValueError,
            r"counters: expected \[P=1, 3=3\] int64",
        ),
        ("upper", -1.0, ValueError, "expected lower ≤ upper"),
        (
            "dtype",
            torch.int32,
            TypeError,
            "dtype: expected float32, float16 or bfloat16, got int32",
        ),
    ],
)
def test_invalid_arguments_of_the_probe_ops_are_named(name, bad, error, message):
    arguments = {
        "origins": torch.zeros(1, 9),
        "points": torch.zeros(1, 9),
        "step": torch.ones(1),
        "counters": torch.zeros(1, 3, dtype=torch.int64),
        "seed": 0,
        "count": 2,
        "noise": "rademacher",
        "row_basis": torch.eye(3),
        "column_basis": torch.eye(3),
        "channels": 1,
        "lower": 0.0,
        "upper": 1.0,
    }
    with pytest.raises(error, match=message):
        ops.probe_queries(**(arguments | {name: bad}))


@pytest.mark.parametrize("basis", BASES)
def test_ops_pass_opcheck(device, basis):
    shared = probes(device, basis=basis)
    size = size_of(shared, basis)
    counters, seed, noise, *bases = shared.values()
    points, step = torch.rand(3, size, device=device), torch.ones(3, device=device)
    decisions = torch.ones(3, 4, dtype=torch.int64, device=device)
    criterion_class = decisions[:, 0].contiguous()
    queries = (
        torch.rand_like(points),
        points,
        step,
        counters,
        seed,
        4,
        noise,
        *bases,
        0.0,
        1.0,
        torch.float16,
    )
    torch.library.opcheck(torch.ops.db3kd.probe_queries, queries)
    gradient = (decisions, criterion_class, True, counters, seed, noise, *bases, size)
    torch.library.opcheck(torch.ops.db3kd.probe_gradient, gradient)


def test_empty_batches_give_empty_results(device):
    none = probes(device, points=0)
    assert drawn(none, 37, count=4).shape == (0, 4, 37)
    assert drawn(probes(device), 37, count=0).shape == (3, 0, 37)
    decisions = torch.zeros(0, 4, dtype=torch.int64, device=device)
    criterion_class = torch.zeros(0, dtype=torch.int64, device=device)
    gradient = ops.probe_gradient(decisions, criterion_class, **none, targeted=True, components=37)
    assert gradient.shape == (0, 37)


@pytest.mark.parametrize("channels", [2**62 + 1, 2**63 - 1])
def test_sizes_whose_product_overflows_are_refused(channels):
    with pytest.raises(ValueError, match="channels, row_basis, column_basis: expected sizes"):
        ops.probe_gradient(
            torch.zeros(1, 2, dtype=torch.int64),
            torch.zeros(1, dtype=torch.int64),
            torch.zeros(1, 3, dtype=torch.int64),
            targeted=True,
            seed=0,
            noise="gaussian",
            row_basis=torch.eye(2),
            column_basis=torch.eye(2),
            channels=channels,
            components=4,
        )
