"""The peers of db3kd: the paper's procedure, other libraries, and how they are measured."""

import json
import sys

import numpy as np
import pytest
import torch
from teachers_analytic import BallTeacher, CountingTeacher, LinearTeacher
from torch import nn

from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data
from db3kd.models import build_model, save_model

pytest.importorskip("benchmarks.peers.compare", reason="benchmarks are not installed")

from benchmarks.common import record
from benchmarks.common.setting import load_network, parser
from benchmarks.peers import compare as peers
from benchmarks.peers import surrogate_budgets
from benchmarks.peers.attacks import ATTACKS, NEEDS, SURROGATES, Task, run_pair_by_pair
from benchmarks.peers.curves import (
    Curve,
    best_peer,
    counting_training,
    equal_distance,
    reaching,
)
from benchmarks.peers.linear_optimum import linear_optimum
from benchmarks.peers.measuring_teacher import BudgetSpent, MeasuringTeacher, Trace
from benchmarks.peers.paper_procedure import paper_search
from benchmarks.peers.problem import NETWORKS, Problem, _padded
from benchmarks.peers.process import curve_counts, measure
from benchmarks.peers.whitebox import minimum_norm

SOURCE, TARGET, SIZE = 0, 1, 16


class NumpyTeacher:
    """A teacher as the procedure asks it: with NumPy arrays of one image."""

    def __init__(self, teacher) -> None:
        self.teacher = CountingTeacher(teacher)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        assert images.shape == (1, SIZE)
        assert images.dtype == np.float32
        assert images.min() >= 0
        assert images.max() <= 1
        return self.teacher.decide(torch.from_numpy(images)).numpy()

    @property
    def queries(self) -> int:
        return self.teacher.total


def plane() -> LinearTeacher:
    """Class 1 behind a plane that is 0.2 away from the middle of the box."""
    normal = torch.randn(SIZE, generator=torch.Generator().manual_seed(0))
    normal /= normal.norm()
    weights = torch.stack([torch.zeros(SIZE), normal])
    return LinearTeacher(weights, torch.tensor([0.0, -0.2 - 0.5 * normal.sum().item()]))


def middle() -> np.ndarray:
    return np.full(SIZE, 0.5, np.float32)


def starts_in(teacher, count: int) -> np.ndarray:
    """Random images of class 1."""
    images = torch.rand(2000, SIZE, generator=torch.Generator().manual_seed(1))
    return images[teacher.decide(images) == TARGET][:count].numpy()


def run(measure, teacher, budget=1000, starts=None, **options):
    asked = NumpyTeacher(teacher)
    starts = starts_in(teacher, 5) if starts is None else starts
    random = np.random.default_rng(0)
    sign_opt = measure == "mbd"
    distance, queries = paper_search(
        asked, middle(), SOURCE, TARGET, starts, budget, random, sign_opt=sign_opt, **options
    )
    assert queries == asked.queries
    return distance, queries


def test_the_papers_start_finds_where_the_best_ray_meets_the_plane():
    teacher = plane()
    starts = starts_in(teacher, 5)
    rays = (starts - middle()) / np.linalg.norm(starts - middle(), axis=1, keepdims=True)
    crossings = 0.2 / (rays @ teacher.weights[1].numpy())

    distance, _ = run("bd", teacher, starts=starts)

    assert distance == pytest.approx(crossings.min(), abs=2e-5)


def test_a_direction_that_misses_at_the_best_radius_costs_one_query():
    teacher = plane()
    starts = starts_in(teacher, 200)
    rays = (starts - middle()) / np.linalg.norm(starts - middle(), axis=1, keepdims=True)
    order = np.argsort(-(rays @ teacher.weights[1].numpy()))
    best_and_worst = starts[order[[0, -1]]]

    _, alone = run("bd", teacher, starts=best_and_worst[:1])
    _, both = run("bd", teacher, starts=best_and_worst)

    assert both == alone + 1


