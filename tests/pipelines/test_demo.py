"""The demo, end to end in its quick sizes."""

import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from db3kd.cli.app import app
from db3kd.pipelines import DemoSettings, run_demo
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import load_teacher

SETTINGS = DemoSettings.quick()
WHITE_BOX = "white box: needs the teacher's logits"


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("demo") / "out"
    result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    return out, result.stdout


def test_the_pages_and_the_terminal_have_a_row_for_each_strategy_and_the_white_box(demo):
    out, screen = demo
    pages = [(out / name).read_text() for name in ("report.md", "report.html")]

    assert re.search(r"\*\*\d+\.\d %\*\* of 359 test images get the teacher's class", pages[0])
    for row in (*SETTINGS.strategies, WHITE_BOX):
        assert f"| {row} |" in pages[0] and f"| {row} |" in screen
        assert row.replace("'", "&#39;") in pages[1]


def test_the_linked_reports_exist_and_hold_the_student_that_the_page_shows(demo):
    out, _ = demo
    html = (out / "report.html").read_text()
    links = re.findall(r'href="(students[^"]*)"', html)

    assert links == ["students/auto-0/report.html", "students/report.html"]
    assert all((out / link).is_file() for link in links)
    assert load_teacher(out / "students" / "auto-0" / "student.safetensors").classes == 10


def test_students_spend_no_more_than_the_budget_and_see_no_labels(demo):
    out, _ = demo
    content = json.loads((out / "students" / "compare.json").read_text())

    assert content["budget"] == SETTINGS.budget and content["steps"] == SETTINGS.steps
    assert [row["strategy"] for row in content["rows"]] == list(SETTINGS.strategies)
    for row in content["rows"]:
        assert len(row["students"]) == SETTINGS.seeds
        assert all(each["queries"] <= SETTINGS.budget for each in row["students"])
    assert content["test_queries"] == 359
    manifest = read_manifest(out / "students" / "auto-0")
    assert "class_names" not in manifest["settings"]


def test_the_next_commands_are_valid(demo):
    out, screen = demo
    lines = re.findall(r"`(db3kd [^`]*)`", (out / "report.md").read_text())
    commands = typer.main.get_command(app).commands

    assert len(lines) == 4
    for line in lines:
        _, name, *arguments = shlex.split(line)
        commands[name].make_context(name, arguments)
    assert lines[0] in screen
    assert any(str(out / "teacher.safetensors") in line for line in lines)


def test_an_existing_folder_is_refused(demo):
    out, _ = demo
    result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(out)])

    assert result.exit_code == 1
    assert "already exists" in result.stderr


def test_the_teacher_of_an_existing_demo_is_not_replaced(demo):
    out, _ = demo
    before = (out / "teacher.safetensors").read_bytes()

    with pytest.raises(FileExistsError, match="got a folder with files"):
        run_demo(replace(SETTINGS, seed=SETTINGS.seed + 1), out)

    assert (out / "teacher.safetensors").read_bytes() == before


def test_the_folder_of_another_run_is_refused_without_advice_to_resume(tmp_path):
    (tmp_path / "_manifest.json").write_text("{}")

    with pytest.raises(FileExistsError, match="holds a run; choose another folder"):
        run_demo(SETTINGS, tmp_path)
