import pytest
import torch
import torch.nn.functional as F
from digit_cases import SETTINGS, Digits, student, weights

from db3kd.distillation.methods import (
    TrainingMethod,
    compare_methods,
    decision_method,
    soft_label_method,
)
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings


@pytest.fixture(scope="module")
def digits() -> Digits:
    return Digits()


def test_one_table_compares_them_all(digits):
    x, y = digits.images, digits.decisions
    soft = F.one_hot(y, 10).float()
    rows = digits.compare(
        decision_method(student, x, y, SETTINGS),
        soft_label_method("mine", 12.5, student, x, y, soft, KDLoss(), SETTINGS),
    )
    assert [(row.method, row.queries_per_sample) for row in rows] == [
        ("cross-entropy on decisions", 1),
        ("mine", 12.5),
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


def test_a_method_depends_on_the_seed_alone(digits):
    method = decision_method(student, digits.images, digits.decisions, SETTINGS)
    first, again, other = (weights(method.run(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_a_method_without_a_number_of_steps_is_refused(digits):
    epochs = TrainSettings(epochs=2, device="cpu")
    x, y, soft = digits.images, digits.decisions, F.one_hot(digits.decisions, 10)
    for method in (
        lambda: decision_method(student, x, y, epochs),
        lambda: soft_label_method("mine", 1.0, student, x, y, soft, KDLoss(), epochs),
    ):
        with pytest.raises(ValueError, match=r"settings\.steps"):
            method()


def test_a_comparison_of_nothing_is_refused(digits):
    with pytest.raises(ValueError, match="methods, seeds"):
        digits.compare(seeds=(0,))
