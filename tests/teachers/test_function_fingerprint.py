"""What the fingerprint of a function notices, and what it does not."""

import importlib
import pickle
import sys
import threading

import numpy as np
import pytest
import torch
from fresh_code import fresh_module, function_print, text_print

from db3kd.teachers import FunctionTeacher

MODULE = '''
import abc
import collections
import dataclasses
import enum
import functools
import pathlib
import random
import threading
import time

import numpy as np
import torch

OFFSET = 1
NAMES = {"one", "two", "three", "four"}
TABLE = {"a": 1, "b": (2, 3.5)}
QUEUE = collections.deque([10, 20])
WEIGHTS = np.arange(6.0)
TENSOR = torch.arange(3.0)
torch.manual_seed(0)
NET = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU())
RANDOM = random.Random()
RNG = np.random.default_rng()
LOCK, PLAIN = threading.Lock(), object()
MIXED = [PLAIN, 1, threading.Lock()]
CALLS, SEEN, calls = [], {}, 0
FILE = pathlib.Path("weights.npy")
twice = lambda x: 2 * x
scaled = functools.partial(np.multiply, 2)
CHOICE = {"low": lambda x: x - 100, "high": lambda x: x + 100}
model = None


class Colour(enum.Enum):
    RED = 40


COLOUR = Colour.RED


@dataclasses.dataclass(slots=True)
class Size:
    width: int = 30


SIZE = Size()


class Base(abc.ABC):
    bias = 50

    def shared(self, array):
        return array + 60

    @classmethod
    def made(cls):
        return 61

    @property
    def factor(self):
        return 62

    @functools.cached_property
    def kept(self):
        return 63


class Model(Base):
    def __init__(self):
        self.scale = 70
        self.lock = threading.Lock()
        self.itself = self

    def predict(self, array):
        return array.argmax(1) + len("method") + super().shared(array)


MODEL = Model()


def counted(function):
    @functools.wraps(function)
    def call(*values):
        return function(*values) + 80
    return call


@functools.lru_cache
def loaded(number):
    return number + 5


@counted
def helper(array):
    """Helps."""
    return inner(array) + OFFSET


def inner(array, floor=90):
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
    helper(array), twice(array), closed(array), loaded(3), scaled(array), MODEL.predict(array)
    values = [TABLE, WEIGHTS, TENSOR, NET, RANDOM, RNG, LOCK, MIXED, __name__, time, QUEUE]
    known = {word for word in ("x", "y") if word in NAMES}
    more = [FILE, COLOUR, SIZE, CHOICE, Model, CALLS, SEEN, (lambda x: x * 110)]
    return np.zeros(len(array), int) if "x" in {"x", "y", "z"} else known, values, more
'''


def changed(before: str, after: str) -> str:
    assert MODULE.count(before) == 1
    return text_print(MODULE.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("OFFSET = 1", "OFFSET = 2"),
        ("OFFSET = 1", "OFFSET = True"),
        ('"two"', '"second"'),
        ("(2, 3.5)", "(2, 3.6)"),
        ("[10, 20]", "[20, 10]"),
        ("np.arange(6.0)", "np.arange(7.0)"),
        ("np.arange(6.0)", "np.arange(6, dtype='f4')"),
        ("torch.arange(3.0)", "torch.arange(3.0) + 1"),
        ("manual_seed(0)", "manual_seed(1)"),
        ("[PLAIN, 1,", "[PLAIN, 2,"),
        ("CALLS, SEEN, calls = [], {}, 0", "CALLS, SEEN, calls = [1], {}, 0"),
        ('"weights.npy"', '"other.npy"'),
        ("RED = 40", "RED = 41"),
        ("width: int = 30", "width: int = 31"),
        ("SIZE = Size()", "SIZE = Size(31)"),
        ("2 * x", "3 * x"),
        ("x * 110", "x * 111"),
        ("x - 100", "x - 101"),
        ('"low": lambda x: x - 100, "high"', '"high": lambda x: x - 100, "low"'),
        ("np.multiply, 2", "np.multiply, 3"),
        ("np.multiply, 2", "np.add, 2"),
        ("number + 5", "number + 6"),
        ("inner(array) +", "inner(array) -"),
        ("*values) + 80", "*values) + 81"),
        ("@counted\n", ""),
        ("array.sum()", "array.max()"),
        ("floor=90", "floor=91"),
        ("make(4)", "make(5)"),
        ("closed = make(4)", "closed = make(4)\nclosed.added = 6"),
        ("array + step", "array - step"),
        ("argmax", "argmin"),
        ("bias = 50", "bias = 51"),
        ("array + 60", "array + 61"),
        ("return 61", "return 60"),
        ("return 62", "return 60"),
        ("return 63", "return 60"),
        ("MODEL = Model()", "MODEL = Model()\nMODEL.scale = 71"),
        ("loaded(3)", "loaded(4)"),
        ('{"x", "y", "z"}', '{"x", "y"}'),
    ],
)
def test_a_change_of_what_a_function_uses_is_noticed(before, after):
    assert changed(before, after) != text_print(MODULE)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (
            "    return inner(array) + OFFSET",
            "    # a comment\n\n    return (\n        inner(array) + OFFSET\n    )",
        ),
        ('"""Helps."""', '"""Helps more."""'),
        ('    """Helps."""\n', ""),
        ("    bias = 50", '    """Has a docstring."""\n\n    bias = 50'),
        ("def f(array):", "def f(array: np.ndarray) -> object:"),
        ("\nOFFSET", "\n\n\nUNNAMED = 3\nOFFSET"),
        ('"unused"', '"not called"'),
        ('TABLE = {"a": 1, "b": (2, 3.5)}', 'TABLE = {"b": (2, 3.5), "a": 1}'),
        ("SEEN, calls = [], {}, 0", "SEEN, calls = [], {}, 7"),
        ("model = None", "model = 5"),
    ],
)
def test_what_changes_no_answer_is_not_noticed(before, after):
    assert changed(before, after) == text_print(MODULE)


