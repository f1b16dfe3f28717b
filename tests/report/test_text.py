"""Text of users on pages."""

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")
pytest.importorskip("markdown_it")

from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from student_report_cases import HOSTILE

from db3kd.report.tables import markdown_table
from db3kd.report.text import clean_text, markdown_block, markdown_code, markdown_text, shown_name

MARKDOWN = MarkdownIt("commonmark").enable("table")
MARKUP = "\\`*_[]<>()#+-.1!|&~$=: \n\t"
any_text = st.text(st.characters(), max_size=30) | st.text(MARKUP, max_size=12)


def plain(tokens) -> str:
    """The text of tokens that are nothing but text."""
    kinds = {"text", "text_special"}
    assert {token.type for token in tokens} <= kinds
    return "".join(token.content for token in tokens)


def one_line(text: str) -> str:
    return " ".join(clean_text(text).split())


@given(any_text)
def test_markdown_shows_a_paragraph_of_text_as_it_is(text):
    tokens = MARKDOWN.parse(markdown_text(text))
    if not one_line(text):
        assert tokens == []
        return
    assert [token.type for token in tokens] == ["paragraph_open", "inline", "paragraph_close"]
    assert plain(tokens[1].children) == one_line(text)


@given(any_text)
def test_markdown_shows_a_heading_as_it_is(text):
    tokens = MARKDOWN.parse(f"# x {markdown_text(text)}")
    assert [token.type for token in tokens] == ["heading_open", "inline", "heading_close"]
    assert plain(tokens[1].children) == f"x {one_line(text)}".strip()


@given(any_text, any_text)
def test_markdown_shows_the_cells_of_a_table_as_they_are(left, right):
    table = markdown_table(["a", "b"], [[markdown_text(left), markdown_text(right)]])
    tokens = MARKDOWN.parse(table)
    assert tokens[0].type == "table_open"
    cells = [plain(token.children) for token in tokens if token.type == "inline"]
    assert cells == ["a", "b", one_line(left), one_line(right)]


@given(any_text.filter(one_line))
def test_markdown_shows_code_as_it_is(text):
    (token,) = [each for each in MARKDOWN.parse(f"x {markdown_code(text)}") if each.children]
    assert [child.type for child in token.children] == ["text", "code_inline"]
    assert token.children[1].content == one_line(text)


@given(any_text)
def test_markdown_shows_a_block_of_code_as_it_is(text):
    (token,) = MARKDOWN.parse(markdown_block(text))
    assert token.type == "fence"
    assert token.content.rstrip("\n") == clean_text(text).rstrip("\n")


@given(st.text(st.characters(exclude_categories=())))
def test_clean_text_can_be_written_and_keeps_its_length(text):
    cleaned = clean_text(text)
    assert len(cleaned) == len(text)
    cleaned.encode("utf-8")
    assert clean_text(cleaned) == cleaned


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_on_one_line_of_limited_length(name):
    shown = shown_name(name)
    assert 0 < len(shown) <= 80
    assert "\n" not in shown and "\u202e" not in shown


def test_usual_names_are_shown_as_they_are():
    usual = ("od280/od315_of_diluted_wines", "black-and-tan coonhound", "0.003", "日本語")
    for name in (
        *usual,
        "<=50K",
        "50K < x > 9 & more",
        "http://127.0.0.1:8123",
        r"C:\Data",
        "C# 7",
    ):
        assert markdown_text(name) == shown_name(name) == name
