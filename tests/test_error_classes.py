"""The errors of db3kd say what they are about, and can be sent to another process."""

import pickle

import numpy as np
import pytest

from db3kd.argument_types import check_count, check_counts
from db3kd.data.splits import MissingSplitError, require_split
from db3kd.errors import ArgumentError, ArgumentTypeError, DivergedError, InputError
from db3kd.export.check import ExportError
from db3kd.tables.checks import OutOfBoundsError


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
        OutOfBoundsError("problem", "advice"),
    ],
)
def test_an_error_can_be_pickled(error):
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
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