def test_processes_agree_on_an_unchanged_function_also_in_another_file(tmp_path, interpreters):
    (tmp_path / "renamed.py").write_text("\n# moved\n" + MODULE)
    end = "from fresh_code import function_print; print(function_print(f))"
    started = f"exec(compile({MODULE!r}, 'script.py', 'exec'))\n{end}"  # as __main__
    codes = f"from renamed import f; {end}", started
    for each, code in zip(interpreters, codes, strict=True):
        assert each.run(code, tmp_path).strip() == text_print(MODULE)


def test_a_function_of_the_main_program_keeps_its_fingerprint_in_a_worker(monkeypatch):
    """Ray sends such functions by their values, with the globals that they name."""
    cloudpickle = pytest.importorskip("cloudpickle")
    text = MODULE.replace("threading.Lock()", "object()")
    for without in ("@functools.cached_property", "@functools.lru_cache"):  # they hold locks
        text = text.replace(without, "")
    made = fresh_module(text, "__main__", monkeypatch)
    sent = cloudpickle.dumps(made.f)
    monkeypatch.setitem(sys.modules, "__main__", pytest)  # an installed program
    received = cloudpickle.loads(sent)
    assert received.__globals__ is not made.f.__globals__
    assert function_print(received) == function_print(made.f) == text_print(text)


HELPERS = {
    "teaching/__init__.py": "from teaching import numbers",
    "teaching/numbers.py": "SCALE = 1\n\n\ndef doubled(x):\n    return 2 * x\n",
    "teaching/others.py": "SCALE = 3\n",
    "beside.py": "def shifted(x):\n    return x + 4\n",
    "site-packages/library.py": "SCALE = 5\n\n\ndef used(x):\n    return x + 6\n",
    "teaching/function.py": (
        "import beside\nimport teaching\nimport library\nfrom library import SCALE, used\n"
        "from teaching import others as known\n\n\ndef f(x):\n"
        "    return teaching.numbers.doubled(x) * teaching.numbers.SCALE + known.SCALE"
        " + beside.shifted(x) + used(x) * SCALE + library.used(x)\n"
    ),
}


@pytest.fixture
def helpers_print(tmp_path, monkeypatch):
    """Returns the fingerprint of a function of a package that uses other files."""
    monkeypatch.syspath_prepend(tmp_path / "site-packages")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def with_files(changes: dict[str, str], name: str = "teaching.function.f") -> str:
        for path, text in (HELPERS | changes).items():
            (tmp_path / path).parent.mkdir(exist_ok=True)
            (tmp_path / path).write_text(text)
        importlib.invalidate_caches()
        try:
            module, _, function = name.rpartition(".")
            return function_print(getattr(importlib.import_module(module), function))
        finally:
            for name in [*sys.modules]:
                if name.partition(".")[0] in ("teaching", "beside", "library"):
                    del sys.modules[name]

    return with_files


