"""The fingerprint of a module covers what defines its scores, and is stable."""

import hashlib
import threading
import warnings

import pytest
import torch
from test_function_code import defined, fingerprint_in
from torch import nn

from db3kd.models import build_model
from db3kd.models.ensemble import Ensemble
from db3kd.teachers import ModuleTeacher
from db3kd.teachers.function_fingerprint import function_fingerprint
from db3kd.teachers.module_fingerprint import module_fingerprint, weights_fingerprint

SHAPE = (1, 8, 8)

MODULE = '''
import argparse
import dataclasses
import random

import torch
from torch import nn

SHIFT = 0.5


@dataclasses.dataclass
class Sizes:
    width: int = 3


def squeeze(x):
    return x.flatten(1) * 2


class Base(nn.Module):
    def scores(self, x):
        return x + 1


class Net(Base):
    power = 2

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 10)
        self.attention = nn.MultiheadAttention(10, 2)
        self.register_buffer("mean", torch.full((1,), 0.25), persistent=False)
        self.scale = 1.5
        self.offsets = torch.arange(10.0)
        self.options = argparse.Namespace(bias=1)
        self.sizes = Sizes()
        self.hidden = [nn.Linear(1, 1)]
        self.calls = 0
        self.random = random.Random()

    @property
    def factor(self):
        return 7

    def forward(self, x):
        """Scores images."""
        self.calls += 1
        return self.scores(self.linear(squeeze(x) - self.mean)) * self.factor - SHIFT

    def scores(self, x):
        return super().scores(x) - self.offsets

    def unused(self):
        return 4


net = Net()


def f(array):
    return net(torch.from_numpy(array)).argmax(1).numpy()
'''


