"""Pages with generated text, pages that are made from a notebook, and formulas."""

import json
from pathlib import Path

import notebook_page
import pytest

pytest.importorskip("sphinx")

from generated_text import filled
from mathml import mathml

DOCS = Path(__file__).parents[2] / "docs"


def test_a_page_of_generated_text_tells_readers_of_the_file_where_to_find_it():
    pages = {page: page.read_text() for page in DOCS.rglob("*.md")}
    generated = {page: text for page, text in pages.items() if "<!-- generated: " in text}

    assert len(generated) > 10
    assert [page for page, text in generated.items() if " -->\n> The site " not in text] == []


def test_generated_text_replaces_the_quote_below_its_place():
    page = filled("a\n\n<!-- generated: description-keys -->\n> one\n> two\n\n> kept\n")

    assert page.startswith("a\n\n| key | type |") and page.endswith(" |\n\n> kept\n")
    assert "> one" not in page and "> two" not in page


@pytest.fixture
def page_of(tmp_path, monkeypatch):
    monkeypatch.setattr(notebook_page, "ROOT", tmp_path)

    def page(*cells: dict) -> str:
        (tmp_path / "a.ipynb").write_text(json.dumps({"cells": cells}))
        return notebook_page.notebook_page("a.ipynb")

    return page


def code(*outputs: dict) -> dict:
    return {"cell_type": "code", "source": ["a = 1\n", "a"], "outputs": outputs}


def test_a_cell_of_text_is_taken_as_it_is(page_of):
    assert page_of({"cell_type": "markdown", "source": ["# A\n", "b"]}) == "# A\nb"


def test_code_without_output_is_a_block(page_of):
    assert page_of(code()) == "```python\na = 1\na\n```"


@pytest.mark.parametrize(
    ("output", "expected"),
    [
        ({"data": {"text/plain": ["1\n", "2"]}}, "```text\n1\n2\n```"),
        ({"name": "stdout", "text": ["printed\n"]}, "```text\nprinted\n```"),
        ({"data": {"image/png": "AB\nC=", "text/plain": "<Figure>"}}, "data:image/png;base64,ABC="),
        (
            {"data": {"text/html": '<style>x</style><table border="1" class="dataframe">'}},
            '<div class="table-wrapper"><table class="docutils"></div>',
        ),
    ],
)
def test_outputs_are_shown_in_boxes(page_of, output, expected):
    page = page_of(code(output))

    assert ":::{container} notebook-output\n" in page
    assert expected in page
    assert "<Figure>" not in page and "<style>" not in page


def test_braces_are_as_tall_as_the_text():
    assert '<mo stretchy="false">{</mo>' in mathml(r"\min \{ r \}", as_block=True)
    assert "<mo>=</mo>" in mathml("x = 1", as_block=False)
