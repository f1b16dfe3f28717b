"""A check repeats known queries in a journal of its own, and each of them is counted once."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from replaceable_service import BATCH, CLASSES, SHAPE, Service

from db3kd import TeacherChangedError, TeacherError
from db3kd.querying.consistency import (
    ConsistencyCheck,
    check_consistency_checks,
    describe_checks,
    queries_of_checks,
)
from db3kd.storage.kinds import Kind
from db3kd.storage.manifest import make_manifest, queries_in_flight, read_manifest
from db3kd.storage.run_folder import RunFolder
from db3kd.storage.run_journals import journaled_answers

pytest.importorskip("pyarrow")

IMAGES = torch.rand(60, *SHAPE, generator=torch.Generator().manual_seed(0))
ROWS = torch.arange(10, 60)
"""The images whose classes are known."""


def open_run(path: Path, *, seed: int = 7, resume: bool = True) -> RunFolder:
    manifest = make_manifest(
        {}, seed=seed, teacher_fingerprint="t", classes=CLASSES, data_fingerprint="d"
    )
    return RunFolder.open(path, Kind("rows", 1), manifest, resume=resume)


@pytest.fixture
def run(tmp_path: Path) -> Iterator[RunFolder]:
    with open_run(tmp_path / "run", resume=False) as folder:
        yield folder


def repeat(
    run: RunFolder, service: Service, queries: int, rows: torch.Tensor = ROWS, **options: bool
) -> None:
    known = torch.from_numpy(Service().classes(IMAGES.numpy()))
    check = ConsistencyCheck(queries, **options)
    check.repeat(run, service.teacher(), IMAGES.__getitem__, rows, known[rows])


def test_images_are_drawn_among_the_known_ones_by_the_seed_of_the_run(run, tmp_path):
    drawn = []
    for seed in (7, 7, 8):
        service = Service()
        with open_run(tmp_path / str(len(drawn)), seed=seed) as folder:
            repeat(folder, service, 12)
        drawn.append(set(service.asked))

    assert drawn[0] == drawn[1] != drawn[2]
    known = {image.numpy().tobytes() for image in IMAGES[ROWS]}
    assert all(len(each) == 12 and each <= known for each in drawn)


@pytest.mark.parametrize(("queries", "known", "asked"), [(0, 50, 0), (80, 50, 50), (9, 0, 0)])
def test_no_more_is_asked_than_was_requested_and_is_known(run, queries, known, asked):
    service = Service()
    repeat(run, service, queries, ROWS[:known])
    assert service.answers == queries_of_checks(run.manifest) == asked
    assert bool(describe_checks(run.manifest)) is (asked > 0)


def test_a_changed_teacher_is_refused_each_time_and_counted(run):
    service = Service(model=1)
    for _ in range(2):
        with pytest.raises(TeacherChangedError, match=r"changed \d+ of 20 answers since the run"):
            repeat(run, service, 20)

    first, second = read_manifest(run.path)["consistency"]
    assert first == second == {"asked": 20, "changed": first["changed"]} and first["changed"] > 0
    assert service.asked[:20] == service.asked[20:]
    assert journaled_answers(run.path) == 0 and not list(run.path.glob("*.journal"))


def test_a_changed_teacher_is_accepted_with_a_warning(run, caplog):
    repeat(run, Service(model=1), 20, accept_changed_teacher=True)

    changed = run.manifest["consistency"][0]["changed"]
    assert f"changed {changed} of 20 answers since the run was stopped" in caplog.text
    assert describe_checks(run.manifest) == (f"answers that changed: {changed} of 20")


@pytest.mark.parametrize("again", [0, 20])
def test_answers_of_a_check_that_failed_are_counted_by_the_next_process(run, again):
    service = Service()
    service.limit = 2 * BATCH
    with pytest.raises(TeacherError, match="the service is down"):
        repeat(run, service, 20)
    assert journaled_answers(run.path) == 0, "those of checks are no answers of the run"
    service.limit = 10**9
    run.close()

    with open_run(run.path) as resumed:
        repeat(resumed, service, again)
        manifest = resumed.manifest

    known = 1 + BATCH  # the first call of a process has one image
    assert queries_of_checks(manifest) == service.answers == known + again
    assert queries_in_flight(manifest) == BATCH, "the failed call may have been paid for"
    assert describe_checks(manifest).endswith(f"{known} queries in checks that were interrupted")
    assert not list(run.path.glob("*.journal"))


def test_a_check_is_counted_once_if_the_process_is_killed_before_its_journal_is_removed(
    run, tmp_path, monkeypatch
):
    service = Service()
    note = RunFolder.note

    def note_and_keep_the_journal(*arguments):
        note(*arguments)
        (journal,) = run.path.glob("_check*.journal")
        shutil.copy(journal, tmp_path / journal.name)

    with monkeypatch.context() as patched:
        patched.setattr(RunFolder, "note", note_and_keep_the_journal)
        repeat(run, service, 20)
    run.close()
    (kept,) = tmp_path.glob("_check*.journal")
    kept.rename(run.path / kept.name)

    with open_run(run.path) as resumed:
        repeat(resumed, service, 0)

    assert queries_of_checks(read_manifest(run.path)) == service.answers == 20
    assert not list(run.path.glob("*.journal"))


def test_the_number_of_checks_is_an_integer_and_needs_a_resumed_run():
    check_consistency_checks(0, False)
    check_consistency_checks(5, True)
    with pytest.raises(ValueError, match=r"^consistency_checks: needs resume=True"):
        check_consistency_checks(5, False)
    with pytest.raises(ValueError, match=r"^consistency_checks: expected an integer of at least 0"):
        check_consistency_checks(-1, True)
    with pytest.raises(TypeError, match=r"^consistency_checks: expected an integer"):
        check_consistency_checks("many", True)
