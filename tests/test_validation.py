"""Checks of arguments, and the fixes that their errors suggest."""

import math

import pytest
import torch
from counting_names import CountingName, counting_names

from db3kd.arguments.images import (
    check_bounds,
    check_class_names,
    check_image_shape,
    check_images,
    number_text,
)

SHAPE = (1, 28, 28)
UNIT = (0.0, 1.0)


def test_valid_images_are_returned():
    images = torch.rand(3, *SHAPE)
    assert check_images(images, SHAPE, UNIT) is images


def test_an_empty_batch_is_valid():
    check_images(torch.empty(0, *SHAPE), SHAPE, UNIT)


@pytest.mark.parametrize(
    ("images", "shape", "found", "fix"),
    [
        (torch.zeros(64, 28, 28), SHAPE, "[64, 28, 28] float32", "add a channel dimension"),
        (torch.zeros(1, 28, 28), SHAPE, "[1, 28, 28] float32", "add a batch dimension"),
        (torch.zeros(2, 32, 32, 3), (3, 32, 32), "[2, 32, 32, 3]", "permute(0, 3, 1, 2)"),
        (torch.zeros(2, 784), SHAPE, "[2, 784]", "reshape to [N, 1, 28, 28]"),
        (torch.zeros(2, 3, 32, 32), SHAPE, "[2, 3, 32, 32]", "pass images of shape [1, 28, 28]"),
    ],
)
def test_a_wrong_shape_gets_the_likely_fix(images, shape, found, fix):
    with pytest.raises(ValueError) as caught:
        check_images(images, shape, UNIT, "samples")
    message = str(caught.value)
    assert message.startswith("samples: expected [N, ") and found in message and fix in message


def test_bytes_without_a_channel_get_both_fixes():
    with pytest.raises(TypeError) as caught:
        check_images(torch.zeros(64, 28, 28, dtype=torch.uint8), SHAPE, UNIT)
    assert str(caught.value) == (
        "images: expected [N, 1, 28, 28] float32 in [0, 1], got [64, 28, 28] uint8; "
        "add a channel dimension and divide by 255"
    )


def test_doubles_get_a_conversion():
    with pytest.raises(TypeError, match=r"got \[2, 1, 28, 28\] float64; convert with \.float\(\)"):
        check_images(torch.zeros(2, *SHAPE, dtype=torch.float64), SHAPE, UNIT)


def test_an_array_gets_a_conversion():
    with pytest.raises(TypeError, match=r"got ndarray; use torch.as_tensor"):
        check_images(torch.zeros(2, *SHAPE).numpy(), SHAPE, UNIT)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (math.nan, "got NaN at row 2"),
        (math.inf, "got an infinite value at row 2"),
        (-0.5, "got -0.5 at row 2; scale or clamp"),
        (255.0, "got 255 at row 2; divide by 255"),
        (1.0000001, "got 1.0000001 at row 2; scale or clamp"),
        (-1e-45, "got -1e-45 at row 2; scale or clamp"),
    ],
)
def test_an_invalid_value_is_named_with_its_row(value, message):
    images = torch.full((4, *SHAPE), 0.5)
    images[2, 0, 3, 4] = value
    with pytest.raises(ValueError, match=r"images: expected finite values in \[0, 1\]") as caught:
        check_images(images, SHAPE, UNIT)
    assert message in str(caught.value)


def test_a_bound_is_shown_with_all_significant_digits():
    with pytest.raises(ValueError, match=r"in \[-2.117904, 1.0000001\], got 1.0000002 at row 0"):
        check_images(torch.full((1, 2), 1.0000002), (2,), (-2.1179039301310043, 1.0000001))
    with pytest.raises(ValueError, match=r"expected \[N, 2\] float32 in \[0, 1.0000001\], got"):
        check_images(torch.zeros(1, 3), (2,), (0.0, 1.0000001))


def test_images_on_a_bound_that_float32_rounds_are_valid():
    for bounds in ((0.1, 0.3), (-2.64, 2.64), (-0.1, 1 / 3)):
        images = torch.tensor([bounds])
        assert check_images(images, (2,), bounds) is images
        beyond = images.nextafter(torch.tensor([-torch.inf, torch.inf]))
        with pytest.raises(ValueError, match="expected finite values"):
            check_images(beyond, (2,), bounds)


@pytest.mark.parametrize(
    ("value", "text"), [(1.0, "1"), (0.1, "0.1"), (1 + 2**-23, "1.0000001"), (-2.5e-9, "-2.5e-09")]
)
def test_a_number_is_shown_in_the_fewest_distinguishing_digits(value, text):
    assert number_text(value) == text


@pytest.mark.parametrize(
    ("shape", "kind"),
    [
        ((), ValueError),
        ((0, 3), ValueError),
        ((1.5,), TypeError),
        ("28", TypeError),
        (28, TypeError),
        ((True,), TypeError),
    ],
)
def test_an_image_shape_is_positive_integers(shape, kind):
    with pytest.raises(kind, match="image_shape: expected positive integers"):
        check_image_shape(shape)


@pytest.mark.parametrize(
    "bounds", [(1, 0), (0, 0), (0, math.inf), (math.nan, 1), (0,), (0, 1e39), (1, 1 + 1e-12)]
)
def test_bounds_are_finite_and_in_order(bounds):
    with pytest.raises(ValueError, match="bounds: expected"):
        check_bounds(bounds)


@pytest.mark.parametrize("bounds", [None, 1.0, "01", ("0", "1"), (0, None), (False, 1)])
def test_bounds_are_numbers(bounds):
    with pytest.raises(TypeError, match=r"^bounds: expected .*\(lower, upper\), got "):
        check_bounds(bounds)


def test_class_names_that_no_file_can_hold_are_refused():
    message = r"teacher class_names: expected 2 names in Unicode, got 'caf\\udce9' for class 1"
    with pytest.raises(ValueError, match=message):
        check_class_names(["tea", "caf\udce9"], 2, "teacher")


def test_the_check_of_class_names_does_not_compare_each_with_all_others():
    names = counting_names(2_000)
    assert check_class_names(names, 2_000, "teacher") == tuple(names)
    assert CountingName.comparisons < 10_000
    with pytest.raises(ValueError, match="got 'name 7' twice"):
        check_class_names([*names, names[7]], None, "teacher")
