"""Teachers and images as callers give them."""

import numpy as np
import pytest
import torch
from teachers_analytic import NearestCentroidTeacher
from torch import nn

import db3kd
from db3kd.data.arguments import as_image_source, as_images, as_teacher
from db3kd.data.image_reader import image_reader
from db3kd.data.image_set import ImageSet
from db3kd.labelling.label_images import label
from db3kd.labelling.settings import LabelSettings
from db3kd.pipelines.inputs import convert_images
from db3kd.teachers import FunctionTeacher, TeacherError

SHAPE = (1, 4, 4)
SETTINGS = LabelSettings("bd", queries_per_pair=10)


@pytest.fixture
def images():
    return torch.rand(10, *SHAPE, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def teacher():
    return NearestCentroidTeacher(
        torch.rand(3, 16, generator=torch.Generator().manual_seed(0)), SHAPE
    )


@pytest.fixture
def module(teacher):
    network = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    with torch.no_grad():
        network[1].weight.copy_(teacher.weights)
        network[1].bias.copy_(teacher.bias)
    return network


def test_arrays_are_labelled_as_tensors(images, teacher):
    expected = label(teacher, images, SETTINGS)
    for given in (images.numpy(), images.double(), images.numpy().astype(">f4")):
        assert label(teacher, given, SETTINGS).distances.equal(expected.distances)


@pytest.mark.filterwarnings("error")
def test_read_only_arrays_give_no_warning_and_are_not_copied(images, tmp_path):
    np.save(tmp_path / "images.npy", images.numpy())
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    always = torch.is_warn_always_enabled()
    torch.set_warn_always(True)  # torch warns of the first such array only
    try:
        read = as_images(mapped)
        bright = FunctionTeacher(
            lambda pixels: (pixels.mean((1, 2, 3)) > 0.5).astype(int), SHAPE, 2
        )
        assert bright.decide(mapped).equal((images.mean((1, 2, 3)) > 0.5).long())
    finally:
        torch.set_warn_always(always)
    assert np.shares_memory(read.tensor.numpy(), mapped)


def test_whole_numbers_up_to_255_are_images_from_0_to_1(images, teacher):
    stored = (images * 255).byte()
    expected = label(teacher, stored.float() / 255, SETTINGS)
    for given in (stored, stored.numpy()):
        assert label(teacher, given, SETTINGS).distances.equal(expected.distances)


def test_a_module_is_labelled_as_the_teacher_around_it(images, module):
    expected = label(db3kd.ModuleTeacher(module, SHAPE, 3), images, SETTINGS)
    assert label(module, images, SETTINGS).distances.equal(expected.distances)
    made = as_teacher(module, as_images(images))
    assert (made.image_shape, made.classes, made.bounds) == (SHAPE, 3, (0.0, 1.0))


class Estimator:
    def predict(self, rows):
        raise NotImplementedError


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (np.zeros((4, *SHAPE)), r"got ndarray \[4, 1, 4, 4\] float64; pass the teacher first"),
        (torch.zeros(4), "pass the teacher first, then the images"),
        ("teacher.safetensors", r"load_teacher\('teacher.safetensors'\)"),
        (Estimator(), r"FunctionTeacher\(model.predict, image_shape, classes, flatten=True\)"),
        (len, r"FunctionTeacher\(function, image_shape, classes\)"),
        (NearestCentroidTeacher, "got the class NearestCentroidTeacher"),
        (None, "got NoneType; see db3kd.FunctionTeacher"),
        (nn.Linear(3, 4), "fails on an image of shape"),
        (nn.Flatten(0), r"got \[16\]; wrap it: db3kd.ModuleTeacher"),
    ],
)
def test_other_objects_are_refused_as_teachers_with_advice(images, given, message):
    with pytest.raises(TypeError, match=f"teacher: .*{message}"):
        label(given, images)


def test_the_error_lists_what_a_teacher_lacks(images):
    class Half:
        image_shape, classes = SHAPE, 3

        def decide(self, images): ...

    with pytest.raises(
        TypeError, match=r"teacher: .* got Half; it lacks bounds, device, fingerprint"
    ):
        label(Half(), images)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (nn.Linear(3, 4), "got Linear; pass the teacher first"),
        ("digits", r"got str; load them: db3kd.load_data\('digits'\)"),
        ([[0.5]], r"got list; make an array \[N, C, H, W\]"),
        (np.ma.masked_array(np.zeros((4, *SHAPE)), True), "fill its masked values"),
        (np.array(["a"]), "convert it from <U1"),
        (torch.zeros(4, *SHAPE, dtype=torch.int32), "convert it to uint8"),
    ],
)
def test_other_objects_are_refused_as_images_with_advice(teacher, given, message):
    with pytest.raises(TypeError, match=f"images: .*{message}"):
        label(teacher, given)


def test_an_image_set_is_returned_unchanged(images):
    images = db3kd.ImageSet.from_arrays(images.numpy())
    assert as_images(images) is images


def test_arrays_tensors_and_sets_become_sources_of_the_same_images(images, teacher):
    order = torch.tensor([3, 1])
    for given in (images, images.numpy(), db3kd.ImageSet.from_arrays(images.numpy())):
        source = as_image_source(given)
        assert source.read(order).equal(images[order]) and len(source) == len(images)
        assert as_image_source(source) is source
        assert convert_images(source, "images", teacher).read(order).equal(images[order])


def test_training_takes_arrays_and_explains_the_rest(images):
    read = image_reader(images.numpy(), "cpu")
    assert read(torch.tensor([3, 1])).equal(images[[3, 1]])
    with pytest.raises(TypeError, match=r"images: expected an ImageSet, .* got list"):
        image_reader([1, 2], "cpu")


@pytest.mark.parametrize(
    "raised", [StopIteration, StopAsyncIteration, GeneratorExit, AttributeError]
)
def test_any_exception_of_a_teacher_becomes_a_teacher_error(images, raised):
    def decide(rows):
        raise raised("no more")

    message = f"teacher mine raised {raised.__name__} on 1 image: no more"
    with pytest.raises(TeacherError, match=message):
        label(FunctionTeacher(decide, SHAPE, 3, name="mine"), images)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda images: images.to("meta"), "a meta tensor, which has no values"),
        (lambda images: images.to_sparse(), r"layout torch.sparse_coo; use its method to_dense"),
        (lambda images: images.to(torch.complex64), r"complex64; use its real"),
        (
            lambda images: torch.nested.nested_tensor(list(images), layout=torch.jagged),
            "a nested tensor; stack",
        ),
    ],
)
def test_tensors_without_a_number_for_each_pixel_are_refused(images, teacher, make, message):
    expected = f": expected a dense tensor of real numbers, got {message}"
    made = make(images)
    asked = FunctionTeacher(lambda array: [0] * len(array), SHAPE, 3, fingerprint="f")
    for take in (asked.decide, lambda given: label(teacher, given)):
        with pytest.raises(TypeError, match=f"^images{expected}"):
            take(made)
    with pytest.raises(TypeError, match=f"^arrays{expected}"):
        ImageSet.from_arrays(made)


def test_tensors_that_require_gradients_are_images(images, teacher):
    given = images.clone().requires_grad_()
    assert teacher.decide(given).equal(teacher.decide(images))
    assert ImageSet.from_arrays(given).read([0]).equal(images[:1])
    assert ImageSet.from_arrays(images.bfloat16()).read([0]).equal(images[:1].bfloat16().float())
