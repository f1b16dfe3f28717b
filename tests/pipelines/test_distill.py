"""One command from a budget to a student: exact spending, resuming, choices and the report."""

import io
import json
import os
import random
import re
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_cases import (
    CHOOSING,
    CLASSES,
    QUICK,
    SAMPLES,
    SHAPE,
    images,
    let_choose,
    teacher,
    weights,
)
from forked import forked_processes
from teachers_analytic import (
    ConstantTeacher,
    CountingTeacher,
    NearestCentroidTeacher,
    RaisingTeacher,
    RareTeacher,
    WrappedTeacher,
    image_key,
)
from torch import Tensor, nn

import db3kd
from db3kd.answers.image_choice import choose_rows
from db3kd.answers.neighbour_labels import neighbour_labels
from db3kd.arguments.arrays import seeded_permutation
from db3kd.data.image_set import ImageSet
from db3kd.errors import DivergedError
from db3kd.pipelines import DistillResult, DistillSettings
from db3kd.pipelines.distillation import asking
from db3kd.pipelines.query_rounds import pseudo_sample_answers, rounds
from db3kd.pipelines.run_notes import RunNotes
from db3kd.pipelines.student_training import student_trainer
from db3kd.planning import STRATEGIES
from db3kd.progress import Progress
from db3kd.storage.manifest import queries_in_flight, read_manifest
from db3kd.synthesis.masked_mixes import MaskedMixes
from db3kd.teachers import TeacherError, load_teacher
from db3kd.teachers.base import SingleClassError
from db3kd.training import stable
from db3kd.training.callbacks import TrainingCallback, TrainingState

WITH_IMAGES = [name for name in STRATEGIES if name != "zero-shot"]


def run(asked: Any = None, budget: int = 1500, **options: Any) -> DistillResult:
    given = {"student": "linear", "settings": QUICK} | options
    data = given.pop("data", None) or images()
    return db3kd.distill(asked or teacher(), data, budget=budget, **given)


@pytest.mark.parametrize("strategy", WITH_IMAGES)
def test_the_queries_are_those_that_the_teacher_saw_and_never_exceed_the_budget(strategy, tmp_path):
    counting = CountingTeacher(teacher())

    result = run(counting, strategy=strategy, out=tmp_path / "run")

    assert result.queries == counting.total <= 1500
    assert read_manifest(tmp_path / "run")["totals"]["queries"] == result.queries
    assert result.held_out == result.plan.held_out
    last = seeded_permutation(len(images()), QUICK.training.seed)[-result.held_out :]
    unseen = images().read(last)
    agrees = result.student(unseen).argmax(1) == teacher().decide(unseen)
    assert result.matches == agrees.sum() == round(result.agreement * result.held_out)
    low, high = result.interval
    assert low <= result.agreement <= high
    if strategy in ("auto", "augmented"):
        assert counting.total == 1500
        assert max(counting.per_image.values()) == 1, "no image is asked about twice"
    if strategy == "decisions":
        assert counting.total == SAMPLES


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_images_of_any_number_of_channels_give_a_student_and_a_report(channels, tmp_path):
    shape = (channels, 6, 6)
    centers = torch.rand(CLASSES, *shape, generator=torch.Generator().manual_seed(1))
    counting = CountingTeacher(NearestCentroidTeacher(centers, shape))
    pixels = torch.rand(60, *shape, generator=torch.Generator().manual_seed(0))

    result = run(counting, 200, data=ImageSet.from_arrays(pixels), out=tmp_path / "run")

    assert result.queries == counting.total == 200
    assert result.agreement < 1, "an image must be shown"
    assert f"Images have {channels} channels" in result.report.read_text()


def test_without_images_the_queries_are_exact_too(tmp_path):
    counting = CountingTeacher(teacher())

    result = db3kd.distill(
        counting, budget=400, student="linear", settings=QUICK, out=tmp_path / "run"
    )

    assert result.plan.strategy == "auto" and result.plan.pseudo_samples == 400
    assert result.queries == counting.total == 400
    assert result.held_out == 20
    assert "on 20 held-out pseudo samples" in repr(result)
    page = result.report.with_suffix(".md").read_text()
    assert "of 20 held-out pseudo samples" in page
    assert result.taught_by == "decisions alone"
    assert "Decisions alone taught the student: with 380 pseudo samples, proxies help from" in page
    assert "from 594 training steps (25 images per sample), and this training has 12." in page


