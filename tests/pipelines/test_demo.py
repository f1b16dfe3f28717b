"""The demo, end to end in its quick sizes."""

import json
import shlex
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from db3kd.cli.app import app
from db3kd.pipelines import run_demo
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import load_teacher

STRATEGIES = ["auto", "augmented", "decisions", "mbd", "zero-shot"]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("demo") / "out"
    result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    return out, result.stdout


def test_the_terminal_and_the_report_have_a_row_for_each_strategy(demo):
    out, screen = demo
    page = (out / "comparison" / "report.md").read_text()

    for row in STRATEGIES:
        assert f"| {row} |" in page and f"| {row} |" in screen
    assert "The teacher's own accuracy on the test images is " in screen
    assert f"written to {out / 'comparison' / 'report.html'}" in screen
    assert (out / "comparison" / "report.html").is_file()
    assert load_teacher(out / "comparison" / "auto-0" / "student.safetensors").classes == 10


def test_students_spend_no_more_than_the_budget_and_see_no_labels(demo):
    out, _ = demo
    content = json.loads((out / "comparison" / "compare.json").read_text())

    assert content["budget"] == 400 and content["steps"] == 30
    assert [row["strategy"] for row in content["rows"]] == STRATEGIES
    assert all(row["students"][0]["queries"] <= 400 for row in content["rows"])
    assert content["test_queries"] == 359
    manifest = read_manifest(out / "comparison" / "auto-0")
    assert "class_names" not in manifest["settings"]


def test_the_next_command_is_valid(demo):
    _, screen = demo
    line = screen.splitlines()[-1].removeprefix("next: ")

    _, name, *arguments = shlex.split(line)

    typer.main.get_command(app).commands[name].make_context(name, arguments)


def test_an_existing_folder_is_refused(demo):
    out, _ = demo
    result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(out)])

    assert result.exit_code == 1
    assert "already exists" in result.stderr


def test_the_teacher_of_an_existing_demo_is_not_replaced(demo):
    out, _ = demo
    before = (out / "teacher.safetensors").read_bytes()

    with pytest.raises(FileExistsError, match="got a folder with files"):
        run_demo(out, quick=True, seed=1)

    assert (out / "teacher.safetensors").read_bytes() == before


def test_the_folder_of_another_run_is_refused_without_advice_to_resume(tmp_path):
    (tmp_path / "_manifest.json").write_text("{}")

    with pytest.raises(FileExistsError, match="holds a run; choose another folder"):
        run_demo(tmp_path, quick=True)


def test_a_seed_without_room_for_the_next_ones_is_refused(tmp_path):
    with pytest.raises(ValueError, match=rf"^seed: expected .* below 2\^61, got {2**61}$"):
        run_demo(tmp_path / "out", quick=True, seed=2**61)
