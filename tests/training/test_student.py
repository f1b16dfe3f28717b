import io
import math
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn

from db3kd.data import image_reader as reader
from db3kd.labels.labels import Labels
from db3kd.labels.soft_labels import with_soft_labels
from db3kd.progress import Progress
from db3kd.training.evaluation import agreement, evaluate, predict, predict_logits
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier, train_on_soft_labels, train_student
from db3kd.training.train import train

CLASSES = 3


def blobs(count: int = 120, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Images [count, 1, 4, 4] with one bright row, the row of their class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, CLASSES, (count,), generator=generator)
    images = 0.4 * torch.rand(count, 1, 4, 4, generator=generator)
    images[torch.arange(count), 0, labels] += 0.5
    return images, labels


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, CLASSES))


def batch_norm_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))


def dropout_network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(16, CLASSES))


def quick(**changes) -> TrainSettings:
    length = {} if "steps" in changes else {"epochs": 3}
    return TrainSettings(**length | {"batch_size": 32, "device": "cpu", **changes})


def weights(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().cpu()


class CountingSource:
    """An image set that reads from a tensor and notes the largest batch asked for."""

    def __init__(self, images: Tensor) -> None:
        self.images = images
        self.largest = 0

    def __len__(self) -> int:
        return len(self.images)

    def read(self, indices: Tensor) -> Tensor:
        self.largest = max(self.largest, len(indices))
        return self.images[indices]


# The loss


def test_a_classifier_learns_and_is_returned_in_eval_mode():
    images, labels = blobs()
    model = train_classifier(network, images, labels, settings=quick(epochs=20, learning_rate=1e-2))
    assert not model.training
    assert evaluate(model, *blobs(seed=1)) > 0.95


def test_a_student_learns_from_soft_labels_alone():
    images, labels = blobs()
    soft = F.softmax(4 * F.one_hot(labels, CLASSES).float(), 1)
    loss = KDLoss(temperature=1, alpha=0)
    model = train_on_soft_labels(
        network, images, labels, soft, loss, quick(epochs=20, learning_rate=1e-2)
    )
    assert evaluate(model, *blobs(seed=1)) > 0.95
    shares = F.softmax(predict_logits(model, images), 1)
    assert (shares.max(1).values.mean() - soft.max()).abs() < 0.1


@pytest.mark.parametrize("make", [network, batch_norm_network, dropout_network])
def test_equal_settings_give_equal_weights_bit_for_bit(make):
    images, labels = blobs()
    first, second = (train_classifier(make, images, labels, settings=quick()) for _ in range(2))
    assert torch.equal(weights(first), weights(second))


def test_the_initial_weights_follow_from_the_seed():
    images, labels = blobs()
    tiny = {"steps": 1, "learning_rate": 1e-30}
    models = [
        train_classifier(network, images, labels, settings=quick(seed=s, **tiny)) for s in (0, 1)
    ]
    assert not torch.allclose(*(weights(model) for model in models))


def test_the_order_of_the_rows_follows_from_the_seed():
    images, labels = blobs()
    start = network()
    models = [train_classifier(start, images, labels, settings=quick(seed=s)) for s in (0, 1)]
    assert not torch.equal(*(weights(model) for model in models))


def test_the_callers_random_state_is_left_as_found():
    images, labels = blobs()
    before = (torch.get_rng_state(), random.getstate(), np.random.get_state()[1].copy())
    train_classifier(dropout_network, images, labels, settings=quick())
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]
    assert (np.random.get_state()[1] == before[2]).all()


def test_a_given_network_is_the_start_and_stays_as_it_is():
    images, labels = blobs()
    start = network()
    before = weights(start).clone()
    trained = train_classifier(start, images, labels, settings=quick(steps=1, learning_rate=1e-5))
    assert torch.equal(weights(start), before)
    assert 0 < (weights(trained) - before).abs().max() < 1e-4


@pytest.mark.parametrize(
    ("changes", "expected"), [({"epochs": 2}, 8), ({"steps": 5}, 5), ({"batch_size": 500}, 3)]
)
def test_the_number_of_steps_is_fixed_by_the_settings(changes, expected):
    images, labels = blobs(120)
    steps = []

    def loss(logits, decisions):
        steps.append(len(decisions))
        return F.cross_entropy(logits, decisions)

    train(network, images, labels, None, loss, quick(**changes))
    assert len(steps) == expected


def test_an_epoch_shows_every_row_once_in_batches_equal_to_one_row():
    images, labels = blobs(65)
    numbers = torch.arange(65) / 65
    marks = torch.stack([numbers, 1 - numbers, 0 * numbers], 1)  # a soft label that names its row
    seen = []

    def loss(logits, decisions, soft):
        seen.append(soft[:, 0])
        return F.cross_entropy(logits, decisions)

    train(network, images, labels, marks, loss, quick(epochs=1))
    assert sorted(len(batch) for batch in seen) == [21, 22, 22]
    assert torch.equal(torch.cat(seen).sort().values, numbers)


