"""The reference on the site names everything that is public, and all of it is documented."""

import dataclasses
import inspect
import re
from pathlib import Path

import pytest
import typer.main
from command_reference import command_reference
from description_reference import description_reference
from docstring_fields import with_plain_stars
from python_reference import constant_text, names_of, stage_reference, stages

import db3kd
from db3kd.cli.app import app
from db3kd.teachers import Preprocessing
from db3kd.teachers.descriptions.description import Description, HeaderTable, RestTable
from db3kd.teachers.descriptions.keys import attribute_texts
from db3kd.teachers.remote import RequestSettings

ROOT = Path(__file__).parents[2]
PUBLIC = [(stage, name) for stage in stages() for name in names_of(stage)]


def members(found):
    """The public methods and properties that a class defines itself."""
    for name, member in vars(found).items():
        if not name.startswith("_") and (
            isinstance(member, property | staticmethod | classmethod) or inspect.isfunction(member)
        ):
            yield name, getattr(member, "__func__", member)


@pytest.mark.parametrize(("stage", "name"), PUBLIC)
def test_every_public_name_has_a_docstring(stage, name):
    found = names_of(stage)[name]
    if isinstance(found, type) or inspect.isfunction(found):
        assert inspect.getdoc(found)
    else:
        assert constant_text(f"db3kd.{stage}", name)
    if isinstance(found, type):
        assert [each for each, member in members(found) if not inspect.getdoc(member)] == []


def test_every_stage_has_a_page():
    pages = {page.stem for page in (ROOT / "docs/reference/python").glob("*.md")}

    assert pages == set(stages())
    assert set(db3kd._HOME) <= pages


@pytest.mark.parametrize("stage", stages())
def test_a_page_describes_the_names_of_its_stage(stage):
    described = set(re.findall(r"\.\. (?:auto|py:)\w+:: ([\w.]+)", stage_reference(stage)))

    assert {name.rpartition(".")[2] for name in described} >= set(names_of(stage)) - set(
        names_of("teachers.remote") if stage == "teachers" else ()
    )


def test_each_name_of_the_package_is_described_once():
    described = re.findall(
        r"\.\. (?:auto|py:)\w+:: db3kd\.(\w+)$",
        "\n".join(map(stage_reference, stages())),
        re.MULTILINE,
    )

    assert sorted(described) == sorted(db3kd.__all__)


def test_every_option_is_in_the_reference():
    text = command_reference()
    for name, command in typer.main.get_command(app).commands.items():
        section = text[text.index(f"### {name}\n") :]
        section = section[: section.find("\n### ")]
        missing = [each.opts[0] for each in command.params if f"`{each.opts[0]}`" not in section]
        assert [option for option in missing if option.startswith("--")] == []


@pytest.mark.parametrize(
    "kind", [Description, HeaderTable, RestTable, Preprocessing, RequestSettings]
)
def test_every_key_of_a_description_is_explained(kind):
    fields = [field.name for field in dataclasses.fields(kind)]

    assert list(attribute_texts(kind)) == fields
    assert [key for key in fields if f"`{key}`" not in description_reference()] == [
        key for key in fields if key in ("preprocessing", "requests", "header", "rest")
    ]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("images [N, *image_shape]", r"images [N, \*image_shape]"),
        ("`[N, *image_shape]` and [*shape]", r"`[N, *image_shape]` and [\*shape]"),
        ("2 * 3, **options and *emphasis*", "2 * 3, **options and *emphasis*"),
    ],
)
def test_stars_of_shapes_are_no_emphasis(line, expected):
    assert with_plain_stars(line) == expected
