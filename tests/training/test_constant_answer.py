"""A student that is no better than a constant answer on its training samples is warned of."""

import pytest
import torch
from torch import nn

import db3kd
from db3kd.labels.labels import Labels
from db3kd.training.constant_answer import MOST_MEASURED, constant_answer_warning


class Echo(nn.Module):
    """Puts a row in the class that its first column holds, and counts the rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        self.rows += len(rows)
        return nn.functional.one_hot((4 * rows[:, 0]).round().long(), 5).float()


def rows_of(classes: torch.Tensor) -> torch.Tensor:
    return (classes / 4)[:, None].float()


@pytest.mark.parametrize("matches", [0, 11, 12, 13, 20])
def test_a_student_must_be_better_than_the_most_frequent_class(matches):
    decisions = torch.tensor([0] * 12 + [1] * 8)
    predicted = torch.where(torch.arange(20) < matches, decisions, 2)

    warning = constant_answer_warning(Echo(), rows_of(predicted), decisions)

    assert (warning is not None) == (matches <= 12)
    if warning is not None:
        assert f"on {matches} of 20 rows that it was trained on" in warning
        assert "class 0 would agree on 12 of them, so the student has learned nothing" in warning
        assert "--steps" in warning and "--learning-rate" in warning and "--student" in warning


def test_only_answered_training_samples_count():
    decisions = torch.tensor([0, 0, 1, -1, -1, 1, 1, 1])
    student, rows = rows_of(torch.tensor([0, 0, 1, 2, 2, 2, 2, 2])), torch.arange(5)

    assert constant_answer_warning(Echo(), student, decisions, rows=rows) is None
    assert "on 3 of 6 rows" in constant_answer_warning(Echo(), student, decisions)


def test_decisions_of_one_class_are_named_before_the_student_is_blamed():
    decisions = torch.tensor([1, 1, 1, -1])

    warning = constant_answer_warning(
        Echo(), rows_of(decisions.abs()), decisions, class_names=("cat", "dog")
    )

    assert warning.startswith("The teacher put all 3 rows in class 'dog', so a student can learn")


def test_a_large_set_is_measured_on_rows_spread_over_it():
    network, classes = Echo(), torch.arange(3 * MOST_MEASURED) % 2
    classes[: 2 * MOST_MEASURED] = 3

    warning = constant_answer_warning(network, rows_of(torch.zeros_like(classes)), classes)

    assert network.rows <= MOST_MEASURED + 1, "one more row may be read to choose the batch"
    assert "of 10,000 rows" in warning and "class 3 would agree on 6,667" in warning


@pytest.mark.parametrize("learning_rate", [1e-12, 0.3])
def test_train_student_logs_that_a_student_learned_nothing(caplog, learning_rate):
    decisions = torch.tensor([0] * 12 + [1] * 8)
    labels = Labels(
        index=torch.arange(20),
        decision=decisions,
        distances=torch.ones(20, 2).scatter(1, decisions[:, None], 0.0),
        queries=torch.ones(20, 2, dtype=torch.int64),
        status=["ok"] * 20,
    )
    network = nn.Linear(1, 2)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[-9.0], [9.0]]).flip(0))
        network.bias.copy_(torch.tensor([-4.5, 4.5]))  # the opposite of the decisions

    db3kd.train_student(
        network,
        decisions[:, None].float(),
        db3kd.with_soft_labels(labels),
        settings=db3kd.TrainSettings(steps=200, learning_rate=learning_rate, device="cpu"),
    )

    useless = "The student agrees with the teacher on 0 of 20 rows that it was trained on"
    assert (useless in caplog.text) == (learning_rate < 0.1)
    assert ("learned nothing" in caplog.text) == (learning_rate < 0.1)
