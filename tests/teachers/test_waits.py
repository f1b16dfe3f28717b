"""How often a search launches work and makes the CPU wait for the device, counted without a GPU.

Operations that would wait on a GPU are recognised by their names: a number read by Python, a result
whose size depends on values, a copy between devices. Two modes are needed: one sees the operations
that torch dispatches, the other the calls from Python, because `tolist` on a CPU tensor dispatches
no operation.
"""

import dataclasses

import pytest
import torch
from teachers_analytic import CountingTeacher, LateTeacher, NearestCentroidTeacher
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes

from db3kd.boundary import (
    SignOptSettings,
    StartingPoints,
    boundary_distance,
    minimal_boundary_distance,
)
from db3kd.data.image_source import TensorImages
from db3kd.labelling.chunk_search import pairs_of
from db3kd.labels.targets import other_classes
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.storage.journal import Journal

SHAPE = (1, 16, 16)
CLASSES = 4

WAITING_OPS = {
    "_local_scalar_dense",
    "bincount",
    "bracket_step",
    "equal",
    "histc",
    "is_nonzero",
    "masked_select",
    "nonzero",
    "unique_consecutive",
    "unique_dim",
    "_unique",
    "_unique2",
}
WAITING_CALLS = {"tolist", "numpy", "cpu", "__array__"}


def _by_mask(arguments) -> bool:
    """Whether any index is a mask, whose true entries torch has to count first."""
    indices = next((part for part in arguments if isinstance(part, (list, tuple))), ())
    return any(part is not None and part.dtype in (torch.bool, torch.uint8) for part in indices)


class _Dispatched(TorchDispatchMode):
    def __init__(self, noted: list[str]) -> None:
        super().__init__()
        self.noted = noted

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        unsized = name == "repeat_interleave" and not (kwargs or {}).get("output_size")
        if name in WAITING_OPS or unsized or (name.startswith("index") and _by_mask(args)):
            self.noted.append(name)
        return func(*args, **(kwargs or {}))


class _Called(TorchFunctionMode):
    def __init__(self, noted: list[str]) -> None:
        super().__init__()
        self.noted = noted

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in WAITING_CALLS:
            self.noted.append(name)
        return func(*args, **(kwargs or {}))


class Waits:
    """Records the names of calls that wait while the context is active."""

    def __init__(self) -> None:
        self.noted: list[str] = []
        self._modes = (_Called(self.noted), _Dispatched(self.noted))

    def __enter__(self) -> list[str]:
        for mode in self._modes:
            mode.__enter__()
        return self.noted

    def __exit__(self, *error: object) -> None:
        for mode in reversed(self._modes):
            mode.__exit__(*error)


class Uncounted:
    """A teacher whose own operations are not counted."""

    def __init__(self, inner: LateTeacher) -> None:
        self.__dict__.update(vars(inner))
        self.inner = inner

    def decide_async(self, images):
        with _disable_current_modes(), torch._C.DisableTorchFunction():
            answers = self.inner.decide_async(images)
        result = answers.result

        def uncounted():
            with _disable_current_modes(), torch._C.DisableTorchFunction():
                return result()

        answers.result = uncounted
        return answers


@pytest.fixture(scope="module")
def work():
    """Pairs, their rays and a teacher."""
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(60, *SHAPE, generator=draw)
    teacher = NearestCentroidTeacher(torch.rand(CLASSES, *SHAPE, generator=draw), SHAPE)
    decisions = teacher.decide(images)
    index = torch.arange(12)
    pairs = pairs_of(teacher, images[:12], index, other_classes(decisions[:12], CLASSES))
    return pairs, StartingPoints(TensorImages(images), decisions, 6).rays(pairs), teacher


def limits_of(pairs, most):
    return torch.where(pairs.criterion_class >= 0, most, 0)


def waits_of(search, ledger, teacher, journal=None):
    """Returns the calls that wait, and the number of calls of the teacher."""
    counting = CountingTeacher(teacher)
    with Waits() as noted:
        run(search, Uncounted(LateTeacher(counting)), ledger, journal=journal)
    return list(noted), len(counting.calls)


@pytest.mark.parametrize(
    "waiting",
    [
        lambda x: int(x.sum()),
        lambda x: bool((x > 0).all()),
        lambda x: x.tolist(),
        lambda x: x.cpu(),
        lambda x: x.nonzero(),
        lambda x: x[x > 0],
        lambda x: x.index_put_((x > 0,), torch.tensor(1)),
        lambda x: x.unique(),
        lambda x: x.bincount(),
        lambda x: x.repeat_interleave(x),
        lambda x: 1 if (x > 0).any() else 0,
    ],
)
def test_calls_that_wait_are_counted(waiting):
    with Waits() as noted:
        waiting(torch.arange(4))
    assert noted


def test_calls_that_do_not_wait_are_not_counted():
    x = torch.arange(4)
    with Waits() as noted:
        x[x.flip(0)] = torch.where(x > 2, x, x.cumsum(0))
        x.index_add_(0, x.clamp(0, 3), x.clone())
        x.repeat_interleave(x.clamp(0, 0) + 1, output_size=4)
        torch.cat([x.to(torch.float32), torch.zeros(2)])
    assert noted == []


