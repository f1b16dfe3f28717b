"""The fingerprint of a module covers attributes that it reads, and not those that it changes."""

import pytest
import torch
from test_function_code import defined
from torch import nn

from db3kd.teachers import ModuleTeacher
from db3kd.teachers.module_fingerprint import module_fingerprint

SLOTS = """
import dataclasses
import types
import numpy as np
import torch
from torch import nn


@dataclasses.dataclass(slots=True)
class Inner:
    width: int = 2


@dataclasses.dataclass(slots=True)
class Options:
    inner: Inner
    unset: int = dataclasses.field(init=False)


class Raises:
    def __getattribute__(self, name):
        if name == "__class__":  # which torch needs
            return Raises
        raise KeyError(name)


class Net(nn.Module):
    MEAN = torch.arange(4.0)
    STD = np.arange(4.0)
    other = Raises()

    def __init__(self):
        super().__init__()
        self.options = Options(Inner())
        self.stages = [types.SimpleNamespace(depth=3)]
        self.raises = Raises()

    def forward(self, x):
        return (x - self.MEAN) / torch.from_numpy(self.STD) + self.other


net = Net()
"""


@pytest.mark.parametrize("setting", ["width: int = 2", "depth=3", "MEAN = torch.arange(4.0)"])
def test_settings_of_any_form_count_and_what_cannot_be_read_is_left_out(setting):
    assert SLOTS.count(setting) == 1
    known = module_fingerprint(defined(SLOTS).net)
    assert known == module_fingerprint(defined(SLOTS).net)
    changed_setting = setting.replace("2", "5").replace("3", "5").replace("4", "5")
    assert module_fingerprint(defined(SLOTS.replace(setting, changed_setting)).net) != known


def test_a_lazy_layer_that_was_never_called_asks_for_a_call():
    module = nn.Sequential(nn.Flatten(), nn.LazyLinear(10))
    message = r"fingerprint: '1\.[a-z]+' of the module Sequential .* call the module once before"
    with pytest.raises(ValueError, match=message):
        ModuleTeacher(module, (1, 8, 8), 10).fingerprint()
    module(torch.zeros(2, 1, 8, 8))
    assert ModuleTeacher(module, (1, 8, 8), 10).fingerprint()


CALLED = """
import functools
import types
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("cosine", None, persistent=False)
        self.register_buffer("calls", torch.zeros(()), persistent=False)
        self.register_buffer("mean", torch.full((1,), 0.5), persistent=False)
        self.cache, self.log, self.by_size = {}, [], {1: []}
        self.state = types.SimpleNamespace(calls=0)
        self.last = torch.zeros(1)
        self.read = {1: [0.5], 2: torch.ones(1)}

    @functools.cached_property
    def mask(self):
        return torch.ones(1) * 7

    def built(self, x):
        if self.cosine is None:
            self.register_buffer("cosine", torch.ones(1), persistent=False)
        return self.cosine

    def forward(self, x):
        self.calls += 1
        self.state.calls += 1
        self.last.add_(1)
        cache = self.cache
        cache[len(x)] = x
        [self.log.append(each) for each in x]
        self.by_size[1].append(len(x))
        return x * self.mask * self.built(x) - self.mean + self.read[1][0] + self.read[2].add(1)


net = Net()
"""


def test_what_forward_changes_does_not_count():
    net = defined(CALLED).net
    before = module_fingerprint(net)
    net(torch.ones(2, 1))
    net(torch.ones(3, 1))
    assert module_fingerprint(net) == before


@pytest.mark.parametrize("text", ["(1,), 0.5)", "[0.5]", "torch.ones(1)}", "* 7"])
def test_what_a_forward_that_changes_attributes_only_reads_counts(text):
    assert CALLED.count(text) == 1
    changed_text = text.replace("0.5", "0.75").replace("(1)}", "(2)}").replace("7", "8")
    changed_net = defined(CALLED.replace(text, changed_text)).net
    assert module_fingerprint(changed_net) != module_fingerprint(defined(CALLED).net)


PARENT = """
from torch import nn


class Helper(nn.Module):
    scale = 1.5
    unused = 4

    def encode(self, x):
        return self.rescale(x)

    def rescale(self, x):
        return x * self.scale

    def export(self):
        return self.unused - 3


class Parent(nn.Module):
    scale = 2.5

    def __init__(self):
        super().__init__()
        self.helper = Helper()

    def forward(self, x):
        return self.helper.encode(x) * self.scale


net = Parent()
"""


@pytest.mark.parametrize("text", ["return self.rescale(x)", "return x * ", "= 1.5", "= 2.5"])
def test_methods_of_submodules_and_class_attributes_that_forward_uses_count(text):
    assert PARENT.count(text) == 1
    changed_text = text.replace("return ", "return 2 * ").replace(".5", ".7")
    changed_net = defined(PARENT.replace(text, changed_text)).net
    assert module_fingerprint(changed_net) != module_fingerprint(defined(PARENT).net)


@pytest.mark.parametrize("text", ["unused = 4", "self.unused - 3"])
def test_methods_and_class_attributes_that_forward_does_not_use_do_not_count(text):
    changed_net = defined(PARENT.replace(text, text.replace("4", "5").replace("3", "5"))).net
    assert module_fingerprint(changed_net) == module_fingerprint(defined(PARENT).net)