def test_the_papers_descent_gets_near_the_distance_of_a_plane():
    start, _ = run("bd", plane())
    distance, _ = run("mbd", plane(), budget=4000)
    assert 0.2 - 1e-6 <= distance < 0.2 * 1.05 < start


def test_the_papers_descent_gets_near_the_distance_of_a_ball():
    center = torch.full((SIZE,), 0.5)
    center[0] = 0.9
    teacher = BallTeacher(center, 0.3)
    inside = center.numpy()[None] + np.float32(0.05)
    distance, _ = run("mbd", teacher, budget=4000, starts=inside.astype(np.float32))
    assert 0.1 - 1e-6 <= distance < 0.105


@pytest.mark.parametrize("measure", ["bd", "mbd"])
@pytest.mark.parametrize("budget", [0, 1, 7, 100, 333])
def test_the_papers_procedure_never_exceeds_its_budget(measure, budget):
    distance, queries = run(measure, plane(), budget=budget)
    assert queries <= budget
    assert np.isfinite(distance)  # the nearest start is known without a query


def test_the_papers_procedure_without_starts_returns_infinity_and_asks_nothing():
    empty = np.empty((0, SIZE), np.float32)
    assert run("mbd", plane(), starts=empty) == (np.inf, 0)


def test_progress_falls_to_the_result():
    seen = []
    distance, queries = run(
        "mbd", plane(), on_progress=lambda queries, best: seen.append((queries, best))
    )
    counts, best = zip(*seen, strict=True)
    assert list(counts) == sorted(counts)
    assert list(best) == sorted(best, reverse=True)
    assert best[-1] == distance
    assert counts[-1] <= queries


def test_the_source_class_is_no_target():
    with pytest.raises(ValueError, match="target: expected a class other than source, 0, got 0"):
        random = np.random.default_rng(0)
        paper_search(None, middle(), 0, 0, starts_in(plane(), 1), 10, random, sign_opt=True)


def test_the_linear_optimum_is_the_distance_to_the_plane_if_the_bounds_are_far():
    teacher = plane()
    images = torch.from_numpy(middle())[None]
    found = linear_optimum(teacher.weights, teacher.bias, images, torch.tensor([TARGET]))
    assert found.item() == pytest.approx(0.2, abs=1e-7)


def test_the_linear_optimum_goes_along_a_bound_if_the_plane_is_beyond_it():
    weights, bias = torch.tensor([[0.0, 0.0], [10.0, 1.0]]), torch.tensor([0.0, -10.5])
    found = linear_optimum(weights, bias, torch.tensor([[0.9, 0.1]]), torch.tensor([1]))
    assert found.item() == pytest.approx(np.hypot(0.1, 0.4), abs=1e-7)


def test_the_linear_optimum_beats_all_other_classes_at_once():
    # Class 2 needs y > x and y > 0.6: from (0.5, 0.1) the corner (0.5, 0.6) is nearest.
    weights = torch.tensor([[1.0, 0.0], [0.0, 0.0], [0.0, 1.0]])
    bias = torch.tensor([0.0, 0.6, 0.0])
    found = linear_optimum(weights, bias, torch.tensor([[0.5, 0.1]]), torch.tensor([2]))
    assert found.item() == pytest.approx(0.5, abs=1e-7)


def test_a_class_that_no_image_has_is_infinitely_far():
    weights, bias = torch.zeros(2, 4), torch.tensor([1.0, 0.0])
    found = linear_optimum(weights, bias, torch.rand(3, 4), torch.ones(3, dtype=torch.int64))
    assert found.isinf().all()


def measuring_teacher(budget: int = 10) -> MeasuringTeacher:
    """Two pairs of two pixels; class 1 if the first pixel is above one half."""
    teacher = LinearTeacher(torch.tensor([[0.0, 0.0], [1.0, 0.0]]), torch.tensor([0.0, -0.5]))
    samples = torch.tensor([[0.0, 0.0], [0.25, 0.0]])
    return MeasuringTeacher(
        teacher, samples, torch.tensor([1, 1]), torch.tensor([1.0, 1.0]), budget
    )


