"""What a caller may pass as a student, and what is refused before a query is spent."""

import random
import threading
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from distill_cases import CLASSES, SHAPE, weights
from torch import Tensor, nn

from db3kd.export import export_model
from db3kd.models.networks import build_model, check_model
from db3kd.models.weights import save_model
from db3kd.pipelines.student_network import Student
from db3kd.teachers import load_teacher
from db3kd.training.settings import TrainSettings
from db3kd.training.student import train_classifier

BLANK = torch.zeros(1, *SHAPE)


def of(student: object, **training: Any) -> Student:
    return Student.of(student, SHAPE, CLASSES, TrainSettings(**{"batch_size": 16, **training}))


def linear(scores: int = CLASSES) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, scores))


def with_batch_norm() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))


class Changed(nn.Module):
    """Passes the scores of a linear network through a function."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.inner, self.change = linear(), change

    def forward(self, images: Tensor) -> object:
        return self.change(self.inner(images))


class Fickle(nn.Module):
    """Has other classes in training."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.other = linear(), linear(7)

    def forward(self, images: Tensor) -> Tensor:
        return (self.other if self.training else self.inner)(images)


class Locked(Changed):
    """Cannot be copied."""

    def __init__(self) -> None:
        super().__init__(lambda scores: scores)
        self.lock = threading.Lock()


