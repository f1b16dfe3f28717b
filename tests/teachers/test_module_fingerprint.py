"""The fingerprint of a module covers what defines its scores, and is stable."""

import hashlib
import threading
import warnings

import pytest
import torch
from fresh_code import fresh_module, text_print
from torch import nn

from db3kd.models import build_model
from db3kd.models.ensemble import Ensemble
from db3kd.teachers import ModuleTeacher
from db3kd.teachers.fingerprints import module_fingerprint, weights_fingerprint

SHAPE = (1, 8, 8)

MODULE = '''
import argparse
import dataclasses
import enum
import functools
import pathlib
import random
import types

import numpy as np
import torch
from torch import nn

SHIFT = 0.5


class Kind(enum.Enum):
    FIRST = 20


@dataclasses.dataclass(slots=True)
class Sizes:
    width: int = 3
    unset: int = dataclasses.field(init=False)


class Plain:
    def __init__(self):
        self.number = 21

    def used(self, x):
        return x + 22


def squeeze(x):
    return x.flatten(1) * 2


class Helper(nn.Module):
    rate = 23

    def encode(self, x):
        return x + 24


class Base(nn.Module):
    def scores(self, x):
        return x + 1


class Net(Base):
    power = 25
    MEAN = torch.arange(4.0)

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(64, 10)
        self.helper = Helper()
        self.attention = nn.MultiheadAttention(10, 2)
        self.register_buffer("mean", torch.full((1,), 0.25), persistent=False)
        self.scale = 1.5
        self.offsets = torch.arange(10.0)
        self.table = np.arange(26.0)
        self.options = argparse.Namespace(bias=1)
        self.stages = [types.SimpleNamespace(depth=27)]
        self.sizes = Sizes()
        self.kind = Kind.FIRST
        self.file = pathlib.Path("first")
        self.plain = Plain()
        self.activation = lambda x: x + 28
        self.hidden = [nn.Linear(1, 1)]
        self.calls, self.cache, self.log = 0, {}, []
        self.random = random.Random()
        self._private = 29

    @property
    def factor(self):
        return 7

    @functools.cached_property
    def mask(self):
        return 8

    def forward(self, x):
        """Scores images."""
        self.calls += 1
        self.cache[self.calls] = x
        self.log.append(x)
        self._private = x
        return self.scores(self.linear(squeeze(x) - self.mean)) * self.factor * self.mask - SHIFT

    def scores(self, x):
        return super().scores(x) - self.offsets


net = Net()


def f(array):
    return net(torch.from_numpy(array)).argmax(1).numpy()
'''


def module_print(module: nn.Module) -> str:
    return ModuleTeacher(module, SHAPE, 10).fingerprint()


def net_print(before: str = "", after: str = "") -> str:
    """Returns the fingerprint of the network, after a change of the text of its module."""
    assert not before or MODULE.count(before) == 1
    with pytest.MonkeyPatch.context() as monkeypatch:
        text = MODULE.replace(before, after) if before else MODULE
        return module_print(fresh_module(text, "fresh", monkeypatch).net)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("arange(4.0)", "arange(4.0) + 1"),
        ("width: int = 3", "width: int = 4"),
        ("FIRST = 20", "FIRST = 2"),
        ("x + 22", "x + 2"),
        ("rate = 23", "rate = 2"),
        ("x + 24", "x + 2"),
        ("power = 25", "power = 2"),
        ("x + 28", "x + 2"),
        ("Attention(10, 2)", "Attention(10, 5)"),
        ("self.scores(self", "-self.scores(self"),
        ("- self.offsets", "+ self.offsets"),
        ("x + 1\n", "x + 2\n"),
        ("return 7", "return 9"),
        ("return 8", "return 9"),
        ("flatten(1) * 2", "flatten(1) * 3"),
        ("SHIFT = 0.5", "SHIFT = 0.6"),
        ("manual_seed(0)", "manual_seed(1)"),
    ],
)
def test_a_change_of_the_code_that_defines_the_scores_is_noticed(before, after):
    assert net_print(before, after) != net_print()