def test_batch_normalisation_survives_one_row_more_than_a_batch():
    images, labels = blobs(33)
    model = train_classifier(batch_norm_network, images, labels, settings=quick(batch_size=32))
    assert weights(model).isfinite().all()


@pytest.mark.parametrize("rows", [2, 3, 7])
def test_batch_normalisation_survives_batches_of_two_and_odd_rows(rows):
    settings = quick(batch_size=2)
    model = train_classifier(batch_norm_network, *blobs(rows), settings=settings)
    assert model[2].num_batches_tracked == settings.total_steps(rows) == 3 * (rows // 2)


def test_a_batch_of_one_row_is_refused_only_by_networks_that_fail_on_it():
    images, labels = blobs(3)
    for rows, size in ([0], 32), ([0, 1, 2], 1):
        settings = quick(batch_size=size)
        train_classifier(network, images, labels, rows=rows, settings=settings)
        with pytest.raises(ValueError, match=r"^model: expected .* one row, got Sequential.*two"):
            train_classifier(batch_norm_network, images, labels, rows=rows, settings=settings)


def test_unanswered_rows_do_not_train():
    images, labels = blobs(60)
    soft = F.softmax(torch.randn(60, CLASSES), 1)
    labels[::3] = -1
    soft[::3] = math.nan
    answered = (labels >= 0).nonzero().flatten()
    with_gaps = train_on_soft_labels(batch_norm_network, images, labels, soft, KDLoss(), quick())
    without = train_on_soft_labels(
        batch_norm_network,
        images[answered],
        labels[answered],
        soft[answered],
        KDLoss(),
        quick(),
    )
    assert torch.equal(weights(with_gaps), weights(without))


def test_soft_labels_with_a_gradient_train_as_those_without():
    images, decisions = blobs(40)
    soft = F.one_hot(decisions, CLASSES).float()
    expected = train_on_soft_labels(network, images, decisions, soft, KDLoss(), quick())
    soft = soft.requires_grad_() * 1
    found = train_on_soft_labels(network, images, decisions, soft, KDLoss(), quick())
    assert torch.equal(weights(found), weights(expected))


def test_a_student_without_any_soft_label_learns_the_decisions_as_a_classifier_does():
    images, labels = blobs(60)
    none = torch.zeros(60, CLASSES)
    of_decisions = KDLoss(alpha=1, beta=1)
    student = train_on_soft_labels(network, images, labels, none, of_decisions, quick())
    torch.testing.assert_close(
        weights(student), weights(train_classifier(network, images, labels, settings=quick()))
    )


def test_only_the_rows_named_train_and_a_row_named_twice_trains_twice():
    images, labels = blobs(60)
    rows = torch.tensor([3, 3, 10, 41, 7])
    some = train_classifier(network, images, labels, settings=quick(), rows=rows)
    alone = train_classifier(network, images[rows], labels[rows], settings=quick())
    assert torch.equal(weights(some), weights(alone))


@pytest.mark.parametrize("resident", [0, 1 << 30])
def test_an_image_set_trains_like_the_tensor_it_holds(resident, monkeypatch):
    monkeypatch.setattr(reader, "RESIDENT_BYTES", resident)
    images, labels = blobs()
    source = CountingSource(images)
    from_source = train_classifier(network, source, labels, settings=quick())
    from_tensor = train_classifier(network, images, labels, settings=quick())
    assert torch.equal(weights(from_source), weights(from_tensor))
    assert source.largest == (30 if resident == 0 else len(images))


class Listener:
    """Keeps the totals that it receives."""

    def __init__(self) -> None:
        self.reported: list[dict] = []

    def update(self, **totals) -> None:
        self.reported.append(totals)


def test_progress_is_told_about_a_hundred_times_and_at_the_end():
    listener, settings = Listener(), quick(steps=250)
    train_classifier(network, *blobs(), settings=settings, progress=listener)
    steps = [totals["samples"] for totals in listener.reported]
    assert 80 <= len(steps) <= 100
    assert steps == sorted(set(steps)) and steps[-1] == 250


def test_the_progress_of_training_is_shown_or_not(capsys):
    trained = [
        train_classifier(network, *blobs(), settings=quick(steps=3), progress=progress)
        for progress in (True, False)
    ]
    assert capsys.readouterr().err.count("training done: 3/3 steps") == 1
    assert all(weights(trained[0]).equal(weights(each)) for each in trained)


def test_a_display_receives_the_number_of_steps():
    display = Progress(1000, title="training", unit="steps", stream=io.StringIO())
    train_classifier(network, *blobs(), settings=quick(steps=3), progress=display)
    assert display.samples == 3


def test_bfloat16_training_learns_and_returns_single_precision_weights():
    images, labels = blobs()
    model = train_classifier(
        network, images, labels, settings=quick(epochs=20, learning_rate=1e-2, precision="bf16")
    )
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    assert model(images).dtype == torch.float32
    assert evaluate(model, images, labels) > 0.95


def test_trainings_of_different_precision_follow_each_other():
    images, labels = blobs()
    once = train_classifier(network, images, labels, settings=quick())
    train_classifier(network, images, labels, settings=quick(precision="bf16"))
    again = train_classifier(network, images, labels, settings=quick())
    assert torch.equal(weights(once), weights(again))


def test_a_callers_own_accelerator_stays_as_it_was():
    try:
        own = Accelerator(cpu=True, mixed_precision="bf16")
        train_classifier(network, *blobs(), settings=quick(precision="no", steps=1))
        assert own.mixed_precision == "bf16"
        assert own.device.type == "cpu"
    finally:
        AcceleratorState._reset_state(reset_partial_state=True)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["no", "fp16", "bf16"])
def test_a_student_trains_on_a_cuda_device(precision):
    images, labels = blobs()
    model = train_classifier(
        network,
        images,
        labels,
        settings=quick(epochs=20, learning_rate=1e-2, device="cuda:0", precision=precision),
    )
    assert next(model.parameters()).device.type == "cuda"
    assert evaluate(model, images, labels) > 0.95


def test_a_diverging_training_stops_with_a_reason():
    images, labels = blobs()
    with pytest.raises(FloatingPointError, match=r"after \d+ of 300 steps; lower the learning"):
        train_classifier(network, images, labels, settings=quick(steps=300, learning_rate=1e30))


# Bad input


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": 0}, "epochs: expected an integer of at least 1, got 0"),
        ({"steps": 0}, "steps: expected an integer of at least 1, got 0"),
        ({"batch_size": -1}, "batch_size: .*got -1"),
        ({"learning_rate": 0.0}, "learning_rate: .*got 0"),
        ({"seed": -1}, "seed: .*got -1"),
        ({"precision": "int8"}, "precision: expected one of no, fp16, bf16, got 'int8'"),
        ({"precision": "fp16"}, "precision: fp16 needs a CUDA device, .* is cpu; use"),
        ({"device": "meta"}, "device: .*got 'meta'"),
    ],
)
def test_bad_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        quick(**changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_cuda_device_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match=r"device: .*needs CUDA"):
        train_classifier(network, *blobs(), settings=quick(device="cuda"))


@pytest.mark.parametrize(
    ("images", "kind", "message"),
    [
        (torch.zeros(4, 1, 4, 4, dtype=torch.int32), TypeError, r"\[\d, 1, 4, 4\] int32; convert"),
        (torch.full((4, 1, 4, 4), 2.0), ValueError, "got 2 at row 0"),
        (torch.full((4, 1, 4, 4), math.nan), ValueError, "got NaN at row 0"),
        (torch.zeros(4), ValueError, r"the shape of one: .*got \(\)"),
    ],
)
@pytest.mark.parametrize("held", ["a tensor", "a small set", "a set too large to hold"])
def test_bad_images_are_refused(held, images, kind, message, monkeypatch):
    if held == "a set too large to hold":
        monkeypatch.setattr(reader, "RESIDENT_BYTES", 0)
    given = images if held == "a tensor" else CountingSource(images)
    with pytest.raises(kind, match=f"images.*{message}"):
        train_classifier(network, given, torch.zeros(4, dtype=torch.int64), settings=quick())


def test_a_source_of_other_dtypes_is_refused_and_a_tensor_is_converted():
    images = torch.zeros(4, 1, 4, 4, dtype=torch.uint8)
    with pytest.raises(TypeError, match=r"images.*\[\d, 1, 4, 4\] uint8; divide"):
        predict(network(), CountingSource(images))
    for given in (images, images.double()):
        assert predict(network(), given).shape == (4,)


def test_an_empty_image_set_is_refused():
    empty = torch.zeros(0, 1, 4, 4)
    with pytest.raises(ValueError, match="at least one"):
        train_classifier(network, empty, torch.zeros(0, dtype=torch.int64), settings=quick())
    with pytest.raises(ValueError, match="images: expected at least one image"):
        predict(network(), empty)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (
            torch.zeros(5, dtype=torch.int64),
            r"labels: expected 4 classes of at least -1, got \[5\]",
        ),
        (torch.zeros(4), "labels: .*float32"),
        (torch.tensor([0, 1, 2, 3]), "labels: expected classes from 0 to 2 or -1, got 0 to 3"),
        (torch.tensor([0, 1, 2, -2]), "labels: .* got -2 at row 3"),
        (torch.full((4,), -1), "at least one answered row"),
    ],
)
def test_bad_labels_are_refused(labels, message):
    with pytest.raises((TypeError, ValueError), match=message):
        train_classifier(network, blobs(4)[0], labels, settings=quick())


