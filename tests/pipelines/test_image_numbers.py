"""A distillation of a part of a data set stores the numbers of its images in the data set."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas
import pytest
import torch
from distill_cases import QUICK, images, teacher
from teachers_analytic import CountingTeacher, RaisingTeacher
from torch import Tensor

import db3kd
from db3kd.arguments.arrays import seeded_permutation
from db3kd.data.image_set import ImageSet
from db3kd.labelling.runs import planned_run, run_writer
from db3kd.labelling.runs.label_run import open_run
from db3kd.labelling.settings import LabelSettings
from db3kd.labels.labels import Labels
from db3kd.pipelines.distillation import asking
from db3kd.pipelines.query_rounds.answer_run import clean_answers
from db3kd.storage.choice_log import ChoiceLog
from db3kd.teachers import TeacherError

WHOLE = images()
DRAWN = torch.randperm(120, generator=torch.Generator().manual_seed(4))[:60]
PART = WHOLE.subset(DRAWN)
BUDGETS = {"augmented": 200, "bd": 400}


def run(out: Path, strategy: Any, asked: Any = None, part: ImageSet = PART, **options: Any) -> None:
    options = {"budget": BUDGETS.get(strategy), "settings": QUICK} | options
    asked = asked or teacher(max_batch=16)
    resume = out.exists()
    db3kd.distill(
        asked, part, student="linear", strategy=strategy, out=out, resume=resume, **options
    )


def stored_answers(out: Path) -> tuple[Tensor, Tensor]:
    """Returns the images that were queried themselves, by number, and their classes."""
    answers = pandas.concat(map(pandas.read_parquet, sorted(out.glob("answers-*.parquet"))))
    clean = answers[answers["number"] == 0]
    return torch.tensor(clean["image"].array), torch.tensor(clean["decision"].array)


def stored_labels(out: Path) -> Labels | None:
    return db3kd.load_labels(out / "labels") if (out / "labels").exists() else None


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards of a few labels, so that a run stops between two of them."""
    monkeypatch.setattr(planned_run, "chunk_size", lambda *_: 8)


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("strategy", BUDGETS)
def test_a_part_of_a_set_has_its_numbers_in_the_set(tmp_path, strategy):
    out, failing = tmp_path / "run", RaisingTeacher(teacher(max_batch=16), 180)
    with pytest.raises(TeacherError):
        run(out, strategy, failing)
    counting = CountingTeacher(teacher(max_batch=16))
    # The same images, which are a set of their own now.
    copied = ImageSet.from_arrays((PART.read(range(60)) * 255).round().byte().numpy())
    run(out, strategy, counting, copied)

    assert counting.total == BUDGETS[strategy] - (180 - failing.left)
    numbers, decisions = stored_answers(out)
    positions, known = clean_answers(out)
    assert known.equal(teacher().decide(PART.read(positions)))
    if labels := stored_labels(out):
        numbers = torch.cat([numbers, labels.index])
        decisions = torch.cat([decisions, labels.decision])
    assert numbers.sort().values.equal(DRAWN.sort().values)
    assert decisions.equal(teacher().decide(WHOLE.read(numbers)))


@pytest.mark.usefixtures("small_chunks")
@pytest.mark.parametrize("strategy", BUDGETS)
def test_a_run_that_began_without_these_numbers_continues_without_them(
    tmp_path, strategy, monkeypatch
):
    with monkeypatch.context() as patch:
        for module in (asking, run_writer):
            patch.setattr(module, "keep_numbers", lambda _, numbers: np.arange(len(numbers)))
        with pytest.raises(TeacherError):
            run(tmp_path / "run", strategy, RaisingTeacher(teacher(max_batch=16), 180))
    run(tmp_path / "run", strategy)

    numbers, decisions = stored_answers(tmp_path / "run")
    assert decisions.equal(teacher().decide(PART.read(numbers)))
    if labels := stored_labels(tmp_path / "run"):
        assert labels.index.equal(torch.arange(54))


