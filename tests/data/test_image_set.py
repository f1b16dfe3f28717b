"""Image sets of arrays: how pixels and labels are read, and which are refused."""

import numpy as np
import pytest
import torch

from db3kd.data.image_set import ImageSet
from db3kd.data.loading import load_data

DRAW = np.random.RandomState(0)
BYTES = DRAW.randint(0, 256, (12, 6, 5)).astype(np.uint8)
LABELS = np.arange(12) % 3


def test_bytes_are_read_as_fractions_with_a_channel():
    data = ImageSet.from_arrays(BYTES, LABELS, "twelve")
    images = data.read([3, 0])
    assert images.dtype == torch.float32 and data.image_shape == (1, 6, 5)
    assert images.equal(torch.from_numpy(BYTES[[3, 0], None]).float() / 255)
    assert (len(data), data.classes, data.name) == (12, 3, "twelve")
    assert data.labels.equal(torch.from_numpy(LABELS))


def test_floats_are_read_as_they_are():
    images = torch.rand(4, 3, 5, 5)
    assert ImageSet.from_arrays(images).read(range(4)).equal(images)


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", ">f8", np.longdouble])
def test_floats_of_any_size_and_byte_order_are_read(dtype):
    images = (BYTES / 256).astype(dtype)  # which all of these hold without rounding
    data = ImageSet.from_arrays(images)
    data.fingerprint(check=True)
    assert data.read([3])[0, 0].equal(torch.from_numpy(BYTES[3] / np.float32(256)))
    with pytest.raises(ValueError, match="an infinite value at row 0"):
        ImageSet.from_arrays(np.full((1, 2, 2), np.inf, dtype)).check()


@pytest.mark.parametrize(
    ("stored", "shape"),
    [
        ((2, 7), (7,)),
        ((2, 6, 5), (1, 6, 5)),
        ((2, 3, 6, 5), (3, 6, 5)),
        ((2, 6, 5, 3), (3, 6, 5)),
        ((2, 3, 3, 3), (3, 3, 3)),
    ],
)
def test_the_channels_come_first(stored, shape):
    array = DRAW.rand(*stored).astype(np.float32)
    data = ImageSet.from_arrays(array)
    assert data.image_shape == shape
    expected = array.transpose(0, 3, 1, 2) if stored == (2, 6, 5, 3) else array.reshape(2, *shape)
    assert data.read([0, 1]).equal(torch.from_numpy(expected.copy()))


def test_a_subset_is_a_view_in_the_order_asked_for():
    data = ImageSet.from_arrays(BYTES, LABELS)
    part = data.subset(torch.tensor([7, 2, 5])).subset([2, 0])
    assert part.read([0, 1]).equal(data.read([5, 7]))
    assert part.labels.tolist() == [LABELS[5], LABELS[7]] and part.classes == 3


def test_reading_nothing_gives_nothing():
    assert ImageSet.from_arrays(BYTES).read([]).shape == (0, 1, 6, 5)


@pytest.mark.parametrize("indices", [[12], [-1], torch.tensor([0, 99])])
def test_an_index_outside_the_set_is_refused(indices):
    with pytest.raises(
        IndexError, match=r"indices: expected row numbers in \[0, 12\).* got (12|-1|99)"
    ):
        ImageSet.from_arrays(BYTES).read(indices)


def test_a_mask_chooses_images():
    chosen = ImageSet.from_arrays(BYTES).subset(LABELS == 0)
    assert chosen.read(range(len(chosen))).equal(
        ImageSet.from_arrays(BYTES[LABELS == 0]).read(range(len(chosen)))
    )
    with pytest.raises(
        ValueError, match=r"indices: expected .* or 12 booleans, got \[3\] booleans"
    ):
        ImageSet.from_arrays(BYTES).subset([True, False, True])


def test_a_set_without_labels_has_no_classes_by_default():
    assert ImageSet.from_arrays(BYTES).classes is None
    assert ImageSet.from_arrays(BYTES, classes=5).classes == 5


def test_a_fingerprint_depends_on_images_labels_and_order():
    changed = BYTES.copy()
    changed[4, 2, 2] ^= 1
    data = ImageSet.from_arrays(BYTES, LABELS)
    sets = [
        data,
        ImageSet.from_arrays(changed, LABELS),
        ImageSet.from_arrays(BYTES, LABELS[::-1].copy()),
        data.subset([0, 1]),
        data.subset([1, 0]),
    ]
    assert len({each.fingerprint() for each in sets}) == len(sets)
    assert ImageSet.from_arrays(BYTES.copy(), LABELS, "other").fingerprint() == data.fingerprint()


@pytest.mark.parametrize(
    ("images", "labels", "kind", "message"),
    [
        (BYTES[:0], None, ValueError, "the set is empty, expected at least one image"),
        (BYTES, LABELS[:5], ValueError, "arrays labels: expected 12 classes"),
        (BYTES, LABELS - 1, ValueError, "got -1 at row 0"),
        (BYTES, LABELS / 2, TypeError, "as int64, got float64"),
        (BYTES.astype(np.int64), None, TypeError, "expected uint8 or floats.*got int64"),
        (BYTES[0, 0], None, ValueError, r"expected \[N, C, H, W\].*got \[N\]"),
    ],
)
def test_bad_arrays_are_refused(images, labels, kind, message):
    with pytest.raises(kind, match=message):
        ImageSet.from_arrays(images, labels)


def test_labels_beyond_the_class_count_are_refused():
    with pytest.raises(ValueError, match="got 2 at row 2; number the classes from 0"):
        ImageSet.from_arrays(BYTES, LABELS, classes=2)


