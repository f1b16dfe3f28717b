"""The native ops for rays, brackets and soft labels: values, determinism, and error messages."""

import math
from itertools import chain

import native_reference as reference
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_cases import STATE

from db3kd import ops

INF = math.inf


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def rays(device="cpu", samples=3, pairs=5, count=17, size=37) -> dict:
    """Random rays inside the bounds, as the arguments of bracket_queries."""
    g = generator()
    starts, ends = torch.rand(samples, size, generator=g), torch.rand(7, size, generator=g)
    sample_of = torch.randint(samples, (pairs,), generator=g)
    pair_of = torch.randint(pairs, (count,), generator=g).sort().values
    end_of = torch.randint(len(ends), (count,), generator=g)
    lengths = reference.ray_lengths(starts, ends, sample_of[pair_of], end_of)
    arguments = {
        "samples": starts,
        "ends": ends,
        "sample_of": sample_of,
        "pair_of": pair_of,
        "end_of": end_of,
        "lengths": lengths,
        "radius": torch.rand(pairs, generator=g),
        "active": torch.arange(0, count, 2),
    }
    return {name: tensor.to(device) for name, tensor in arguments.items()}


def brackets(decisions: list[int], rays_per_pair: int, device="cpu", **changes) -> dict:
    """Pairs at low 0, high 4, radius 2 and target class 1, as arguments of bracket_step."""
    pairs, count = len(decisions) // rays_per_pair, len(decisions)
    pair_of = torch.arange(count) // rays_per_pair
    arguments = {
        "low": torch.zeros(pairs),
        "high": torch.full((pairs,), 4.0),
        "radius": torch.full((pairs,), 2.0),
        "winner": torch.full((pairs,), -1),
        "active": torch.arange(count),
        "decisions": torch.tensor(decisions, dtype=torch.int64),
        "samples": torch.zeros(1, 3),
        "ends": torch.full((1, 3), 8.0),
        "sample_of": torch.zeros(pairs, dtype=torch.int64),
        "pair_of": pair_of,
        "end_of": torch.zeros(count, dtype=torch.int64),
        "lengths": torch.full((count,), 8.0),
        "criterion_class": torch.ones(pairs, dtype=torch.int64),
    }
    moved = {name: tensor.to(device) for name, tensor in arguments.items()}
    rules = {"targeted": True, "absolute": 1e-3, "relative": 0.0}
    return moved | rules | {"lower": 0.0, "upper": 9.0, "limit": count} | changes


# Ray lengths


def test_the_length_of_a_ray_is_the_distance_from_its_sample_to_its_end(device):
    samples = torch.tensor([[0.0, 0.0], [1.0, 1.0]], device=device)
    ends = torch.tensor([[3.0, 4.0], [1.0, 1.0]], device=device)
    rows = torch.tensor([0, 1, 1], device=device)
    columns = torch.tensor([0, 1, 0], device=device)
    lengths = ops.ray_lengths(samples, ends, rows, columns)
    assert lengths.tolist() == [5.0, 0.0, pytest.approx(13**0.5)]


@pytest.mark.parametrize("size", [1, 15, 16, 33, 784, 20_000])
def test_ray_lengths_match_the_reference(device, size):
    r = rays(device, size=size)
    rows = r["sample_of"][r["pair_of"]]
    lengths = ops.ray_lengths(r["samples"], r["ends"], rows, r["end_of"])
    expected = reference.ray_lengths(r["samples"], r["ends"], rows, r["end_of"])
    torch.testing.assert_close(lengths, expected, rtol=2e-7, atol=0)


# Bracket queries


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [1, 37, 784])
def test_bracket_queries_match_the_reference(device, dtype, size):
    r = rays(device, size=size)
    queries = ops.bracket_queries(**r, lower=0.2, upper=0.8, dtype=dtype)
    expected = reference.bracket_queries(**r, lower=0.2, upper=0.8, dtype=dtype)
    assert queries.dtype == dtype
    torch.testing.assert_close(queries, expected)


