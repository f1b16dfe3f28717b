"""Data sets of PyTorch and Hugging Face as images, and image sets as data sets."""

from functools import partial

import numpy as np
import pytest
import torch
from image_cases import COLOURED, GREY, as_tensor, write_png
from PIL import Image
from teachers_analytic import NearestCentroidTeacher
from torch import nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import db3kd
from db3kd.data.arguments import as_images
from db3kd.data.image_set import ImageSet

LABELS = [0, 1, 2, 0, 1, 2]
BYTES = torch.from_numpy(COLOURED.transpose(0, 3, 1, 2).copy())


class Items(Dataset):
    """Items of any kind, which counts how often each is read."""

    def __init__(self, items, **attributes):
        self.items, self.reads = items, [0] * len(items)
        for name, value in attributes.items():
            setattr(self, name, value)

    def __len__(self):
        return len(self.items)

    def __getitem__(self, index):
        self.reads[index] += 1
        return self.items[index]


def pairs(images):
    return [(image, label) for image, label in zip(images, LABELS, strict=True)]


@pytest.mark.parametrize(
    "images",
    [
        list(BYTES),
        list(BYTES.float() / 255),
        list(COLOURED),
        [Image.fromarray(image) for image in COLOURED],
    ],
    ids=["uint8 tensors", "float tensors", "arrays", "PIL images"],
)
def test_a_data_set_is_read_by_index_with_its_labels(images):
    found = as_images(Items(pairs(images)))

    assert found.read([4, 1]).equal(as_tensor(COLOURED[[4, 1]]))
    assert found.labels.tolist() == LABELS and found.classes == 3
    found.check()
    assert found.fingerprint(check=True) == found.fingerprint()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.float16])
def test_items_of_narrow_floats_are_read_with_their_values(dtype):
    images = (BYTES.float() / 255).to(dtype)
    for found in (as_images(Items(list(images))), ImageSet.from_arrays(images)):
        found.check()
        assert found.read([4, 1]).equal(images[[4, 1]].float())


def test_items_may_be_images_alone():
    found = as_images(Items(list(BYTES)))
    assert found.labels is None and found.read([2]).equal(as_tensor(COLOURED[[2]]))


def test_targets_and_classes_are_taken_as_they_are_and_no_item_is_read_for_them():
    dataset = Items(pairs(BYTES), targets=LABELS, classes=["ant", "bee", "cow"])
    found = as_images(Subset(dataset, [5, 0]))
    assert found.labels.tolist() == [2, 0] and found.class_names == ("ant", "bee", "cow")
    assert dataset.reads[:5] == [0] * 5
    assert found.read([1]).equal(as_tensor(COLOURED[[0]]))


def test_transformed_targets_are_read_from_the_items():
    swapped = [(image, 2 - label) for image, label in pairs(BYTES)]
    dataset = Items(swapped, targets=LABELS, target_transform=lambda label: 2 - label)
    assert as_images(dataset).labels.tolist() == [2 - label for label in LABELS]


@pytest.mark.parametrize("kind", [torch.tensor, np.int64, "class {}".format])
def test_labels_may_be_tensors_numbers_or_names(kind):
    found = as_images(Items([(image, kind(label)) for image, label in pairs(BYTES)]))
    assert found.labels.tolist() == LABELS


@pytest.mark.parametrize(
    ("items", "kind", "message"),
    [
        ([], ValueError, "the data set is empty"),
        (["a.png"], TypeError, "item 0: expected an image .* got str"),
        ([BYTES[0], BYTES[1, :, :4]], ValueError, r"item 1: expected \[3, 6, 5\] uint8 .* same sh"),
        ([BYTES[0], BYTES[1].float()], ValueError, r"item 1: .* got \[3, 6, 5\] float32"),
        ([BYTES[0].float()], ValueError, "got .* at row 0; divide by 255"),
        ([BYTES[0].long()], TypeError, "expected uint8 or floats in"),
        ([BYTES[0], BYTES[1].to_sparse()], TypeError, "item 1: .* got layout .*; use .* to_dense"),
        ([BYTES[0].cfloat()], TypeError, "item 0: expected a dense tensor .* got complex64"),
        ([Image.fromarray(GREY), BYTES[0]], TypeError, "item 1: expected a PIL image .* Tensor"),
        ([Image.fromarray(GREY), Image.fromarray(GREY[:4])], ValueError, "item 1 is 4x5"),
        ([(BYTES[0], 0.5)], TypeError, "images labels: expected class names, or class numbers"),
    ],
)
def test_items_that_do_not_fit_are_explained(items, kind, message):
    with pytest.raises(kind, match=message):
        as_images(Items(items)).check()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(BYTES)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (Stream(), r"got Stream; .*has no indices; collect .*ImageSet.from_arrays"),
        (DataLoader(TensorDataset(BYTES)), "got DataLoader; pass its data set: loader.dataset"),
    ],
)
def test_what_cannot_be_indexed_is_refused(given, message):
    with pytest.raises(TypeError, match=f"images: .*{message}"):
        as_images(given)


def test_a_data_set_is_labelled_as_its_images(tmp_path):
    teacher = NearestCentroidTeacher(as_tensor(COLOURED)[:3].flatten(1), (3, 6, 5))
    settings = db3kd.LabelSettings("bd", queries_per_pair=10)
    expected = db3kd.label(teacher, ImageSet.from_arrays(COLOURED, LABELS), settings)
    found = db3kd.label(teacher, Items(pairs(COLOURED)), settings, out=tmp_path / "run")
    assert found.distances.equal(expected.distances) and found.label.equal(expected.label)


