import importlib.util
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.svm import SVC
from teachers_analytic import (
    AnalyticTeacher,
    BallTeacher,
    CountingTeacher,
    LinearTeacher,
    NearestCentroidTeacher,
    RaisingTeacher,
    WrongTeacher,
    as_float,
    beyond_range,
    brightness,
    image_key,
    one_short,
)
from torch import nn

from db3kd.teachers import (
    FunctionTeacher,
    ModuleTeacher,
    RescaledTeacher,
    Teacher,
    TeacherError,
    decide_async_checked,
    decide_checked,
)

SHAPE = (1, 8, 8)


@pytest.fixture
def linear() -> LinearTeacher:
    draw = torch.Generator().manual_seed(1)
    weights = torch.randn(4, 64, generator=draw)
    return LinearTeacher(weights, torch.zeros(4), SHAPE, max_batch=7)


# Calling a teacher


def test_images_are_decided_in_calls_of_at_most_max_batch(linear, images):
    counting = CountingTeacher(linear, keep=True)
    assert decide_checked(counting, images).equal(linear.decide(images))
    assert counting.calls == [7, 7, 6] and counting.total == 20
    assert torch.cat(counting.images).equal(images)
    assert counting.per_image[image_key(images[3])] == 1


def test_no_images_cause_no_call(linear):
    counting = CountingTeacher(linear)
    assert decide_checked(counting, torch.empty(0, *SHAPE)).shape == (0,)
    assert counting.total == 0


def test_images_of_another_shape_are_refused_before_a_query_is_spent(linear):
    counting = CountingTeacher(linear)
    with pytest.raises(ValueError, match=r"images: expected \[N, 1, 8, 8\].*got \[20, 8, 8\]"):
        decide_checked(counting, torch.rand(20, 8, 8))
    assert counting.total == 0


def test_decisions_before_a_failure_are_kept(linear, images):
    with pytest.raises(
        TeacherError, match="raised ConnectionError on 6 images: the line"
    ) as caught:
        decide_checked(RaisingTeacher(linear, 15), images)
    assert isinstance(caught.value.__cause__, ConnectionError)
    assert caught.value.answered.equal(linear.decide(images)[:14])


def test_an_interrupt_is_not_a_failure(linear, images):
    with pytest.raises(KeyboardInterrupt):
        decide_checked(RaisingTeacher(linear, 0, KeyboardInterrupt()), images)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (one_short, "got 6 decisions; return one class for each"),
        (as_float, r"got \[7\] float32; return class numbers as integers"),
        (lambda d: d.bool(), r"got \[7\] bool"),
        (beyond_range, r"returned class 100\d, expected \[0, 4\)"),
        (lambda d: d - 4, r"returned class -\d, expected \[0, 4\)"),
        (lambda d: torch.eye(4)[d], r"got scores \[7, 4\] float32; return scores\.argmax\(1\)"),
        (lambda d: d[:, None], r"got \[7, 1\] int64; return one class for each"),
        (lambda d: d.tolist(), "got list; return a tensor"),
    ],
)
def test_an_invalid_decision_is_refused_with_the_fix(linear, images, change, message):
    with pytest.raises(TeacherError, match=f"teacher WrongTeacher.*{message}") as caught:
        decide_checked(WrongTeacher(linear, change), images)
    assert len(caught.value.answered) == 0


# Analytic teachers


@pytest.mark.parametrize("size", [64, 3072])
def test_an_analytic_decision_does_not_depend_on_its_batch(size):
    draw = torch.Generator().manual_seed(2)
    rows = torch.rand(64, size, generator=draw)
    centers = torch.rand(5, size, generator=draw)
    linear = LinearTeacher(torch.randn(5, size, generator=draw), torch.zeros(5))
    # One score for each image, compared bit for bit: more than the decisions alone would show.
    assert linear.scores(rows).equal(torch.cat([linear.scores(row[None]) for row in rows]))
    assert linear.scores(rows).equal(torch.cat([linear.scores(part) for part in rows.split(7)]))
    ball = BallTeacher(centers[0], 1.0)
    assert ball.distance(rows).equal(torch.cat([ball.distance(row[None]) for row in rows]))


def on_boundary(teacher: AnalyticTeacher, image: torch.Tensor, end: torch.Tensor) -> bool:
    """Whether the decision changes between a little before and a little after `end`."""
    before, after = (image + scale * (end - image) for scale in (1 - 1e-4, 1 + 1e-4))
    return bool(teacher.decide(before[None]) != teacher.decide(after[None]))


