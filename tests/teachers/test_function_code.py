"""The fingerprint of a function covers its code and the globals that it names, and is stable."""

import sys
import types
from pathlib import Path

import numpy as np
import pytest
from fresh_interpreter import FreshInterpreter

from db3kd.teachers import changed_globals
from db3kd.teachers.changed_globals import Change, changes_of
from db3kd.teachers.function_fingerprint import function_fingerprint

MODULE = '''
import functools
import random
import sys
import threading
import time

import numpy as np
import torch

OFFSET = 1
NAMES = {"one", "two", "three", "four"}
TABLE = {"a": 1, "b": (2, 3.5)}
WEIGHTS = np.arange(6.0)
TENSOR = torch.arange(3.0)
torch.manual_seed(0)
NET = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
RANDOM = random.Random()
RNG = np.random.default_rng()
STDERR, LOCK, PLAIN = sys.stderr, threading.Lock(), object()
MIXED = [PLAIN, 1, threading.Lock()]
CALLS, SEEN, calls = [], {}, 0
twice = lambda x: 2 * x
scaled = functools.partial(np.multiply, 2)
model = None


class Model:
    scale = 1

    def predict(self, array):
        return array.argmax(1) + len("method")


MODEL = Model()


@functools.lru_cache
def loaded(number):
    return number + 5


def helper(array):
    """Helps."""
    return inner(array) + OFFSET


def inner(array):
    return array.sum() if len(array) > 3 else helper(array)


def make(step):
    def inside(array):
        return array + step
    return inside


closed = make(4)


def unused():
    return "unused"


def f(array):
    global calls, model
    calls += 1
    model = object()
    CALLS.append(calls)
    helper(array), twice(array), closed(array), loaded(3), scaled(array), MODEL.predict(array)
    values = [TABLE, WEIGHTS, TENSOR, NET, RANDOM, RNG, STDERR, LOCK, MIXED, __name__, time]
    known = {word for word in ("x", "y") if word in NAMES}
    return np.zeros(len(array), int) if "x" in {"x", "y", "z"} else known, values


def remember(array):
    SEEN[len(array)] = OFFSET
    return array
'''


def fingerprint(text: str, function: str = "f") -> str:
    module = types.ModuleType("fresh")
    sys.modules["fresh"] = module
    try:
        exec(compile(text, "fresh.py", "exec"), module.__dict__)
        return function_fingerprint(getattr(module, function))
    finally:
        del sys.modules["fresh"]


def fingerprint_in(
    interpreter: FreshInterpreter,
    folder: Path,
    run: str,
    fingerprint: str = "function_fingerprint(f)",
) -> str:
    """Returns the fingerprint that another process computes after it has run the code."""
    code = (
        "from db3kd.teachers.function_fingerprint import function_fingerprint\n"
        f"{run}\nprint({fingerprint})"
    )
    return interpreter.run(code, folder).strip()


def test_processes_agree_on_an_unchanged_function(tmp_path, interpreters):
    first, second = interpreters
    (tmp_path / "fresh.py").write_text(MODULE)
    known = {
        fingerprint_in(first, tmp_path, "from fresh import f"),
        fingerprint_in(second, tmp_path, "from fresh import f"),
        fingerprint_in(second, tmp_path, MODULE),  # as __main__
        fingerprint(MODULE),
    }
    assert len(known) == 1


