"""What ARCHITECTURE.md and the other pages claim about the code holds."""

import inspect
import re
from pathlib import Path

import pytest
import torch
from teachers_analytic import LinearTeacher

import db3kd
from db3kd import ops

ROOT = Path(__file__).parents[1]
PACKAGE = Path(db3kd.__file__).parent
ROOTS = (ROOT, PACKAGE, PACKAGE / "teachers", ROOT / "csrc", ROOT / "tests")
"""Folders in which names on the pages are looked up."""
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("csrc/*.md")])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_pages_name_files_that_exist(page):
    text = page.read_text()
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", text)
    missing = [link for link in links if not (page.parent / link).exists()]
    names = re.findall(r"`([\w/.*-]+/[\w/.*-]+\.(?:py|md|h|cpp|cu|cuh)|[\w/]+/)`", text)
    missing += [name for name in names if not any(list(folder.glob(name)) for folder in ROOTS)]
    assert not missing


@pytest.mark.parametrize(
    "name", re.findall(r"(\w+/test_\w+\.py)", (ROOT / "ARCHITECTURE.md").read_text())
)
def test_each_invariant_names_a_test_that_exists(name):
    assert list((ROOT / "tests").glob(f"**/{name}"))


def test_every_package_is_in_the_table_of_layers():
    text = (ROOT / "ARCHITECTURE.md").read_text()
    packages = [
        folder.name for folder in (ROOT / "db3kd").iterdir() if (folder / "__init__.py").exists()
    ]
    assert [name for name in packages if f"`{name}`" not in text] == []


def test_ten_files_at_most_lie_between_label_and_the_kernel(monkeypatch):
    depths = []
    for name in ("bracket_queries", "bracket_step", "probe_queries", "probe_gradient"):
        monkeypatch.setattr(ops, name, counting(getattr(ops, name), depths))
    generator = torch.Generator().manual_seed(0)
    teacher = LinearTeacher(torch.randn(5, 64, generator=generator), torch.zeros(5), (1, 8, 8))
    images = torch.rand(20, 1, 8, 8, generator=generator)
    db3kd.label(teacher, images, db3kd.LabelSettings(queries_per_pair=80))
    assert depths and max(depths) <= 10


def counting(op, depths):
    def call(*arguments, **options):
        files = {Path(frame.filename) for frame in inspect.stack(context=0)}
        depths.append(len([file for file in files if PACKAGE in file.parents]) + 1)
        return op(*arguments, **options)

    return call
