"""Objects that are imported by name."""

import math

import pytest

from db3kd.named_import import import_named


def test_an_object_is_imported():
    assert import_named("math:pi", "constant") == math.pi


@pytest.mark.parametrize(
    ("reference", "message"),
    [
        ("math", "expected package.module:object"),
        ("no_such_module:f", "no module 'no_such_module' was found.*PYTHONPATH"),
        ("math:no_such", "module 'math', got 'no_such'"),
    ],
)
def test_a_reference_that_cannot_be_imported_says_why(reference, message):
    with pytest.raises(ValueError, match=f"teacher: .*{message}"):
        import_named(reference, "teacher")