@pytest.mark.parametrize("algorithm", ["SVC", "forest"])
def test_a_fitted_global_is_noticed_and_stable(tmp_path, algorithm, interpreters):
    pytest.importorskip("sklearn")
    make = {"SVC": "SVC()", "forest": "RandomForestClassifier(3, random_state=0)"}[algorithm]
    text = (
        "from sklearn.datasets import load_digits\n"
        "from sklearn.ensemble import RandomForestClassifier\n"
        "from sklearn.svm import SVC\n"
        "rows, classes = load_digits(return_X_y=True)\n"
        f"model = {make}.fit(rows[:200], classes[:200])\n"
        "def f(array):\n    return model.predict(array)\n"
    )
    (tmp_path / "fresh.py").write_text(text)
    here = fingerprint(text)
    first, second = interpreters
    assert fingerprint_in(first, tmp_path, "from fresh import f") == here
    assert fingerprint_in(second, tmp_path, "from fresh import f, rows; f(rows)") == here
    assert fingerprint(text.replace("classes[:200]", "(classes[:200] + 1) % 10")) != here


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("OFFSET = 1", "OFFSET = 2"),
        ('"two"', '"second"'),
        ("(2, 3.5)", "(2, 3.6)"),
        ("np.arange(6.0)", "np.arange(7.0)"),
        ("torch.arange(3.0)", "torch.arange(3.0) + 1"),
        ("manual_seed(0)", "manual_seed(1)"),
        ("[PLAIN, 1,", "[PLAIN, 2,"),
        ("2 * x", "3 * x"),
        ("np.multiply, 2", "np.multiply, 3"),
        ("number + 5", "number + 6"),
        ("inner(array) +", "inner(array) -"),
        ("array.sum()", "array.max()"),
        ("make(4)", "make(5)"),
        ("array + step", "array - step"),
        ("argmax", "argmin"),
        ("loaded(3)", "loaded(4)"),
        ('{"x", "y", "z"}', '{"x", "y"}'),
    ],
)
def test_a_change_of_what_a_function_uses_is_noticed(before, after):
    assert MODULE.count(before) == 1
    assert fingerprint(MODULE.replace(before, after)) != fingerprint(MODULE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("    return inner", "    # a comment\n\n    return inner"),
        ('"""Helps."""', '"""Helps more."""'),
        ('    """Helps."""\n', ""),
        ("\nOFFSET", "\n\n\nUNNAMED = 3\nOFFSET"),
        ('"unused"', '"not called"'),
        ('TABLE = {"a": 1, "b": (2, 3.5)}', 'TABLE = {"b": (2, 3.5), "a": 1}'),
        ("CALLS, SEEN, calls = [], {}, 0", "CALLS, SEEN, calls = [1], {1: 2}, 7"),
        ("model = None", "model = 5"),
    ],
)
def test_what_changes_no_answer_is_not_noticed(before, after):
    assert MODULE.count(before) == 1
    assert fingerprint(MODULE.replace(before, after)) == fingerprint(MODULE)


def test_calls_do_not_change_the_fingerprint_of_a_function_that_counts_or_remembers():
    known = fingerprint(MODULE, "remember")
    changed = MODULE.replace("CALLS, SEEN, calls = [], {}, 0", "CALLS, SEEN, calls = [], {1: 2}, 0")
    assert fingerprint(changed, "remember") == known


def test_lambdas_of_one_line_have_different_fingerprints():
    first, second = (lambda array: array.argmax(1)), (lambda array: array.argmin(1))
    assert function_fingerprint(first) != function_fingerprint(second)


HELPERS = """
import functools, random, sys, threading, time
import numpy as np

BUFFER = np.zeros(3)


def warn(text, stream=sys.stderr, rng=random.Random()):
    return text


def locked(lock):
    def call(x):
        with lock:
            return x + 1

    return call


step = locked(threading.Lock())


def teach(x):
    warn("asked")
    BUFFER[:] = x[0]
    return step(x)


@functools.lru_cache
def cached(x):
    return x > 1
"""


def defined(code: str) -> types.ModuleType:
    module = types.ModuleType("helpers")
    exec(code, module.__dict__)
    return module


def test_helpers_may_have_defaults_and_closures_that_differ_in_each_process():
    first, second = defined(HELPERS), defined(HELPERS)
    assert function_fingerprint(first.teach) == function_fingerprint(second.teach)
    changed = defined(HELPERS.replace("x + 1", "x + 2"))
    assert function_fingerprint(first.teach) != function_fingerprint(changed.teach)


def test_an_array_that_a_function_fills_does_not_count():
    module = defined(HELPERS)
    before = function_fingerprint(module.teach)
    module.teach(np.ones((1, 3)))
    assert function_fingerprint(module.teach) == before


GLOBALS = """
import numpy as np
import torch
W = np.full((4, 4), {value})
T = torch.full((4, 4), {value})
ROWS = [[{value}], [2.0]]
TABLE = {{"a": {{"n": {value}}}}}


def f(x):
"""


def notices(body: str) -> bool:
    """Returns whether the fingerprint of a function notices another value of its globals."""
    lines = "".join(f"    {line}\n" for line in body.split("\n"))
    first, second = (defined(GLOBALS.format(value=value) + lines).f for value in (1.0, 3.0))
    return function_fingerprint(first) != function_fingerprint(second)


