"""Distillations that are stopped, damaged or continued with other arguments."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from distill_cases import CLASSES, QUICK, SHAPE, TRAINING, images, let_choose, teacher, weights
from teachers_analytic import CountingTeacher, RaisingTeacher
from torch.optim import Optimizer
from training_steps import before_each_step, steps_done

import db3kd
from db3kd.answers.answers import NUMBERS, augmentable_images, no_answers
from db3kd.data.arrays import ArrayPixels
from db3kd.errors import InputError
from db3kd.models.networks import build_model
from db3kd.pipelines import DistillResult
from db3kd.pipelines.distillation import prepared
from db3kd.pipelines.query_rounds import rounds
from db3kd.pipelines.query_rounds.rounds import Proxies
from db3kd.pipelines.run_notes import RunNotes
from db3kd.planning import plan_budget
from db3kd.storage.choice_log import choice_files
from db3kd.storage.manifest import read_manifest
from db3kd.teachers import TeacherError
from db3kd.training.network_store import NetworkStore


def run(out: Path, asked: Any = None, **options: Any) -> DistillResult:
    given: dict[str, Any] = {"student": "linear", "settings": QUICK, "budget": 1500}
    given |= {"resume": out.exists()} | options
    data = given.pop("data", None) or images()
    return db3kd.distill(asked or teacher(), data, out=out, **given)


def silent() -> RaisingTeacher:
    """A teacher that must not be asked."""
    return RaisingTeacher(teacher(), 0)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> DistillResult:
    """An undisturbed run with choices. Tests must not change its folder."""
    with pytest.MonkeyPatch.context() as patch:
        let_choose(patch)
        return run(tmp_path_factory.mktemp("whole") / "run")


@pytest.fixture
def finished(whole: DistillResult, tmp_path: Path) -> Path:
    """A copy of its folder."""
    return Path(shutil.copytree(whole.folder, tmp_path / "run"))


@pytest.fixture
def choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """Choices by held-out agreement, however few steps and answers there are."""
    let_choose(monkeypatch)


@contextmanager
def counted_steps(fail_at: int | None = None) -> Iterator[list[int]]:
    """Yields the numbers of the training steps; Ctrl-C comes in one of them."""
    steps: list[int] = []

    def count(optimizer: Optimizer) -> None:
        steps.append(steps_done(optimizer))
        if len(steps) == fail_at:
            raise KeyboardInterrupt

    with before_each_step(count):
        yield steps


def files(folder: Path) -> set[str]:
    return {str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()}


def test_a_finished_run_keeps_no_more_than_it_needs(finished):
    found = files(finished)
    shards = {name for name in found if name.endswith(".parquet")}
    rounds = {name for name in found if name.startswith("_round-")}
    assert len(shards) == 5 and len(rounds) == 3
    assert all((finished / name).stat().st_size == 0 for name in rounds)
    pictures = {name for name in found if name.endswith(".png")}
    assert found - shards - rounds - pictures == {
        "_manifest.json",
        "_notes.json",
        "networks/proxy-0.safetensors",
        "networks/proxy-1.safetensors",
        "networks/student.safetensors",
        "report.html",
        "report.md",
        "student.safetensors",
    }


@pytest.mark.parametrize("stopped", [500, 1500])
def test_a_run_that_another_version_planned_goes_on_as_it_was_started(
    tmp_path, monkeypatch, stopped
):
    out, counting = tmp_path / "run", CountingTeacher(teacher())
    with monkeypatch.context() as patch:
        let_choose(patch)  # this version divides the budget otherwise
        with suppress(TeacherError):
            run(out, RaisingTeacher(counting, stopped))
    plan = read_manifest(out)["settings"]["plan"]
    assert " ".join(plan) == (  # the entries of earlier versions, in their order
        "strategy budget images held_out held_out_augmented rounds label_queries pseudo_samples "
        "targets pseudo_held_out"
    )

    result = run(out, counting)

    assert counting.total == result.queries == 1500
    assert result.plan.held_out_augmented == plan["held_out_augmented"] > 0
    assert list(result.plan.rounds) == plan["rounds"]
    with pytest.raises(
        InputError, match=r"settings.plan.held_out: was 6, is 9 \(held_out=\); pass"
    ):
        run(out, silent(), settings=replace(QUICK, held_out=9))


def test_rounds_that_were_begun_without_proxies_go_on_at_random(tmp_path, monkeypatch):
    settings, out = replace(QUICK, proxies=0), tmp_path / "run"
    with monkeypatch.context() as patch, suppress(TeacherError):
        in_rounds = partial(plan_budget, proxies=True)  # as if there were proxies
        patch.setattr(prepared, "plan_budget", lambda *a, proxies, **b: in_rounds(*a, **b))
        run(out, RaisingTeacher(teacher(), 700), settings=settings)
    with pytest.raises(InputError, match=r"settings\.choosing: was null, is"):
        run(out, silent())

    result = run(out, settings=settings)

    plan = result.plan
    stored = read_manifest(out)["settings"]["plan"]["rounds"]
    assert list(plan.rounds) == stored and len(stored) == 4
    assert plan.text == "decisions for the images and for random augmented images"
    assert not any("proxies" in stage.why for stage in plan.stages)
    assert result.queries == 1500


def test_a_comparison_that_another_version_planned_goes_on_as_it_was_started(tmp_path, monkeypatch):
    counting, out = CountingTeacher(teacher()), tmp_path / "c"
    given = {
        "student": "linear",
        "settings": QUICK,
        "strategies": ("auto", "augmented"),
        "seeds": 1,
    }
    given |= {"budget": 800, "out": out}
    with monkeypatch.context() as patch:
        let_choose(patch)
        with pytest.raises(TeacherError):
            db3kd.compare(RaisingTeacher(counting, 900), images(), **given)

    result = db3kd.compare(counting, images(), **given, resume=True)

    assert counting.total == result.queries == 1600


def test_a_finished_run_is_not_trained_again(whole, finished, choices):
    kept, rounds = files(finished), choice_files(finished)
    rounds[0].write_bytes(b"what a kill after the end of the run leaves")

    with counted_steps() as steps:
        again = run(finished, silent())

    assert steps == []
    assert not any(file.stat().st_size for file in rounds)
    assert weights(again.student).equal(weights(whole.student))
    assert (again.choices, again.agreement) == (whole.choices, whole.agreement)
    assert len(whole.choices) == 2 and files(finished) == kept


@pytest.mark.parametrize("moment", [6, 14, 30, 42, 50])
def test_an_interrupted_training_costs_nothing_that_was_asked(tmp_path, whole, choices, moment):
    """The steps are 12 of proxies that choose, 4, 24 of proxies, 4, and 12 of the student."""
    with counted_steps(fail_at=moment), pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run")
    assert read_manifest(tmp_path / "run")["state"] == "running"
    rest = CountingTeacher(teacher())

    result = run(tmp_path / "run", rest)

    assert (0 < rest.total < 1500) if moment <= 12 else rest.total == 0
    assert result.queries == 1500
    assert weights(result.student).equal(weights(whole.student))
    assert result.choices == whole.choices


@pytest.mark.parametrize(
    ("strategy", "queries"),
    [("auto", 3), ("auto", 100), ("auto", 900), ("mbd", 3), ("mbd", 900), ("zero-shot", 100)],
)
def test_an_interrupt_while_the_teacher_is_asked_keeps_the_answers(tmp_path, strategy, queries):
    failing = RaisingTeacher(teacher(max_batch=16), queries, KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "run", failing, strategy=strategy)
    rest = CountingTeacher(teacher(max_batch=16))

    result = run(tmp_path / "run", rest, strategy=strategy)

    assert rest.total + queries - failing.left == result.queries <= 1500


def test_points_of_the_curve_are_not_repeated(tmp_path, whole, choices, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr("db3kd.pipelines.query_rounds.rounds.choose_rows", interrupted_at_round(2))
        with pytest.raises(KeyboardInterrupt):
            run(tmp_path / "run")
    run(tmp_path / "run")

    curves = [RunNotes(folder).get("curve") for folder in (tmp_path / "run", whole.folder)]
    assert curves[0] == curves[1] and len(curves[0]) == 3


def interrupted_at_round(stop: int) -> Any:
    from db3kd.answers.image_choice import choose_rows

    def choose(
        answers: Any, networks: Any, count: int, seed: int, number: int, **options: Any
    ) -> Any:
        if number == stop:
            raise KeyboardInterrupt
        return choose_rows(answers, networks, count, seed, number, **options)

    return choose


@pytest.mark.parametrize(
    "settings",
    [
        replace(QUICK, training=replace(TRAINING, steps=24, optimizer="sgd")),
        replace(QUICK, learning_rates=(1e-2, 1e-4), alpha=0.2),
        replace(QUICK, proxies=1),
        replace(QUICK, proxies=0, patience=3),
    ],
)
def test_how_networks_are_trained_may_change_when_all_images_are_chosen(
    finished, choices, settings
):
    stored = read_manifest(finished)["settings"]

    changed = run(finished, silent(), settings=settings)

    assert changed.queries == 1500
    rate = changed.choices[0]
    rates = settings.completed(pseudo_samples=False).learning_rates
    assert set(rate.options) == {f"{each:g}" for each in rates}
    assert len(changed.choices) == (2 if settings.proxies else 1)
    assert read_manifest(finished)["settings"] == stored


@pytest.mark.parametrize("lost", range(5))
def test_a_lost_shard_is_asked_again(whole, finished, choices, lost):
    shard = sorted(finished.glob("answers-*.parquet"))[lost]
    shard.write_bytes(shard.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"is damaged: .*; remove it, and resume the run"):
        run(finished, silent())
    shard.unlink()
    asked = CountingTeacher(teacher())

    result = run(finished, asked)

    plan = whole.plan
    assert asked.total == [plan.held_out + plan.held_out_augmented, *plan.rounds][lost]
    assert weights(result.student).equal(weights(whole.student))
    assert RunNotes(finished).get("curve") == RunNotes(whole.folder).get("curve")


def test_how_networks_are_trained_must_not_change_while_they_choose(tmp_path):
    with pytest.raises(db3kd.teachers.TeacherError):
        run(tmp_path / "run", RaisingTeacher(teacher(), 700))
    other = replace(QUICK, training=replace(TRAINING, steps=13))
    message = r"run: settings\.choosing\.training\.steps: was 12, is 13 \(steps=\); pass what"
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", settings=other)
    message = r'run: settings\.choosing: was .*"proxies": 2, .*, is null; pass what'
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", settings=replace(QUICK, proxies=0))
    message = r'run: settings\.plan\.strategy: was "auto", is "mbd" \(strategy=\); pass what'
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", strategy="mbd")
    message = r"run: data: was [^;]*; settings\.plan\.images: was 120, is 110; the images or"
    with pytest.raises(ValueError, match=message):
        run(tmp_path / "run", data=images().subset(range(110)))
    assert run(tmp_path / "run").queries == 1500


@pytest.mark.parametrize("strategy", ["augmented", "sd"])
def test_without_proxies_that_choose_any_training_continues_a_run(tmp_path, strategy):
    run(tmp_path / "run", strategy=strategy)
    settings = replace(QUICK, training=replace(TRAINING, steps=20), learning_rates=(1e-4,))

    changed = run(tmp_path / "run", silent(), strategy=strategy, settings=settings)
    fresh = run(tmp_path / "fresh", strategy=strategy, settings=settings)

    assert weights(changed.student).equal(weights(fresh.student))


@pytest.mark.parametrize("answered", [30, 170, 10_000])
def test_without_images_any_training_continues_a_run(tmp_path, answered):
    """Before, while and after students choose pseudo samples, on a device named otherwise."""
    options = {"budget": 200, "student": "linear", "settings": QUICK}
    whole = db3kd.distill(teacher(), out=tmp_path / "whole", **options)
    asked = CountingTeacher(teacher(max_batch=16))
    with suppress(db3kd.teachers.TeacherError):
        db3kd.distill(RaisingTeacher(asked, answered), out=tmp_path / "run", **options)
    training = replace(TRAINING, steps=20, device="auto", optimizer="adamw")
    options |= {"settings": replace(QUICK, training=training, learning_rates=(1e-4,), proxies=1)}

    again = db3kd.distill(asked, out=tmp_path / "run", resume=True, **options)

    assert asked.total == again.queries == whole.queries
    made, expected = (
        db3kd.load_pseudo_samples(folder / "pseudo-samples")
        for folder in (tmp_path / "run", tmp_path / "whole")
    )
    assert made.images().equal(expected.images()) and made.decision.equal(expected.decision)
    assert not weights(again.student).equal(weights(whole.student))


def test_other_proxies_teach_another_student(tmp_path, choices):
    options = {"budget": 300}
    run(tmp_path / "run", **options)
    other = replace(QUICK, proxy="mlp-quarter")

    changed = run(tmp_path / "run", silent(), settings=other, **options)
    fresh = run(tmp_path / "fresh", settings=other, **options)

    assert changed.taught_by == "decisions and 2 proxies"
    assert changed.choices == fresh.choices
    assert weights(changed.student).equal(weights(fresh.student))


def test_proxies_from_a_file_and_new_ones_are_on_one_device(tmp_path, monkeypatch):
    store = NetworkStore(tmp_path / "networks", {})
    pixels = augmentable_images(images(), torch.arange(120), 20, seed=0)
    rows = torch.arange(100) * NUMBERS
    answers = no_answers(pixels).add(rows, torch.arange(100) % CLASSES)
    proxies = Proxies(partial(build_model, "linear", SHAPE, CLASSES), "linear", 1)

    def get() -> torch.nn.Module:
        return rounds.train_proxy("proxy-0", answers, proxies, 0, TRAINING, store)

    assert next(get().parameters()).device.type == "cpu"
    device = SimpleNamespace(device=torch.device("meta"))
    monkeypatch.setattr(rounds.TrainingProcess, "current", lambda *_: device)
    assert next(get().parameters()).device.type == "meta", "it was read on the CPU"


def test_another_student_learns_from_the_same_answers(tmp_path, whole, finished, choices):
    second = run(finished, silent(), student="mlp-quarter", settings=replace(QUICK, proxies=0))
    again = run(finished, silent())

    assert weights(second.student).shape != weights(whole.student).shape
    assert second.choices[0].options != whole.choices[0].options
    assert weights(again.student).equal(weights(whole.student)) and again.choices == whole.choices


def test_a_learning_rate_that_diverges_is_not_chosen(tmp_path, choices):
    settings = replace(QUICK, learning_rates=(3e37, 1e-2))
    result = run(tmp_path / "run", settings=settings)

    assert result.choices[0].options["3e+37"] == 0.0
    assert result.choices[0].chosen == "0.01"


def test_a_student_that_diverges_may_be_trained_more_slowly(tmp_path):
    fast = replace(QUICK, learning_rates=(3e37,), proxies=0)
    with pytest.raises(FloatingPointError, match="lower the learning rate"):
        run(tmp_path / "run", settings=fast)

    result = run(tmp_path / "run", silent(), settings=replace(fast, learning_rates=(1e-2,)))

    assert result.queries == 1500


class Faulty(db3kd.TrainingCallback):
    """Raises in the middle of a training, and has a state."""

    def on_report(self, state: Any) -> None:
        if state.step == 6:
            raise RuntimeError("my mistake")

    def state_dict(self) -> dict[str, Any]:
        return {"seen": 1}


def test_a_callback_that_raises_costs_no_answer(tmp_path):
    with pytest.raises(RuntimeError, match="my mistake"):
        run(tmp_path / "run", callbacks=[Faulty()])
    assert run(tmp_path / "run", silent()).queries == 1500


@pytest.mark.parametrize("write", [1, 4, 9, 14, 20, 26])
def test_a_full_disk_costs_nothing_that_was_asked(tmp_path, monkeypatch, write):
    """Files are written in this order: manifest, shards, notes, networks, student and report."""
    assert_full_disk_costs_nothing(tmp_path / "run", monkeypatch, write)


@pytest.mark.parametrize("write", [1, 2, 3, 4, 6])
def test_a_full_disk_costs_nothing_without_images(tmp_path, monkeypatch, write):
    """The manifest of the pseudo samples follows that of the run."""
    assert_full_disk_costs_nothing(tmp_path / "run", monkeypatch, write, strategy="zero-shot")


def assert_full_disk_costs_nothing(
    out: Path, monkeypatch: pytest.MonkeyPatch, write: int, **options: Any
) -> None:
    """Checks that a run is resumed at no cost if a file of it could not be written."""
    writes = []
    original = os.replace

    def full(source: Any, target: Any) -> None:
        writes.append(target)
        if len(writes) == write:
            raise OSError(errno.ENOSPC, "No space left on device")
        original(source, target)

    asked = CountingTeacher(teacher())
    with monkeypatch.context() as patch:
        patch.setattr("db3kd.storage.filesystem.os.replace", full)
        with pytest.raises(OSError, match=r"No space left on device: '.*run/"):
            run(out, asked, **options)

    result = run(out, asked, **options)

    assert asked.total == result.queries == 1500


def test_a_kill_while_the_student_is_trained_changes_nothing(tmp_path, whole, choices, monkeypatch):
    class Snapshot(db3kd.TrainingCallback):
        """Copies the folder in the middle of a training, as a kill would leave it."""

        def on_report(self, state: Any) -> None:
            if state.step == 7:
                shutil.copytree(tmp_path / "run", tmp_path / "killed")

    monkeypatch.setattr("db3kd.training.checkpoint.Checkpoint.due", lambda self: True)
    run(tmp_path / "run", callbacks=[Snapshot()])
    assert len(list((tmp_path / "killed" / "networks").glob("student-*.checkpoint"))) == 1

    with counted_steps() as steps:
        result = run(tmp_path / "killed", silent())

    assert weights(result.student).equal(weights(whole.student))
    assert steps == list(range(6, 12)), "the training goes on from its last checkpoint"
    assert not list((tmp_path / "killed" / "networks").glob("*.checkpoint"))


def test_no_more_images_are_read_at_once_than_a_batch_holds(tmp_path, monkeypatch):
    at_once = []
    original = ArrayPixels.read

    def watched(pixels: ArrayPixels, rows: Any) -> Any:
        at_once.append(len(rows))
        return original(pixels, rows)

    monkeypatch.setattr(ArrayPixels, "read", watched)
    monkeypatch.setattr("db3kd.data.image_reader.RESIDENT_BYTES", 0)
    monkeypatch.setattr("db3kd.querying.search._BATCH_BYTES", 32 * 4 * 36)

    run(tmp_path / "run", budget=600, data=images(500))

    assert max(at_once) <= 32, "in memory are only sets that fit there, and batches"


def test_a_folder_that_disappears_is_named(tmp_path):
    class Remover(db3kd.TrainingCallback):
        def on_report(self, state: Any) -> None:
            shutil.rmtree(tmp_path / "run", ignore_errors=True)

    with pytest.raises(FileNotFoundError, match="run: the run folder and its answers were removed"):
        run(tmp_path / "run", callbacks=[Remover()])


def test_a_second_process_is_told_to_wait(tmp_path):
    class Second(db3kd.TrainingCallback):
        def on_end(self, state: Any) -> None:
            with pytest.raises(BlockingIOError, match="another process is writing to this run"):
                run(tmp_path / "run")

    assert run(tmp_path / "run", callbacks=[Second()]).queries == 1500


def test_folders_of_other_kinds_and_versions_are_refused(tmp_path):
    db3kd.label(teacher(), images(), db3kd.LabelSettings(measure="sd"), out=tmp_path / "labels")
    with pytest.raises(ValueError, match=r"expected a run of db3kd distill .*, got .* db3kd label"):
        run(tmp_path / "labels", silent())
    run(tmp_path / "run")
    manifest = tmp_path / "run" / "_manifest.json"
    manifest.write_text(manifest.read_text().replace("answers 2", "answers 1"))
    with pytest.raises(ValueError, match="answers 1', written by another version of db3kd; use"):
        run(tmp_path / "run", silent())
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "letter.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="got a folder with files; choose another"):
        run(tmp_path / "files", silent())