def test_a_query_at_the_full_radius_is_the_end_and_at_zero_the_sample(device):
    r = rays(device, pairs=17, count=17)
    r["pair_of"] = torch.arange(17, device=device)
    rows = r["sample_of"][r["pair_of"]]
    r["lengths"] = ops.ray_lengths(r["samples"], r["ends"], rows, r["end_of"])
    bounds = {"lower": 0.0, "upper": 1.0}
    at_end = ops.bracket_queries(**(r | {"radius": r["lengths"]}), **bounds)
    torch.testing.assert_close(at_end, r["ends"][r["end_of"][r["active"]]])
    at_start = ops.bracket_queries(**(r | {"radius": torch.zeros(17, device=device)}), **bounds)
    assert torch.equal(at_start, r["samples"][rows[r["active"]]])


def test_the_query_of_a_ray_of_length_zero_is_its_sample(device):
    r = rays(device)
    r["lengths"] = torch.zeros_like(r["lengths"])
    queries = ops.bracket_queries(**r, lower=0.0, upper=1.0)
    assert torch.equal(queries, r["samples"][r["sample_of"][r["pair_of"][r["active"]]]])


def test_queries_stay_inside_the_bounds(device):
    r = rays(device)
    r["radius"] = 100 * torch.ones_like(r["radius"])
    queries = ops.bracket_queries(**r, lower=0.25, upper=0.5)
    assert queries.min() == 0.25 and queries.max() == 0.5


# Bracket steps


def test_a_ray_that_cannot_win_is_dropped(device):
    c = brackets([1, 0, 1], rays_per_pair=3, device=device)
    assert ops.bracket_step(**c).active.tolist() == [0, 2]
    assert (c["low"].item(), c["high"].item(), c["radius"].item()) == (0.0, 2.0, 1.0)
    assert c["winner"].item() == 0


def test_the_winner_is_the_first_ray_that_hit(device):
    c = brackets([0, 0, 1, 1], rays_per_pair=4, device=device)
    ops.bracket_step(**c)
    assert c["winner"].item() == 2


def test_if_no_ray_hits_all_stay_and_the_low_end_rises(device):
    c = brackets([0, 5], rays_per_pair=2, device=device)
    assert ops.bracket_step(**c).active.tolist() == [0, 1]
    assert (c["low"].item(), c["high"].item(), c["radius"].item()) == (2.0, 4.0, 3.0)
    assert c["winner"].item() == -1


def test_an_untargeted_ray_hits_any_other_class(device):
    c = brackets([1, 7], rays_per_pair=2, device=device, targeted=False)
    assert ops.bracket_step(**c).active.tolist() == [1]
    assert c["winner"].item() == 1 and c["high"].item() == 2.0


def test_an_unanswered_query_ends_the_pair_but_answers_count(device):
    c = brackets([1, -1, 0, -1], rays_per_pair=2, device=device)
    assert ops.bracket_step(**c).active.tolist() == []
    assert c["high"].tolist() == [2.0, 4.0] and c["low"].tolist() == [0.0, 2.0]
    assert c["winner"].tolist() == [0, -1]


def test_a_pair_without_any_answer_keeps_its_bracket(device):
    c = brackets([-1, -1, 1, 1], rays_per_pair=2, device=device)
    assert ops.bracket_step(**c).active.tolist() == [2, 3]
    assert c["low"].tolist() == [0.0, 0.0] and c["high"].tolist() == [4.0, 2.0]
    assert c["winner"].tolist() == [-1, 2]


@pytest.mark.parametrize(
    ("absolute", "relative", "continues"),
    [(1.9, 0.0, True), (2.0, 0.0, False), (0.0, 0.4, True), (0.0, 0.5, False)],
)
def test_a_pair_ends_when_its_bracket_is_narrow(device, absolute, relative, continues):
    c = brackets([0], rays_per_pair=1, device=device, absolute=absolute, relative=relative)
    assert len(ops.bracket_step(**c).active) == continues  # now between 2 and 4