@pytest.mark.parametrize(
    ("path", "before", "after", "noticed"),
    [
        ("teaching/numbers.py", "SCALE = 1", "SCALE = 7", True),
        ("teaching/others.py", "SCALE = 3", "SCALE = 7", True),
        ("teaching/numbers.py", "2 * x", "7 * x", True),
        ("beside.py", "x + 4", "x + 7", True),
        ("site-packages/library.py", "SCALE = 5", "SCALE = 7", True),  # imported by its name
        ("site-packages/library.py", "x + 6", "x + 7", False),
    ],
)
def test_files_of_the_user_count_and_installed_ones_do_not(
    helpers_print, path, before, after, noticed
):
    assert HELPERS[path].count(before) == 1
    other = helpers_print({path: HELPERS[path].replace(before, after)})
    assert (other != helpers_print({})) == noticed


def test_all_of_the_file_of_an_installed_function_counts(helpers_print):
    text = HELPERS["site-packages/library.py"] + "\n\ndef f(x):\n    return used(x)\n"
    prints = [
        helpers_print({"site-packages/library.py": each}, "library.f")
        for each in (text, text, text.replace("x + 6", "x + 7"))
    ]
    assert prints[0] == prints[1] != prints[2]


def test_two_modules_do_not_swap_their_globals_unnoticed(helpers_print):
    swapped = {
        "teaching/numbers.py": HELPERS["teaching/numbers.py"].replace("= 1", "= 3"),
        "teaching/others.py": "SCALE = 1\n",
    }
    assert helpers_print(swapped) != helpers_print({})


def test_lambdas_of_one_line_have_different_fingerprints():
    first, second = (lambda array: array.argmax(1)), (lambda array: array.argmin(1))
    assert function_print(first) != function_print(second)


ASKED = """
import collections, threading, random
CACHE, SEEN, BY_SIZE = {}, [], collections.defaultdict(list)
count, model = 0, None


class Net:
    width = WIDTH


def f(x):
    global count, model
    count += 1
    model = model or Net()
    CACHE[len(x)] = SEEN
    BY_SIZE[len(x)].append(x)
    return x
"""


def test_the_fingerprint_of_a_teacher_is_that_before_its_queries(monkeypatch):
    text = ASKED.replace("WIDTH", "1")
    module = fresh_module(text, "fresh", monkeypatch)
    teacher = FunctionTeacher(module.f, (2,), 3)
    before = teacher.fingerprint()
    module.f(["asked"])
    assert teacher.fingerprint() == before == text_print(text)
    assert function_print(module.f) != before  # of the filled containers
    assert text_print(ASKED.replace("WIDTH", "2")) != before


def test_a_counter_and_a_model_that_the_function_loads_do_not_count(monkeypatch):
    text = ASKED.replace("WIDTH", "1")
    text = text.replace("    CACHE", "    # CACHE").replace("    BY", "    # BY")
    module = fresh_module(text, "fresh", monkeypatch)
    before = function_print(module.f)
    module.f(["asked"])
    assert module.count == 1 and function_print(module.f) == before


UNREADABLE = """
import concurrent.futures, queue, socket, threading


class Raises:
    def __getattribute__(self, name):
        raise KeyError(name)

    def __reduce_ex__(self, protocol):
        raise OSError


class Client:
    def __init__(self):
        self.lock, self.queue, self.number = threading.Lock(), queue.Queue(), 7


nested = []
for _ in range(5000):
    nested = [nested]
huge = 10 ** 10_000
pool = concurrent.futures.ThreadPoolExecutor()
raising, client, empty = Raises(), Client(), (number for number in ())
values = [raising, client, 5]


def factory(part=Raises()):
    if False:
        missing = 1

    def f(x):
        return missing, part, raising, client, empty, values, nested, huge, pool, socket.socket
    return f


f = factory()
"""


def test_what_cannot_be_read_counts_by_its_type_and_never_fails():
    known = text_print(UNREADABLE)
    assert text_print(UNREADABLE) == known
    for before, after in (
        ("client, 5]", "client, 6]"),
        ("raising, client, empty = Raises(), Client()", "raising, client, empty = 1, Client()"),
        ("queue.Queue(), 7", "queue.Queue(), 8"),
    ):
        assert UNREADABLE.count(before) == 1
        assert text_print(UNREADABLE.replace(before, after)) != known
    assert function_print(threading.Lock().__enter__) != function_print(np.sum)


class Keywords:
    """A teacher that holds what pickle writes in no particular order."""

    def __init__(self, *words: str) -> None:
        self.words = set(words)
        self.itself = [self]

    def __call__(self, array: np.ndarray) -> np.ndarray:
        return np.zeros(len(array), int)