def test_a_measuring_teacher_keeps_the_nearest_hit_of_each_pair_by_queries():
    measuring = measuring_teacher()
    with measuring.searching():
        measuring.ask(torch.tensor([[0.75, 0.0], [0.25, 0.0]]), np.array([0, 0]))
        measuring.ask(torch.tensor([[0.625, 0.0], [0.75, 0.0], [0.5625, 0.0]]), np.array([0, 1, 0]))

    trace = measuring.trace(np.array([1, 2, 3, 9]))

    assert trace.distance[0].tolist() == [0.75, 0.75, 0.625, 0.5625]
    assert trace.distance[1].tolist() == [0.5, 0.5, 0.5, 0.5]
    assert measuring.points.tolist() == [[0.5625, 0.0], [0.75, 0.0]]
    assert measuring.queries.tolist() == [4, 1]
    assert measuring.asked == 5
    assert (measuring.missed(), measuring.unconfirmed()) == (0, 0)


def test_a_measuring_teacher_asks_images_inside_the_bounds_and_measures_them_there():
    measuring = measuring_teacher()
    with measuring.searching():
        measuring.ask(torch.tensor([[3.0, 0.0]]), np.array([0]))
    assert measuring.trace(np.array([1])).distance[0].item() == 1.0


def test_a_pair_that_no_query_hits_keeps_what_it_had_and_is_counted():
    measuring = measuring_teacher()
    with measuring.searching():
        measuring.ask(torch.tensor([[0.25, 0.0]]), np.array([0]))
    assert measuring.trace(np.array([5])).distance[:, 0].tolist() == [1.0, 1.0]
    assert measuring.missed() == 2


def test_a_measuring_teacher_answers_nothing_beyond_the_budget():
    measuring = measuring_teacher(budget=2)
    with pytest.raises(BudgetSpent), measuring.searching():
        measuring.ask(torch.zeros(2, 2), np.array([0, 1]))
        measuring.ask(torch.zeros(3, 2), np.array([0, 0, 1]))
    assert measuring.queries.tolist() == [1, 1]
    assert measuring.asked == 2


def test_seconds_of_searches_one_after_another_add_up():
    measuring = measuring_teacher()
    for pair in (0, 1):
        with measuring.searching():
            measuring.ask(torch.zeros(1, 2), np.array([pair]))
    seconds = measuring.trace(np.array([1])).seconds.item()
    assert 0 < measuring.in_teacher <= seconds <= measuring.wall


def curve_of(queries, mean, seconds=None) -> Curve:
    mean = np.array(mean, float)
    seconds = np.array(queries, float) / 100 if seconds is None else np.array(seconds, float)
    return Curve(np.array(queries), seconds, mean, mean, mean)


def test_a_curve_is_of_the_ratios_of_its_pairs():
    trace = Trace(np.array([1]), np.array([[2.0], [3.0], [8.0]]), np.array([0.5]))
    point = Curve.of(trace, np.array([1.0, 2.0, 2.0])).at(1)
    expected = {"seconds": 0.5, "mean": 2.5, "median": 2.0, "of_means": 13 / 5}
    assert point == pytest.approx(expected)


def test_a_curve_is_written_point_by_point_to_five_digits():
    points = curve_of([100, 1234567], [2.0, 1.234567]).points()
    assert points["queries"] == [100, 1234567]
    assert points["seconds"] == [1, 12346]
    assert points["mean"] == points["median"] == [2, 1.2346]


def test_what_a_distance_costs_lies_on_the_line_between_two_points():
    mean, cost = np.array([3.0, 2.0, 2.0, 1.0]), np.array([10, 20, 30, 40])
    assert reaching(2.5, mean, cost) == 15
    assert reaching(2.0, mean, cost) == 20
    assert reaching(1.25, mean, cost) == 37.5
    assert reaching(4.0, mean, cost) == 10
    assert reaching(0.5, mean, cost) == np.inf


