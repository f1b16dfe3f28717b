"""Methods of training that measurements compare, and their table."""

from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

pytest.importorskip("benchmarks.students.methods", reason="benchmarks are not installed")

from teachers_analytic import CountingTeacher

from benchmarks.students.baselines import (
    augmented_decision_method,
    combined_method,
    noise_logit_method,
    noise_soft_labels,
    surrogate_method,
    white_box_method,
)
from benchmarks.students.methods import (
    MethodResult,
    TrainingMethod,
    compare_methods,
    decision_method,
    method_table,
    soft_label_method,
)
from db3kd.data.augmented_images import AugmentedImages
from db3kd.surrogates.augmented_decisions import AugmentedDecisions
from db3kd.surrogates.queries import decide_augmented
from db3kd.teachers import ModuleTeacher
from db3kd.training.evaluation import predict
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier, train_on_soft_labels

SETTINGS = TrainSettings(steps=60, batch_size=64, learning_rate=1e-2, device="cpu")


def network(hidden: int) -> nn.Module:
    """A perceptron for digits."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


student = partial(network, 16)


class Digits:
    """Digits, a teacher trained on some of them, and its decisions for transfer and test sets."""

    def __init__(self) -> None:
        found = load_digits()
        images = torch.tensor(found.images[:, None] / 16, dtype=torch.float32)
        labels = torch.tensor(found.target)
        self.logits = train_classifier(
            partial(network, 32), images[:1000], labels[:1000], settings=SETTINGS
        )
        self.teacher = ModuleTeacher(self.logits, (1, 8, 8), 10)
        self.images = images[1000:1200]
        self.decisions = predict(self.logits, self.images)
        self.test_images, self.test_labels = images[1200:], labels[1200:]
        self.test_decisions = predict(self.logits, self.test_images)

    def compare(
        self, *methods: TrainingMethod, seeds: tuple[int, ...] = (0, 1)
    ) -> list[MethodResult]:
        """Measures students of several methods on the test set."""
        return compare_methods(
            methods, seeds, self.test_images, self.test_labels, self.test_decisions
        )


def weights(model: nn.Module) -> Tensor:
    """All weights of a network as one vector."""
    return nn.utils.parameters_to_vector(model.parameters()).detach()


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def asked_about(digits: Digits, per_sample: int) -> AugmentedDecisions:
    return decide_augmented(digits.teacher, AugmentedImages(digits.images, per_sample, seed=0))


def soft_labels_of(digits: Digits) -> Tensor:
    return F.softmax(digits.logits(digits.images).detach() / 4, 1)


def test_one_table_compares_them_all(digits):
    x, y, loss = digits.images, digits.decisions, KDLoss()
    asked, soft = asked_about(digits, 4), F.one_hot(digits.decisions, 10).float()
    rows = digits.compare(
        decision_method(student, x, y, SETTINGS),
        soft_label_method("mine", 12.5, student, x, y, soft, loss, SETTINGS),
        augmented_decision_method(student, asked, SETTINGS),
        white_box_method(student, x, y, digits.logits, loss, SETTINGS),
        surrogate_method(student, partial(network, 32), x, y, loss, SETTINGS),
        noise_logit_method(student, x, y, 10, loss, SETTINGS),
        combined_method("together", 12.5, student, asked, soft, loss, SETTINGS),
    )
    assert [(row.method, row.queries_per_sample) for row in rows] == [
        ("cross-entropy on decisions", 1),
        ("mine", 12.5),
        ("cross-entropy on augmented decisions", 4),
        ("white-box KD", None),
        ("surrogate KD", 1),
        ("noise logits", 1),
        ("together", 15.5),
    ]
    for row in rows:
        assert len(row.accuracies) == len(row.agreements) == 2
        assert min(row.accuracies + row.agreements) > 0.5


def test_the_measures_are_those_of_the_students(digits):
    right = TrainingMethod("teacher itself", None, lambda seed: digits.logits)
    unanswered = digits.test_decisions.clone()
    unanswered[::2] = -1
    [row] = compare_methods([right], [0], digits.test_images, digits.test_labels, unanswered)
    truth = (digits.test_decisions == digits.test_labels).double().mean().item()
    assert row.accuracies == (pytest.approx(truth),)
    assert row.agreements == (1.0,)


def test_every_method_runs_with_every_seed_after_a_call_of_progress(digits):
    reported, run = [], []
    methods = [
        TrainingMethod(name, 1.0, lambda seed, name=name: run.append((name, seed)) or digits.logits)
        for name in ("a", "b")
    ]
    compare_methods(
        methods,
        (4, 5),
        digits.test_images,
        digits.test_labels,
        digits.test_decisions,
        progress=lambda *report: reported.append((report, len(run))),
    )
    assert run == [("a", 4), ("a", 5), ("b", 4), ("b", 5)]
    assert reported == [(report, before) for before, report in enumerate(run)]


def test_the_table_has_a_row_for_each_method():
    row = MethodResult("BD, margin", [0.80, 0.82, 0.84], [0.9, 0.9, 0.9], 1486.3)
    white_box = MethodResult("white-box KD", [0.5], [], None)

    assert method_table([row, white_box]).splitlines()[2:] == [
        "| BD, margin | 82.0 ± 2.0 | 90.0 ± 0.0 | 1,486 |",
        "| white-box KD | 50.0 | \N{EN DASH} | \N{EN DASH} |",
    ]


def test_a_method_depends_on_the_seed_alone(digits):
    x, y = digits.images, digits.decisions
    for method in (
        decision_method(student, x, y, SETTINGS),
        noise_logit_method(student, x, y, 10, KDLoss(), SETTINGS),
    ):
        first, again, other = (weights(method.run(seed)) for seed in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)


def test_a_method_without_a_number_of_steps_is_refused(digits):
    epochs = TrainSettings(epochs=2, device="cpu")
    asked = asked_about(digits, 1)
    x, y, loss = digits.images, digits.decisions, KDLoss()
    soft = F.one_hot(y, 10)
    for method in (
        lambda: decision_method(student, x, y, epochs),
        lambda: soft_label_method("mine", 1.0, student, x, y, soft, loss, epochs),
        lambda: augmented_decision_method(student, asked, epochs),
        lambda: white_box_method(student, x, y, digits.logits, loss, epochs),
        lambda: surrogate_method(student, student, x, y, loss, epochs),
        lambda: noise_logit_method(student, x, y, 10, loss, epochs),
        lambda: combined_method("both", 1.0, student, asked, soft, loss, epochs),
    ):
        with pytest.raises(ValueError, match=r"settings\.steps"):
            method()


def test_augmented_decisions_cost_exactly_the_queries_announced(digits):
    images = AugmentedImages(digits.images, 7, seed=0)
    counting = CountingTeacher(digits.teacher)
    asked = decide_augmented(counting, images)
    method = augmented_decision_method(student, asked, SETTINGS)
    assert counting.total == method.queries_per_sample * len(digits.images)
    assert torch.equal(asked.decisions[::7], digits.decisions)
    chosen = images.read(torch.arange(13, 16))
    assert torch.equal(asked.decisions[13:16], digits.teacher.decide(chosen))


def test_unanswered_augmented_images_do_not_train(digits):
    asked = asked_about(digits, 4)
    refused = asked.decisions.clone()
    refused[torch.arange(len(refused)) % 4 != 0] = -1
    method = augmented_decision_method(student, AugmentedDecisions(asked.images, refused), SETTINGS)
    # Each clean image has as many rows as it has augmented versions.
    rows = torch.arange(len(digits.images)).repeat(3)
    on_clean = decision_method(student, digits.images, digits.decisions, SETTINGS, rows=rows)
    assert torch.equal(weights(method.run(0)), weights(on_clean.run(0)))


def test_soft_labels_and_augmented_decisions_reach_the_student_as_they_were_given(
    digits, monkeypatch
):
    taken = []
    monkeypatch.setattr(
        "benchmarks.students.baselines.train_on_soft_labels",
        lambda *given, rows: taken.append((*given, rows)),
    )
    asked, soft = asked_about(digits, 10), soft_labels_of(digits)
    combined_method("both", 7.0, student, asked, soft, KDLoss(), SETTINGS).run(0)
    [(_, images, decisions, labels, _, _, rows)] = taken
    assert images is asked.images
    assert torch.equal(decisions, asked.decisions)
    by_sample = labels.view(200, 10, 10)
    assert torch.equal(by_sample[:, 0], soft)
    assert (by_sample[:, 1:] == 0).all()
    assert torch.bincount(rows)[:10].tolist() == [9] + [1] * 9


def test_with_clean_images_alone_both_together_are_soft_labels_alone(digits):
    asked, soft, loss = asked_about(digits, 1), soft_labels_of(digits), KDLoss()
    both = combined_method("", 7.0, student, asked, soft, loss, SETTINGS)
    alone = soft_label_method(
        "", 7.0, student, digits.images, asked.decisions, soft, loss, SETTINGS
    )
    assert both.queries_per_sample == alone.queries_per_sample == 7
    assert torch.equal(weights(both.run(0)), weights(alone.run(0)))


def test_soft_labels_of_augmented_images_are_refused(digits):
    with pytest.raises(ValueError, match=r"soft_labels: expected \[200, C\].*got \[600, 10\]"):
        combined_method(
            "", 1.0, student, asked_about(digits, 3), torch.zeros(600, 10), KDLoss(), SETTINGS
        )


def test_white_box_soft_labels_are_the_teachers_at_the_losss_temperature(digits):
    x, y, loss = digits.images, digits.decisions, KDLoss(temperature=3)
    method = white_box_method(student, x, y, digits.logits, loss, SETTINGS)
    soft = F.softmax(digits.logits(x).detach() / 3, 1)
    expected = train_on_soft_labels(student, x, y, soft, loss, SETTINGS)
    assert torch.allclose(weights(method.run(SETTINGS.seed)), weights(expected), atol=1e-4)


def test_a_surrogate_learns_only_from_the_decisions_it_may_see(digits):
    y = digits.decisions.clone()
    y[::2] = -1
    method = surrogate_method(student, student, digits.images, y, KDLoss(), SETTINGS)
    [row] = digits.compare(method, seeds=(0,))
    assert row.agreements[0] > 0.5


def test_noise_is_a_distribution_whose_largest_entry_is_the_decision():
    decisions = torch.arange(1000) % 5
    soft = noise_soft_labels(decisions, 5, temperature=4, seed=0)
    torch.testing.assert_close(soft.sum(1), torch.ones(1000))
    assert torch.equal(soft.argmax(1), decisions)
    logits = 4 * (soft / soft.max(1, keepdim=True).values).log()
    others = logits[soft < soft.max(1, keepdim=True).values]
    assert len(others) == 4000
    assert -20.001 < others.min() < -19.5
    assert others.mean().item() == pytest.approx(-10, abs=0.5)


def test_noise_knows_nothing_but_the_decision_and_the_seed():
    decisions = torch.tensor([0, 1, -1])
    first, again, other = (noise_soft_labels(decisions, 3, 1.0, seed) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first[2] == 1 / 3).all()