def test_the_distance_of_a_linear_teacher_ends_on_its_boundary(images):
    draw = torch.Generator().manual_seed(3)
    teacher = LinearTeacher(torch.randn(2, 64, generator=draw), torch.tensor([0.3, 0.0]), SHAPE)
    for image, predicted in zip(images, teacher.decide(images), strict=True):
        target = 1 - int(predicted)
        direction = (teacher.weights[target] - teacher.weights[predicted]).reshape(SHAPE)
        step = teacher.distance(image[None], target)[0] * direction / direction.norm()
        assert on_boundary(teacher, image.double(), image.double() + step)


def test_the_distance_of_a_ball_ends_on_its_sphere(images):
    teacher = BallTeacher(torch.full(SHAPE, 0.5), 1.0)
    for image in images.double():
        outwards = image - 0.5
        end = 0.5 + outwards / outwards.norm()
        assert on_boundary(teacher, image, end)
        assert torch.isclose(teacher.distance(image[None])[0], (end - image).norm())
    assert teacher.decide(torch.full((1, *SHAPE), 0.5)).tolist() == [1]


def test_the_nearest_centroid_wins(images):
    centroids = torch.rand(6, 64, generator=torch.Generator().manual_seed(4))
    teacher = NearestCentroidTeacher(centroids, SHAPE)
    nearest = torch.cdist(images.flatten(1).double(), centroids.double()).argmin(1)
    assert teacher.decide(images).equal(nearest)


# Modules


def test_a_module_teacher_is_a_teacher_that_answers_the_argmax(module, images):
    teacher = ModuleTeacher(module, SHAPE, 10, max_batch=8)
    assert isinstance(teacher, Teacher)
    assert decide_checked(teacher, images).equal(module(images).argmax(1))


def test_a_module_that_trains_on_leaves_its_teacher_as_it_was(module, images):
    teacher = ModuleTeacher(nn.Sequential(module, nn.Dropout(0.5)).train(), SHAPE, 10)
    before, fingerprint = teacher.decide(images), teacher.fingerprint()
    with torch.no_grad():
        module.classifier[-1].bias.copy_(torch.arange(10.0) * 100)
    assert teacher.decide(images).equal(before) and teacher.fingerprint() == fingerprint
    assert module.training and all(p.requires_grad for p in module.parameters())


def test_a_module_that_works_in_place_leaves_the_images_as_they_were(images):
    before = images.clone()
    ModuleTeacher(
        nn.Sequential(nn.Threshold(0.5, 9.0, inplace=True), nn.Flatten()), SHAPE, 64
    ).decide(images)
    assert images.equal(before)


def test_a_teacher_in_bfloat16_takes_float32_images(module, images):
    assert ModuleTeacher(module.bfloat16(), SHAPE, 10).decide(images).shape == (20,)


def test_autocast_answers_nearly_alike_and_is_part_of_the_fingerprint(module, images):
    plain = ModuleTeacher(module, SHAPE, 10)
    fast = ModuleTeacher(module, SHAPE, 10, autocast=torch.bfloat16)
    assert (plain.decide(images) == fast.decide(images)).float().mean() > 0.5
    assert plain.fingerprint() != fast.fingerprint()


def test_a_fingerprint_tells_weights_apart(module):
    same = ModuleTeacher(module, SHAPE, 10).fingerprint()
    assert ModuleTeacher(module, SHAPE, 10, max_batch=3).fingerprint() == same
    with torch.no_grad():
        module.classifier[-1].bias[0] += 1e-6
    assert ModuleTeacher(module, SHAPE, 10).fingerprint() != same


@pytest.mark.parametrize(
    ("inner", "message"),
    [
        (nn.Flatten(), r"expected scores \[20, 10\] from the module, got \[20, 64\]"),
        (nn.LSTM(8, 10), "raised"),
    ],
)
def test_a_module_that_gives_no_scores_is_refused(inner, message, images):
    with pytest.raises(TeacherError, match=message):
        decide_checked(ModuleTeacher(inner, SHAPE, 10), images)


def test_nan_scores_are_not_a_decision(module, images):
    nn.init.constant_(module.classifier[-1].bias, float("nan"))
    with pytest.raises(TeacherError, match="got NaN among them"):
        decide_checked(ModuleTeacher(module, SHAPE, 10), images)


# Functions


def test_a_function_is_a_teacher(images):
    teacher = FunctionTeacher(brightness, SHAPE, 2, max_batch=3)
    assert isinstance(teacher, Teacher)
    assert decide_checked(teacher, images).tolist() == brightness(images.numpy()).tolist()


