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


def small_network(scores: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, scores))


def test_images_without_a_label_are_left_out_and_not_asked():
    truth = teacher().decide(images().read(range(120)))
    labels = torch.where(torch.arange(120) < 40, truth, -1)
    asked = []

    def decide(batch):
        asked.append(len(batch))
        return teacher().decide(torch.from_numpy(batch)).numpy()

    assert db3kd.evaluate(db3kd.FunctionTeacher(decide, (1, 6, 6), 4), images(), labels) == 1
    assert sum(asked) == 40
    share = (predict(small_network(), images())[:40] == truth[:40]).double().mean().item()
    assert db3kd.evaluate(small_network(), images(), labels) == share
    with pytest.raises(ValueError, match="labels: expected the class of at least one image"):
        db3kd.evaluate(small_network(), images(), torch.full((120,), -1))


class Pair(nn.Module):
    def forward(self, images):
        return images.flatten(1), images


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (small_network(1), r"got \[120, 1\]; if it has .* db3kd\.ModuleTeacher\(.*threshold="),
        (nn.Sequential(small_network(1), nn.Flatten(0)), r"got \[120\]; if it has one score"),
        (nn.Identity(), r"got \[120, 1, 6, 6\]"),
        (Pair(), "got tuple; wrap it"),
    ],
)
def test_a_network_without_scores_of_classes_is_refused(network, message):
    truth = teacher().decide(images().read(range(120)))
    for measure in (
        lambda: predict(network, images(), batch=120),
        lambda: db3kd.agreement(network, images(), truth, batch=120),
        lambda: db3kd.evaluate(network, images(), truth, batch=120),
    ):
        with pytest.raises((TypeError, ValueError), match=rf"model: expected .*scores.*{message}"):
            measure()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_a_network_gets_images_of_the_dtype_of_its_weights(dtype):
    network = small_network().to(dtype)
    expected = network(images().read(range(120)).to(dtype)).float()
    assert predict_logits(network, images(), batch=120).equal(expected)


def test_each_module_keeps_its_mode():
    network = nn.Sequential(nn.BatchNorm2d(1), nn.Dropout(0.5), *small_network()).train()
    network[0].eval()
    kept = [module.training for module in network.modules()]
    logits = predict_logits(network, images())
    assert [module.training for module in network.modules()] == kept
    assert logits.equal(predict_logits(network.eval(), images()))
