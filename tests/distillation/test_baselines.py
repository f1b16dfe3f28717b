from functools import partial

import pytest
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

from db3kd.distillation.augmented_decisions import collect_augmented_decisions
from db3kd.distillation.augmented_images import AugmentedImages
from db3kd.distillation.baselines import (
    noise_logit_method,
    noise_soft_labels,
    surrogate_method,
    white_box_method,
)
from db3kd.distillation.evaluation import predict
from db3kd.distillation.loss import KDLoss
from db3kd.distillation.methods import (
    TrainingMethod,
    augmented_decision_method,
    combined_method,
    compare_methods,
    decision_method,
    soft_label_method,
)
from db3kd.distillation.student import train_classifier, train_on_soft_labels
from db3kd.distillation.train_settings import TrainSettings

SETTINGS = TrainSettings(steps=60, batch_size=64, learning_rate=1e-2, device="cpu")


def network(hidden: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, hidden), nn.ReLU(), nn.Linear(hidden, 10))


student = partial(network, 16)


class Digits:
    """Digits, a teacher trained on some of them, and its decisions for transfer and test sets."""

    def __init__(self) -> None:
        found = load_digits()
        images = torch.tensor(found.images[:, None] / 16, dtype=torch.float32)
        labels = torch.tensor(found.target)
        self.teacher = train_classifier(
            partial(network, 32), images[:1000], labels[:1000], SETTINGS
        )
        self.images = images[1000:1200]
        self.decisions = predict(self.teacher, self.images)
        self.test_images, self.test_labels = images[1200:], labels[1200:]
        self.test_decisions = predict(self.teacher, self.test_images)
        self.asked = 0

    def logits(self, images: Tensor) -> Tensor:
        return self.teacher(images)

    def decide(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return self.logits(images).argmax(1)

    def compare(self, *methods: TrainingMethod, seeds=(0, 1)):
        return compare_methods(
            methods, seeds, self.test_images, self.test_labels, self.test_decisions
        )


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach()


def test_one_table_compares_them_all(digits):
    x, y, loss = digits.images, digits.decisions, KDLoss()
    asked = collect_augmented_decisions(AugmentedImages(x, 4, seed=0), digits.decide)
    soft = F.one_hot(y, 10).float()
    rows = digits.compare(
        decision_method(student, x, y, SETTINGS),
        augmented_decision_method(student, asked, SETTINGS),
        white_box_method(student, x, y, digits.logits, loss, SETTINGS),
        surrogate_method(student, partial(network, 32), x, y, loss, SETTINGS),
        noise_logit_method(student, x, y, 10, loss, SETTINGS),
        soft_label_method("mine", 12.5, student, x, y, soft, loss, SETTINGS),
        combined_method("together", 12.5, student, asked, soft, loss, SETTINGS),
    )
    assert [(row.method, row.queries_per_sample) for row in rows] == [
        ("cross-entropy on decisions", 1),
        ("cross-entropy on augmented decisions", 4),
        ("white-box KD", None),
        ("surrogate KD", 1),
        ("noise logits", 1),
        ("mine", 12.5),
        ("together", 15.5),
    ]
    for row in rows:
        assert len(row.accuracies) == len(row.agreements) == 2
        assert min(row.accuracies + row.agreements) > 0.5


def test_the_measures_are_those_of_the_students(digits):
    right = TrainingMethod("teacher itself", None, lambda seed: digits.teacher)
    unanswered = digits.test_decisions.clone()
    unanswered[::2] = -1
    [row] = compare_methods([right], [0], digits.test_images, digits.test_labels, unanswered)
    truth = (digits.test_decisions == digits.test_labels).double().mean().item()
    assert row.accuracies == (pytest.approx(truth),)
    assert row.agreements == (1.0,)


def test_every_method_runs_with_every_seed_after_a_call_of_progress(digits):
    reported, run = [], []
    methods = [
        TrainingMethod(
            name, 1.0, lambda seed, name=name: run.append((name, seed)) or digits.teacher
        )
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


def test_a_method_depends_on_the_seed_alone(digits):
    method = noise_logit_method(student, digits.images, digits.decisions, 10, KDLoss(), SETTINGS)
    first, again, other = (weights(method.run(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_method_without_a_number_of_steps_is_refused(digits):
    epochs = TrainSettings(epochs=2, device="cpu")
    asked = collect_augmented_decisions(AugmentedImages(digits.images, 1, seed=0), digits.decide)
    x, y, loss = digits.images, digits.decisions, KDLoss()
    for method in (
        lambda: decision_method(student, x, y, epochs),
        lambda: augmented_decision_method(student, asked, epochs),
        lambda: white_box_method(student, x, y, digits.logits, loss, epochs),
        lambda: surrogate_method(student, student, x, y, loss, epochs),
        lambda: noise_logit_method(student, x, y, 10, loss, epochs),
        lambda: soft_label_method("mine", 1.0, student, x, y, F.one_hot(y, 10), loss, epochs),
        lambda: combined_method("both", 1.0, student, asked, F.one_hot(y, 10), loss, epochs),
    ):
        with pytest.raises(ValueError, match=r"settings\.steps"):
            method()


def test_a_comparison_of_nothing_is_refused(digits):
    with pytest.raises(ValueError, match="methods, seeds"):
        digits.compare(seeds=(0,))


def test_augmented_decisions_cost_exactly_the_queries_announced(digits):
    images = AugmentedImages(digits.images, 7, seed=0)
    digits.asked = 0
    asked = collect_augmented_decisions(images, digits.decide, batch=100)
    assert digits.asked == 7 * 200
    assert torch.equal(asked.decisions[::7], digits.decisions)
    assert torch.equal(asked.decisions[13:16], digits.decide(images.read(torch.arange(13, 16))))


def test_refused_augmented_queries_do_not_train(digits):
    def refuses_augmented(images):
        classes = digits.decide(images)
        classes[torch.arange(len(classes)) % 4 != 0] = -1
        return classes

    asked = collect_augmented_decisions(
        AugmentedImages(digits.images, 4, seed=0), refuses_augmented, 400
    )
    method = augmented_decision_method(student, asked, SETTINGS, clean_share=0)
    on_clean = decision_method(student, digits.images, digits.decisions, SETTINGS)
    assert torch.equal(weights(method.run(0)), weights(on_clean.run(0)))


@pytest.mark.parametrize(("clean_share", "expected"), [(0, 1), (0.5, 9), (0.25, 3)])
def test_clean_images_take_their_share_of_the_rows(digits, monkeypatch, clean_share, expected):
    taken = []
    monkeypatch.setattr(
        "db3kd.distillation.methods.train_classifier", lambda *_, rows, **__: taken.append(rows)
    )
    asked = collect_augmented_decisions(AugmentedImages(digits.images, 10, seed=0), digits.decide)
    augmented_decision_method(student, asked, SETTINGS, clean_share).run(0)
    counts = torch.bincount(taken[0])
    assert (counts[::10] == expected).all()
    assert (counts.view(200, 10)[:, 1:] == 1).all()


def soft_labels_of(digits: Digits) -> Tensor:
    return F.softmax(digits.logits(digits.images).detach() / 4, 1)


def test_soft_labels_and_augmented_decisions_reach_the_student_as_they_were_given(
    digits, monkeypatch
):
    taken = []
    monkeypatch.setattr(
        "db3kd.distillation.methods.train_on_soft_labels",
        lambda *given, rows: taken.append((*given, rows)),
    )
    asked = collect_augmented_decisions(AugmentedImages(digits.images, 10, seed=0), digits.decide)
    soft = soft_labels_of(digits)
    combined_method("both", 7.0, student, asked, soft, KDLoss(), SETTINGS, clean_share=0.25).run(0)
    [(_, images, decisions, labels, _, _, rows)] = taken
    assert images is asked.images
    assert torch.equal(decisions, asked.decisions)
    by_sample = labels.view(200, 10, 10)
    assert torch.equal(by_sample[:, 0], soft)
    assert (by_sample[:, 1:] == 0).all()
    assert torch.bincount(rows)[:10].tolist() == [3] + [1] * 9


def test_with_clean_images_alone_both_together_are_soft_labels_alone(digits):
    asked = collect_augmented_decisions(AugmentedImages(digits.images, 1, seed=0), digits.decide)
    soft, loss = soft_labels_of(digits), KDLoss()
    both = combined_method("", 7.0, student, asked, soft, loss, SETTINGS)
    alone = soft_label_method(
        "", 7.0, student, digits.images, asked.decisions, soft, loss, SETTINGS
    )
    assert both.queries_per_sample == alone.queries_per_sample == 7
    assert torch.equal(weights(both.run(0)), weights(alone.run(0)))


def test_soft_labels_of_augmented_images_are_refused(digits):
    asked = collect_augmented_decisions(AugmentedImages(digits.images, 3, seed=0), digits.decide)
    with pytest.raises(ValueError, match=r"soft_labels: expected \[200, C\].*got \[600, 10\]"):
        combined_method("", 1.0, student, asked, torch.zeros(600, 10), KDLoss(), SETTINGS)


def test_a_teacher_that_returns_the_wrong_count_is_refused(digits):
    with pytest.raises(ValueError, match="decide: expected 200 classes for 200 images"):
        collect_augmented_decisions(
            AugmentedImages(digits.images, 1, seed=0), lambda x: torch.zeros(3)
        )


def test_white_box_soft_labels_are_the_teachers_at_the_losss_temperature(digits):
    x, y, loss = digits.images, digits.decisions, KDLoss(temperature=3)
    method = white_box_method(student, x, y, digits.logits, loss, SETTINGS, batch=64)
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