class Embedded(nn.Module):
    """Has sparse gradients, which Adam does not take."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(2, CLASSES, sparse=True)

    def forward(self, pixels: Tensor) -> Tensor:
        return self.table((pixels > 0.5).long()).sum(1)


def with_old_weight_norm() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return nn.Sequential(nn.Flatten(), torch.nn.utils.weight_norm(nn.Linear(36, CLASSES)))


class Versioned(Changed):
    """Keeps more than tensors."""

    def __init__(self) -> None:
        super().__init__(lambda scores: scores)

    def get_extra_state(self) -> dict[str, int]:
        return {"version": 1}

    def set_extra_state(self, state: dict[str, int]) -> None:
        pass


def test_a_name_makes_fresh_networks():
    student = of("mlp")
    torch.manual_seed(3)
    made = student.make()
    torch.manual_seed(3)
    assert weights(made).equal(weights(build_model("mlp", SHAPE, CLASSES)))
    assert student.name == student.title == "mlp"
    assert of(None).name == "lenet5-half"


def test_a_network_is_copied_with_its_weights():
    network = linear()
    student = of(network)
    made = student.make()

    assert made is not network and weights(made).equal(weights(network))
    assert student.name is None and student.title == "Sequential"
    assert of(linear()).identity != student.identity, "other initial weights are another student"
    assert of(network).identity == student.identity


def test_a_function_has_the_identity_of_what_it_makes():
    assert of(linear).identity == of(lambda: linear()).identity
    assert of(linear).identity != of(with_batch_norm).identity
    assert of(lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(CLASSES))).name is None


def test_checks_leave_networks_and_random_states_as_they_were():
    network = with_batch_norm().train()
    before, state = weights(network), torch.get_rng_state()

    of(network)
    of(with_batch_norm)

    assert weights(network).equal(before) and network.training
    assert torch.get_rng_state().equal(state)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (linear(5), r"expected finite scores \[1, 4\] in eval mode, got \[1, 5\]"),
        (nn.Linear(9, CLASSES), r"images of shape \(1, 6, 6\), got Linear, which fails in eval"),
        (Changed(lambda scores: (scores,)), "got tuple; wrap the network"),
        (Changed(lambda scores: scores * float("nan")), "infinite or NaN"),
        (Changed(lambda scores: scores[0]), r"got \[4\]"),
        (Fickle(), r"scores \[2, 4\] in training, got \[2, 7\]"),
        (nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(CLASSES)), "weights to train"),
    ],
)
def test_networks_that_cannot_be_trained_are_refused(student, message):
    with pytest.raises((TypeError, ValueError), match=f"student: .*{message}"):
        of(student)


def test_networks_that_cannot_be_copied_or_stored_are_refused():
    network = linear()
    network.computed = network[1].weight * 2
    with pytest.raises(TypeError, match="student: expected a network that can be copied"):
        of(network)
    with pytest.raises(TypeError, match=r"student: .* that can be copied, got Sequential"):
        of(with_old_weight_norm)
    with pytest.raises(TypeError, match=r"student: .* that can be copied, got Locked"):
        of(Locked())
    with pytest.raises(TypeError, match=r"student: .*tensors.* got dict at '_extra_state'"):
        of(Versioned())
    with pytest.raises(ValueError, match=r"student: .*in memory, got '1.weight' of Sequential"):
        of(linear().to("meta"))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("made", [torch.jit.script, lambda net: torch.jit.trace(net, BLANK)])
def test_a_torchscript_network_is_trained(made):
    network = made(linear())
    before = weights(network)

    student = of(network, ema=0.9)
    trained = train_classifier(
        student.make(),
        torch.rand(20, *SHAPE),
        torch.arange(20) % CLASSES,
        settings=TrainSettings(steps=2, device="cpu"),
    )

    assert weights(network).equal(before)
    assert not weights(trained).equal(before)


@pytest.mark.parametrize(
    ("student", "training"),
    [
        (lambda: Changed(lambda scores: scores.detach()), {}),
        (lambda: nn.Sequential(nn.Flatten(), Embedded()), {}),
        (lambda: nn.Sequential(nn.Flatten(), Embedded()), {"optimizer": "adamw", "ema": 0.9}),
    ],
)
def test_a_network_whose_first_training_step_fails_is_refused(student, training):
    with pytest.raises(ValueError, match=r"student: .* whose first training step fails"):
        of(student, **training)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (3, "expected a name, a torch.nn.Module or a function that makes one, got int"),
        (lambda: 3, "to return a torch.nn.Module, got int"),
        (nn.Linear, "class that makes a network, got Linear, which fails"),
        (
            lambda one: linear(),
            r"without arguments or of \(image_shape, classes\), got one of \(one",
        ),
        (f"{__name__}:SHAPE", "without arguments or .*, got an object of type tuple"),
        (f"{__name__}:returns_three", "to return a torch.nn.Module, got int"),
    ],
)
def test_what_makes_no_network_is_refused(student, message):
    with pytest.raises(TypeError, match=f"student: .*{message}"):
        of(student)


class Own(nn.Module):
    """Made without arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = linear()

    def forward(self, images: Tensor) -> Tensor:
        return self.inner(images)


def with_width(image_shape: tuple[int, ...], classes: int, width: int = 8) -> nn.Module:
    assert image_shape == SHAPE
    return nn.Sequential(nn.Flatten(), nn.Linear(36, width), nn.ReLU(), nn.Linear(width, classes))


def returns_three() -> int:
    return 3


@pytest.mark.parametrize("made", [Own, linear, with_width])
def test_functions_and_classes_are_called_alike_by_name_and_in_python(tmp_path, made):
    named, passed = of(f"{__name__}:{made.__name__}"), of(made)

    assert named.identity == passed.identity
    assert weights(passed.make()).shape == weights(build_model(made, SHAPE, CLASSES)).shape
    network = passed.make()
    save_model(
        tmp_path / "student.safetensors",
        network,
        model=passed.name,
        image_shape=SHAPE,
        classes=CLASSES,
    )
    with pytest.raises(ValueError, match="holds only weights; pass model=, the name of"):
        load_teacher(tmp_path)
    exported = export_model(tmp_path, tmp_path / "own.pt", model=made)
    assert exported.path.is_file()
    assert weights(load_teacher(tmp_path, model=made).module).equal(weights(network))


