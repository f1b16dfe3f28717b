"""Other methods of extraction: what they choose, what they ask, and how they are compared."""

import itertools
import json
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from teachers_analytic import CountingTeacher, NearestCentroidTeacher
from torch import nn

pytest.importorskip("benchmarks.extraction.compare", reason="benchmarks are not installed")

from benchmarks.common import record
from benchmarks.common.generated import generated_images
from benchmarks.extraction import compare, methods, without_images
from benchmarks.extraction.generated_images import (
    Generator,
    GeneratorSettings,
    generate,
    high_entropy_images,
    imbalance,
)
from benchmarks.extraction.selection import greedy_k_centre, highest_entropy
from benchmarks.extraction.task import LimitedTeacher, Task
from db3kd.data.image_set import ImageSet
from db3kd.models import save_model
from db3kd.models.networks import build_model
from db3kd.pipelines import DistillSettings

SHAPE = (1, 8, 8)
CLASSES = 3
BUDGET = 40


def pool():
    images, labels = generated_images(SHAPE, CLASSES, 120, 0, torch.device("cpu"))
    return ImageSet.from_arrays(images, labels, "generated", CLASSES)


def centroids() -> NearestCentroidTeacher:
    images, labels = generated_images(SHAPE, CLASSES, 60, 1, torch.device("cpu"))
    means = torch.stack([images[labels == each].mean(0) for each in range(CLASSES)])
    return NearestCentroidTeacher(means, SHAPE)


def task(folder, images, budget=BUDGET, seed=0, steps=6) -> Task:
    teacher = LimitedTeacher(CountingTeacher(centroids(), keep=True), budget)
    return Task(teacher, images, budget, "mlp-quarter", steps, seed, folder)


@pytest.mark.parametrize("with_images", [False, True])
def test_students_train_as_those_of_db3kd(with_images, tmp_path):
    made = task(tmp_path, pool() if with_images else None)

    training = made.training
    usual = DistillSettings().completed(pseudo_samples=not with_images)

    assert training.learning_rate == usual.learning_rates[0] == (3e-3 if with_images else 0.05)
    for name in ("optimizer", "schedule", "weight_decay", "batch_size"):
        assert getattr(training, name) == getattr(usual.training, name)


def asked(made: Task) -> torch.Tensor:
    return torch.cat(made.teacher.images)


def run(name, made: Task):
    if name.startswith("ART"):
        pytest.importorskip("art", reason="ART is not installed")
    return ({**methods.WITH_IMAGES, **methods.WITHOUT_IMAGES})[name](made)


def covering_radius(points, centres) -> float:
    return max(min(math.dist(point, points[centre]) for centre in centres) for point in points)


coordinates = st.integers(-8, 8)
point_sets = st.lists(st.tuples(coordinates, coordinates), min_size=5, max_size=8, unique=True)