def test_an_estimator_is_a_teacher_in_one_line():
    svm = pytest.importorskip("sklearn.svm")
    digits = pytest.importorskip("sklearn.datasets").load_digits()
    svc = svm.SVC().fit(digits.data[:200] / 16, digits.target[:200])
    teacher = FunctionTeacher(svc.predict, (1, 8, 8), 10, flatten=True)
    asked = torch.tensor(digits.images[:50] / 16, dtype=torch.float32).unsqueeze(1)
    assert (decide_checked(teacher, asked).numpy() == digits.target[:50]).mean() > 0.9

    again = svm.SVC().fit(digits.data[:200] / 16, digits.target[:200])
    other = svm.SVC().fit(digits.data[:300] / 16, digits.target[:300])
    prints = [FunctionTeacher(e.predict, SHAPE, 10).fingerprint() for e in (svc, again, other)]
    assert prints[0] == prints[1] != prints[2]


def test_a_function_may_change_its_array(images):
    def spoil(array: np.ndarray) -> np.ndarray:
        array[:] = 0
        return np.zeros(len(array), np.int64)

    before = images.clone()
    decide_checked(FunctionTeacher(spoil, SHAPE, 2), images)
    assert images.equal(before)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda array: array.mean((1, 2, 3)), "return class numbers as integers"),
        (lambda array: np.eye(2)[brightness(array)], r"return scores\.argmax\(1\)"),
        (lambda array: ["cat"] * len(array), "got the class name 'cat'"),
        (lambda array: None, "got None"),
        (lambda array: 1 / 0, "raised ZeroDivisionError"),
        (
            lambda array: (each for each in array),
            "got a generator .* pass the generator function itself",
        ),
        (lambda array: brightness(array) + 1, "class 2, .* from 1, let it return each .* minus 1"),
        (lambda array: brightness(array) + 5, "number the classes from 0, or correct classes=$"),
    ],
)
def test_a_function_that_returns_no_class_is_refused(function, message, images):
    with pytest.raises(TeacherError, match=message):
        decide_checked(FunctionTeacher(function, SHAPE, 2), images)


@pytest.mark.parametrize("kind", ["function", "generator", "module", "rescaled"])
def test_an_array_is_decided_as_its_tensor_is(module, images, kind):
    def one_by_one(array):
        yield from brightness(array)

    teacher = {
        "function": FunctionTeacher(brightness, SHAPE, 2),
        "generator": FunctionTeacher(one_by_one, SHAPE, 2),
        "module": ModuleTeacher(module, SHAPE, 10),
        "rescaled": RescaledTeacher(FunctionTeacher(brightness, SHAPE, 2, (0, 255))),
    }[kind]
    assert teacher.decide(images.double().numpy()).equal(teacher.decide(images))
    with pytest.raises(ValueError, match=r"images: .*got 255 at row 0; divide by 255"):
        teacher.decide(np.full((2, *SHAPE), 255, np.uint8))
    with pytest.raises(ValueError, match=r"images: expected \[N, 1, 8, 8\].*add a batch dimension"):
        teacher.decide(images[0].numpy())
    with pytest.raises(TypeError, match=r"a tensor \[N, 1, 8, 8\] .*, got list; pass np"):
        teacher.decide(images.tolist())


@pytest.mark.parametrize("kind", ["function", "module"])
def test_a_tensor_of_integers_is_decided_as_its_array_is(module, images, kind):
    teacher = {
        "function": FunctionTeacher(brightness, SHAPE, 2),
        "module": ModuleTeacher(module, SHAPE, 10),
    }[kind]
    black_and_white = (images > 0.5).to(torch.uint8)
    assert teacher.decide(black_and_white).equal(teacher.decide(black_and_white.numpy()))
    with pytest.raises(ValueError, match=r"images: .*got 255 at row 0; divide by 255"):
        teacher.decide(torch.full((2, *SHAPE), 255, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda images: images * 0 + 255, r"expected finite values in \[0, 1\], got 255 at row 0"),
        (lambda images: images.double() - 2, r"expected finite values in \[0, 1\], got -\d"),
        (lambda images: images * torch.nan, "got NaN at row 0"),
        (lambda images: images.flatten(1), r"expected \[N, 1, 8, 8\]"),
    ],
)
def test_a_module_that_is_asked_directly_takes_images_in_its_bounds(
    module, images, change, message
):
    with pytest.raises(ValueError, match=f"images: .*{message}"):
        ModuleTeacher(module, SHAPE, 10).decide(change(images))