LONG = replace(QUICK, training=replace(QUICK.training, steps=30, batch_size=64))
"""1,920 images in all, more than 25 for each of 76 pseudo samples."""


def test_without_images_proxies_label_masked_mixes(tmp_path, monkeypatch):
    seen = []
    original = MaskedMixes.read

    def watched(mixes: MaskedMixes, rows: Tensor) -> Tensor:
        seen.append(rows.tolist())
        return original(mixes, rows)

    monkeypatch.setattr(MaskedMixes, "read", watched)
    options = {"budget": 80, "student": "linear", "settings": LONG}
    result = db3kd.distill(teacher(), **options, out=tmp_path / "run")

    assert result.taught_by == "decisions and 2 proxies"
    page = result.report.with_suffix(".md").read_text()
    assert "because training is long enough for proxies to help without images" in page
    half = LONG.training.batch_size // 2
    assert seen == [list(range(step * half, (step + 1) * half)) for step in range(30)]

    seen.clear()
    alone = replace(LONG, proxies=0)
    result = db3kd.distill(teacher(), **options | {"settings": alone}, out=tmp_path / "alone")
    assert result.taught_by == "decisions alone" and not seen


def test_without_images_no_proxies_teach_a_student_with_batch_normalisation(tmp_path, monkeypatch):
    monkeypatch.setattr(student_trainer, "train_proxy", None)

    result = db3kd.distill(
        teacher(), budget=80, student=with_normalisation, settings=LONG, out=tmp_path / "run"
    )

    assert result.taught_by == "decisions alone"
    page = result.report.with_suffix(".md").read_text()
    assert "students with batch normalisation gain nothing from proxies" in page


def with_normalisation() -> nn.Module:
    features = SHAPE[1] * SHAPE[2]
    return nn.Sequential(nn.Flatten(), nn.BatchNorm1d(features), nn.Linear(features, CLASSES))


@pytest.mark.parametrize("ends", ["diverged", "dead"])
def test_a_proxy_that_learned_nothing_does_not_teach(tmp_path, monkeypatch, caplog, ends):
    monkeypatch.setattr(stable, "_LEAST_STEPS", 30)
    original = student_trainer.train_proxy

    def ruined(name: str, *given: Any, **others: Any) -> nn.Module:
        network = original(name, *given, **others)
        if name == "proxy-0" and ends == "diverged":
            raise DivergedError("the loss is nan")
        if name == "proxy-0":
            with torch.no_grad():
                for value in network.parameters():
                    value.zero_()
        return network

    monkeypatch.setattr(student_trainer, "train_proxy", ruined)
    result = db3kd.distill(
        teacher(), budget=80, student="linear", settings=LONG, out=tmp_path / "run"
    )

    reason = "the loss is nan" if ends == "diverged" else "answers all images with one class"
    assert f"training proxy 1 of 2: {'' if ends == 'diverged' else 'it '}{reason}" in caplog.text
    assert result.taught_by == "decisions and 1 proxy"
    (warning,) = (each for each in result.warnings if each.startswith("training proxy 1 of 2"))
    assert warning in result.report.with_suffix(".md").read_text()


def test_without_images_no_proxy_may_have_learned_anything(tmp_path, monkeypatch):
    def diverged(*given: Any, **others: Any) -> nn.Module:
        raise DivergedError("the loss is nan")

    monkeypatch.setattr(student_trainer, "train_proxy", diverged)

    result = db3kd.distill(
        teacher(), budget=80, student="linear", settings=LONG, out=tmp_path / "run"
    )

    page = result.report.with_suffix(".md").read_text()
    assert "because no proxy learned the answers." in page and len(result.warnings) >= 2


