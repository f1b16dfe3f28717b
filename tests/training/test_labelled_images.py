"""`LabelledImages` in a `DataLoader`, and the training loop that the docs show."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

import db3kd
from db3kd.labels.labels import Labels
from db3kd.training.labelled_images import LabelledImages

DOCS = Path(__file__).parents[2] / "docs"


def labelled(count: int = 30) -> tuple[Tensor, Labels]:
    """Images of one grey value each, whose class is whether they are bright."""
    values = torch.rand(count, generator=torch.Generator().manual_seed(0))
    images = values[:, None, None, None].expand(count, 1, 4, 4).clone()
    decision = (values > 0.5).long()
    margin = (values - 0.5).abs()
    labels = Labels(
        index=torch.arange(count),
        decision=decision,
        distances=torch.where(torch.arange(2) == decision[:, None], 0, margin[:, None]),
        queries=torch.ones(count, 2, dtype=torch.int64),
        status=["ok"] * count,
    )
    return images, db3kd.with_soft_labels(labels, scale=4.0, temperature=4.0)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", ["tensor", "set", "uint8"])
def test_a_loader_gives_each_answered_image_with_its_labels(workers, kind):
    images, labels = labelled()
    decision = labels.decision.clone()
    decision[[2, 5, 20]] = -1
    labels = replace(labels, decision=decision)
    grey = (images * 255).to(torch.uint8)
    given = {"tensor": images, "set": db3kd.ImageSet.from_arrays(images), "uint8": grey}[kind]
    dataset = LabelledImages(given, labels)
    loader = DataLoader(dataset, batch_size=8, num_workers=workers)

    read, decisions, soft = (torch.cat(parts) for parts in zip(*loader, strict=True))

    answered = [row for row in range(30) if row not in (2, 5, 20)]
    assert len(dataset) == 27 and dataset.rows.tolist() == answered
    expected = grey[answered] / 255 if kind == "uint8" else images[answered]
    assert read.dtype == torch.float32 and torch.equal(read, expected)
    assert torch.equal(decisions, decision[answered])
    assert torch.equal(soft, labels.soft_labels[answered])


@pytest.mark.parametrize("index", [slice(0, 2), [0, 1], "a", True])
def test_an_index_that_is_no_integer_is_named(index):
    with pytest.raises(TypeError, match=r"^index: expected an integer, got .*utils\.data\.Subset"):
        LabelledImages(*labelled())[index]


def test_an_item_is_an_image_its_decision_and_its_soft_label():
    images, labels = labelled()
    dataset = LabelledImages(images, labels)
    image, decision, soft = dataset[-1]
    assert torch.equal(image, images[29])
    assert (decision.dtype, decision.shape, soft.shape) == (torch.int64, (), (2,))
    assert int(decision) == int(labels.decision[29])
    with pytest.raises(IndexError, match="index: expected a number below 30, got 30"):
        dataset[30]
    assert len(list(dataset)) == 30


def test_labels_that_do_not_fit_are_refused():
    images, labels = labelled()
    with pytest.raises(ValueError, match="expected soft labels, got none; add them with"):
        LabelledImages(images, replace(labels, soft_labels=None, soft_label_temperature=None))
    with pytest.raises(ValueError, match=r"expected 40 rows.*got 30; .*images.subset\(labels"):
        LabelledImages(torch.zeros(40, 1, 4, 4), labels)
    images[3] = 2.0
    with pytest.raises(ValueError, match=r"images: .*at row 3"):
        LabelledImages(images, labels)[3]


def uses(images, labels):
    """Calls each function that takes images and their labels."""
    one = db3kd.TrainSettings(steps=1)
    loss = db3kd.KDLoss(temperature=4.0)
    yield lambda: LabelledImages(images, labels)
    yield lambda: db3kd.train_student("linear", images, labels, settings=one)
    yield lambda: db3kd.choose_scale("linear", images, labels, loss, one)


def test_labels_of_other_images_of_a_set_are_refused():
    images, labels = labelled()
    whole = db3kd.ImageSet.from_arrays(images)
    drawn = [3, 8, 11, 20, 21, 25]
    some = Labels(
        index=torch.tensor(drawn),
        decision=labels.decision[drawn],
        distances=labels.distances[drawn],
        queries=labels.queries[drawn],
        status=["ok"] * len(drawn),
    )
    some = db3kd.with_soft_labels(some, scale=4.0, temperature=4.0)
    # A view of a view: the labels may have the numbers of any of these sets.
    part = whole.subset(range(30)[::-1]).subset(drawn)
    recounted = replace(some, index=29 - some.index)
    positions = replace(some, index=torch.arange(len(drawn)))
    joined = replace(some, index=some.index % 5)  # labels of several sets, whose numbers repeat
    copied = db3kd.ImageSet.from_arrays(images[drawn])

    expected = (
        r"images: expected the images that were labelled, .* \(3, 8, 11, …\), got those with the "
        r"numbers 0, 1, 2, … of arrays; pass images.subset\(labels.index\)"
    )
    for use in uses(whole.subset(range(len(drawn))), some):
        with pytest.raises(ValueError, match=expected):
            use()
    for use in uses(whole, some):
        with pytest.raises(ValueError, match=r"labels: expected 30 rows, .*subset\(labels.index\)"):
            use()
    assert len(LabelledImages(whole.subset(some.index), some)) == len(drawn)
    for each in (some, recounted, positions, joined):
        assert len(LabelledImages(part, each)) == len(drawn)
    for unknown in (copied, images[drawn]):
        assert len(LabelledImages(unknown, some)) == len(drawn)


def examples(page: str, heading: str) -> list[str]:
    section = (DOCS / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    return re.findall(r"```python\n(.*?)```", section, re.S)


def test_the_loop_of_the_docs_trains_a_student(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    images, labels = labelled(1000)
    torch.manual_seed(0)
    names = {
        "db3kd": db3kd,
        "teacher": db3kd.FunctionTeacher(
            lambda asked: (asked.mean((1, 2, 3)) > 0.5).astype(int),
            image_shape=(1, 4, 4),
            classes=2,
        ),
        "make_student": lambda: db3kd.build_model("linear", (1, 4, 4), 2),
        "images": db3kd.ImageSet.from_arrays(np.asarray(images)),
    }

    loop = examples("distill.md", "A training loop of your own")[0]
    exec(loop.replace("steps=2000", "steps=100"), names)

    assert db3kd.agreement(names["network"], images, labels.decision) > 0.9


def test_the_training_of_the_guide_gives_a_student(tmp_path, monkeypatch):
    pytest.importorskip("tensorboard")
    monkeypatch.chdir(tmp_path)
    images, labels = labelled(1000)
    names = {
        "db3kd": db3kd,
        "torch": torch,
        "MyNetwork": lambda: db3kd.build_model("linear", (1, 4, 4), 2),
        "images": db3kd.ImageSet.from_arrays(np.asarray(images)),
    }
    monkeypatch.setattr(db3kd, "load_labels", lambda path: labels)

    exec(examples("guide.md", "Training in Python")[0].replace("12000", "600"), names)

    assert names["held_out"].history[-1][1] > 0.75
    assert sorted(path.name for path in Path("runs/mine").iterdir()) == [
        "logs",
        "student.safetensors",
    ]