@given(point_sets, st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_k_centre_takes_the_farthest_row_and_is_within_twice_the_optimum(points, count):
    chosen = greedy_k_centre(torch.tensor(points).float(), torch.tensor([0]), count).tolist()
    centres = [0]
    for row in chosen:
        distances = [min(math.dist(point, points[each]) for each in centres) for point in points]
        assert distances[row] == pytest.approx(max(distances))
        centres.append(row)
    assert len(set(centres)) == count + 1
    others = itertools.combinations(range(len(points)), count + 1)
    best = min(covering_radius(points, each) for each in others)
    assert covering_radius(points, centres) <= 2 * best + 1e-9


def test_k_centre_knows_all_centres_and_needs_one():
    points = torch.arange(600.0)[:, None]
    assert greedy_k_centre(points, torch.arange(500), 2).tolist() == [599, 549]
    with pytest.raises(ValueError, match=r"^centres: expected at least one row"):
        greedy_k_centre(points, torch.empty(0, dtype=torch.int64), 1)


def test_entropy_takes_the_least_certain_rows_that_were_not_asked():
    # The entropy of (p, 1 - p) rises with p up to a half.
    shares = torch.tensor([0.1, 0.5, 0.0, 0.3, 0.4, 0.2])
    probabilities = torch.stack([shares, 1 - shares], 1)
    asked_rows = torch.tensor([4])
    assert highest_entropy(probabilities, asked_rows, 4).tolist() == [1, 3, 5, 0]


@pytest.mark.parametrize("name", methods.WITH_IMAGES)
def test_a_method_with_images_spends_its_budget_on_the_pool_alike_for_a_seed(name, tmp_path):
    made = task(tmp_path / "a", pool())
    first = run(name, made)
    assert made.teacher.asked == made.teacher.total == BUDGET
    if name != "db3kd auto":  # it also asks about mixed images
        given_images = pool().read(torch.arange(120)).flatten(1)
        known = {image.numpy().tobytes() for image in given_images}
        assert all(image.numpy().tobytes() in known for image in asked(made).flatten(1))
    again = run(name, task(tmp_path / "b", pool()))
    for one, other in zip(first.student.parameters(), again.student.parameters(), strict=True):
        assert torch.equal(one, other)
    changed = task(tmp_path / "c", pool(), seed=1)
    run(name, changed)
    assert not torch.equal(asked(made), asked(changed))


@pytest.mark.parametrize("name", methods.WITHOUT_IMAGES)
def test_a_method_without_images_spends_its_budget_alike_for_a_seed(name, tmp_path, monkeypatch):
    monkeypatch.setattr(without_images, "PER_ROUND", 50)
    made = task(tmp_path / "a", None, budget=120)
    first = run(name, made)
    assert made.teacher.asked == made.teacher.total == 120
    assert asked(made).min() >= 0
    assert asked(made).max() <= 1
    again = run(name, task(tmp_path / "b", None, budget=120))
    for one, other in zip(first.student.parameters(), again.student.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["random", "entropy", "k-centre"])
def test_a_selection_asks_about_no_image_twice(name, tmp_path):
    made = task(tmp_path, pool(), budget=110)
    extracted = run(name, made)
    assert extracted.facts["images_asked"] == made.teacher.asked == 110


def test_a_selection_of_a_small_pool_asks_about_all_of_it(tmp_path):
    made = task(tmp_path, pool(), budget=500)
    assert run("entropy", made).facts["images_asked"] == made.teacher.asked == 120


def test_the_teacher_refuses_images_beyond_the_budget():
    teacher = LimitedTeacher(centroids(), 5)
    teacher.decide(torch.rand(3, *SHAPE))
    with pytest.raises(RuntimeError, match=r"^images: expected at most 2 more of a budget of 5"):
        teacher.decide(torch.rand(3, *SHAPE))
    assert teacher.asked == 3


def test_the_default_reward_of_adaptive_knockoff_fails_on_hard_labels(tmp_path, monkeypatch):
    extraction = pytest.importorskip("art.attacks.extraction", reason="ART is not installed")
    usual = extraction.KnockoffNets

    def with_default_reward(*arguments, reward, **options):
        return usual(*arguments, **options)

    monkeypatch.setattr(extraction, "KnockoffNets", with_default_reward)
    with pytest.raises(ValueError, match="NaN"), pytest.warns(RuntimeWarning):
        run("ART KnockoffNets adaptive", task(tmp_path, pool()))


class TwoClasses(nn.Module):
    """The class is decided by the mean of an image, at a half."""

    def forward(self, images):
        mean = images.flatten(1).mean(1)
        return torch.stack([10 * (0.5 - mean), 10 * (mean - 0.5)], 1)


def test_balance_is_least_for_equal_classes():
    equal = imbalance(torch.tensor([[9.0, 0.0], [0.0, 9.0]]))
    assert equal == pytest.approx(-math.log(2), abs=1e-4)
    assert imbalance(torch.tensor([[9.0, 0.0], [9.0, 0.0]])) > equal


def test_a_generator_learns_images_of_all_classes_by_the_student():
    trained = GeneratorSettings(steps=60, rate=1e-2, noise_rate=0.0, balance=1.0, smoothing=0.0)
    short = GeneratorSettings(steps=1, rate=1e-2, noise_rate=0.0, balance=1.0, smoothing=0.0)
    made = [
        generate(TwoClasses(), SHAPE, 2, 64, each, torch.Generator().manual_seed(0))
        for each in (short, trained)
    ]
    sure = [TwoClasses()(images).softmax(1).max(1).values.mean() for images in made]
    assert sure[1] > sure[0] + 0.1
    share = TwoClasses()(made[1]).argmax(1).double().mean()
    assert 0.2 < share < 0.8
    assert made[1].shape == (64, *SHAPE)
    assert made[1].min() >= 0
    assert made[1].max() <= 1


def test_a_generator_refuses_sides_that_it_cannot_double_twice():
    with pytest.raises(ValueError, match=r"^shape: expected sides that are multiples of 4"):
        Generator((1, 30, 30))


def test_high_entropy_images_lie_at_the_boundary_of_the_student():
    # Every pixel moves towards a mean of a half, by a step at most in each of the steps.
    images = torch.full((2, *SHAPE), 0.5) + torch.tensor([0.2, -0.2]).view(2, 1, 1, 1)
    moved = high_entropy_images(TwoClasses(), images, steps=3, step=0.05)
    assert torch.allclose(moved.flatten(1).mean(1), torch.tensor([0.55, 0.45]))
    settled = high_entropy_images(TwoClasses(), images, steps=10, step=0.05)
    assert (settled.flatten(1).mean(1) - 0.5).abs().max() < 0.05


def test_a_stopped_comparison_goes_on_after_its_last_row(tmp_path, monkeypatch):
    monkeypatch.setattr(record, "RESULTS", tmp_path)
    save_model(
        tmp_path / "teacher.safetensors",
        build_model("linear", SHAPE, 10),
        model="linear",
        image_shape=SHAPE,
        classes=10,
    )
    command = [
        "compare", "--data", "digits", "--teacher", str(tmp_path / "teacher.safetensors"),
        "--images", "60", "--budgets", "20", "--steps", "2", "--save", "extraction-x",
        "--runs", str(tmp_path / "runs"), "--teacher-model", "linear",
        "--methods", "random", "entropy",
    ]  # fmt: skip
    monkeypatch.setattr("sys.argv", command[:-1])
    compare.main()
    ran = []
    monkeypatch.setattr(
        compare,
        "WITH_IMAGES",
        {
            name: lambda task, name=name, method=method: ran.append(name) or method(task)
            for name, method in methods.WITH_IMAGES.items()
        },
    )
    monkeypatch.setattr("sys.argv", command)
    compare.main()
    assert ran == ["entropy"]
    rows = json.loads((tmp_path / "extraction-x.json").read_text())["rows"]
    assert [(row["method"], row["queries"]) for row in rows] == [("random", 20), ("entropy", 20)]


def test_methods_must_fit_the_images(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["compare", "--images", "0", "--methods", "random"])
    with pytest.raises(SystemExit):
        compare.main()
    assert "--methods: expected methods without images, got random" in capsys.readouterr().err
