"""The steps from db3kd's images to a model's input."""

import numpy as np
import pytest
import torch
from torch import nn

from db3kd.teachers import ModuleTeacher, Preprocessing


def test_the_default_leaves_images_unchanged(images):
    array = Preprocessing()(images)

    assert array.dtype == np.float32 and np.array_equal(array, images.numpy())


def test_the_steps_are_applied_in_the_documented_order(images):
    steps = Preprocessing(bounds=(-1, 1), scale=(0, 255), mean=(100,), std=(50,), layout="flat")

    array = steps(images * 2 - 1)

    assert np.allclose(array, (images.flatten(1) * 255 - 100) / 50, atol=1e-4)


def test_mean_and_std_may_differ_by_channel():
    images = torch.rand(2, 3, 4, 5)
    steps = Preprocessing(mean=(0.1, 0.2, 0.3), std=(1, 2, 4), layout="NHWC")

    array = steps(images)

    assert array.shape == (2, 4, 5, 3) == (2, *steps.input_shape((3, 4, 5)))
    assert np.allclose(array[..., 2], (images[:, 2] - 0.3) / 4)


def test_an_image_is_resized_by_itself():
    images = torch.rand(3, 1, 8, 8)
    steps = Preprocessing(resize=(4, 6))

    assert steps.input_shape((1, 8, 8)) == (1, 4, 6) == steps(images).shape[1:]
    assert np.array_equal(steps(images)[1:2], steps(images[1:2]))
    assert np.allclose(steps(torch.full((1, 1, 8, 8), 0.25)), 0.25)


def test_values_are_rounded_and_clipped_to_integer_dtypes():
    images = torch.tensor([0.0, 0.4 / 255, 0.6 / 255, 1.0]).view(1, 1, 2, 2)

    array = Preprocessing(scale=(0, 255), dtype="uint8")(images)

    assert array.dtype == np.uint8 and array.flatten().tolist() == [0, 0, 1, 255]
    assert Preprocessing(scale=(0, 300), dtype="uint8")(images).max() == 255


@pytest.mark.parametrize(
    ("steps", "accepted"),
    [
        ({}, False),
        ({"bounds": (-1, 1)}, False),
        ({"mean": 0.5, "std": 0.5}, False),
        ({"bounds": (0, 255)}, True),
        ({"std": 1 / 255}, True),
        ({"scale": (0, 1)}, True),
    ],
)
@pytest.mark.parametrize("dtype", ["uint8", "int64"])
def test_values_are_not_rounded_to_a_few_integers_unless_a_scale_says_so(steps, dtype, accepted):
    if accepted:
        assert Preprocessing(dtype=dtype, **steps).dtype == dtype
        return
    with pytest.raises(ValueError, match=rf"dtype: .* takes {dtype}, .* set scale"):
        Preprocessing(dtype=dtype, **steps)


def test_an_input_shape_gives_the_image_shape_unless_it_is_ambiguous():
    assert Preprocessing().image_shape((1, 28, 28)) == (1, 28, 28)
    assert Preprocessing(layout="NHWC").image_shape((28, 20, 3)) == (3, 28, 20)
    assert Preprocessing(layout="flat").image_shape((784,)) is None
    assert Preprocessing(resize=(4, 4)).image_shape((1, 4, 4)) is None
    assert Preprocessing().image_shape((1, -1, -1)) is None


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"bounds": (1, 0)}, "bounds: expected finite lower < upper"),
        ({"scale": (0, float("nan"))}, "scale: expected finite"),
        ({"resize": (4,)}, r"resize: expected \(height, width\)"),
        ({"resize": (4, 0)}, "resize: expected an integer of at least 1"),
        ({"mean": "dark"}, "mean: expected a number"),
        ({"std": (0,)}, "std: expected positive numbers"),
        ({"layout": "CHW"}, "layout: expected one of NCHW, NHWC, flat"),
        ({"dtype": "int4"}, "dtype: expected one of float16"),
    ],
)
def test_invalid_values_are_named(wrong, words):
    with pytest.raises(ValueError, match=words):
        Preprocessing(**wrong)


def test_steps_that_do_not_fit_the_images_are_named():
    with pytest.raises(ValueError, match=r"std: expected 1 number for images \(1, 8, 8\), got 3"):
        Preprocessing(std=(1, 2, 3)).input_shape((1, 8, 8))
    with pytest.raises(ValueError, match="resize and NHWC need images"):
        Preprocessing(layout="NHWC").input_shape((64,))


def test_the_repr_of_a_teacher_has_its_mean_and_std():
    shown = repr(ModuleTeacher(nn.Flatten(), (1, 2, 2), 4, mean=0.5, std=[0.25]))
    assert shown.endswith("mean=0.5, std=0.25)")
    assert "mean" not in repr(ModuleTeacher(nn.Flatten(), (1, 2, 2), 4))
