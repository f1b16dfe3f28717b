"""The list of all benchmark runs: what is skipped, what fails, and the exit status."""

import argparse
import importlib
import sys
from pathlib import Path

import pytest

full = pytest.importorskip("benchmarks.full", reason="benchmarks are not installed")

TEACHERS = Path("teachers")


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(full, "RESULTS", tmp_path)
    return tmp_path


def run_of(program: str, missing: str = "") -> full.Run:
    return full.Run("name", ("-c", program), minutes=1, missing=missing)


def test_no_command_has_an_unfilled_field():
    for run in full.runs("/mnist", "/fashion", "/colour", TEACHERS):
        assert not [part for part in run.command if "{" in part or "DIR" in part]


@pytest.mark.parametrize(
    "run", list(full.runs("/mnist", "/fashion", "/colour", TEACHERS)), ids=lambda run: run.name
)
def test_each_command_is_accepted_by_its_module(run, monkeypatch):
    if run.command[1] == "pytest":
        assert (full.ROOT / run.command[2]).exists()
        return
    if run.name == "serving":
        pytest.importorskip("tritonclient")
    for package in (f"{run.command[1]}.compare", run.command[1]):
        try:
            module = importlib.import_module(package)
            break
        except ModuleNotFoundError as error:
            if error.name != package:
                raise
    monkeypatch.setattr(sys, "argv", list(run.command[1:]))
    options = module._options() if hasattr(module, "_options") else module._parser().parse_args()
    assert isinstance(options, argparse.Namespace)
    assert options.save == run.name


def test_each_committed_result_has_a_command():
    names = {run.name for run in full.runs("/mnist", "/fashion", "/colour", TEACHERS)}
    for file in (full.ROOT / "benchmarks" / "results").glob("*.json"):
        # The docs let the command of one grey data set stand for that of the other.
        other = file.stem.replace("fashion-mnist", "mnist")
        if other == file.stem:
            other = file.stem.replace("mnist", "fashion-mnist")
        assert {file.stem, other} & names or file.stem == "wheels"  # made by make test-wheels


def test_without_folders_only_what_needs_them_is_skipped():
    none = {run.name: run for run in full.runs(None, None, None, TEACHERS)}
    assert none["peers-fashion-mnist"].missing == "--fashion DIR"
    assert none["peers-colour-photos"].missing == "--colour DIR"
    assert none["memory-bd"].missing == "--mnist DIR"
    assert none["distances-mnist"].missing == ""
    command = none["distances-mnist"].command
    assert "mnist5k" in command and str(TEACHERS / "mnist5k.safetensors") in command


def test_a_run_that_writes_its_result_is_done(folder):
    run = run_of(f"open({str(folder / 'name.json')!r}, 'w').write('new')")
    assert full.execute(run, again=False).startswith("done in")


def test_a_run_that_has_its_result_is_repeated_only_if_asked(folder):
    (folder / "name.json").write_text("old")
    run = run_of(f"open({str(folder / 'name.json')!r}, 'w').write('new')")
    assert full.execute(run, again=False) == "skipped: has its result"
    assert full.execute(run, again=True).startswith("done in")
    assert (folder / "name.json").read_text() == "new"


def test_a_run_that_lacks_something_names_it():
    assert full.execute(run_of("", missing="ray"), again=True) == "skipped: needs ray"


def test_a_run_that_writes_no_result_failed(folder):
    (folder / "name.json").write_text("old")
    assert full.execute(run_of(""), again=True) == "FAILED: wrote no name.json"


def test_one_failure_does_not_stop_the_others_and_is_reported(folder, monkeypatch, capsys):
    good = full.Run("good", ("-c", f"open({str(folder / 'good.json')!r}, 'w')"), minutes=1)
    monkeypatch.setattr(full, "runs", lambda *data: [run_of("import sys; sys.exit(3)"), good])
    monkeypatch.setattr(sys, "argv", ["full"])
    with pytest.raises(SystemExit) as ended:
        full.main()
    assert ended.value.code
    lines = capsys.readouterr().out.splitlines()[-2:]
    assert lines[0].split()[:5] == ["name", "FAILED", "with", "status", "3"]
    assert lines[1].split()[:3] == ["good", "done", "in"]
