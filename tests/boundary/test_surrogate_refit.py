"""A surrogate that is trained further on the answers of the search that it guides."""

import copy

import pytest
import torch
from teachers_analytic import CountingTeacher, LinearTeacher, RaisingTeacher
from torch import nn

from db3kd.boundary import (
    Pairs,
    SignOptSettings,
    StartingPoints,
    Surrogate,
    boundary_distance,
    minimal_boundary_distance,
    training_digest,
)
from db3kd.boundary.input_gradients import with_fast_input_gradients
from db3kd.boundary.surrogate_refit import AnswerSample, _training_digest, refit
from db3kd.data.image_source import TensorImages
from db3kd.labelling import chunk_search
from db3kd.labelling.label_files import load_labels
from db3kd.labelling.run_writer import write_run
from db3kd.labelling.settings import LabelSettings
from db3kd.labelling.source import Source
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.querying.search import Query
from db3kd.teachers import ModuleTeacher, TeacherError

SIDE = 40
PAIRS = 150


def gaussian(n, dimensions=SIDE, seed=0):
    return torch.randn(n, dimensions, generator=torch.Generator().manual_seed(seed))


def linear_teacher():
    return LinearTeacher(gaussian(2, seed=7), torch.zeros(2), bounds=(-100.0, 100.0))


def poor_network(teacher):
    """A network that learned the teacher's decisions on 200 images."""
    torch.manual_seed(0)
    network = nn.Sequential(nn.Linear(SIDE, 128), nn.ReLU(), nn.Linear(128, 2))
    images = gaussian(200, seed=3)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(50):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images), teacher.decide(images)).backward()
        optimizer.step()
    return network


def search(teacher, refits, network, pairs=PAIRS, limit=60, query_batch_size=512):
    """MBD of pairs of a sample and the other class, and the ledger."""
    samples, number = gaussian(pairs, seed=1), torch.arange(pairs)
    searched = Pairs(samples, number, number, 1 - teacher.decide(samples), bounds=teacher.bounds)
    pool = gaussian(200, seed=2)
    rays = StartingPoints(TensorImages(pool), teacher.decide(pool), 5).rays(searched)
    ledger = Ledger(torch.full((pairs,), limit))
    surrogate = Surrogate(network, (SIDE,), 2)

    def searches():
        boundary = yield from boundary_distance(
            searched, rays, relative=0.03, budget=ledger, surrogate=surrogate
        )
        yield from minimal_boundary_distance(
            searched,
            boundary,
            (SIDE,),
            SignOptSettings(surrogate_refits=refits),
            seed=0,
            query_batch_size=query_batch_size,
            budget=ledger,
            surrogate=surrogate,
        )
        return boundary

    return searched, run(searches(), teacher, ledger), ledger


def test_refits_bring_a_poor_surrogate_nearer_to_the_optimum():
    teacher = linear_teacher()
    network = poor_network(teacher)
    before = copy.deepcopy(network.state_dict())
    pairs, plain, _ = search(teacher, None, network)
    _, refitted, _ = search(teacher, 4, network)
    gap = (teacher.scores(pairs.samples) @ torch.tensor([1.0, -1.0]).double()).abs()
    optimum = gap / (teacher.weights[0] - teacher.weights[1]).norm()
    excess = (plain.distance / optimum).mean() - 1, (refitted.distance / optimum).mean() - 1
    assert excess[1] < 0.8 * excess[0]
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


def test_with_refits_every_point_is_confirmed_and_budgets_are_kept():
    teacher = CountingTeacher(linear_teacher())
    pairs, boundary, ledger = search(teacher, 3, poor_network(linear_teacher()), limit=50)
    assert torch.equal(linear_teacher().decide(boundary.points), pairs.criterion_class)
    length = (boundary.points - pairs.samples).norm(dim=1)
    torch.testing.assert_close(boundary.distance, length, rtol=1e-4, atol=1e-5)
    assert int(ledger.spent.max()) <= 50
    assert teacher.total == int(ledger.spent.sum()) + 200 + PAIRS  # the pool and the samples


@pytest.mark.parametrize(("more_threads", "query_batch_size"), [(1, 512), (0, 77)])
def test_refits_do_not_depend_on_threads_or_batches(more_threads, query_batch_size):
    teacher, threads = linear_teacher(), torch.get_num_threads()
    _, one, _ = search(teacher, 2, poor_network(teacher))
    network = poor_network(teacher)
    try:
        torch.set_num_threads(threads + more_threads)
        _, other, _ = search(teacher, 2, network, query_batch_size=query_batch_size)
        assert torch.get_num_threads() == threads + more_threads
    finally:
        torch.set_num_threads(threads)
    assert torch.equal(one.points, other.points)


def test_a_search_with_few_answers_keeps_the_surrogate():
    teacher = linear_teacher()
    _, plain, _ = search(teacher, None, poor_network(teacher), pairs=20)
    _, refitted, _ = search(teacher, 4, poor_network(teacher), pairs=20)
    assert torch.equal(plain.points, refitted.points)


def answers_of(sizes, values=SIDE, unanswered=()):
    """Answers of batches of these sizes; image i is filled with i and in class i."""
    sample, start = AnswerSample(values), 0

    def batches():
        nonlocal start
        for size in sizes:
            numbers = torch.arange(start, start + size)
            start += size
            yield Query(numbers[:, None].float().expand(-1, values), numbers)
        return "done"

    watched = sample.watch(batches())
    query = next(watched)
    while True:
        missing = torch.isin(query.accounts, torch.tensor(unanswered, dtype=torch.int64))
        try:
            query = watched.send(query.accounts.masked_fill(missing, -1))
        except StopIteration as finished:
            assert finished.value == "done"
            return sample


def test_answers_are_kept_with_their_images_without_those_that_were_refused():
    sample = answers_of([3, 1, 4], unanswered=(2, 3))
    assert sample.classes.tolist() == [0, 1, 4, 5, 6, 7]
    assert torch.equal(sample.images[:, 0].long(), sample.classes)


def test_a_sample_of_many_answers_is_even_and_does_not_depend_on_batches():
    values = 2**24 // 1200
    one, other = answers_of([700] * 9, values), answers_of([6300], values)
    assert one.classes.tolist() == list(range(0, 6300, 8))
    assert torch.equal(one.images, other.images) and torch.equal(one.classes, other.classes)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda layer: layer.double(), "not float32"),
        (lambda layer: nn.Sequential(nn.Flatten()), "no weights"),
        (lambda layer: nn.Sequential(layer, NotFinite()), "no finite loss"),
    ],
)
def test_a_network_that_cannot_be_trained_stays_as_it_is(change, reason):
    network = change(nn.Linear(SIDE, 2000)).requires_grad_(False)
    before = copy.deepcopy(network.state_dict())
    assert not refit(network, answers_of([1500]), (SIDE,), 0), reason
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


class NotFinite(nn.Module):
    def forward(self, scores):
        return scores * torch.inf


def test_weights_of_convolutions_with_fast_input_gradients_are_trained_too():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Unflatten(1, (1, 8, 5)), nn.Conv2d(1, 2, 3), nn.Conv2d(2, 4, 3), nn.Flatten(),
        nn.Linear(16, 2000),
    )  # fmt: skip
    with_fast_input_gradients(network.requires_grad_(False))
    before = copy.deepcopy(network.state_dict())
    with torch.inference_mode():
        assert refit(network, answers_of([1500]), (SIDE,), 0)
    assert not any(torch.equal(before[name], now) for name, now in network.state_dict().items())
    assert not any(weights.requires_grad for weights in network.parameters())


def test_the_training_digest_does_not_change_the_random_state():
    state = torch.get_rng_state()
    assert _training_digest.__wrapped__() == training_digest()
    assert torch.equal(state, torch.get_rng_state())


def write_digits(folder, most, resume=False, refits=2):
    """Labels 150 digits with refits, by a teacher that fails after `most` queries."""
    torch.manual_seed(3)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 10, bias=False)).eval()
    teacher = RaisingTeacher(ModuleTeacher(network, (1, 8, 8), 10, max_batch=64), most)
    few = LabelSettings(
        queries_per_pair=60, starting_points=3, sign_opt=SignOptSettings(surrogate_refits=refits)
    )
    other = nn.Sequential(nn.Flatten(), nn.Linear(64, 10)).eval()
    return write_run(
        folder, teacher, Source("digits"), few, limit=150, resume=resume, surrogate=other
    )


def test_a_resumed_run_with_refits_equals_an_uninterrupted_one(tmp_path, monkeypatch):
    with pytest.raises(TeacherError):
        write_digits(tmp_path / "run", 12_000)
    with monkeypatch.context() as patched:
        patched.setattr(chunk_search, "training_digest", lambda: "other")
        with pytest.raises(ValueError, match=r"settings\.training_digest: was"):
            write_digits(tmp_path / "run", 10**6, resume=True)
    stopped = write_digits(tmp_path / "run", 10**6, resume=True)
    whole = write_digits(tmp_path / "whole", 10**6)
    assert vars(stopped) == vars(whole)
    write_digits(tmp_path / "plain", 10**6, refits=None)
    one, other, plain = (load_labels(tmp_path / name) for name in ("run", "whole", "plain"))
    assert torch.equal(one.distances, other.distances)
    assert not torch.equal(one.distances, plain.distances)
