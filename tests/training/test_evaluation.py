"""Accuracy and agreement of networks and teachers."""

import pytest
import torch
from distill_cases import images, teacher
from torch import nn

import db3kd
from db3kd.training.evaluation import predict, predict_logits


@pytest.mark.parametrize("bounds", [(0.0, 1.0), (-1.0, 1.0)])
def test_teachers_are_measured_like_networks(bounds):
    network = nn.Sequential(nn.Flatten(), nn.Linear(36, 4))
    measured = db3kd.ModuleTeacher(network, (1, 6, 6), 4, bounds=bounds)
    truth = teacher().decide(images().read(range(120)))
    low, high = bounds
    expected = network(images().read(range(120)) * (high - low) + low).argmax(1)

    assert predict(measured, images()).equal(expected)
    share = (expected == truth).double().mean().item()
    assert db3kd.evaluate(measured, images().with_labels(truth, None)) == share
    assert db3kd.agreement(measured, images(), truth) == share


def test_labels_get_the_numbers_of_a_teacher_with_class_names():
    truth = teacher().decide(images().read(range(120)))
    named = db3kd.FunctionTeacher(
        lambda batch: (3 - teacher().decide(torch.from_numpy(batch))).numpy(),
        (1, 6, 6),
        4,
        class_names=["d", "c", "b", "a"],
    )
    assert db3kd.evaluate(named, images().with_labels(truth, ["a", "b", "c", "d"])) == 1


def test_a_teacher_has_no_logits():
    with pytest.raises(TypeError, match=r"model: expected a torch\.nn\.Module, got Nearest"):
        predict_logits(teacher(), images())