def test_a_student_can_be_trained_on_the_decisions_of_a_module(module, images):
    teacher = ModuleTeacher(module, SHAPE, 10)
    for decisions in (teacher.decide(images), decide_async_checked(teacher, images).decisions):
        module.zero_grad()
        nn.functional.cross_entropy(module(images), decisions).backward()
        assert any(weight.grad.abs().sum() > 0 for weight in module.parameters())


def test_a_function_is_checked_also_if_it_is_asked_directly(images):
    teacher = FunctionTeacher(lambda array: np.full((len(array), 2), 0.5), SHAPE, 2)
    with pytest.raises(TeacherError, match=r"got scores \[\d+, 2\] float64; return scores\.argmax"):
        teacher.decide(images)
    with pytest.raises(TeacherError, match="returned class 2, expected"):
        FunctionTeacher(lambda array: [2] * len(array), SHAPE, 2).decide(images)
    with pytest.raises(TeacherError, match="expected 1 class as int64"):
        FunctionTeacher(lambda array: [0.5], SHAPE, 2).decide(images[:1])


def test_what_a_function_closes_over_is_in_its_fingerprint():
    def above(threshold: float):
        return lambda array: (array.mean((1, 2, 3)) > threshold).astype(int)

    prints = [FunctionTeacher(above(t), SHAPE, 2).fingerprint() for t in (0.3, 0.3, 0.4)]
    assert prints[0] == prints[1] != prints[2]


def test_a_function_without_source_has_a_fingerprint():
    prints = [FunctionTeacher(eval(text), SHAPE, 2).fingerprint() for text in _WITHOUT_SOURCE]
    assert prints[0] == prints[1] != prints[2]


_WITHOUT_SOURCE = ("lambda array: array", "lambda array:  array", "lambda array: array + 1")


def test_the_caller_may_name_the_fingerprint_of_a_function():
    assert FunctionTeacher(brightness, SHAPE, 2, fingerprint="v1").fingerprint() == "v1"


@pytest.mark.parametrize("function", [lambda: None, lambda image_shape, classes: None])
def test_a_function_takes_one_array(function):
    with pytest.raises(TypeError, match=r"takes one array of images, got .*<lambda>\("):
        FunctionTeacher(function, SHAPE, 2)


def test_an_estimator_itself_is_no_function():
    estimator = type("Estimator", (), {"predict": brightness})()
    with pytest.raises(TypeError, match="pass its predict method"):
        FunctionTeacher(estimator, SHAPE, 2)


def test_teachers_do_not_depend_on_the_searches():
    folder = Path(importlib.util.find_spec("db3kd.teachers").origin).parent
    assert not any(
        "boundary" in path.read_text() for path in folder.glob("*.py") if path.name != "__init__.py"
    )


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (None, "got None; does it return its result"),
        (
            np.ma.masked_array([0, 1, 2], [0, 1, 0]),
            "a masked array that hides .* row 1",
        ),
        (
            np.array(["cat", "dog", "cat"]),
            "class name 'cat' for row 0; pass class_names=",
        ),
        (["cat", None, "cat"], "got the class name 'cat'"),
        ([0, None, 1], "got NoneType for row 1"),
        (np.array([0.0, np.nan, 1.0]), "got NaN for row 1"),
        ([[0], [1, 2], [1]], "got rows of different lengths"),
        (np.array(["2020"] * 3, "M8[D]"), r"got datetime64\[D\]"),
        (torch.zeros(3, dtype=torch.int64, device="meta"), "got a tensor: .*no data"),
    ],
)
def test_an_answer_that_is_no_class_is_explained(answer, message):
    teacher = FunctionTeacher(lambda _: answer, (2,), 3, name="mine", fingerprint="f")
    with pytest.raises(TeacherError, match=rf"mine: expected one class per row .*{message}"):
        decide_checked(teacher, torch.zeros(3, 2))


@pytest.mark.parametrize("number", [2**63, 2**64 - 1, 10**30, -(10**30)])
def test_a_class_number_of_any_size_is_shown_as_it_is(number):
    def one_by_one(images):
        yield from [number] * len(images)

    functions = [lambda images: [number] * len(images), one_by_one]
    if number == 2**64 - 1:
        functions.append(lambda images: np.full(len(images), number, np.uint64))
    for function in functions:
        teacher = FunctionTeacher(function, (2,), 3, name="mine", fingerprint="f")
        with pytest.raises(TeacherError, match=rf"mine returned class {number}, expected \[0, 3\)"):
            decide_checked(teacher, torch.zeros(3, 2))