def test_a_pair_ends_when_no_float_is_left_between_low_and_high(device):
    c = brackets([1], rays_per_pair=1, device=device, absolute=0.0)
    c["low"].fill_(1.0)
    c["radius"].fill_(torch.nextafter(torch.tensor(1.0), torch.tensor(2.0)).item())
    assert ops.bracket_step(**c).active.tolist() == []


@pytest.mark.parametrize("high", [INF, math.nan])
def test_an_invalid_bracket_ends(device, high):
    c = brackets([0], rays_per_pair=1, device=device)
    c["high"].fill_(high)
    assert ops.bracket_step(**c).active.tolist() == []


def test_pairs_without_active_rays_do_not_change(device):
    c = brackets([0, 1, 0], rays_per_pair=1, device=device)
    c |= {"active": c["active"][1:2], "decisions": c["decisions"][1:2]}
    ops.bracket_step(**c)
    assert c["radius"].tolist() == [2.0, 1.0, 2.0]


@given(
    st.lists(st.lists(st.integers(-1, 3), min_size=1, max_size=6), max_size=8),
    st.booleans(),
    st.integers(0, 2**31),
)
def test_bracket_step_matches_the_reference(answers, targeted, seed):
    g = generator(seed)
    pairs, count = len(answers), sum(map(len, answers))
    sizes = torch.tensor([len(a) for a in answers], dtype=torch.int64)
    low = torch.rand(pairs, generator=g)
    high = low + torch.rand(pairs, generator=g)
    active = torch.randperm(count, generator=g)
    pair_of = torch.zeros(count, dtype=torch.int64)
    pair_of[active] = torch.arange(pairs).repeat_interleave(sizes)
    samples, ends = torch.rand(2, 37, generator=g), torch.rand(3, 37, generator=g)
    sample_of = torch.randint(2, (pairs,), generator=g)
    end_of = torch.randint(3, (count,), generator=g)
    c = {
        "low": low,
        "high": high,
        "radius": low + (high - low) * torch.rand(pairs, generator=g),
        "winner": torch.full((pairs,), -1),
        "active": active,
        "decisions": torch.tensor(list(chain.from_iterable(answers)), dtype=torch.int64),
        "samples": samples,
        "ends": ends,
        "sample_of": sample_of,
        "pair_of": pair_of,
        "end_of": end_of,
        "lengths": reference.ray_lengths(samples, ends, sample_of[pair_of], end_of),
        "criterion_class": torch.randint(4, (pairs,), generator=g),
    }
    expected = {name: tensor.clone() for name, tensor in c.items()}
    rules = {"targeted": targeted, "absolute": 0.1, "relative": 0.2, "lower": 0.1, "upper": 0.9}
    rules["limit"] = int(torch.randint(count + 2, (1,), generator=g))
    active, owners, queries = ops.bracket_step(**c, **rules)
    remaining, owners_too, built = reference.bracket_step(**expected, **rules)
    assert torch.equal(active, remaining) and torch.equal(owners, owners_too)
    torch.testing.assert_close(queries, built, rtol=3e-6, atol=3e-6)
    for name, tensor in c.items():
        assert torch.equal(tensor, expected[name]), name


@pytest.mark.parametrize("limit", [0, 1, 3, 100])
def test_the_queries_of_a_step_are_those_at_the_new_radius(device, limit):
    r = rays(device) | {"active": torch.arange(17, device=device)}
    radius = r["radius"].clone()
    state = {"low": radius / 2, "high": radius * 2, "winner": torch.full_like(r["sample_of"], -1)}
    decisions = torch.arange(17, device=device) % 3
    step = ops.bracket_step(
        **(r | state), decisions=decisions, criterion_class=torch.ones_like(r["sample_of"]),
        targeted=True, absolute=0.0, relative=0.0, lower=0.1, upper=0.9, limit=limit,
    )  # fmt: skip
    assert not torch.equal(r["radius"], radius)
    assert torch.equal(step.pairs, r["pair_of"][step.active])
    r["active"] = step.active[:limit]
    expected = ops.bracket_queries(**r, lower=0.1, upper=0.9)
    assert len(step.active) > 3 and torch.equal(step.queries, expected)