@pytest.mark.parametrize(
    "change",
    [
        "net.mean += 1",
        "net.scale = 2.5",
        "net.offsets += 1",
        "net.table[0] = 2",
        "net.options.bias = 2",
        "net.stages[0].depth = 2",
        "net.sizes.width = 2",
        "net.kind = None",
        "net.file = pathlib.Path('second')",
        "net.plain.number = 2",
        "net.helper.added = 2",
        "net.attention.num_heads = 5",
        "net.hidden[0] = nn.Linear(1, 2)",
        "net.calls = 1",
        "net.cache['key'] = 2",
        "Helper.rate = 2",
        "Net.MEAN += 1",
    ],
)
def test_a_change_of_the_state_that_defines_the_scores_is_noticed(change):
    assert net_print("\nnet = Net()\n", f"\nnet = Net()\n{change}\n") != net_print()


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"""Scores images."""', '"""Scores some images."""'),
        ("        self.calls += 1\n", "        # It counts.\n\n        self.calls += 1\n"),
        ("\nnet = Net()\n", "\nnet = Net()\nnet._private = 2\n"),
        ("\nSHIFT", "\nUNNAMED = 3\nSHIFT"),
    ],
)
def test_what_changes_no_score_is_not_noticed(before, after):
    assert net_print(before, after) == net_print()


def test_queries_and_new_processes_do_not_change_the_fingerprint(
    tmp_path, monkeypatch, interpreters
):
    (tmp_path / "fresh.py").write_text(MODULE)
    run = (
        "from fresh import net\n"
        "from db3kd.teachers import ModuleTeacher\n"
        "print(ModuleTeacher(net, (1, 8, 8), 10).fingerprint())"
    )
    net = fresh_module(MODULE, "fresh", monkeypatch).net
    teacher = ModuleTeacher(net, SHAPE, 10)
    before = teacher.fingerprint()
    teacher.decide(torch.rand(3, *SHAPE))
    assert teacher.fingerprint() == before == interpreters[0].run(run, tmp_path).strip()
    assert module_print(net) == before  # the teacher asks a copy


def test_a_function_that_asks_a_global_module_notices_what_is_not_in_its_weights():
    known = text_print(MODULE)
    assert text_print(MODULE.replace("= 1.5", "= 2.5")) != known
    assert text_print(MODULE) == known


def test_a_module_that_refers_to_itself_has_a_fingerprint(monkeypatch):
    text = MODULE.replace("- SHIFT", "- SHIFT if net.training else 1")
    text += "\nnet.hidden.append(net)\nnet.forward = net.forward\n"
    prints = {text_print(text), text_print(text)}
    prints |= {module_print(fresh_module(text, "fresh", monkeypatch).net) for _ in range(2)}
    assert len(prints) == 2


def test_the_code_of_an_installed_network_counts_and_that_of_torch_does_not(monkeypatch):
    def with_code(text: str, name: str) -> str:
        module = fresh_module(text, name, monkeypatch)
        module.__file__ = f"/lib/site-packages/{name}.py"
        return module_print(nn.Sequential(module.Net(), nn.Linear(64, 10)))

    text = (
        "from torch import nn\nclass Net(nn.Module):\n    def forward(self, x):\n"
        "        return x.flatten(1) + 1\n"
    )
    monkeypatch.setattr(nn.Linear, "reset_parameters", lambda self: [
        nn.init.constant_(part, 0.5) for part in (self.weight, self.bias)
    ])  # fmt: skip
    other = text.replace("+ 1", "+ 2")
    assert with_code(text, "timm") == with_code(text, "timm") != with_code(other, "timm")
    assert with_code(text, "torch.some") == with_code(other, "torch.some")


def test_a_lazy_layer_that_was_never_called_asks_for_a_call():
    module = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    message = r"fingerprint: '1\.[a-z]+' of the module Sequential .* call the module once before"
    with pytest.raises(ValueError, match=message):
        module_print(module)
    module(torch.zeros(2, *SHAPE))
    assert module_print(module)


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


def test_extra_state_that_cannot_be_read_counts_by_its_type():
    first, same, other = (WithState({"v": v, "lock": threading.Lock()}) for v in (1, 1, 2))
    assert weights_fingerprint(first) == weights_fingerprint(same)
    assert weights_fingerprint(first) != weights_fingerprint(other)


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
    prints = [module_print(compiled(module)) for module in modules]
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
    network = make()
    kind = type(network)
    digest = hashlib.sha256(f"{kind.__module__}.{kind.__qualname__}\n{network}\nNone\n".encode())
    for name, value in sorted(network.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}\n".encode())
        digest.update(value.numpy().tobytes())
    assert module_fingerprint(network) == weights_fingerprint(network) == digest.hexdigest()
