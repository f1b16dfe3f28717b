"""The code blocks of the README and of the pages run, on small settings.

Blocks of shell commands are checked in tests/cli/test_examples.py, as command lines. Those of some
pages run too.
"""

import re
import shlex
import tomllib
from pathlib import Path

import code_block_cases as cases
import pytest
from command_line import succeed
from sybil import Example, Sybil
from sybil.parsers.markdown import CodeBlockParser, PythonCodeBlockParser, SkipParser

import db3kd
from db3kd.teachers.descriptions.description import read_description

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]

_PYTHON = re.compile(r"^```python\n", re.MULTILINE)
_OUT = re.compile(r"\bout=\"(runs/[^\"]+)\"")
_TOML = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)


def run_commands(example: Example) -> None:
    """Runs the lines of a block that call db3kd."""
    for line in re.sub(r"\\\n\s*", " ", example.parsed).splitlines():
        if line.startswith("db3kd "):
            succeed(*shlex.split(line, comments=True)[1:])


def parsers(page: str) -> Sybil:
    commands = [CodeBlockParser("sh", run_commands)] if page in cases.RUN_COMMANDS else []
    return Sybil(parsers=[PythonCodeBlockParser(), SkipParser(), *commands])


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


WITH_PYTHON = [page for page in PAGES if _PYTHON.search(page.read_text())]
TOML = [(page, text) for page in PAGES for text in _TOML.findall(page.read_text())]


# Networks of scikit-learn do not converge on so few images.
@pytest.mark.filterwarnings("ignore:Stochastic Optimizer")
@pytest.mark.parametrize("page", WITH_PYTHON, ids=name_of)
def test_blocks_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = cases.BEFORE.get(name_of(page), lambda folder: {})(tmp_path)
    cases.use_small_settings(monkeypatch)
    document = parsers(name_of(page)).parse(page)
    document.namespace.update(before)
    for example in document.examples():
        example.evaluate()
    cases.AFTER.get(name_of(page), lambda names: None)(document.namespace)


def test_blocks_that_are_not_run_are_counted():
    skipped = {name_of(page): page.read_text().count("<!--- skip: next") for page in PAGES}

    assert {page: count for page, count in skipped.items() if count} == cases.NOT_RUN


@pytest.mark.parametrize(("page", "text"), TOML, ids=lambda value: getattr(value, "stem", ""))
def test_files_in_toml_are_valid(page, text, tmp_path):
    file = tmp_path / "teacher.toml"
    file.write_text(text)

    if "features" in tomllib.loads(text):
        db3kd.Features.load(file)
    else:
        read_description(file)


def test_pages_that_are_read_one_after_another_write_different_folders():
    pages = [ROOT / name for name in ("README.md", "docs/get-started.md", "docs/distill.md")]
    folders = [folder for page in pages for folder in _OUT.findall(page.read_text())]

    assert len(folders) >= 5
    assert len(set(folders)) == len(folders)


def test_pages_have_code():
    assert len(WITH_PYTHON) >= 5
    assert len(TOML) >= 2