@given(st.floats(0.01, 0.99), st.floats(0, 1e-2), st.floats(0, 1e-2))
def test_bisection_ends_at_the_crossing(crossing, absolute, relative):
    low, high, radius = torch.zeros(1), torch.ones(1), torch.full((1,), 0.5)
    winner, zero = torch.tensor([-1]), torch.zeros(1, dtype=torch.int64)
    sample, end, length = torch.zeros(1, 1), torch.ones(1, 1), torch.ones(1)
    active, query, rounds = zero, radius[:, None], 0
    rules = {"targeted": True, "absolute": absolute, "relative": relative}
    rules |= {"lower": 0.0, "upper": 1.0, "limit": 1}
    while len(active):
        decision = (query[:, 0] >= crossing).long()
        active, _, query = ops.bracket_step(
            low, high, radius, winner, active, decision, sample, end, zero, zero, zero, length,
            zero + 1, **rules,
        )  # fmt: skip
        rounds += 1
        assert rounds <= 160  # a float32 bracket cannot be halved more often
    assert low.item() <= crossing <= high.item() + 1e-7
    gap = high.item() - low.item()
    adjacent = torch.nextafter(low, high).equal(high)
    assert adjacent or gap <= max(absolute, relative * high.item()) + 1e-7


# Soft labels


@pytest.mark.parametrize("normalisation", ["inverse", "margin"])
@pytest.mark.parametrize("classes", [1, 2, 10, 33, 1000])
def test_soft_labels_match_the_reference(device, normalisation, classes):
    g = generator(classes)
    distances = 0.05 + torch.rand(9, classes, generator=g)
    distances[torch.rand(9, classes, generator=g) < 0.2] = INF
    predicted = torch.randint(classes, (9,), generator=g)
    arguments = distances.to(device), predicted.to(device)
    for scale, temperature in [(1.0, 1.0), (4.0, 20.0), (8.0, 0.1)]:
        settings = {"normalisation": normalisation, "scale": scale, "temperature": temperature}
        labels = ops.soft_labels(*arguments, **settings)
        torch.testing.assert_close(labels, reference.soft_labels(*arguments, **settings))
        torch.testing.assert_close(labels.sum(1), torch.ones(9, device=device))


def test_the_column_of_the_predicted_class_is_not_read(device):
    distances = torch.tensor([[math.nan, 1.0, 2.0], [3.0, -1.0, 2.0]], device=device)
    labels = ops.soft_labels(distances, torch.tensor([0, 1], device=device), normalisation="margin")
    assert labels.isfinite().all()


def test_the_inverse_is_uniform_if_no_class_was_reached(device):
    distances = torch.full((1, 4), INF, device=device)
    labels = ops.soft_labels(distances, torch.tensor([2], device=device), normalisation="inverse")
    assert labels.tolist() == [[0.25] * 4]


def test_an_unreached_class_has_no_weight_as_a_margin(device):
    distances = torch.tensor([[1.0, INF, 2.0], [1.0, INF, INF]], device=device)
    labels = ops.soft_labels(distances, torch.tensor([0, 0], device=device), normalisation="margin")
    assert labels[0, 1] == 0
    assert labels[1].tolist() == [1.0, 0.0, 0.0]


@given(
    st.lists(st.floats(2.0**-149, 2.0**127, width=32), min_size=1, max_size=5),
    st.sampled_from(["inverse", "margin"]),
    st.floats(1e-30, 1e30),
    st.floats(1e-30, 1e30),
)
def test_any_positive_distances_give_a_distribution(distances, normalisation, scale, temperature):
    labels = ops.soft_labels(
        torch.tensor([[1.0, *distances]]),
        torch.zeros(1, dtype=torch.int64),
        normalisation=normalisation,
        scale=scale,
        temperature=temperature,
    )
    assert labels.isfinite().all() and (labels >= 0).all()
    assert labels.sum().item() == pytest.approx(1.0, abs=1e-6)
    assert labels[0, 0] == labels.max()