@pytest.mark.parametrize("query_batch_size", [2048, 16])
def test_a_round_of_a_bisection_waits_for_one_count(work, query_batch_size):
    pairs, rays, teacher = work
    ledger = Ledger(limits_of(pairs, 1000))
    search = boundary_distance(pairs, rays, query_batch_size=query_batch_size, budget=ledger)
    noted, calls = waits_of(search, ledger, teacher)
    rounds = noted.count("bracket_step")
    assert rounds > 8 and calls >= rounds
    # Four more: whether the budget covers the rounds, the first rays of the pairs, the pairs that
    # have won, and the final check of the ledger.
    assert len(noted) == rounds + 4, noted


@pytest.mark.parametrize("query_batch_size", [2048, 16])
def test_sign_opt_waits_for_one_count_per_round_and_four_per_iteration(work, query_batch_size):
    pairs, rays, teacher = work
    ledger = Ledger(limits_of(pairs, 1000))
    boundary = run(boundary_distance(pairs, rays, budget=ledger), teacher, ledger)
    settings = SignOptSettings(rounds=5)
    search = minimal_boundary_distance(
        pairs, boundary, SHAPE, settings, seed=0, query_batch_size=query_batch_size, budget=ledger
    )
    noted, _ = waits_of(search, ledger, teacher)
    rounds = noted.count("bracket_step")
    # Four per iteration: the pairs that continue, their remaining budget, whether it covers the
    # rounds, and the winners. One more: the final check of the ledger.
    assert len(noted) == rounds + 4 * settings.rounds + 1, noted


LAUNCHES = {"bracket_queries": 1, "bracket_step": 2, "probe_queries": 4, "probe_gradient": 4}
"""Launches of the native ops on CUDA, with bases; docs/gpu.md lists them. Other operations are one
launch."""

WITHOUT_LAUNCH = {
    "alias",
    "detach",
    "empty",
    "empty_like",
    "expand",
    "new_empty",
    "select",
    "slice",
    "split",
    "unsqueeze",
    "view",
    "_unsafe_view",
}


class Launches(TorchDispatchMode):
    """Records the names of operations that launch work on a GPU, in their order."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name not in WITHOUT_LAUNCH:
            self.names.append(name)
        return func(*args, **(kwargs or {}))


def launches_of(search, ledger, teacher):
    with Launches() as launches:
        run(search, Uncounted(LateTeacher(teacher)), ledger)
    return launches.names


def between(names, first, last):
    """The operations after each `first`, up to and with the next `last`."""
    parts = []
    for position, name in enumerate(names):
        if name == first and last in names[position + 1 :]:
            parts.append(names[position + 1 : names.index(last, position + 1) + 1])
    return parts


def count(names):
    return sum(LAUNCHES.get(name, 1) for name in names)


def test_a_round_of_a_bisection_launches_two_kernels(work):
    pairs, rays, teacher = work
    ledger = Ledger(limits_of(pairs, 1000))
    names = launches_of(boundary_distance(pairs, rays, budget=ledger), ledger, teacher)
    rounds = between(names, "bracket_step", "bracket_step")
    assert len(rounds) > 8
    for names in rounds:
        # The booking is counted after the search.
        assert names == ["bracket_step"]
        assert count(names) == 2


def test_the_launches_of_a_round_of_probes_do_not_grow_with_the_pairs(work):
    pairs, rays, teacher = work
    counts, settings = [], SignOptSettings(rounds=5)
    assert settings.directions(SHAPE, 0).frequencies is not None
    for few in (len(pairs), len(pairs) // 2):
        some = dataclasses.replace(
            pairs, sample_of=pairs.sample_of[:few], criterion_class=pairs.criterion_class[:few]
        )
        rows = rays.select((rays.pair_of < few).nonzero()[:, 0])
        ledger = Ledger(limits_of(some, 1000))
        boundary = run(boundary_distance(some, rows, budget=ledger), teacher, ledger)
        search = minimal_boundary_distance(
            some, boundary, SHAPE, settings, seed=0, query_batch_size=100_000, budget=ledger,
        )  # fmt: skip
        rounds = between(launches_of(search, ledger, teacher), "probe_queries", "probe_gradient")
        assert len(rounds) == 5
        counts += [count(names) for names in rounds]
    # The accounts of the probes, the decisions, the classes, and the gradient.
    assert set(counts) == {7}, rounds


def test_a_budget_that_runs_out_costs_two_more_waits_per_batch(work):
    pairs, rays, teacher = work
    ledger = Ledger(limits_of(pairs, 9))
    search = boundary_distance(pairs, rays, budget=ledger)
    noted, calls = waits_of(search, ledger, teacher)
    assert len(noted) <= noted.count("bracket_step") + 2 * calls + 4
    assert int(ledger.remaining.min()) == 0


def test_a_journal_copies_each_answer_to_the_cpu_once(work, tmp_path):
    pairs, rays, teacher = work
    ledger = Ledger(limits_of(pairs, 1000))
    search = boundary_distance(pairs, rays, budget=ledger)
    with Journal(tmp_path / "a", CLASSES, "run") as journal:
        noted, calls = waits_of(search, ledger, teacher, journal)
    # Per call: the accounts of the queries, and the answers.
    assert noted.count("cpu") == 2 * calls
