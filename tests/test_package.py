import ast
from pathlib import Path

import pytest

import db3kd


def test_every_public_name_is_there_and_documented():
    for name in db3kd.__all__:
        assert getattr(db3kd, name).__doc__, name


def test_type_checkers_see_each_public_name_where_it_is_imported_from():
    imports = [
        (node.module, alias)
        for branch in ast.parse(Path(db3kd.__file__).read_text()).body
        if isinstance(branch, ast.If) and ast.unparse(branch.test) == "TYPE_CHECKING"
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]

    assert {alias.name: module for module, alias in imports} == {
        name: f"db3kd.{module}" for name, module in db3kd._MODULE_OF.items()
    }
    # A name that is not imported as itself is private to type checkers.
    assert [alias.name for _, alias in imports if alias.asname != alias.name] == []


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'students'"):
        _ = db3kd.students