@pytest.mark.parametrize("bad", [math.nan, 0.0, -0.5, -INF])
def test_an_invalid_distance_is_an_error(device, bad):
    distances = torch.ones(5, 4, device=device)
    distances[3, 2] = bad
    predicted = torch.zeros(5, dtype=torch.int64, device=device)
    message = r"distances: expected positive distances.* got .* in row 3, column 2"
    with pytest.raises(ValueError, match=message):
        ops.soft_labels(distances, predicted, normalisation="inverse")


# Determinism


def test_a_query_has_the_same_bits_beside_any_rows(device):
    r = rays(device, size=784)
    r["active"] = torch.arange(17, device=device)
    together = ops.bracket_queries(**r, lower=0.0, upper=1.0)
    order = torch.randperm(17, generator=generator()).to(device)
    shuffled = ops.bracket_queries(**(r | {"active": order}), lower=0.0, upper=1.0)
    assert torch.equal(shuffled, together[order])
    for ray in range(17):
        alone = ops.bracket_queries(**(r | {"active": order[ray : ray + 1]}), lower=0.0, upper=1.0)
        assert torch.equal(alone[0], shuffled[ray])


def test_a_length_has_the_same_bits_beside_any_rows(device):
    r = rays(device, size=785)
    rows = r["sample_of"][r["pair_of"]]
    together = ops.ray_lengths(r["samples"], r["ends"], rows, r["end_of"])
    order = torch.randperm(17, generator=generator()).to(device)
    shuffled = ops.ray_lengths(r["samples"], r["ends"], rows[order], r["end_of"][order])
    assert torch.equal(shuffled, together[order])


def test_results_do_not_depend_on_the_number_of_threads():
    r = rays(count=500, size=784)
    rows = r["sample_of"][r["pair_of"]]
    threads = torch.get_num_threads()
    results = []
    for number in (1, 2):
        torch.set_num_threads(number)
        lengths = ops.ray_lengths(r["samples"], r["ends"], rows, r["end_of"])
        results.append((lengths, ops.bracket_queries(**r, lower=0.0, upper=1.0)))
    torch.set_num_threads(threads)
    assert all(torch.equal(one, two) for one, two in zip(*results, strict=True))


def test_inputs_need_not_be_contiguous(device):
    r = rays(device)
    strided = {name: tensor.repeat_interleave(2, dim=0)[::2] for name, tensor in r.items()}
    strided["samples"] = r["samples"].T.contiguous().T
    bounds = {"lower": 0.0, "upper": 1.0}
    assert torch.equal(ops.bracket_queries(**strided, **bounds), ops.bracket_queries(**r, **bounds))


# Invalid input


@pytest.mark.parametrize(
    ("name", "bad", "error", "message"),
    [
        ("ends", torch.zeros(7, 5), ValueError, r"ends: expected \[E, D=37\] float32 on cpu, got"),
        ("samples", torch.zeros(3, 37).double(), TypeError, r"samples: expected .* got .* float64"),
        ("active", torch.zeros(2), TypeError, r"active: expected \[A\] int64 .* float32"),
        ("active", torch.tensor([0, 17]), IndexError, "active: .* from 0 to 16, got 17 at 1"),
        ("pair_of", torch.full((17,), 5), IndexError, "pair_of: .* from 0 to 4, got 5"),
        ("end_of", torch.full((17,), -1), IndexError, "end_of: .* from 0 to 6, got -1"),
        ("sample_of", torch.full((5,), 3), IndexError, "sample_of: .* from 0 to 2, got 3"),
        ("dtype", torch.float64, TypeError, "dtype: expected float32, float16 or bfloat16, got"),
        ("lower", 1.5, ValueError, "lower, upper: expected lower ≤ upper, got 1.5 and 1"),
    ],
)
def test_invalid_arguments_of_bracket_queries_are_named(name, bad, error, message):
    arguments = rays() | {"lower": 0.0, "upper": 1.0}
    with pytest.raises(error, match=message):
        ops.bracket_queries(**(arguments | {name: bad}))


