"""A run is resumed only in a folder that exists, so that a mistyped one pays for nothing again."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from distill_cases import QUICK, images, teacher
from label_runs import write_run
from teachers_analytic import CountingTeacher

import db3kd
from db3kd.data.source import Source
from db3kd.labels.labels import LABELS
from db3kd.storage.run_folder import RunFolder
from db3kd.surrogates.files import prepare_surrogate
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.training.settings import TrainSettings

pytest.importorskip("pyarrow")

LABELLING = db3kd.LabelSettings(measure="sd")
SURROGATE = SurrogateSettings("linear", 2, training=TrainSettings(steps=2, device="cpu"))


def a_file(out: Path) -> Source:
    import numpy as np

    file = out.parent / "images.npy"
    pixels = images().read(range(len(images())))
    np.save(file, (255 * pixels).round().byte().numpy()[:, 0])
    return Source(str(file))


RESUMABLE: dict[str, Callable[[Any, Path], Any]] = {
    "distill": lambda asked, out: db3kd.distill(
        asked, images(), budget=120, strategy="decisions", student="linear", settings=QUICK,
        out=out, resume=True,
    ),
    "distill without images": lambda asked, out: db3kd.distill(
        asked, budget=200, student="linear", settings=QUICK, out=out, resume=True
    ),
    "compare": lambda asked, out: db3kd.compare(
        asked, images(), budget=120, strategies=["decisions"], seeds=1, student="linear",
        settings=QUICK, out=out, resume=True,
    ),
    "label": lambda asked, out: db3kd.label(asked, images(), LABELLING, out=out, resume=True),
    "write_run": lambda asked, out: write_run(out, asked, a_file(out), LABELLING, resume=True),
    "synthesize": lambda asked, out: db3kd.synthesize(
        asked, db3kd.SynthesisSettings(samples=20), out=out, resume=True
    ),
    "make_surrogate": lambda asked, out: db3kd.make_surrogate(
        asked, images(), SURROGATE, out=out, resume=True
    ),
    "prepare_surrogate": lambda asked, out: prepare_surrogate(
        out.with_suffix(".safetensors"), asked, a_file(out), SURROGATE, resume=True
    ).write(),
}  # fmt: skip
"""Calls that resume the run in a folder."""


@pytest.mark.parametrize("function", RESUMABLE)
def test_a_missing_folder_is_an_error_and_an_empty_one_begins_a_run(tmp_path, function):
    asked, out = CountingTeacher(teacher()), tmp_path / "run.decisions"

    with pytest.raises(FileNotFoundError) as raised:
        RESUMABLE[function](asked, out)

    assert str(raised.value) == (
        f"{out}: expected the folder of the run to resume, got no such folder. To start a new run, "
        "leave out resume=True, or create this folder first"
    )
    assert asked.total == 0 and not out.exists()

    out.mkdir()
    RESUMABLE[function](asked, out)
    paid = asked.total
    assert paid > 0

    RESUMABLE[function](asked, out)
    assert asked.total == paid, "the run is resumed"


def test_the_error_names_similar_runs_of_the_same_kind_first(tmp_path):
    for name in ("mine", "other", "mine-again", "min", "zebra"):
        RunFolder.create(tmp_path / name, LABELS, {"settings": {}}).close()
    (tmp_path / "minx").mkdir()  # no run
    RESUMABLE["synthesize"](CountingTeacher(teacher()), _made(tmp_path / "mini"))

    with pytest.raises(FileNotFoundError) as raised:
        db3kd.label(teacher(), images(), LABELLING, out=tmp_path / "minne", resume=True)

    shown = f"; beside it: {tmp_path / 'mine'}, {tmp_path / 'min'}, {tmp_path / 'mine-again'}, …. "
    assert shown in str(raised.value)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder
