"""The errors of db3kd say what they are about, and can be sent to another process."""

import ast
import pickle
from pathlib import Path

import numpy as np
import pytest

import db3kd
from db3kd.arguments.plain import check_count, check_counts
from db3kd.data.files.splits import MissingSplitError, require_split
from db3kd.errors import (
    ArgumentError,
    ArgumentTypeError,
    Db3kdError,
    DivergedError,
    InputError,
    InputNotFoundError,
    MissingPackageError,
    NotAFileError,
    NotAFolderError,
    NotWritableError,
    OutputExistsError,
)
from db3kd.export.check import ExportError
from db3kd.tables.checks import InvalidValueError

PACKAGE = Path(db3kd.__file__).parent

PLAIN = {
    "ArithmeticError",
    "FileExistsError",
    "FileNotFoundError",
    "FloatingPointError",
    "IsADirectoryError",
    "ModuleNotFoundError",
    "NotADirectoryError",
    "TypeError",
    "ValueError",
}
"""Built-in classes that db3kd does not raise, because `db3kd.errors` has subclasses of them."""

RAISES_PLAIN: set[str] = set()
"""Files that may raise them: list one only if no user can cause its error."""


@pytest.mark.parametrize(
    ("kind", "built_in"), [(ArgumentError, ValueError), (ArgumentTypeError, TypeError)]
)
def test_an_error_of_an_argument_has_its_name_and_the_problem(kind, built_in):
    error = kind("queries", "expected at least 1, got 0")
    assert isinstance(error, built_in)
    assert (error.argument, error.problem) == ("queries", "expected at least 1, got 0")
    assert str(error) == "queries: expected at least 1, got 0"


@pytest.mark.parametrize(
    "error",
    [
        ArgumentError("a", "b"),
        ArgumentTypeError("a", "b"),
        InputError("a"),
        DivergedError("a"),
        ExportError("student", "b"),
        InvalidValueError("problem", "wider bounds", True),
        InputNotFoundError("a"),
        OutputExistsError("a"),
        NotAFileError("a"),
        NotAFolderError("a"),
        NotWritableError("a"),
        MissingPackageError("a", name="b"),
    ],
)
def test_an_error_can_be_pickled(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error) and isinstance(copy, Db3kdError)
    assert (str(copy), vars(copy)) == (str(error), vars(error))


def test_the_splits_of_an_error_are_pickled():
    with pytest.raises(MissingSplitError) as raised:
        require_split("tset", ("train", "test"), "digits")
    copy = pickle.loads(pickle.dumps(raised.value))
    assert copy.splits == ("train", "test")
    assert str(copy) == "split: digits has 'train', 'test', got 'tset'; did you mean 'test'?"


@pytest.mark.parametrize("value", [3, np.int32(3), 3.0, np.float32(3)])
def test_a_count_is_whole(value):
    count = check_count(value, "max_batch")
    assert (count, type(count)) == (3, int)
    assert check_counts([value], "snapshots") == (3,)


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        *((value, ValueError) for value in (0, -1, 2.5, float("nan"), float("inf"))),
        *((value, TypeError) for value in (True, "3", None, [3], np.ones(3))),
    ],
)
def test_another_count_is_refused(value, kind):
    with pytest.raises(
        kind, match=r"^max_batch: expected an integer of at least 1, got "
    ) as raised:
        check_count(value, "max_batch")
    assert len(str(raised.value)) < 80


def plain_raises(code: str) -> list[str]:
    """Returns the built-in classes of `PLAIN` that the `raise` statements of a file name."""
    raised = (node.exc for node in ast.walk(ast.parse(code)) if isinstance(node, ast.Raise))
    classes = (each.func if isinstance(each, ast.Call) else each for each in raised)
    return [each.id for each in classes if isinstance(each, ast.Name) and each.id in PLAIN]


def test_the_plain_errors_of_a_file_are_found():
    code = """
def check(value):
    if value:
        raise TypeError("value: expected text")
    try:
        raise ArgumentError("value", "expected text")
    except ValueError as error:
        raise ValueError from error
    raise
"""
    assert plain_raises(code) == ["TypeError", "ValueError"]


def test_errors_that_a_user_can_cause_have_classes_of_their_own():
    files = {
        str(file.relative_to(PACKAGE)): plain_raises(file.read_text("utf-8"))
        for file in PACKAGE.rglob("*.py")
    }
    assert len(files) > 200
    assert {name for name, found in files.items() if found} == RAISES_PLAIN
