"""The page that sums up several students."""

import re

from db3kd.report.student_blocks import Section, Settings, Table
from db3kd.report.summary_page import Summary, write_summary

SUMMARY = Summary(
    title="A <summary>",
    share="97.8 %",
    statement="of 100 images & more.",
    key_figures=[("12", "queries")],
    links=[("Its report", "auto-0/report.html")],
    sections=[
        Section("Rows", "All of them.", [Table(["name", "queries"], [("a|b", "5")])]),
        Section("Next", "", [Settings([("run", "db3kd info")])]),
    ],
)


def test_the_markdown_page_has_headline_figures_links_and_sections(tmp_path):
    write_summary(tmp_path, SUMMARY)
    text = (tmp_path / "report.md").read_text()

    assert text.startswith("# A \\<summary>\n\n**97.8 %** of 100 images & more.")
    assert "- **12** queries" in text and "- [Its report](auto-0/report.html)" in text
    assert "## Rows\n\nAll of them.\n\n| name | queries |" in text and r"| a\|b | 5 |" in text
    assert "| run | `db3kd info` |" in text


def test_the_html_page_shows_the_same_and_escapes_text(tmp_path):
    page = write_summary(tmp_path, SUMMARY)
    text = page.read_text()

    assert page == tmp_path / "report.html"
    assert "<bdi>A &lt;summary&gt;</bdi>" in text and "<summary>" not in text
    assert '<a href="auto-0/report.html">Its report</a>' in text
    assert "<code>db3kd info</code>" in text and "<bdi>a|b</bdi>" in text
    assert re.findall("<h2>(.*?)</h2>", text) == ["Rows", "Next"]
    assert not re.search(r'(src|href)="http', text)


def test_a_page_without_more_than_its_headline_is_short(tmp_path):
    write_summary(tmp_path, Summary(title="T", share="1 %", statement="of all"))

    assert (tmp_path / "report.md").read_text() == "# T\n\n**1 %** of all\n"
    assert "<ul>" not in (tmp_path / "report.html").read_text()