@pytest.mark.parametrize(
    ("name", "bad", "error", "message"),
    [
        ("decisions", torch.zeros(3).long(), ValueError, r"decisions: expected \[A=4\] int64"),
        ("low", torch.zeros(4)[::2], ValueError, "low: expected a contiguous tensor"),
        ("absolute", -1.0, ValueError, "absolute: expected a finite number of at least 0, got -1"),
        ("relative", math.nan, ValueError, "relative: expected a finite number"),
        ("pair_of", torch.tensor([0, 1, 0, 1]), ValueError, "active: .* order of their pairs.* 2$"),
        ("pair_of", torch.tensor([0, 1, 1, 2]), IndexError, "pair_of: .* from 0 to 1, got 2"),
        ("end_of", torch.tensor([0, 0, 1, 0]), IndexError, "end_of: .* from 0 to 0, got 1"),
        ("sample_of", torch.tensor([0, -1]), IndexError, "sample_of: .* from 0 to 0, got -1"),
        ("ends", torch.zeros(1, 4), ValueError, r"ends: expected \[E, D=3\] float32 on cpu, got"),
        ("limit", -1, ValueError, "limit: expected at least 0 queries, got -1"),
        ("upper", -1.0, ValueError, "lower, upper: expected lower ≤ upper, got 0 and -1"),
    ],
)
def test_invalid_arguments_of_bracket_step_are_named(name, bad, error, message):
    arguments = brackets([0, 0, 1, 1], rays_per_pair=2)
    before = {state: arguments[state].clone() for state in STATE}
    with pytest.raises(error, match=message):
        ops.bracket_step(**(arguments | {name: bad}))
    assert all(torch.equal(arguments[state], value) for state, value in before.items())


@pytest.mark.parametrize(
    ("name", "bad", "error", "message"),
    [
        ("predicted", torch.tensor([0, 4]), IndexError, "predicted: .* from 0 to 3, got 4 at 1"),
        ("normalisation", "softmax", ValueError, 'normalisation: expected "inverse" or "margin"'),
        ("temperature", 0.0, ValueError, "temperature: expected a finite number above 0, got 0"),
        ("scale", INF, ValueError, "scale: expected a finite number above 0, got inf"),
    ],
)
def test_invalid_arguments_of_soft_labels_are_named(name, bad, error, message):
    arguments = {
        "distances": torch.ones(2, 4),
        "predicted": torch.zeros(2, dtype=torch.int64),
        "normalisation": "margin",
    }
    with pytest.raises(error, match=message):
        ops.soft_labels(**(arguments | {name: bad}))


# Registration


def test_ops_pass_opcheck(device):
    r = rays(device)
    rows = r["sample_of"][r["pair_of"]]
    lengths = r["samples"], r["ends"], rows, r["end_of"]
    bracket = brackets([1, 0, 0, -1, 0, 0], rays_per_pair=2, device=device)
    distances = torch.ones(3, 4, device=device)
    predicted = torch.zeros(3, dtype=torch.int64, device=device)
    calls = [
        (torch.ops.db3kd.ray_lengths, lengths),
        (torch.ops.db3kd.bracket_queries, (*r.values(), 0.0, 1.0, torch.bfloat16)),
        (torch.ops.db3kd.bracket_step, tuple(bracket.values())),
        (torch.ops.db3kd.soft_labels, (distances, predicted, "margin", 1.0, 2.0)),
    ]
    for op, arguments in calls:
        torch.library.opcheck(op, arguments)


def test_empty_batches_give_empty_results(device):
    r = rays(device)
    none = torch.zeros(0, dtype=torch.int64, device=device)
    assert ops.ray_lengths(r["samples"], r["ends"], none, none).shape == (0,)
    assert ops.bracket_queries(**(r | {"active": none}), lower=0.0, upper=1.0).shape == (0, 37)
    step = ops.bracket_step(**brackets([], rays_per_pair=1, device=device))
    assert [tuple(tensor.shape) for tensor in step] == [(0,), (0,), (0, 3)]
    labels = ops.soft_labels(torch.zeros(0, 3, device=device), none, normalisation="margin")
    assert labels.shape == (0, 3)
