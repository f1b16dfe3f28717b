"""Each error that ends a run after answers were paid for says once how to continue it."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distill_cases import QUICK, images, teacher
from teachers_analytic import RaisingTeacher

import db3kd
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.settings import TrainSettings

pytest.importorskip("pyarrow")

LABELLING = db3kd.LabelSettings(measure="sd")
SURROGATE = SurrogateSettings("linear", 2, training=TrainSettings(steps=2, device="cpu"))
NOTE = "the answers that were paid for are kept; continue with resume=True"

RUNS: dict[str, Callable[[Any, Path], Any]] = {
    "distill": lambda asked, out: db3kd.distill(
        asked, images(), budget=100, strategy="decisions", student="linear", settings=QUICK,
        out=out,
    ),
    "distill without images": lambda asked, out: db3kd.distill(
        asked, budget=200, student="linear", settings=QUICK, out=out
    ),
    "compare": lambda asked, out: db3kd.compare(
        asked, images(), budget=100, strategies=["decisions"], seeds=1, student="linear",
        settings=QUICK, out=out,
    ),
    "label": lambda asked, out: db3kd.label(asked, images(), LABELLING, out=out),
    "synthesize": lambda asked, out: db3kd.synthesize(
        asked, db3kd.SynthesisSettings(samples=20), out=out
    ),
    "make_surrogate": lambda asked, out: db3kd.make_surrogate(
        asked, images(), SURROGATE, out=out
    ),
}  # fmt: skip


def notes_of(error: BaseException) -> list[str]:
    return [note for note in getattr(error, "__notes__", ()) if "are kept" in note]


@pytest.mark.parametrize("kind", RUNS)
@pytest.mark.parametrize(
    "error", [RuntimeError("quota"), SystemExit(3), KeyboardInterrupt()], ids=repr
)
def test_an_error_of_the_teacher_says_how_to_continue(
    tmp_path: Path, kind: str, error: BaseException
) -> None:
    expected = db3kd.TeacherError if isinstance(error, Exception) else type(error)
    with pytest.raises(expected) as caught:
        RUNS[kind](RaisingTeacher(teacher(max_batch=8), 12, error), tmp_path / "run")
    assert notes_of(caught.value) == [NOTE]


@pytest.mark.parametrize("kind", RUNS)
def test_an_error_before_the_first_answer_says_nothing_of_answers(
    tmp_path: Path, kind: str
) -> None:
    with pytest.raises(db3kd.TeacherError) as caught:
        RUNS[kind](RaisingTeacher(teacher(max_batch=8), 0), tmp_path / "run")
    assert notes_of(caught.value) == []


def test_a_full_disk_says_how_to_continue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("db3kd.storage.run_folder.RunFolder.write_shard", full)
    with pytest.raises(OSError, match="No space left") as caught:
        RUNS["label"](teacher(), tmp_path / "run")
    assert notes_of(caught.value) == [NOTE]


@pytest.mark.parametrize(
    "error", [ValueError("mine"), SystemExit(3), StopIteration(), KeyboardInterrupt()], ids=repr
)
@pytest.mark.parametrize("kind", ["distill", "compare"])
def test_an_error_of_a_callback_says_how_to_continue(
    tmp_path: Path, kind: str, error: BaseException
) -> None:
    class Raising(TrainingCallback):
        def on_report(self, state: Any) -> None:
            raise error

    shared = {"budget": 100, "student": "linear", "settings": QUICK, "out": tmp_path / "run"}
    # Python replaces a StopIteration that leaves the loop over the students.
    with pytest.raises((type(error), RuntimeError)) as caught:
        if kind == "distill":
            db3kd.distill(
                teacher(), images(), strategy="decisions", callbacks=[Raising()], **shared
            )
        else:
            db3kd.compare(
                teacher(), images(), strategies=["decisions"], seeds=1,
                callbacks=lambda *_: [Raising()], **shared,
            )  # fmt: skip
    assert notes_of(caught.value) == [NOTE]


def test_resuming_another_run_says_nothing_of_answers(tmp_path: Path) -> None:
    RUNS["label"](teacher(), tmp_path / "run")
    with pytest.raises(ValueError, match="different run") as caught:
        db3kd.label(
            teacher(), images(), db3kd.LabelSettings(measure="sd", seed=1), out=tmp_path / "run",
            resume=True,
        )  # fmt: skip
    assert notes_of(caught.value) == []
