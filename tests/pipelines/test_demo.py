"""The demo, end to end in its quick sizes."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from db3kd.cli.app import app
from db3kd.labelling.label_files import load_labels

ROWS = (
    "cross-entropy on decisions",
    "SD, margin",
    "BD, margin",
    "MBD, margin",
    "MBD, paper's 1/d and loss",
    "augmented, at cost of BD",
    "augmented, at cost of MBD",
    "surrogate KD",
    "noise logits",
    "white-box KD",
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    out = tmp_path_factory.mktemp("demo") / "out"
    result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(out)])
    assert result.exit_code == 0, result.stderr
    return out, result.stdout


def test_the_report_and_the_terminal_have_a_row_for_each_method(demo):
    out, screen = demo
    page = (out / "report.md").read_text()

    for row in ROWS:
        assert f"| {row} |" in page
        assert row in screen


def test_the_demo_also_trains_students_without_images(demo):
    out, screen = demo
    page = (out / "report.md").read_text()

    for row in ("pseudo samples, decisions", "plain noise, decisions", "real images, decisions"):
        assert f"| {row} |" in page
        assert row.split(",")[0] in screen
    assert (out / "zero-shot" / "report.md").exists()


def test_the_demo_writes_its_figures(demo):
    out, _ = demo

    for name in ("samples.png", "distance_curve.png", "class_distances.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")


def test_the_demo_states_its_queries(demo):
    out, _ = demo
    runs = {measure: load_labels(out / "labels" / measure) for measure in ("sd", "bd", "mbd")}
    spent = {measure: int(labels.queries.sum()) for measure, labels in runs.items()}
    page = (out / "report.md").read_text()

    assert spent["sd"] == 60
    assert f"{sum(spent.values()):,} for the labels" in page
    assert "in another class than the data set does" in page


def test_an_existing_folder_is_refused(demo):
    out, _ = demo
    result = CliRunner().invoke(app, ["demo", "--quick", "--out", str(out)])

    assert result.exit_code == 1
    assert "already exists" in result.stderr