def test_networks_are_trained_and_evaluated_on_data_sets():
    dataset = Items(pairs(COLOURED))
    images = ImageSet.from_arrays(COLOURED, LABELS)
    settings = db3kd.TrainSettings(steps=2, batch_size=6, device="cpu")
    make = partial(db3kd.build_model, "linear", (3, 6, 5), 3)
    expected = db3kd.train_classifier(make, images, images.labels, settings=settings)
    found = db3kd.train_classifier(make, dataset, settings=settings)
    assert all(a.equal(b) for a, b in zip(found.parameters(), expected.parameters(), strict=True))
    accuracy = db3kd.evaluate(expected, images, images.labels)
    assert db3kd.evaluate(found, dataset) == db3kd.evaluate(found, images) == accuracy
    decisions = torch.tensor(LABELS)
    assert db3kd.agreement(found, Items(list(BYTES)), decisions) == accuracy
    with pytest.raises(ValueError, match=r"labels: .*got images without labels; pass labels="):
        db3kd.evaluate(found, BYTES)


def test_a_surrogate_is_made_from_a_data_set():
    network = nn.Sequential(nn.Flatten(), nn.Linear(90, 3))
    with torch.no_grad():
        network[1].weight.copy_(as_tensor(COLOURED)[:3].flatten(1) - 0.5)
        network[1].bias.zero_()
    settings = db3kd.SurrogateSettings(
        "linear", 3, training=db3kd.TrainSettings(steps=2, device="cpu")
    )
    surrogate = db3kd.make_surrogate(network, Items(pairs(COLOURED)), settings)
    assert surrogate.queries == 18


# Hugging Face


@pytest.fixture
def table(tmp_path):
    datasets = pytest.importorskip("datasets")
    for row, image in enumerate(COLOURED):
        write_png(tmp_path / f"{row}.png", image)
    features = datasets.Features(
        {"image": datasets.Image(), "label": datasets.ClassLabel(names=["ant", "bee", "cow"])}
    )
    files = [str(tmp_path / f"{row}.png") for row in range(6)]
    return datasets.Dataset.from_dict({"image": files, "label": LABELS}, features=features)


def test_a_hugging_face_data_set_has_images_labels_and_names(table):
    found = as_images(table.select([5, 3]))
    assert found.read([0, 1]).equal(as_tensor(COLOURED[[5, 3]]))
    assert found.labels.tolist() == [2, 0] and found.class_names == ("ant", "bee", "cow")


def test_a_format_of_the_table_changes_nothing(table):
    assert as_images(table.with_format("torch")).fingerprint() == as_images(table).fingerprint()


def test_a_transform_decides_the_images(table):
    def invert(batch):
        return {"pixel_values": [255 - np.array(image) for image in batch["image"]]}

    found = as_images(table.with_transform(invert))
    assert found.read([1]).equal(as_tensor(255 - COLOURED[[1]]))
    assert found.labels.tolist() == LABELS


def test_a_column_of_arrays_is_a_column_of_images():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Array3D((6, 5, 3), "uint8")})
    table = datasets.Dataset.from_dict({"image": list(COLOURED)}, features=features)
    assert as_images(table).read([3]).equal(as_tensor(COLOURED[[3]]))


def test_a_split_has_to_be_chosen_and_a_stream_is_refused(table):
    datasets = pytest.importorskip("datasets")
    with pytest.raises(TypeError, match="got DatasetDict; pass one of its splits: train"):
        as_images(datasets.DatasetDict({"train": table}))
    with pytest.raises(TypeError, match=r"got IterableDataset; .* has no indices"):
        as_images(table.to_iterable_dataset())


# Image sets as sequences


def test_an_image_set_is_a_sequence():
    images = ImageSet.from_arrays(COLOURED, LABELS)
    image, label = images[-1]
    assert image.equal(as_tensor(COLOURED)[5]) and label == 2 and isinstance(label, int)
    part = images[1:6:2]
    assert isinstance(part, ImageSet) and part.labels.tolist() == [1, 0, 2]
    assert [label for _, label in images] == LABELS
    for index in (6, -7):
        with pytest.raises(IndexError, match="index: expected a number below 6"):
            images[index]
    assert ImageSet.from_arrays(COLOURED)[0].shape == (3, 6, 5)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_data_loader_takes_an_image_set(workers):
    images = ImageSet.from_arrays(COLOURED, LABELS)
    batches = list(DataLoader(images, batch_size=4, num_workers=workers))
    assert torch.cat([batch for batch, _ in batches]).equal(as_tensor(COLOURED))
    assert torch.cat([labels for _, labels in batches]).tolist() == LABELS
    (batch,) = DataLoader(ImageSet.from_arrays(COLOURED), batch_size=6)
    assert batch.equal(as_tensor(COLOURED))


def test_an_image_set_describes_itself():
    images = ImageSet.from_arrays(COLOURED, LABELS, "six")
    assert repr(images) == "ImageSet('six': 6 images of shape (3, 6, 5), 3 classes)"
    assert repr(ImageSet.from_arrays(COLOURED)).endswith("no labels)")
