"""Classes and row numbers are accepted in any form that holds integers."""

import numpy as np
import pytest
import torch

from db3kd.arguments.arrays import as_classes, as_index, as_number
from db3kd.data.augmented_images import AugmentedImages
from db3kd.data.image_set import ImageSet

FORMS = [
    [0, 2],
    (0, 2),
    np.array([0, 2], np.int32),
    np.array([0, 2], np.uint16),
    np.array([0, 2], ">i8"),
    torch.tensor([0, 2]),
    torch.tensor([0, 2], dtype=torch.uint8),
]


@pytest.mark.parametrize("value", FORMS)
def test_integers_of_any_form_are_int64(value):
    for found in (as_classes(value, 2, classes=3), as_index(value, 3)):
        assert found.dtype == torch.int64 and found.tolist() == [0, 2]


def test_further_forms_of_row_numbers():
    assert as_index(range(1, 3), 5).tolist() == [1, 2]
    assert (
        as_index([], 5).tolist() == [] == as_index(torch.tensor([], dtype=torch.int64), 0).tolist()
    )
    for mask in ([True, False, True], np.array([1, 0, 1], bool), torch.tensor([1, 0, 1]).bool()):
        assert as_index(mask, 3).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        ([0, 3], ValueError, "got 3 at row 1; number the classes from 0"),
        (torch.tensor([-1, 0]), ValueError, "got -1 at row 0"),
        (np.array([0, 2**64 - 1], np.uint64), ValueError, r"below 2\^63, got 18446744073709551615"),
        (torch.tensor([0, 2**63], dtype=torch.uint64), ValueError, r"below 2\^63, got 9223"),
        (np.array([0]), ValueError, r"in \[0, 3\), got \[1\]$"),
        (torch.eye(2, dtype=torch.int64), ValueError, "argmax"),
        (torch.tensor([0.0, 1.0]), TypeError, r"got float32; use labels.long\(\)"),
        (np.array([0.0, 1.0]), TypeError, r"got ndarray of float64; use labels.long\(\)"),
        ([True, False], TypeError, "got bool"),
        ([True, 1], TypeError, r"got booleans among numbers; use labels.long\(\)"),
        (["a", "b"], TypeError, "got list of <U1"),
        ("ab", TypeError, "got 'ab'"),
        (3, TypeError, "got 3"),
        ([[0], [1, 2]], TypeError, "got nested sequences"),
    ],
)
def test_other_classes_are_refused(value, kind, message):
    with pytest.raises(kind, match=f"^labels: expected 2 classes .*{message}"):
        as_classes(value, 2, classes=3)


@pytest.mark.parametrize("value", [[True, 1], (2, np.False_), [0, 1, True]])
def test_row_numbers_and_booleans_are_not_mixed(value):
    with pytest.raises(TypeError, match=r"^index: expected row numbers .* got booleans among num"):
        as_index(value, 3)


IMAGES = ImageSet.from_arrays(np.zeros((5, 1, 2, 2), np.float32))


@pytest.mark.parametrize("images", [IMAGES, AugmentedImages(IMAGES, 1, 0)])
@pytest.mark.parametrize("index", ["a", [1, 2], None, 1.0, True, np.True_])
def test_an_index_that_is_no_integer_is_named(images, index):
    with pytest.raises(TypeError, match=r"^index: expected an integer, got .*; .*use"):
        images[index]


@pytest.mark.parametrize("index", [2, -3, np.int8(2), torch.tensor(2)])
def test_integers_of_any_kind_are_numbers_of_rows(index):
    assert as_number(index, 5) == 2
    with pytest.raises(IndexError, match="index: expected a number below 2"):
        as_number(index, 2)


def test_the_number_of_classes_may_be_unknown():
    assert as_classes([0, 10**6], 2).tolist() == [0, 10**6]
    with pytest.raises(
        ValueError, match=r"^answers: expected 1 class of at least 0, got -1 at row 0"
    ):
        as_classes([-1], 1, "answers")


@pytest.mark.parametrize(
    ("value", "kind", "message"),
    [
        (3, TypeError, "got 3$"),
        ("01", TypeError, "got '01'$"),
        ([0.5], TypeError, "got list of float64; pass row numbers"),
        (torch.tensor([0.0]), TypeError, "got float32; pass row numbers"),
        (torch.tensor(1), ValueError, r"got \[\]$"),
        (np.zeros((2, 2), int), ValueError, r"got \[2, 2\]$"),
        ([True], ValueError, r"got \[1\] booleans$"),
        ([0, 3], IndexError, "got 3$"),
        ([-1], IndexError, "got -1$"),
    ],
)
def test_other_row_numbers_are_refused(value, kind, message):
    with pytest.raises(kind, match=rf"^rows: expected row numbers in \[0, 3\), or .*{message}"):
        as_index(value, 3, "rows")