@pytest.mark.parametrize(
    ("soft", "message"),
    [
        (torch.full((4, 3), 0.5), "soft_labels: expected probabilities that sum to 1.*in row 0"),
        (torch.full((4, 3), math.nan), "soft_labels: expected probabilities"),
        (torch.tensor([[1.0, -1.0, 0.0]] * 4), "soft_labels: expected probabilities"),
        (torch.full((4, 4), 0.25), "soft_labels: expected 3 columns"),
        (torch.full((3, 3), 1 / 3), r"soft_labels: expected \[4, C\]"),
    ],
)
def test_bad_soft_labels_are_refused(soft, message):
    images, labels = blobs(4)
    with pytest.raises(ValueError, match=message):
        train_on_soft_labels(network, images, labels, soft, KDLoss(), quick())


def test_a_loss_for_each_row_cannot_train():
    images, labels = blobs(4)
    soft = torch.full((4, 3), 1 / 3)
    with pytest.raises(ValueError, match=r"loss\.reduction: .*got 'none'"):
        train_on_soft_labels(network, images, labels, soft, KDLoss(reduction="none"), quick())


# Evaluation


def test_predictions_do_not_depend_on_the_batch_and_the_mode_is_restored():
    images, _ = blobs(50)
    model = batch_norm_network().train()
    whole, parts = predict(model, images), predict(model, images, batch=7)
    assert torch.equal(whole, parts)
    assert model.training
    assert torch.equal(
        predict(model, CountingSource(images), rows=torch.tensor([4, 2])), whole[[4, 2]]
    )


def test_accuracy_is_the_share_of_equal_classes():
    images, _ = blobs(40)
    model = network()
    labels = predict(model, images)
    labels[:10] = (labels[:10] + 1) % CLASSES
    assert evaluate(model, images, labels) == 0.75


def test_agreement_leaves_unanswered_images_out():
    images, _ = blobs(40)
    model = network()
    decisions = predict(model, images)
    decisions[:10] = (decisions[:10] + 1) % CLASSES
    decisions[20:] = -1
    assert agreement(model, images, decisions) == 0.5


def test_too_few_labels_are_refused():
    with pytest.raises(ValueError, match=r"labels: expected 4 classes .* got \[3\]"):
        evaluate(network(), blobs(4)[0], torch.zeros(3, dtype=torch.int64))


# Temperatures


def labelled(temperature: float | None = 2.0) -> tuple[Tensor, Labels]:
    images, decisions = blobs()
    count = len(images)
    labels = Labels(
        index=torch.arange(count),
        decision=decisions,
        distances=torch.rand(count, CLASSES, generator=torch.Generator().manual_seed(1)),
        queries=torch.zeros(count, CLASSES, dtype=torch.int64),
        status=["ok"] * count,
    )
    soft = with_soft_labels(labels, scale=4.0, temperature=temperature or 2.0)
    return images, replace(soft, soft_label_temperature=temperature)


@pytest.mark.parametrize("loss", [None, KDLoss(temperature=None), KDLoss(temperature=2.0)])
def test_a_student_is_trained_at_the_temperature_of_its_labels(loss):
    images, labels = labelled()
    student = train_student(network, images, labels, loss=loss, settings=quick())
    expected = train_on_soft_labels(
        network, images, labels.decision, labels.soft_labels, KDLoss(temperature=2.0), quick()
    )
    assert torch.equal(weights(student), weights(expected))


def test_another_temperature_than_that_of_the_labels_is_refused():
    images, labels = labelled()
    message = r"loss.temperature: expected 2, which is labels.soft_label_temperature, got 4"
    with pytest.raises(ValueError, match=message):
        train_student(network, images, labels, loss=KDLoss(temperature=4.0), settings=quick())


def test_labels_of_unknown_temperature_need_a_loss_that_has_one():
    images, labels = labelled(None)
    train_student(network, images, labels, loss=KDLoss(temperature=4.0), settings=quick(steps=1))
    with pytest.raises(ValueError, match=r"soft_label_temperature is unknown, got None"):
        train_student(network, images, labels, settings=quick())
    with pytest.raises(ValueError, match="labels: expected soft labels, got none"):
        train_student(network, images, replace(labels, soft_labels=None), settings=quick())
