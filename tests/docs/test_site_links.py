"""Links between files of the repository work on the site, and lost ones are found."""

import importlib.util
from pathlib import Path

import pytest

pytest.importorskip("sphinx")

from repository_links import PAGES, with_site_links

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("folder", "link", "expected"),
    [
        ("docs", "[g](guide.md#surrogates)", "[g](/guide.md#surrogates)"),
        ("docs/reference", "[g](../guide.md)", "[g](/guide.md)"),
        ("", "![p](docs/method.png)", "![p](/method.png)"),
        ("", "[a](ARCHITECTURE.md)", "[a](/architecture.md)"),
        ("csrc", "[`rays.py`](../db3kd/ops/rays.py)", "`rays.py`"),
        ("csrc", "[the rays](../db3kd/ops/rays.py)", "the rays (`db3kd/ops/rays.py`)"),
        ("docs", "[s](https://example.org/a)", "[s](https://example.org/a)"),
        ("docs", "[h](#heading)", "[h](#heading)"),
        ("docs", "```\n[x](nowhere.md)\n```", "```\n[x](nowhere.md)\n```"),
    ],
)
def test_links_lead_to_pages_of_the_site(folder, link, expected):
    assert with_site_links(link, folder, ROOT) == expected


def test_a_link_to_a_missing_file_is_an_error():
    with pytest.raises(ValueError, match=r"got nowhere\.md"):
        with_site_links("[x](nowhere.md)", "docs", ROOT)


def test_pages_exist():
    for file, page in PAGES.items():
        assert (ROOT / file).is_file()
        assert (ROOT / "docs" / f"{page}.md").is_file()


def test_the_checker_finds_lost_pages_and_headings(tmp_path):
    spec = importlib.util.spec_from_file_location("check_links", ROOT / "docs/check_links.py")
    checker = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(checker)
    (tmp_path / "a.html").write_text(
        '<h1 id="top">A</h1><a href="b.html#here">b</a><a href="#top">top</a>'
        '<a href="b.html#gone">gone</a><img src="lost.png"><a href="https://example.org">e</a>'
    )
    (tmp_path / "b.html").write_text('<h1 id="here">B</h1>')

    broken, inside, outside = checker.broken_links(tmp_path)

    assert broken == ["a.html: b.html#gone", "a.html: lost.png"]
    assert (inside, outside) == (4, 1)