@pytest.mark.parametrize("value", [np.nan, 255.0, -0.1, np.nextafter(np.float32(1), np.float32(2))])
def test_a_check_names_the_row_of_floats_outside_0_and_1(value):
    images = np.full((3000, 2, 2), 0.5, np.float32)
    images[2777, 1, 1] = value
    with pytest.raises(ValueError, match=r"arrays: .* at row 2777"):
        ImageSet.from_arrays(images)
    ImageSet.from_arrays(images[:2777]).check()
    ImageSet.from_arrays(BYTES).check()


def test_floats_that_were_not_divided_are_refused_with_advice():
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 255 at row 1; divide by 255"):
        ImageSet.from_arrays(np.stack([np.zeros((4, 4)), np.full((4, 4), 255.0)]))


def test_a_mapped_array_is_checked_when_it_is_read(tmp_path):
    images = np.full((3, 2, 2), 0.5, np.float32)
    images[2] = np.nan
    np.save(tmp_path / "images.npy", images)
    data = ImageSet.from_arrays(np.load(tmp_path / "images.npy", mmap_mode="r"))
    with pytest.raises(ValueError, match=r"arrays: .* at row 2"):
        data.check()
    data.subset([0, 1]).check()


def test_a_value_just_outside_is_printed_with_all_its_digits():
    images = np.full((1, 2, 2), np.nextafter(np.float32(1), np.float32(2)), np.float32)
    with pytest.raises(ValueError, match=r"in \[0, 1\], got 1\.0000001 at row 0"):
        ImageSet.from_arrays(images).check()


def test_class_names_go_with_subsets_and_must_be_different():
    data = ImageSet.from_arrays(BYTES, LABELS, class_names=["one", "two", " three "])
    assert data.subset([1]).class_names == ("one", "two", "three")
    for names, message in (
        (["one", "two"], "expected 3 names, got 2"),
        (["one", "one", "two"], "got 'one' twice"),
        (["one", "", "two"], "got '' for class 1"),
    ):
        with pytest.raises(ValueError, match=f"class_names: .*{message}"):
            ImageSet.from_arrays(BYTES, LABELS, class_names=names, classes=3)


@pytest.mark.parametrize("value", [np.nan, 255.0, -0.1])
def test_floats_outside_0_and_1_are_refused_when_read(value):
    images = np.full((3, 4, 4), 0.5, np.float32)
    images[1, 2, 2] = value
    with pytest.raises(ValueError, match=r"arrays: .* at row 1"):
        ImageSet.from_arrays(images).read([0, 1])


# Labels


@pytest.mark.parametrize(
    "dtype", [np.uint8, np.uint16, np.uint32, np.uint64, np.int8, ">i4", ">u2", ">i8"]
)
@pytest.mark.parametrize("shape", [(12,), (12, 1)])
def test_class_numbers_of_any_integer_type_are_labels(tmp_path, dtype, shape):
    labels = LABELS.astype(dtype).reshape(shape)
    assert ImageSet.from_arrays(BYTES, labels).labels.equal(torch.from_numpy(LABELS))
    np.savez(tmp_path / "set.npz", images=BYTES, labels=labels)
    assert load_data(tmp_path / "set.npz").labels.equal(torch.from_numpy(LABELS))


def test_names_are_labels(tmp_path):
    names = np.array(["two", "zero", "one"])[LABELS]
    data = ImageSet.from_arrays(BYTES, names)
    assert data.class_names == ("one", "two", "zero")
    assert data.labels.equal(torch.tensor([1, 2, 0]).repeat(4))
    assert ImageSet.from_arrays(BYTES, list(names), class_names=("zero", "one", "two")).labels[
        :3
    ].tolist() == [2, 0, 1]
    np.savez(tmp_path / "set.npz", x_train=BYTES, y_train=names, x_test=BYTES[:1], y_test=["zero"])
    assert load_data(tmp_path / "set.npz", "test").labels.tolist() == [2]
    with pytest.raises(
        ValueError, match="expected one of the class names 'one', 'two', got 'zero'"
    ):
        ImageSet.from_arrays(BYTES, names, class_names=("one", "two"))


MASKED = np.ma.masked_equal(np.arange(12), 3)


@pytest.mark.parametrize(
    ("labels", "kind", "message"),
    [
        (np.empty((12, 0), int), ValueError, r"one label per image, got shape \[12, 0\]"),
        (np.eye(12, dtype=int), ValueError, r"got shape \[12, 12\]; take argmax"),
        (np.full(12, 2**63, np.uint64), ValueError, r"below 2\^63, got 9223372036854775808"),
        (np.array([]), TypeError, "expected class names, or class numbers as int64, got float64"),
        (
            np.array([None] * 12),
            ValueError,
            "expected a class in each row, got none in row 0, count",
        ),
        (np.ones(12, bool), TypeError, "class numbers as int64, got bool"),
        (MASKED, ValueError, "expected a class in each row, got none in row 3, counted from 0"),
        (MASKED[:, None], ValueError, "a class in each row, got none in row 3, counted from 0"),
        (MASKED.astype(str), ValueError, "a class in each row, got none in row 3, counted from 0"),
        (["a"] * 5 + [" "] + ["b"] * 6, ValueError, "a class in each row, got none in row 5, coun"),
        ([b"a"] * 11 + [b""], ValueError, "a class in each row, got none in row 11, counted from"),
    ],
)
def test_labels_that_are_neither_numbers_nor_names_are_refused(labels, kind, message):
    with pytest.raises(kind, match=f"arrays labels: .*{message}"):
        ImageSet.from_arrays(BYTES, labels)


def test_a_masked_array_without_masked_labels_is_like_any_other():
    labels = np.ma.array(np.arange(12) % 2, mask=False)
    assert ImageSet.from_arrays(BYTES, labels).labels.tolist() == [0, 1] * 6