def test_equal_distance_charges_each_search_its_cost():
    ours = curve_of([100, 200, 400], [3.0, 2.0, 1.5])
    peer = curve_of([100, 200, 400], [3.5, 2.5, 2.5], seconds=[2, 4, 8])
    (row,) = equal_distance(ours, {"peer": peer}, [400])["peer"]
    assert (row["ratio"], row["peer_queries"], row["our_queries"]) == (2.5, 200, 150)
    assert (row["queries_over_peer"], row["seconds_over_peer"]) == (0.75, 1.5 / 4)


def test_the_best_peer_is_the_one_that_gets_as_near_for_least():
    ours = curve_of([100, 200], [2.0, 1.0])
    slow = curve_of([100, 200, 400], [4.0, 3.0, 2.0], seconds=[1, 2, 4])
    dear = curve_of([100, 200, 800], [4.0, 3.0, 2.0], seconds=[1, 1.5, 2])
    near, far = best_peer(ours, {"slow": slow, "dear": dear}, [100, 200])
    assert (near["peer_by_queries"], near["queries_over_peer"]) == ("slow", 0.25)
    assert (near["peer_by_seconds"], near["seconds_over_peer"]) == ("dear", 0.5)
    assert far["peer_by_queries"] is None
    assert far["queries_over_peer"] is None


def test_training_queries_are_divided_among_the_pairs_that_share_them():
    ours = curve_of([100, 200], [2.0, 1.0])
    others = {"near": curve_of([100, 400], [4.0, 2.0]), "far": curve_of([100, 400], [5.0, 3.0])}
    near, far = counting_training(ours, others, 1000, (10, 100), [100, 200])
    assert (near["other"], near["other_queries"]) == ("near", 400)
    assert near["over_other"] == {"10": 200 / 400, "100": 110 / 400}
    assert far["other"] is None and far["over_other"] == {"10": None, "100": None}


def test_a_curve_goes_through_all_budgets():
    counts = curve_counts([50, 123, 1000])
    assert {50, 123, 1000} <= set(counts)
    assert counts == sorted(counts)
    assert counts[-1] == 1000


@pytest.fixture(scope="module")
def problem() -> Problem:
    """Three pairs of a linear teacher of four classes, with the true distance of each."""
    torch.manual_seed(0)
    shape, classes = (1, 6, 6), 4
    network = build_model("linear", shape, classes)
    images = torch.rand(600, *shape)
    with torch.no_grad():
        layer = network[-1]
        layer.bias -= network(images).mean(0)
        decided = network(images).argmax(1)
    weights, bias = layer.weight.detach(), layer.bias.detach()
    samples, source = images[:3], decided[:3]
    target = (source + 1) % classes
    starts = []
    for sample, reached in zip(samples, target, strict=True):
        members = images[decided == reached]
        near = (members - sample).flatten(1).norm(dim=1).argsort()[:4]
        starts.append(members[near])
    exact = linear_optimum(weights, bias, samples.flatten(1), target)
    surrogates = {
        name: build_model(f"{name}*{NETWORKS}", shape, classes).state_dict()
        for name in sum(SURROGATES.values(), ())
    }
    return Problem(
        kind="linear", classes=classes, state=network.state_dict(), data="random",
        samples=samples, index=torch.arange(3), source=source, target=target,
        starts=torch.stack(starts), optimum=exact.float(), exact=exact, surrogates=surrogates,
    )  # fmt: skip


