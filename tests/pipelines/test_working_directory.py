"""A run stays in its folder if a teacher or a callback changes the working directory."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from distill_cases import QUICK, images, teacher
from label_runs import write_run
from teachers_analytic import CountingTeacher

import db3kd
from db3kd.data.loading import load_data
from db3kd.data.source import Source
from db3kd.storage.manifest import MANIFEST, read_manifest
from db3kd.surrogates.files import prepare_surrogate
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.training.callbacks import TrainingCallback
from db3kd.training.settings import TrainSettings

pytest.importorskip("pyarrow")

OUT = "runs/mine"
LABELLING = db3kd.LabelSettings(measure="sd")
SURROGATE = SurrogateSettings("linear", 2, training=TrainSettings(steps=2, device="cpu"))

RUNS: dict[str, Callable[[Any], Any]] = {
    "distill": lambda asked: db3kd.distill(
        asked, images(), budget=100, strategy="decisions", student="linear", settings=QUICK,
        out=OUT,
    ),
    "distill with distances": lambda asked: db3kd.distill(
        asked, images(), budget=300, strategy="bd", student="linear", settings=QUICK, out=OUT
    ),
    "distill without images": lambda asked: db3kd.distill(
        asked, budget=200, student="linear", settings=QUICK, out=OUT
    ),
    "compare": lambda asked: db3kd.compare(
        asked, images(), budget=100, strategies=["decisions"], seeds=1, student="linear",
        settings=QUICK, out=OUT,
    ),
    "label": lambda asked: db3kd.label(asked, images(), LABELLING, out=OUT),
    "write_run": lambda asked: write_run(OUT, asked, Source("images.npy"), LABELLING),
    "synthesize": lambda asked: db3kd.synthesize(
        asked, db3kd.SynthesisSettings(samples=20), out=OUT
    ),
    "make_surrogate": lambda asked: db3kd.make_surrogate(asked, images(), SURROGATE, out=OUT),
}  # fmt: skip


class Moving(CountingTeacher):
    """Changes the working directory in its second call."""

    def decide(self, given: Any) -> Any:
        answers = super().decide(given)
        if len(self.calls) == 2:
            os.chdir("elsewhere")
        return answers


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder inside the working directory, with another run of the same name."""
    monkeypatch.chdir(tmp_path)
    pixels = images().read(range(len(images())))
    np.save("images.npy", (255 * pixels).round().byte().numpy()[:, 0])
    other = tmp_path / "elsewhere" / OUT
    other.mkdir(parents=True)
    for name in (MANIFEST, "student.safetensors", "report.html"):
        (other / name).write_text("another run")
    return tmp_path / "elsewhere"


def contents(folder: Path) -> dict[str, bytes]:
    files = (file for file in folder.rglob("*") if file.is_file())
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


@pytest.mark.parametrize("kind", RUNS)
def test_a_run_stays_in_its_folder_if_the_teacher_changes_the_working_directory(
    elsewhere: Path, kind: str
) -> None:
    before = contents(elsewhere)
    RUNS[kind](Moving(teacher()))
    assert Path.cwd() == elsewhere
    assert contents(elsewhere) == before
    run = elsewhere.parent / OUT
    assert read_manifest(run)["state"] == "finished"
    assert not list(run.rglob(".lock"))


def test_a_run_is_kept_and_named_if_the_teacher_leaves_its_folder_and_fails(
    elsewhere: Path,
) -> None:
    class Failing(Moving):
        def decide(self, given: Any) -> Any:
            if len(self.calls) >= 2:
                raise RuntimeError("quota")
            return super().decide(given)

    (elsewhere / OUT / MANIFEST).unlink()
    with pytest.raises(db3kd.TeacherError) as caught:
        RUNS["distill"](Failing(teacher(max_batch=8)))
    assert "continue with resume=True" in caught.value.__notes__[-1]
    assert (elsewhere.parent / OUT / MANIFEST).is_file()


def test_results_and_reports_name_the_folder_as_it_was_given(elsewhere: Path) -> None:
    result = RUNS["compare"](Moving(teacher()))
    assert result.folder == Path(OUT)
    report = (elsewhere.parent / OUT / "decisions-0" / "report.md").read_text()
    assert f"out='{OUT}/decisions-0'" in report
    assert str(elsewhere.parent) not in report


def test_a_surrogate_is_written_beside_its_answers(elsewhere: Path) -> None:
    before = contents(elsewhere)
    source = Source("images.npy")
    prepare_surrogate("s.safetensors", Moving(teacher()), source, SURROGATE).write()
    assert contents(elsewhere) == before
    assert (elsewhere.parent / "s.safetensors").is_file()
    assert (elsewhere.parent / "s.json").is_file()


def test_checkpoints_stay_in_their_folder_if_a_callback_changes_the_working_directory(
    elsewhere: Path,
) -> None:
    class Leaving(TrainingCallback):
        def on_start(self, state: Any) -> None:
            os.chdir(elsewhere)

    before = contents(elsewhere)
    db3kd.train_classifier(
        "linear",
        images(),
        teacher().decide(images().read(range(len(images())))),
        settings=TrainSettings(steps=3, device="cpu"),
        callbacks=[Leaving()],
        checkpoint="student.checkpoint",
    )
    assert contents(elsewhere) == before
    assert (elsewhere.parent / "student.checkpoint").is_file()


def test_image_files_are_read_after_the_working_directory_changed(elsewhere: Path) -> None:
    from PIL import Image

    Path("photos/cat").mkdir(parents=True)
    Image.new("L", (6, 6), 51).save("photos/cat/0.png")
    loaded = [load_data("photos"), load_data("images.npy")]
    os.chdir(elsewhere)
    assert loaded[0].read([0]).mean().item() == pytest.approx(0.2)
    assert loaded[1].read([0]).shape == (1, 1, 6, 6)