@pytest.mark.parametrize("stops", [1, 20])
def test_a_student_of_proxies_without_images_is_resumed_to_the_same_weights(
    tmp_path, monkeypatch, stops
):
    options = {"budget": 80, "student": "linear", "settings": LONG}
    whole = db3kd.distill(teacher(), out=tmp_path / "whole", **options)
    original, read = MaskedMixes.read, []

    def stopping(mixes: MaskedMixes, rows: Tensor) -> Tensor:
        read.append(rows)
        if len(read) == stops:
            raise KeyboardInterrupt
        return original(mixes, rows)

    monkeypatch.setattr(MaskedMixes, "read", stopping)
    with pytest.raises(KeyboardInterrupt):
        db3kd.distill(teacher(), out=tmp_path / "run", **options)

    again = db3kd.distill(
        RaisingTeacher(teacher(), 0), out=tmp_path / "run", resume=True, **options
    )

    assert again.taught_by == "decisions and 2 proxies"
    assert weights(again.student).equal(weights(whole.student))


@pytest.mark.parametrize("stops", [(), (5, 60, 150)])
def test_without_images_the_first_starts_are_held_out(stops, tmp_path, monkeypatch):
    seen = []
    original = pseudo_sample_answers.augmentable_images

    def watched(*arguments: Any, **options: Any) -> Any:
        seen.append(original(*arguments, **options))
        return seen[-1]

    monkeypatch.setattr(pseudo_sample_answers, "augmentable_images", watched)
    options = {"budget": 400, "student": "linear", "settings": QUICK, "out": tmp_path / "run"}
    (tmp_path / "run").mkdir()
    for queries in stops:
        with pytest.raises(TeacherError):
            db3kd.distill(RaisingTeacher(teacher(max_batch=16), queries), **options, resume=True)

    result = db3kd.distill(teacher(max_batch=16), **options, resume=True)

    (answers,) = seen
    assert answers.partners == 400 - result.held_out == 380
    clean = answers.read(torch.arange(400) * pseudo_sample_answers.NUMBERS)
    starts = db3kd.make_starts("mixed", SHAPE, QUICK.training.seed)
    assert torch.equal(clean[380:], starts.draw(torch.arange(20)) / 255)
    assert torch.cdist(clean[:380].flatten(1), clean[380:].flatten(1)).min() > 0


def test_held_out_images_are_in_no_image_that_is_trained_on(monkeypatch):
    seen = {}
    original = rounds.ask_rounds

    def watched(*arguments: Any, **options: Any) -> Any:
        seen["answers"] = original(*arguments, **options)
        return seen["answers"]

    monkeypatch.setattr("db3kd.pipelines.distillation.asking.ask_rounds", watched)
    result = run()

    answers = seen["answers"]
    assert len(answers.held_out.clean) == result.plan.held_out
    assert len(answers.held_out) == result.plan.held_out + result.plan.held_out_augmented
    assert answers.images.partners == SAMPLES - result.plan.held_out
    assert int(answers.training.samples.max()) < answers.images.partners


@pytest.mark.parametrize("strategy", ["auto", "bd"])
def test_a_teacher_that_fails_costs_nothing_that_was_answered(strategy, tmp_path):
    whole = run(strategy=strategy, out=tmp_path / "whole")
    spent = 0
    (tmp_path / "run").mkdir()
    for queries in (30, 200, 700):
        failing = CountingTeacher(RaisingTeacher(teacher(max_batch=16), queries))
        with pytest.raises(TeacherError):
            run(failing, strategy=strategy, out=tmp_path / "run", resume=True)
        spent += queries - failing.inner.left
    rest = CountingTeacher(teacher(max_batch=16))

    result = run(rest, strategy=strategy, out=tmp_path / "run", resume=True)

    assert spent + rest.total == result.queries == whole.queries
    assert weights(result.student).equal(weights(whole.student))


def test_a_finished_run_gives_the_same_student_without_a_query(tmp_path):
    first = run(out=tmp_path / "run", settings=CHOOSING)
    silent = RaisingTeacher(teacher(), 0)

    again = run(silent, out=tmp_path / "run", settings=CHOOSING, resume=True)

    assert weights(again.student).equal(weights(first.student))
    assert again.choices == first.choices and again.queries == first.queries
    assert load_teacher(tmp_path / "run" / "student.safetensors").classes == CLASSES