def test_tensors_that_require_gradients_are_read_as_what_they_hold():
    def scores(images):
        return torch.rand(len(images), 3, requires_grad=True)

    teacher = FunctionTeacher(scores, (2,), 3, fingerprint="f")
    with pytest.raises(TeacherError, match=r"got scores \[3, 3\] float32; return scores.argmax"):
        decide_checked(teacher, torch.zeros(3, 2))
    teacher = FunctionTeacher(lambda images: list(scores(images)), (2,), 3, fingerprint="f")
    with pytest.raises(TeacherError, match=r"got scores \[3, 3\] float32; return scores.argmax"):
        decide_checked(teacher, torch.zeros(3, 2))


def test_names_are_answers_if_the_classes_have_names():
    names = ("ant", "bee", "cat")
    for answer in (["bee", "cat ", "ant"], np.array([b"bee", b"cat", b"ant"])):
        teacher = FunctionTeacher(
            lambda _, answer=answer: answer, (2,), 3, fingerprint="f", class_names=names
        )
        assert decide_checked(teacher, torch.zeros(3, 2)).tolist() == [1, 2, 0]
    unmasked = FunctionTeacher(lambda _: np.ma.masked_array([1, 2, 0]), (2,), 3, fingerprint="f")
    assert decide_checked(unmasked, torch.zeros(3, 2)).tolist() == [1, 2, 0]
    unknown = FunctionTeacher(lambda _: ["eel"], (2,), 3, fingerprint="f", class_names=names)
    with pytest.raises(TeacherError, match="'eel' for row 0, which is not one of the known"):
        decide_checked(unknown, torch.zeros(1, 2))


def test_a_generator_yields_names_or_numbers():
    def name(images):
        yield "bee"
        yield 2
        yield b"ant "

    teacher = FunctionTeacher(name, (2,), 3, fingerprint="f", class_names=("ant", "bee", "cat"))
    assert decide_checked(teacher, torch.zeros(3, 2)).tolist() == [1, 2, 0]
    teacher = FunctionTeacher(name, (2,), 3, fingerprint="f")
    with pytest.raises(TeacherError, match="class name 'bee' for row 0; pass class_names="):
        decide_checked(teacher, torch.zeros(3, 2))


@pytest.mark.parametrize(
    "make", [partial(FunctionTeacher, brightness), partial(ModuleTeacher, nn.Flatten())]
)
def test_a_shape_without_channels_is_refused_at_once(make):
    words = r"image_shape: .* got \(28, 28\) without channels; use \(1, 28, 28\) for grey"
    with pytest.raises(ValueError, match=words):
        make((28, 28), 10)


@pytest.mark.parametrize("rescaled", [False, True])
def test_a_teacher_shows_what_it_is(module, rescaled):
    teacher = ModuleTeacher(module, SHAPE, 10, (-1.0, 1.0), name="digits")
    shown = repr(RescaledTeacher(teacher) if rescaled else teacher)
    kind, bounds = ("Rescaled", "[0, 1]") if rescaled else ("Module", "[-1, 1]")
    assert shown == (
        f"{kind}Teacher('digits', image_shape=(1, 8, 8), classes=10, bounds={bounds}, device='cpu')"
    )
    assert "brightness" in repr(FunctionTeacher(brightness, SHAPE, 2))


def test_a_model_of_rows_that_gets_images_is_told_to_flatten_them():
    digits = load_digits()
    machine = SVC().fit(digits.data / 16, digits.target)
    images = torch.from_numpy(digits.images[:5, None] / 16).float()
    teacher = FunctionTeacher(machine.predict, SHAPE, 10)
    for decide in (teacher.decide, lambda given: decide_checked(teacher, given)):
        with pytest.raises(
            TeacherError,
            match=r"^teacher SVC raised .* dim 4.* SVC.*; if it .* flatten=True .*\"flat\"",
        ) as e:
            decide(images)
        assert isinstance(e.value.__cause__, ValueError) and "dim 4" in str(e.value.__cause__)
    flat = FunctionTeacher(machine.predict, SHAPE, 10, flatten=True)
    assert flat.decide(images).tolist() == machine.predict(digits.data[:5] / 16).tolist()


@pytest.mark.parametrize(
    ("shape", "flatten", "message"),
    [(SHAPE, False, "no connection"), ((64,), False, "dim 1"), (SHAPE, True, "dim 1")],
)
def test_other_errors_of_a_function_are_left_as_they_are(shape, flatten, message):
    def fails(images):
        raise ConnectionError(message)

    with pytest.raises(ConnectionError, match=f"^{message}$"):
        FunctionTeacher(fails, shape, 10, flatten=flatten).decide(torch.zeros(2, *shape))