def test_the_order_of_sets_is_not_in_a_fingerprint(interpreters):
    words = [f"word {number}" for number in range(20)]
    known = function_print(Keywords(*words))
    assert function_print(Keywords(*reversed(words))) == known
    assert function_print(Keywords(*words[1:])) != known
    run = (
        f"from {__name__} import Keywords, function_print\n"
        f"print(function_print(Keywords(*{words!r})))"
    )
    assert {each.run(run).strip() for each in interpreters} == {known}


def test_which_equal_values_are_one_object_is_not_in_a_fingerprint():
    name = "".join(["na", "me"])
    one, several = Keywords(), Keywords()
    one.pair, several.pair = [name, name], [name, "".join(["na", "me"])]
    assert function_print(one) == function_print(several)
    several.pair[1] = "other"
    assert function_print(one) != function_print(several)


def test_arrays_and_tensors_of_an_object_are_in_its_fingerprint():
    def teacher(values: object) -> Keywords:
        made = Keywords()
        made.values = values
        return made

    values = np.arange(6.0).reshape(2, 3)
    padded = np.zeros(2, np.dtype([("leaf", "u1"), ("value", "f8")], align=True))
    different = [
        values,
        values.astype(np.float32),
        values.T,
        values + 1,
        torch.tensor(values),
        torch.tensor(values).bfloat16(),
        padded,
        np.array([["a", 1.0]], object),
        values.tolist(),
    ]
    prints = [function_print(teacher(each)) for each in different]
    assert len(set(prints)) == len(different)
    assert [function_print(stored_again(teacher(each))) for each in different] == prints
    dirty = padded.copy()
    dirty.view(np.uint8)[1] = 7  # between the fields
    assert function_print(teacher(dirty)) == function_print(teacher(padded))


def stored_again(model):
    return pickle.loads(pickle.dumps(model))


@pytest.mark.parametrize(
    "model", ["KNN", "ball tree", "sparse KNN", "forest", "pipeline", "boosted"]
)
def test_a_model_keeps_its_fingerprint_if_it_is_stored_or_asked(model, monkeypatch):
    pytest.importorskip("sklearn")
    from scipy.sparse import csr_matrix
    from sklearn.datasets import load_digits
    from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer, StandardScaler

    images, classes = load_digits(return_X_y=True)
    rows = csr_matrix(images) if model == "sparse KNN" else images
    make = {
        "KNN": KNeighborsClassifier,
        "ball tree": lambda: KNeighborsClassifier(algorithm="ball_tree"),
        "sparse KNN": KNeighborsClassifier,
        "forest": lambda: RandomForestClassifier(5, random_state=0),
        "pipeline": lambda: make_pipeline(
            FunctionTransformer(np.sqrt), StandardScaler(), KNeighborsClassifier()
        ),
        "boosted": lambda: HistGradientBoostingClassifier(max_iter=2),
    }[model]
    text = "def f(array):\n    return model.predict(array)\n"
    module = fresh_module(text, "fresh", monkeypatch)

    def prints(fitted: object) -> tuple[str, str]:
        """Returns its own fingerprint, and that of a function that names it."""
        module.model = fitted
        return function_print(fitted.predict), function_print(module.f)

    fitted = make().fit(rows[:200], classes[:200])
    before = prints(fitted)
    assert prints(stored_again(fitted)) == before
    fitted.predict(rows[:3])
    assert prints(fitted) == before
    assert prints(stored_again(stored_again(fitted))) == before
    others = prints(make().fit(rows[1:201], classes[1:201]))
    assert others[0] != before[0] and others[1] != before[1]


def test_a_model_of_a_library_counts_in_part_if_a_part_cannot_be_read():
    linear_model = pytest.importorskip("sklearn.linear_model")
    rows = np.random.default_rng(0).random((60, 4))
    prints = []
    for weight in (1, 1, 2):
        model = linear_model.LogisticRegression().fit(rows, rows[:, 0] * weight > rows[:, 1])
        model.connection = threading.Lock()
        prints.append(function_print(model.predict))
    assert prints[0] == prints[1] != prints[2]


def test_a_table_that_a_function_looks_up_counts(monkeypatch):
    pandas = pytest.importorskip("pandas")
    module = fresh_module("def f(array):\n    return TABLE.loc[array]\n", "fresh", monkeypatch)

    def with_table(last: float) -> str:
        columns = {"x": [1.0, last], "word": ["a", "b"], "kind": pandas.Categorical(["u", "v"])}
        module.TABLE = pandas.DataFrame(columns)
        before = function_print(module.f)
        module.TABLE.loc[0], module.TABLE.describe()
        assert function_print(module.f) == before
        return before

    assert with_table(2.0) == with_table(2.0) != with_table(3.0)