def test_nothing_is_left_behind_if_nothing_was_paid_for(tmp_path):
    with pytest.raises(TeacherError) as raised:
        run(RaisingTeacher(teacher(), 0), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (note,) = raised.value.__notes__
    assert note.startswith("up to 1 of the queries") and note.endswith("so no run is kept")


def test_an_error_after_paid_answers_says_how_to_continue(tmp_path):
    out = tmp_path / "run"
    with pytest.raises(TeacherError) as raised:
        run(RaisingTeacher(teacher(max_batch=16), 100), out=out)
    kept = "the answers that were paid for are kept"
    lost, how = raised.value.__notes__
    assert (
        lost.startswith("up to 16 of the queries") and how == f"{kept}; continue with resume=True"
    )
    with pytest.raises(ValueError, match="different run") as other:
        run(budget=1400, out=out, resume=True)
    assert not hasattr(other.value, "__notes__")
    one_class = ConstantTeacher(1, images().image_shape, CLASSES)
    with pytest.raises(SingleClassError) as single:
        run(one_class, out=tmp_path / "single")
    assert single.value.__notes__ == [f"{kept} in {str(tmp_path / 'single')!r}"]


def test_without_out_an_error_names_the_folder_that_keeps_the_answers(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    failing = RaisingTeacher(teacher(max_batch=16), 100)
    with pytest.raises(TeacherError) as raised:
        run(failing)
    *_, note = raised.value.__notes__
    folder = note.split("out='")[1].split("'")[0]
    rest = CountingTeacher(teacher(max_batch=16))

    result = run(rest, out=folder, resume=True)

    assert rest.total == result.queries - (100 - failing.left)
    assert run().report is None
    # torch keeps compiled code in the temporary folder, too.
    assert len(list(tmp_path.glob("db3kd-*"))) == 1, "successful runs leave no folder"


def test_another_run_is_not_resumed_and_the_difference_is_named(tmp_path):
    run(out=tmp_path / "run")
    with pytest.raises(ValueError, match=r"settings\.plan\.budget: was 1500, is 1400"):
        run(budget=1400, out=tmp_path / "run", resume=True)
    with pytest.raises(ValueError, match="data: was"):
        run(data=images(121), out=tmp_path / "run", resume=True)
    with pytest.raises(FileExistsError, match="already holds a run"):
        run(out=tmp_path / "run")


def test_a_student_is_a_name_a_network_or_a_function():
    make = lambda: nn.Sequential(nn.Flatten(), nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, CLASSES))  # noqa: E731
    network = make()
    before = weights(network)

    for student in (make, network):
        result = run(student=student)
        assert weights(result.student).shape == before.shape
    assert weights(network).equal(before), "the caller's network is not trained itself"
    with pytest.raises(TypeError, match="student: expected a name"):
        run(student=3)
    with pytest.raises(ValueError, match=r"student: expected finite scores \[1, 4\]"):
        run(student=nn.Sequential(nn.Flatten(), nn.Linear(36, 5)))
    with pytest.raises(ValueError, match="student: expected one of"):
        run(student="lenet6")


def test_arrays_and_modules_are_accepted():
    linear = nn.Linear(36, CLASSES)
    module = nn.Sequential(nn.Flatten(), linear)
    pixels = images().read(range(SAMPLES))
    with torch.no_grad():  # without a common shift of the images, they are in several classes
        linear.weight -= linear.weight.mean(1, keepdim=True)
        linear.bias.zero_()
    assert len(module(pixels).argmax(1).unique()) > 1

    for data in (pixels, pixels.numpy(), (pixels * 255).byte()):
        result = db3kd.distill(module, data, budget=300, student="linear", settings=QUICK)
        assert result.queries == 300
    with pytest.raises(ValueError, match="images: expected shape"):
        db3kd.distill(teacher(), torch.rand(50, 1, 8, 8), budget=300)


def test_a_teacher_with_one_class_is_refused_and_its_answers_are_kept(tmp_path):
    with pytest.raises(TeacherError, match="expected at least two classes for 465 images"):
        run(ConstantTeacher(1, SHAPE, CLASSES), out=tmp_path / "run")
    assert read_manifest(tmp_path / "run")["state"] == "running"


@pytest.mark.parametrize("strategy", ["auto", "augmented"])
def test_a_teacher_with_one_class_costs_a_part_of_the_budget(strategy, tmp_path):
    counting = CountingTeacher(ConstantTeacher(1, SHAPE, CLASSES))
    arguments = {"strategy": strategy, "budget": 50_000, "out": tmp_path / "run"}
    (tmp_path / "run").mkdir()

    for _ in range(2):  # a resumed run ends with the same error, and asks nothing
        with pytest.raises(SingleClassError, match="two classes for 1,000 images"):
            run(counting, **arguments, resume=True)
        assert counting.total == 1_000


@pytest.mark.parametrize("strategy", ["augmented", "decisions"])
def test_a_run_whose_classes_are_rare_goes_on_if_the_user_says_so(strategy, tmp_path):
    counting, arguments = rare_case(strategy=strategy, out=tmp_path / "run")

    with pytest.raises(SingleClassError, match="with resume=True and rare_classes=True"):
        db3kd.distill(counting, **arguments)
    assert counting.total == 1_150  # 150 held-out images, and 1,000 others
    result = db3kd.distill(counting, **arguments, resume=True, rare_classes=True)

    assert result.queries == counting.total == 3_000
    finished = db3kd.distill(counting, **arguments, resume=True)
    assert finished.agreement == result.agreement and counting.total == 3_000
    with pytest.raises(TypeError, match="rare_classes: expected True or False, got 1"):
        db3kd.distill(counting, **arguments, resume=True, rare_classes=1)


def test_a_finished_run_with_rare_classes_is_read_without_the_option(tmp_path):
    counting, arguments = rare_case(budget=1_500, out=tmp_path / "run")  # small rounds
    with pytest.raises(SingleClassError, match="for 789 images"):
        db3kd.distill(counting, **arguments)
    result = db3kd.distill(counting, **arguments, resume=True, rare_classes=True)

    finished = db3kd.distill(counting, **arguments, resume=True)

    assert finished.agreement == result.agreement
    assert counting.total == finished.queries == 1_500


def test_a_run_that_was_stopped_again_needs_the_option_only_once(tmp_path):
    counting, arguments = rare_case(budget=1_500, out=tmp_path / "run")
    with pytest.raises(SingleClassError, match="for 789 images"):
        db3kd.distill(counting, **arguments)
    for rare_classes in (True, False):
        failing = RaisingTeacher(counting, 100)
        with pytest.raises(db3kd.TeacherError, match="the line is dead"):
            db3kd.distill(failing, **arguments, resume=True, rare_classes=rare_classes)

    assert db3kd.distill(counting, **arguments, resume=True).queries == counting.total == 1_500


def test_a_run_whose_classes_are_all_one_ends_with_an_error_after_all_queries(tmp_path):
    _, arguments = rare_case(strategy="decisions", out=tmp_path / "run")
    counting = CountingTeacher(ConstantTeacher(0, SHAPE, 2))
    (tmp_path / "run").mkdir()

    for _ in range(2):
        with pytest.raises(SingleClassError, match="for 3,000 images, got class 0") as caught:
            db3kd.distill(counting, **arguments, resume=True, rare_classes=True)
        assert counting.total == 3_000 and "rare_classes" not in str(caught.value)


def rare_case(**options: Any) -> tuple[CountingTeacher, dict[str, Any]]:
    """Returns a teacher of a class that only two of 3,000 images have, and arguments."""
    pixels = torch.rand(3_000, *SHAPE, generator=torch.Generator().manual_seed(0)) / 2
    pixels[[1, 2], 0, 0, 0] = 1
    arguments = {"images": pixels, "budget": 3_000, "student": "linear", "settings": QUICK}
    return CountingTeacher(RareTeacher(SHAPE)), arguments | options


def test_choices_are_made_by_held_out_agreement(tmp_path, monkeypatch):
    let_choose(monkeypatch)
    training = replace(QUICK.training, steps=120)
    settings = replace(QUICK, training=training, learning_rates=(1e-12, 3e-2))

    result = run(budget=1500, settings=settings, out=tmp_path / "run")

    (rate, _teachers) = result.choices
    assert rate.question == "learning rate" and rate.chosen == "0.03"
    assert rate.options["0.03"] > rate.options["1e-12"] + 0.1
    assert result.agreement > 0.6
    notes = json.loads((tmp_path / "run" / "_notes.json").read_text())
    assert notes["curve"] and notes["choice of learning rate"]["value"]["chosen"] == "0.03"


def test_a_time_limit_shortens_trainings_once_and_for_all(tmp_path):
    settings = replace(
        QUICK, training=replace(QUICK.training, steps=None), time_limit=1e-3, proxies=1
    )
    with pytest.raises(TeacherError):
        run(RaisingTeacher(teacher(), 800), out=tmp_path / "run", settings=settings)
    notes = json.loads((tmp_path / "run" / "_notes.json").read_text())
    assert notes["steps_to_choose_within_limit"]["value"] == 50

    result = run(out=tmp_path / "run", settings=settings, resume=True)

    assert result.queries == 1500
    known = json.loads((tmp_path / "run" / "_notes.json").read_text())
    assert known["steps_to_choose_within_limit"] == notes["steps_to_choose_within_limit"]
    assert known["steps_within_limit"]["value"] == 50
    assert "cut training from 6,000 to 50 steps (0.8%)" in result.warnings[0]
    text = result.report.read_text()
    assert "cut training from 6,000 to 50 steps" in text
    assert "50 steps of the student instead of 6,000, because of the time limit" in text
    longer = replace(settings, training=replace(settings.training, steps=60), time_limit=None)
    again = run(RaisingTeacher(teacher(), 0), out=tmp_path / "run", settings=longer, resume=True)
    assert again.queries == 1500 and not any("time limit" in each for each in again.warnings)


def noted_seconds(folder: Path) -> float:
    """The seconds that the parts of a run took in all processes."""
    notes = json.loads((folder / "_notes.json").read_text())
    return sum(value for name, value in notes.items() if name.startswith("seconds_"))


def test_the_manifest_states_the_seconds_of_all_processes(tmp_path):
    folder = tmp_path / "run"
    with pytest.raises(TeacherError):
        run(RaisingTeacher(teacher(), 800), out=folder)
    before = noted_seconds(folder)

    run(out=folder, resume=True)
    finished = read_manifest(folder)
    assert finished["totals"]["seconds"] == pytest.approx(noted_seconds(folder), rel=1e-9)
    assert finished["totals"]["seconds"] > before > 0

    longer = replace(QUICK, training=replace(QUICK.training, steps=200))
    run(RaisingTeacher(teacher(), 0), out=folder, settings=longer, resume=True)
    trained = read_manifest(folder)
    assert trained["totals"]["seconds"] == pytest.approx(noted_seconds(folder), rel=1e-9)
    assert trained["totals"]["seconds"] > finished["totals"]["seconds"]
    del trained["totals"]["seconds"], finished["totals"]["seconds"]
    assert trained == finished


def test_the_accuracy_is_measured_on_labelled_test_images():
    test = images(60)
    labels = teacher().decide(test.read(range(60)))
    counting = CountingTeacher(teacher())

    result = run(counting, test=test.with_labels(labels, None))

    assert counting.total == 1500, "test images cost no query"
    right = result.student(test.read(range(60))).argmax(1) == labels
    assert result.accuracy == pytest.approx(right.double().mean().item())


def test_the_report_names_what_was_spent(tmp_path):
    result = run(out=tmp_path / "run", price_per_1000=0.5)

    assert result.report == tmp_path / "run" / "report.html"
    text = (tmp_path / "run" / "report.md").read_text()
    assert "1,500" in text and "0.75" in text
    assert "decisions, round 1 of 4" in text and "held-out" in text
    assert "chosen by proxies in 3 of 4 rounds" in text and "| proxies that choose |" in text
    started = read_manifest(tmp_path / "run")["started"]
    assert f"dates: {started[:10]} {started[11:16]} to " in text
    run(out=tmp_path / "run", resume=True)
    assert (tmp_path / "run" / "report.md").read_text() == text, "with its price"


def test_the_report_names_the_images_on_which_teacher_and_student_disagree(tmp_path):
    result = run(out=tmp_path / "run", data=images(300).subset(range(150, 300)), budget=200)

    text = (tmp_path / "run" / "report.md").read_text()
    shown = re.findall(r"\| !\[row (\d+)\]\(disagreements/\d+.png\) \| (\d) \| (\d) \|", text)
    assert shown and "The first row of the data has the number 0." in text
    for number, *classes in shown:
        batch = images(300).read([int(number)])
        predicted = result.student(batch).argmax(1).item()
        assert classes == [str(teacher().decide(batch).item()), str(predicted)]
    assert f"<bdi>row {shown[0][0]}</bdi>" in result.report.read_text()


@pytest.mark.parametrize(
    ("options", "taught_by"),
    [
        ({"budget": 300}, "decisions and 2 proxies"),
        ({"budget": 1500, "settings": replace(QUICK, proxies=0)}, "decisions alone"),
        ({"budget": 300, "strategy": "augmented"}, "decisions alone"),
        ({"budget": 120}, "decisions and soft labels from SD distances"),
    ],
)
def test_the_report_says_only_what_happened(tmp_path, options, taught_by):
    result = run(out=tmp_path / "run", **options)

    text = (tmp_path / "run" / "report.md").read_text()
    assert result.taught_by == taught_by and f"taught by: {taught_by}" in text
    assert "proxies that choose" not in text and "chosen by proxies" not in text
    assert ("The proxies' mean answers" in text) == ("## Soft labels" in text)
    assert "where proxies are least sure" not in text


@pytest.mark.parametrize("strategy", ["sd", "mbd"])
def test_the_report_counts_the_classes_of_all_images(tmp_path, strategy):
    """With one held-out image, the others are in the labels of the distances alone."""
    few = images(10)
    result = run(
        budget=200 if strategy == "mbd" else 10, data=few, strategy=strategy, out=tmp_path / "run"
    )

    assert not any("in class" in warning for warning in result.warnings)
    assert "for the 10 images that were queried" in (tmp_path / "run" / "report.md").read_text()


class TimedTeacher(WrappedTeacher):
    """Adds up the seconds that its answers take."""

    seconds = 0.0

    def decide(self, batch: torch.Tensor) -> torch.Tensor:
        started = time.monotonic()
        time.sleep(1e-3)
        decided = super().decide(batch)
        self.seconds += time.monotonic() - started
        return decided


@pytest.mark.parametrize("strategy", ["auto", "decisions", "sd", "mbd", "zero-shot"])
def test_the_notes_have_the_time_of_all_answers_and_the_scale_of_distances(tmp_path, strategy):
    asked = TimedTeacher(teacher())
    run(asked, 600, strategy=strategy, out=tmp_path / "run")

    notes = RunNotes(tmp_path / "run")
    assert notes.get("seconds_asking") >= asked.seconds
    assert (notes.get("scale") is not None) == (strategy in ("sd", "mbd"))


class Steps(TrainingCallback):
    """Keeps the number of the last step."""

    last = 0

    def on_report(self, state: TrainingState) -> None:
        self.last = state.step


@pytest.mark.parametrize("strategy", ["decisions", "sd", "mbd", "db3kd-paper"])
def test_patience_stops_a_student_that_does_not_improve(tmp_path, strategy):
    slow = replace(QUICK, training=replace(QUICK.training, learning_rate=1e-20))
    steps = Steps()
    settings = replace(slow, learning_rates=(1e-20,), patience=2)
    run(strategy=strategy, settings=settings, callbacks=[steps], out=tmp_path / "run")

    assert 0 < steps.last < 12
    assert "weights were chosen by its agreement" in (tmp_path / "run" / "report.md").read_text()


class Notebook(WrappedTeacher):
    """Notes each image that it is asked about in a file, and takes its time."""

    def __init__(self, inner: Any, log: Path) -> None:
        super().__init__(inner)
        self.log = log

    def decide(self, images: torch.Tensor) -> torch.Tensor:
        with self.log.open("a") as log:
            log.writelines(f"{image_key(image)}\n" for image in images)
        time.sleep(0.002)
        return super().decide(images)


def _distill(out: Path, log: Path, settings: DistillSettings) -> None:
    torch.set_num_threads(1)
    run(Notebook(teacher(max_batch=16), log), out=out, settings=settings, resume=True)


def test_kills_change_neither_the_student_nor_the_queries(tmp_path):
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    whole = run(teacher(max_batch=16), out=tmp_path / "whole", settings=CHOOSING)
    torch.set_num_threads(threads)
    out, log, moments = tmp_path / "run", tmp_path / "asked", random.Random(0)
    processes = forked_processes()
    out.mkdir()  # each process resumes the run, and the first one begins it
    kills, longest, known = 0, 0.5, 0
    while kills < 8:
        process = processes.Process(target=_distill, args=(out, log, CHOOSING))
        process.start()
        process.join(moments.uniform(0.1, longest))
        if process.exitcode is None:
            os.kill(process.pid, signal.SIGKILL)
            kills += 1
        process.join()
        before, known = known, log.stat().st_size if log.exists() else 0
        if known == before:  # on a busy machine, a process may need longer for its first query
            longest *= 1.5
        if process.exitcode == 0:
            break
    rest = CountingTeacher(teacher(max_batch=16))

    result = run(rest, out=out, settings=CHOOSING, resume=True)

    asked = log.read_text().split()
    assert len(set(asked) | set(rest.per_image)) == result.queries == whole.queries
    twice = len(asked) + rest.total - result.queries
    assert twice <= queries_in_flight(read_manifest(out)) <= 16 * kills
    assert weights(result.student).equal(weights(whole.student))


def test_the_speed_of_asking_leaves_out_the_time_in_which_images_are_chosen(tmp_path, monkeypatch):
    now, shown, rounds = [0.0], io.StringIO(), []

    class TenPerSecond(WrappedTeacher):
        def decide(self, images):
            now[0] += len(images) / 10
            return self.inner.decide(images)

    def choose_slowly(answers, networks, count, seed, number, **options):
        now[0] += 1000
        rounds.append(number)
        return choose_rows(answers, networks, count, seed, number, **options)

    monkeypatch.setattr("db3kd.pipelines.query_rounds.rounds.choose_rows", choose_slowly)

    class Timed(Progress):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options, stream=shown, clock=lambda: now[0])

    monkeypatch.setattr(asking, "Progress", Timed)

    result = run(TenPerSecond(teacher()), out=tmp_path / "run")

    assert len(rounds) == len(result.plan.rounds) > 1
    lines = [line for line in shown.getvalue().splitlines() if "queries/s" in line]
    assert len(lines) > 1
    assert all(" 10 queries/s" in line for line in lines)


def test_a_finished_run_that_is_resumed_shows_no_speed_of_querying(tmp_path, capsys):
    run(out=tmp_path / "run")
    assert "queries/s" in capsys.readouterr().err

    run(out=tmp_path / "run", resume=True)

    shown = next(line for line in capsys.readouterr().err.splitlines() if "querying" in line)
    assert "1,500/1,500 images · 1,500 of 1,500 queries · 0:00:0" in shown


@pytest.mark.parametrize(("budget", "calls"), [(200, 1), (1_500, 0)])
def test_proxies_learn_from_distances_if_there_are_few_answers_for_each_image(
    budget, calls, monkeypatch, tmp_path
):
    seen = []

    def watched(answers, classes):
        seen.append(len(answers))
        return neighbour_labels(answers, classes)

    monkeypatch.setattr(
        "db3kd.pipelines.student_training.student_trainer.neighbour_labels", watched
    )
    result = run(budget=budget, out=tmp_path / "run")
    assert result.queries == budget and len(seen) == calls

    run(budget=budget, out=tmp_path / "run", resume=True)
    assert len(seen) == calls  # the proxies are in the folder