def test_labels_that_start_in_such_a_run_have_the_numbers_of_its_answers(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(asking, "keep_numbers", lambda _, numbers: np.arange(len(numbers)))
        with pytest.raises(TeacherError):
            run(tmp_path / "run", "sd", RaisingTeacher(teacher(), 6), budget=60)
    assert list((tmp_path / "run").glob("answers-*"))
    assert stored_labels(tmp_path / "run") is None
    run(tmp_path / "run", "sd", budget=60)

    numbers, _ = stored_answers(tmp_path / "run")
    labels = stored_labels(tmp_path / "run")
    assert torch.cat([numbers, labels.index]).sort().values.equal(torch.arange(60))
    assert labels.decision.equal(teacher().decide(PART.read(labels.index)))


@pytest.mark.usefixtures("small_chunks")
def test_label_continues_such_a_run_with_its_numbers(tmp_path):
    settings = LabelSettings(measure="bd", queries=300)
    with pytest.raises(TeacherError):
        db3kd.label(RaisingTeacher(teacher(), 62), PART, settings, out=tmp_path / "run")
    assert not list((tmp_path / "run").glob("labels-*"))
    ChoiceLog(tmp_path / "run", "image-numbers").save(0, {"numbers": DRAWN.numpy()})

    db3kd.label(teacher(), PART, settings, out=tmp_path / "run", resume=True)

    assert db3kd.load_labels(tmp_path / "run").index.equal(DRAWN)


def test_a_set_that_has_an_image_twice_has_positions(tmp_path):
    twice = WHOLE.subset([*range(30, 60), 30])

    run(tmp_path / "run", "decisions", part=twice, budget=31)

    numbers, decisions = stored_answers(tmp_path / "run")
    assert numbers.sort().values.equal(torch.arange(31))
    assert decisions.equal(teacher().decide(twice.read(numbers)))


@pytest.mark.parametrize("other", [1, -1])  # -1 is held out
def test_labels_have_positions_too_if_an_image_is_there_twice(tmp_path, monkeypatch, other):
    monkeypatch.chdir(tmp_path)
    np.savez("set.npz", images=(WHOLE.read(range(120)) * 255).round().byte().numpy())
    twice = np.arange(30, 61)
    order = seeded_permutation(31, QUICK.training.seed)
    twice[order[other]] = twice[order[0]]
    part = db3kd.load_data("set.npz").subset(twice)
    run(tmp_path / "run", "sd", part=part, budget=31)

    numbers, _ = stored_answers(tmp_path / "run")
    labels = stored_labels(tmp_path / "run")
    assert torch.cat([numbers, labels.index]).sort().values.equal(torch.arange(31))
    assert labels.decision.equal(teacher().decide(part.read(labels.index)))
    with pytest.raises(ValueError, match="pass the original data, or a copy of the part"):
        open_run(tmp_path / "run" / "labels")
    np.savez("part.npz", images=(part.read(range(31)) * 255).round().byte().numpy())
    found = open_run(tmp_path / "run" / "labels", "part.npz")
    assert found.images.read(range(len(labels))).equal(part.read(labels.index))


def test_a_run_of_a_part_that_has_no_answer_leaves_no_folder(tmp_path):
    with pytest.raises(TeacherError):
        run(tmp_path / "run", "augmented", RaisingTeacher(teacher(), 0))

    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("classes", [4, 9])  # labels are dropped if they are not the teacher's
def test_the_labels_in_a_run_are_a_run_that_finds_its_images(tmp_path, monkeypatch, classes):
    monkeypatch.chdir(tmp_path)
    labels, pixels = np.arange(120) % classes, (WHOLE.read(range(120)) * 255).round().byte()
    np.savez("set.npz", images=pixels.numpy(), labels=labels)
    part = db3kd.load_data("set.npz").subset(DRAWN)
    run(tmp_path / "run", "sd", part=part, budget=60)

    found = open_run(tmp_path / "run" / "labels")

    assert set(found.labels.index.tolist()) < set(DRAWN.tolist())
    assert found.images.read(range(len(found.labels))).equal(WHOLE.read(found.labels.index))
    assert found.labels.decision.equal(teacher().decide(WHOLE.read(found.labels.index)))
    (tmp_path / "set.npz").rename(tmp_path / "moved.npz")
    with pytest.raises(ValueError, match=r"its data, 'set\.npz', were not found; pass"):
        open_run(tmp_path / "run" / "labels")
    assert open_run(tmp_path / "run" / "labels", "moved.npz").labels.index.equal(found.labels.index)
    np.savez("other.npz", images=pixels.numpy()[:100], labels=labels[:100])
    with pytest.raises(ValueError, match=r"expected the data that .* was labelled from"):
        open_run(tmp_path / "run" / "labels", "other.npz")