def test_a_function_that_returns_one_network_again_and_again_is_refused():
    network = linear()
    before = weights(network)
    with pytest.raises(ValueError, match="the same weights twice; pass the network itself"):
        of(lambda: network)
    assert weights(network).equal(before)


def test_batch_normalisation_needs_two_images_in_a_batch():
    assert of(with_batch_norm, batch_size=2).title == "Sequential"
    with pytest.raises(ValueError, match=r"in training on 1 .*a batch_size of at least 2"):
        of(with_batch_norm, batch_size=1)
    assert of(linear, batch_size=1).title == "Sequential"


def test_a_function_with_random_numbers_of_its_own_is_another_student_each_time():
    generator = random.Random(0)

    def make() -> nn.Module:
        network = linear()
        nn.init.constant_(network[1].weight, generator.random())
        return network

    assert of(make).identity != of(make).identity


class Centred(nn.Module):
    """Subtracts a running mean, which it keeps in a buffer."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.inner = linear()
        self.register_buffer("mean", torch.zeros(SHAPE), persistent=persistent)

    def forward(self, images: Tensor) -> Tensor:
        if self.training:
            self.mean = torch.lerp(self.mean, images.mean(0), 0.1)
        return self.inner(images - self.mean)


class Counting(Changed):
    """Has scores that grow with the number of its training steps."""

    def __init__(self) -> None:
        super().__init__(lambda scores: scores)
        self.calls = 0

    def forward(self, images: Tensor) -> object:
        self.calls += self.training
        return super().forward(images) * self.calls


class Shifted(Changed):
    """Adds constants that each new network draws."""

    def __init__(self) -> None:
        super().__init__(lambda scores: scores)
        self.shift = torch.rand(CLASSES)

    def forward(self, images: Tensor) -> object:
        return super().forward(images) + self.shift


class Positioned(Changed):
    """Adds a constant table, and keeps a cache and a number of calls that change no score."""

    def __init__(self) -> None:
        super().__init__(lambda scores: scores)
        self.register_buffer("positions", torch.arange(36.0).view(SHAPE), persistent=False)
        self.register_buffer("cache", torch.zeros(0), persistent=False)
        self.calls = 0

    def forward(self, images: Tensor) -> object:
        self.calls += 1
        self.cache = torch.zeros(len(images))
        return super().forward(images + self.positions)


@pytest.mark.parametrize(
    ("student", "message"),
    [
        (lambda: Centred(False), "got Centred, .* on 'mean'; register such a buffer with persiste"),
        (Centred(False), "depend on 'mean'"),
        (Counting, r"got Counting, which also keeps .*\(register_buffer\)"),
        (Shifted, "got Shifted, which also keeps what chance"),
    ],
)
def test_a_network_that_its_weights_do_not_define_is_refused(student, message):
    with pytest.raises(ValueError, match=f"student: .*state_dict alone.*{message}"):
        of(student)


@pytest.mark.parametrize("student", [lambda: Centred(True), Positioned, Positioned()])
def test_constant_buffers_and_caches_need_not_be_stored(student):
    assert of(student).name is None


def drawn_elsewhere() -> nn.Module:
    network = linear()
    nn.init.constant_(network[1].weight, random.random() + np.random.rand())
    return network


def test_networks_that_numpy_or_python_draws_are_the_same_each_time():
    states = random.getstate(), np.random.get_state()[1].tolist()

    assert of(drawn_elsewhere).identity == of(drawn_elsewhere).identity
    assert (random.getstate(), np.random.get_state()[1].tolist()) == states


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Centred(False), "depend on 'mean'"),
        (lambda: linear(5), r"expected finite scores \[2, 4\] in training, got \[2, 5\]"),
    ],
)
def test_a_surrogate_or_proxy_of_the_caller_is_checked_alike(make, message):
    with pytest.raises(ValueError, match=f"proxy: .*{message}"):
        check_model(make, SHAPE, CLASSES, "proxy")
    check_model(Positioned, SHAPE, CLASSES)