def changed(before: str, after: str) -> nn.Module:
    assert MODULE.count(before) == 1
    return defined(MODULE.replace(before, after)).net


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("(1,), 0.25)", "(1,), 0.75)"),
        ("scale = 1.5", "scale = 2.5"),
        ("arange(10.0)", "arange(10.0) + 1"),
        ("bias=1", "bias=2"),
        ("width: int = 3", "width: int = 4"),
        ("Linear(1, 1)", "Linear(1, 2)"),
        ("Attention(10, 2)", "Attention(10, 5)"),
        ("self.scores(self", "-self.scores(self"),
        ("- self.offsets", "+ self.offsets"),
        ("x + 1", "x + 2"),
        ("return 7", "return 8"),
        ("flatten(1) * 2", "flatten(1) * 3"),
        ("SHIFT = 0.5", "SHIFT = 0.6"),
        ("manual_seed(0)", "manual_seed(1)"),
    ],
)
def test_a_change_of_what_defines_the_scores_is_noticed(before, after):
    assert module_fingerprint(changed(before, after)) != module_fingerprint(defined(MODULE).net)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Scores images."""', '"""Scores some images."""'),
        ("        self.calls += 1\n", "        # It counts.\n\n        self.calls += 1\n"),
        ("return 4", "return 5"),
        ("self.calls = 0", "self.calls = 3"),
        ("\nSHIFT", "\nUNNAMED = 3\nSHIFT"),
    ],
)
def test_what_changes_no_score_is_not_noticed(before, after):
    assert module_fingerprint(changed(before, after)) == module_fingerprint(defined(MODULE).net)


def test_queries_and_new_processes_do_not_change_the_fingerprint(tmp_path, interpreters):
    first, second = interpreters
    (tmp_path / "fresh.py").write_text(MODULE)
    run = (
        "import torch\n"
        "from fresh import net\n"
        "from db3kd.teachers import ModuleTeacher\n"
        "teacher = ModuleTeacher(net, (1, 8, 8), 10)\n"
        "teacher.decide(torch.rand(3, 1, 8, 8))"
    )
    asked, again, unasked = (
        fingerprint_in(interpreter, tmp_path, code, "teacher.fingerprint()")
        for interpreter, code in (
            (first, run),
            (second, run),
            (first, run.replace("teacher.decide", "type")),
        )
    )
    assert asked == again == unasked


def test_a_function_that_asks_a_global_module_notices_what_is_not_in_its_weights():
    known = function_fingerprint(defined(MODULE).f)
    assert function_fingerprint(defined(MODULE.replace("= 1.5", "= 2.5")).f) != known
    assert function_fingerprint(defined(MODULE).f) == known


def test_a_module_that_refers_to_itself_has_a_fingerprint():
    text = MODULE.replace("- SHIFT", "- SHIFT if net.training else 1")
    module = defined(text + "\nnet.hidden.append(net)\nnet.forward = net.forward\n").net
    assert module_fingerprint(module) == module_fingerprint(module)


class WithState(nn.Module):
    def __init__(self, state: object) -> None:
        super().__init__()
        self.linear = nn.Linear(64, 10)
        nn.init.constant_(self.linear.weight, 0.1)
        nn.init.constant_(self.linear.bias, 0.1)
        self._state = state

    def get_extra_state(self) -> object:
        return self._state

    def set_extra_state(self, state: object) -> None:
        self._state = state

    def forward(self, images):
        return self.linear(images.flatten(1))


def test_extra_state_is_part_of_the_fingerprint():
    first, same, other = (WithState({"v": v}) for v in (1, 1, 2))
    prints = [ModuleTeacher(each, SHAPE, 10).fingerprint() for each in (first, same, other)]
    assert prints[0] == prints[1] != prints[2]
    assert weights_fingerprint(first) == weights_fingerprint(same) != weights_fingerprint(other)


def test_extra_state_that_cannot_be_read_asks_for_a_fingerprint():
    module = WithState(threading.Lock())
    with pytest.raises(
        ValueError, match=r"fingerprint: the state '_extra_state' of .* fingerprint="
    ):
        module_fingerprint(module)


def test_a_dynamically_quantized_module_has_the_fingerprint_of_its_weights():
    def quantized(bias: float) -> nn.Module:
        linear = nn.Linear(64, 10)
        nn.init.constant_(linear.weight, 0.5)
        nn.init.constant_(linear.bias, bias)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.ao.quantization.quantize_dynamic(
                nn.Sequential(nn.Flatten(), linear), {nn.Linear}
            )

    prints = [ModuleTeacher(quantized(b), SHAPE, 10).fingerprint() for b in (0.1, 0.1, 0.2)]
    assert prints[0] == prints[1] != prints[2]


class Scaled(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Flatten()])
        self.scale = scale

    def forward(self, images):
        for layer in self.layers:
            images = layer(images)
        return images * self.scale


class Shifted(Scaled):
    def forward(self, images):
        for layer in self.layers:
            images = layer(images)
        return images - self.scale


@pytest.mark.parametrize(
    "compiled",
    [
        torch.jit.script,
        lambda module: torch.jit.trace(module, torch.rand(2, *SHAPE)),
        torch.fx.symbolic_trace,
    ],
)
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_code_and_constants_of_compiled_modules_count(compiled):
    modules = (Scaled(2.0), Scaled(2.0), Scaled(3.0), Shifted(2.0))
    prints = [module_fingerprint(compiled(module)) for module in modules]
    assert prints[0] == prints[1] and len(set(prints)) == 3


@pytest.mark.parametrize(
    "make",
    [
        lambda: build_model("lenet5", (1, 28, 28), 10),
        lambda: build_model("resnet8", (3, 32, 32), 10),
        lambda: build_model("mlp-half", (5,), 3),
        lambda: Ensemble([build_model("lenet5-fifth", (1, 28, 28), 10)]),
        lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, 10), nn.BatchNorm1d(10), nn.ReLU()),
        lambda: nn.Sequential(nn.Conv2d(1, 2, 3), nn.Hardswish(), nn.Hardsigmoid(), nn.Flatten()),
    ],
)
def test_networks_of_db3kd_and_torch_have_the_fingerprint_of_text_and_weights(make):
    """Runs that earlier versions began are resumed with these fingerprints."""
    network = make()
    kind = type(network)
    digest = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__}\n{network}\nNone\n".encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    assert module_fingerprint(network) == weights_fingerprint(network) == digest.hexdigest()
