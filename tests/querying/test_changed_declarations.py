"""A teacher whose number of classes, image shape or batch size changes during a run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_cases import QUICK, images, teacher
from teachers_analytic import CountingTeacher
from torch import Tensor

import db3kd
from db3kd.labels.labels import LABELS
from db3kd.storage.manifest import make_manifest
from db3kd.storage.run_folder import RunFolder
from db3kd.teachers.decide import decide_checked

LABELLING = db3kd.LabelSettings(measure="sd")

RUNS: dict[str, Callable[..., Any]] = {
    "distill": lambda asked, out, resume=False: db3kd.distill(
        asked, images(), budget=100, strategy="decisions", student="linear", settings=QUICK,
        out=out, resume=resume,
    ),
    "label": lambda asked, out, resume=False: db3kd.label(
        asked, images(), LABELLING, out=out, resume=resume
    ),
}  # fmt: skip


class Changing(CountingTeacher):
    """Runs `change` on itself in its third call, and then answers `answer` for all images."""

    def __init__(self, change: Callable[[Any], None], answer: int | None = None) -> None:
        super().__init__(teacher(max_batch=8))
        self.max_batch = 8
        self._change, self._answer = change, answer

    def decide(self, given: Tensor) -> Tensor:
        answers = super().decide(given)
        if len(self.calls) == 3:
            self._change(self)
            if self._answer is not None:
                return torch.full_like(answers, self._answer)
        return answers


def five_classes(changing: Any) -> None:
    changing.classes = 5


def no_batch(changing: Any) -> None:
    changing.max_batch = 0


def other_shape(changing: Any) -> None:
    changing.image_shape = (1, 4, 9)


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize("answer", [None, 4], ids=["valid", "invalid"])
def test_a_changed_number_of_classes_is_an_error_and_the_run_can_be_resumed(
    tmp_path: Path, kind: str, answer: int | None
) -> None:
    pytest.importorskip("pyarrow")
    asked = Changing(five_classes, answer)
    with pytest.raises(db3kd.TeacherError, match="number of classes changed from 4 to 5"):
        RUNS[kind](asked, tmp_path / "run")
    assert len(asked.calls) == 3
    again = CountingTeacher(teacher(max_batch=8))
    RUNS[kind](again, tmp_path / "run", resume=True)
    whole = CountingTeacher(teacher(max_batch=8))
    RUNS[kind](whole, tmp_path / "whole")
    lost = asked.calls[-1] if answer is not None else 0
    assert asked.total + again.total == whole.total + lost


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (five_classes, "number of classes changed from 4 to 5"),
        (no_batch, "expected an integer of at least 1 as max_batch, got 0"),
        (other_shape, r"image shape changed from \(1, 6, 6\) to \(1, 4, 9\)"),
    ],
)
@pytest.mark.parametrize("folder", [True, False])
def test_what_a_teacher_declares_is_checked_after_each_call(
    tmp_path: Path, change: Callable[[Any], None], message: str, folder: bool
) -> None:
    asked = Changing(change)
    with pytest.raises(db3kd.TeacherError, match=message) as caught:
        RUNS["label"](asked, tmp_path / "run" if folder else None)
    assert len(asked.calls) == 3
    if not folder:
        assert caught.value.recovered.queries == asked.total


@pytest.mark.parametrize("folder", [True, False])
def test_a_batch_size_that_changes_during_a_run_leaves_out_no_image(
    tmp_path: Path, folder: bool
) -> None:
    def smaller(changing: Any) -> None:
        changing.max_batch = 3

    asked = Changing(smaller)
    labels = db3kd.label(asked, images(), LABELLING, out=tmp_path / "run" if folder else None)
    assert labels.decision.equal(decide_checked(teacher(), images().read(range(len(images())))))
    assert max(asked.calls[3:]) == 3
    assert asked.total == len(images())


def test_a_run_refuses_answers_of_another_number_of_classes(tmp_path: Path) -> None:
    pytest.importorskip("pyarrow")
    manifest = make_manifest({}, seed=0, teacher_fingerprint="t", classes=4, data_fingerprint=None)
    with RunFolder.create(tmp_path / "run", LABELS, manifest) as run:
        with pytest.raises(
            ValueError, match="number of classes of the teacher changed from 4 to 5"
        ):
            run.journal(0, 5)
        run.journal(0, 4).close()