@pytest.mark.parametrize(
    "body",
    [
        "out = np.zeros(9, int)\nfor i in x: out[i] = (x[i] @ W).argmax()\nreturn out",
        "scores = {}\nscores['a'] = x @ W",
        "w = W.copy()\nw[0] = x",
        "w = W[x]\nw[0] = 1",
        "w = W\nw = w * 2\nw[0] = x",
        "rows = ROWS[:]\nrows[0] = x",
        "for w in ROWS:\n    x = x @ w\n    x[x < 0] = 0",
        "x[0 if len(x) else ROWS[0][0]] = W",
        "x[ROWS[0][0]:] = (W if len(x) else T)",
        "del x[TABLE['a']['n']]",
        "x.update(TABLE)",
        "return T[:1].add(x), ROWS[0].copy()",
        "rows = ROWS[1:]\nrows.append(x)\nrows[0] = x",
        "w = (W * 2)[1:]\nw[0] = x",
        "return ROWS[0].add(x)",
        "return T.add(x), T.sort()",
        "try:\n    out = x.copy()\nexcept ValueError:\n    out[0] = W",
    ],
)
def test_a_global_that_is_only_read_counts_whatever_else_the_function_changes(body):
    assert notices(body)


@pytest.mark.parametrize(
    "body",
    [
        "W[0] = x",
        "W[0][1] += x",
        "W.T[0] = x",
        "W.fill(x)",
        "T.copy_(x)",
        "T[x if len(x) else 0] = 1 if x else 2",
        "(W if len(x) else x)[0] = 1",
        "del ROWS[0]",
        "ROWS[:1] = x",
        "ROWS[0].append(x)\nROWS[0][0] = x",
        "w = W\nw += x",
        "w = W[1:]\nw[0] += x",
        "W[1:].fill(x)",
        "T[:2].copy_(x)\nT.add_(1)",
        "ROWS[0].append(x)",
        "row = ROWS[0]\nrow.append(x)",
        "TABLE['a'].update(n=x)",
        "rows = ROWS\nrows[0] = x",
        "rows = ROWS\nrows.append(x)",
        "row = ROWS[0]\nrow[0] = x",
        "for row in ROWS: row[0] = x",
        "first, second = ROWS\nfirst[0] = x",
        "entry = TABLE['a']\nentry['n'] += 1",
        "cache = TABLE if len(x) else {}\ncache['b'] = x",
        "cache = TABLE\ntry:\n    return cache['b']\nexcept KeyError:\n    cache['b'] = x",
    ],
)
def test_a_global_that_the_function_changes_does_not_count(body):
    assert not notices(body)


def test_a_table_of_lists_that_a_function_fills_does_not_count():
    module = defined(
        "import collections\nTABLE = collections.defaultdict(list)\n"
        "def f(x):\n    TABLE[len(x)].append(x)\n    return x\n"
    )
    before = function_fingerprint(module.f)
    module.f("a")
    assert function_fingerprint(module.f) == before


def followed(lines: list[str], monkeypatch) -> tuple[int, set[Change]]:
    """Returns how many steps of code `changes_of` follows, and what it finds."""
    steps, after = [], changed_globals._after
    function = defined("def f(x):\n" + "".join(f"    {line}\n" for line in lines)).f
    with monkeypatch.context() as patch:
        patch.setattr(changed_globals, "_after", lambda *a, **k: steps.append(1) or after(*a, **k))
        changes = changes_of(function.__code__)
    return len(steps), changes


@pytest.mark.parametrize("value", ["x[{i}]", "W[{i}]"])
def test_the_steps_that_are_followed_grow_with_the_length_of_the_code(monkeypatch, value):
    def steps(blocks: int) -> int:
        block = "if x[{i}] > {i}:\n        y{i} = " + value + "\n        T[{i}] = y{i}"
        lines = [block.format(i=i) for i in range(blocks)]
        count, changes = followed(lines, monkeypatch)
        assert changes == {Change("T", 0)}
        return count

    assert steps(200) < 2.5 * steps(100)


def test_all_globals_of_code_that_is_too_complex_to_follow_count(monkeypatch):
    lines = ["T[0] = x", "while x: x = x[0]"]
    assert followed(lines, monkeypatch)[1] == {Change("T", 0)}
    monkeypatch.setattr(changed_globals, "_MOST_STEPS", (1, 0))
    assert followed(lines, monkeypatch)[1] == set()


def test_the_code_of_a_cached_function_counts():
    changed = defined(HELPERS.replace("x > 1", "x > 2"))
    assert function_fingerprint(defined(HELPERS).cached) != function_fingerprint(changed.cached)