@pytest.mark.parametrize("attack", ATTACKS)
def test_each_search_stays_within_its_budget_and_above_the_truth(problem, attack):
    for name, package in NEEDS.items():
        if attack.startswith(name):
            pytest.importorskip(package)
    measured = measure(problem, attack, np.array([20, 60, 150]), seed=0)

    known = (problem.starts[:, 0] - problem.samples).flatten(1).norm(dim=1).numpy()
    distance = measured.trace.distance
    assert measured.errors == []
    assert measured.missed == 0
    assert 0 < measured.queries <= 150
    assert (distance >= problem.exact.numpy()[:, None] * (1 - 1e-4)).all()
    assert (np.diff(distance, axis=1) <= 0).all()
    assert (distance[:, -1] <= known * (1 + 1e-6)).all()
    assert (np.diff(measured.trace.seconds) >= 0).all()
    assert 0 < measured.in_teacher <= measured.wall
    assert measured.mebibytes >= measured.before > 0


def test_the_same_seed_asks_the_same(problem):
    first, second = (measure(problem, "paper MBD", np.array([300]), seed=1) for _ in range(2))
    assert (first.trace.distance == second.trace.distance).all()


def test_the_measured_distance_is_the_one_that_the_papers_procedure_reports(problem):
    network = problem.network()

    def decide(images):
        batch = torch.from_numpy(images).view(-1, *problem.image_shape)
        return network(batch).argmax(1).numpy()

    measured = measure(problem, "paper BD", np.array([150]), seed=0)

    for pair in range(len(problem)):
        distance, _ = paper_search(
            decide, problem.samples[pair].flatten().numpy(), int(problem.source[pair]),
            int(problem.target[pair]), problem.starts[pair].flatten(1).numpy(), 150,
            np.random.default_rng(0), sign_opt=False,
        )  # fmt: skip
        assert measured.trace.distance[pair, 0] == pytest.approx(distance, rel=1e-5)


def test_a_peer_that_fails_ends_its_search_and_no_other(problem, monkeypatch):
    def fail_on_second(task: Task) -> list[str]:
        def attack(pair: int) -> None:
            task.measuring.ask(problem.starts[pair, :1], np.array([pair]))
            if pair == 1:
                raise AssertionError("not adversarial")

        return run_pair_by_pair(task, attack)

    monkeypatch.setitem(ATTACKS, "failing", fail_on_second)
    measured = measure(problem, "failing", np.array([5]), seed=0)
    assert measured.errors == ["AssertionError: not adversarial"]
    assert measured.queries == 1


