"""The list of all benchmarks: what is left out, what fails, what the exit status says."""

import sys
from pathlib import Path

import pytest

full = pytest.importorskip("benchmarks.full", reason="benchmarks are not installed")

TEACHERS = Path("teachers")
MNIST = full.Data("mnist", "/mnist", TEACHERS)
FASHION = full.Data("fashion-mnist", "/fashion", TEACHERS)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    monkeypatch.setattr(full, "RESULTS", tmp_path)
    return tmp_path


def run_of(program: str, lacks: str = "") -> full.Run:
    return full.Run("name", ("-c", program), minutes=1, lacks=lacks)


def test_each_run_keeps_a_result_of_its_own_and_on_the_page_its_kind():
    names = [run.name for run in full.runs(MNIST, FASHION)]
    assert len(set(names)) == len(names)
    kinds = pytest.importorskip("benchmarks.page").KINDS
    assert all(any(name.startswith(kind) for kind in kinds) for name in names)


def test_without_folders_only_what_needs_them_is_left_out():
    none = full.Data("mnist", None, TEACHERS), full.Data("fashion-mnist", None, TEACHERS)
    lacking = {run.name: run.lacks for run in full.runs(*none) if "DIR" in run.lacks}
    assert lacking["peers-fashion-mnist"] == "--fashion DIR"
    assert lacking["memory-bd"] == "--mnist DIR"
    assert "distances-mnist" not in lacking
    command = next(run for run in full.runs(*none) if run.name == "distances-mnist").command
    assert "mnist5k" in command and str(TEACHERS / "mnist5k.safetensors") in command


def test_a_run_that_keeps_its_result_is_done(folder):
    run = run_of(f"open({str(folder / 'name.json')!r}, 'w').write('new')")
    assert full.carry_out(run, again=False).startswith("done in")


def test_a_run_that_has_its_result_runs_only_again(folder):
    (folder / "name.json").write_text("old")
    run = run_of(f"open({str(folder / 'name.json')!r}, 'w').write('new')")
    assert full.carry_out(run, again=False) == "left out: has its result"
    assert full.carry_out(run, again=True).startswith("done in")
    assert (folder / "name.json").read_text() == "new"


def test_a_run_that_lacks_something_says_what():
    assert full.carry_out(run_of("", lacks="ray"), again=True) == "left out: needs ray"


def test_a_run_that_keeps_no_result_failed(folder):
    (folder / "name.json").write_text("old")
    assert full.carry_out(run_of(""), again=True) == "FAILED: wrote no name.json"


def test_one_failure_does_not_end_the_others_and_is_told(folder, monkeypatch, capsys):
    good = full.Run("good", ("-c", f"open({str(folder / 'good.json')!r}, 'w')"), minutes=1)
    monkeypatch.setattr(full, "runs", lambda *data: [run_of("import sys; sys.exit(3)"), good])
    monkeypatch.setattr(sys, "argv", ["full"])
    with pytest.raises(SystemExit) as ended:
        full.main()
    assert ended.value.code
    said = capsys.readouterr().out.splitlines()[-2:]
    assert said[0].split()[:5] == ["name", "FAILED", "with", "status", "3"]
    assert said[1].split()[:3] == ["good", "done", "in"]