def test_the_command_writes_figures_and_curves(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    arguments = "peers --teacher-model linear --data digits --teacher-epochs 2 --pairs 2 --starts 3"
    arguments += " --budgets 20 60 --white-box-steps 30 --threads 1 --save smoke"
    arguments += " --surrogate-images 20 --surrogate-queries 3 --surrogate-steps 2"
    attacks = ["db3kd MBD", "db3kd MBD, lenet5-half", "paper MBD"]
    monkeypatch.setattr(sys, "argv", [*arguments.split(), "--attacks", *attacks])

    apart = peers.measure_apart

    def measured(problem, attack, counts, *, threads, seed):
        """Starts a process for the first attack alone: another one would import all again."""
        if attack == attacks[0]:
            return apart(problem, attack, counts, threads=threads, seed=seed)
        return measure(Problem.load(problem), attack, np.array(counts), seed)

    monkeypatch.setattr(peers, "measure_apart", measured)

    peers.main()

    result = json.loads((tmp_path / "smoke.json").read_text())
    assert result["pairs"] == 2
    assert list(result["attacks"]) == attacks
    assert result["surrogates"]["surrogate_queries"] == 3
    counted = result["counting_training"]
    assert list(counted) == attacks[1:2]
    for row in counted[attacks[1]]:
        assert list(row["over_other"]) == ["10", "100", "1000"]
    for attack in result["attacks"].values():
        assert attack["queries_a_pair"] <= 60
        assert set(attack["at"]) == set(attack["over_exact"]) == {"20", "60"}
        assert attack["over_exact"]["60"]["mean"] >= 1 - 1e-4
    assert result["white_box_over_exact"]["least"] >= 1 - 1e-4
    for ours in attacks[:2]:
        rows = result["equal_distance"][ours]["paper MBD"]
        assert [row["budget"] for row in rows] == [20, 60]
        assert [row["budget"] for row in result["best_peer"][ours]] == [20, 60]
    assert set(result["curves"]) == set(result["attacks"])
    last = result["attacks"]["paper MBD"]["at"]["60"]["mean"]
    assert result["curves"]["paper MBD"]["queries"][-1] == 60
    assert result["curves"]["paper MBD"]["mean"][-1] == pytest.approx(last, rel=1e-4)
    assert [file.name for file in tmp_path.iterdir()] == ["smoke.json"]
    assert "db3kd MBD at" in capsys.readouterr().out


def test_grey_images_are_padded_for_alexnet():
    pixels = torch.arange(3 * 28 * 28).remainder(256).byte().view(3, 1, 28, 28)
    images = ImageSet.from_arrays(pixels, [2, 0, 1], "grey")
    padded = _padded(images)

    assert padded.image_shape == (3, 32, 32) and padded.labels.tolist() == [2, 0, 1]
    shown = (padded.read(range(3)) * 255).round().byte()
    assert torch.equal(shown[:, :, 2:30, 2:30], pixels.expand(-1, 3, -1, -1))
    assert shown[:, :, :2].sum() == shown[:, :, :, 30:].sum() == 0


def test_a_teacher_of_another_network_is_refused(tmp_path, monkeypatch):
    file = tmp_path / "teacher.safetensors"
    save_model(file, build_model("linear", (1, 8, 8), 10), model="linear", image_shape=(1, 8, 8),
               classes=10)  # fmt: skip
    images = load_data("digits")
    monkeypatch.setattr(sys, "argv", ["command", "--teacher", str(file)])
    with pytest.raises(SystemExit, match=r"expected lenet5 for 10 classes .*got linear"):
        load_network(parser(None).parse_args(), images)
    monkeypatch.setattr(sys, "argv", [*sys.argv, "--teacher-model", "linear"])
    loaded = load_network(parser(None).parse_args(), images)
    assert torch.equal(loaded(torch.zeros(1, 1, 8, 8)), loaded[1].bias.detach()[None])


class Plateau(nn.Module):
    """Class 1 from a mean of 0.65 on; its score has no gradient below a mean of 0.6."""

    def forward(self, images):
        mean = images.flatten(1).mean(1)
        return torch.stack([torch.full_like(mean, 0.5), 10 * (mean - 0.6).relu()], 1)


def test_a_white_box_attack_without_a_gradient_begins_at_an_image_of_the_class():
    images, target = torch.full((2, 1, 4, 4), 0.2), torch.ones(2, dtype=torch.int64)
    assert minimum_norm(Plateau(), images, target).isinf().all()
    found = minimum_norm(Plateau(), images, target, starts=torch.ones_like(images))
    torch.testing.assert_close(found, torch.full((2,), 0.45 * 4), rtol=5e-3, atol=0)


def test_a_pair_is_measured_with_surrogates_of_the_images_of_a_run(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    arguments = "surrogate_budgets --teacher-model linear --data digits --teacher-epochs 2"
    arguments += " --images 30 --training 90 600 --queries 5 20 --pairs 4 --model linear"
    arguments += " --steps 5 --threads 1 --labelled digits --save smoke"
    monkeypatch.setattr(sys, "argv", arguments.split())

    surrogate_budgets.main()

    rows = json.loads((tmp_path / "smoke.json").read_text())["rows"]
    assert [(row["images"], row["training"]) for row in rows] == [(30, 0), (30, 90), (30, 600)]
    assert rows[0]["agreement"] is None and 0 <= rows[2]["agreement"] <= 1
    for row in rows:
        assert row["5"] >= row["20"] >= 0.99, "not nearer than the white-box optimum"
