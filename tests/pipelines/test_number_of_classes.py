"""Runs that are resumed with another number of classes, which a fingerprint need not depend on."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from distill_cases import QUICK, SHAPE, images
from label_runs import write_run
from teachers_analytic import CountingTeacher, RaisingTeacher

import db3kd
from db3kd.data.source import Source
from db3kd.surrogates.files import prepare_surrogate
from db3kd.surrogates.settings import SurrogateSettings
from db3kd.teachers import FunctionTeacher, TeacherError

TRAINING = db3kd.TrainSettings(steps=4, batch_size=16, device="cpu")
BY_DISTANCE = db3kd.LabelSettings("bd", queries_per_pair=4, query_batch_size=16)


def answers(pixels: np.ndarray) -> np.ndarray:
    return (pixels.reshape(len(pixels), -1)[:, :2].mean(1) * 3.999).astype(np.int64)


def teacher(classes: int) -> FunctionTeacher:
    """A teacher of four classes, whatever is said of it."""
    return FunctionTeacher(answers, SHAPE, classes, max_batch=16, fingerprint="mine")


def a_file(out: Path) -> Source:
    """The images in a file beside the folder of a run."""
    pixels = images().read(torch.arange(len(images()))) * 255
    np.save(out.with_suffix(".npy"), pixels.round().byte().numpy()[:, 0])
    return Source(str(out.with_suffix(".npy")))


def labelled(out: Path, asked: Any) -> None:
    db3kd.label(asked, images(), BY_DISTANCE, out=out, resume=out.exists())


def labelled_from_a_file(out: Path, asked: Any) -> None:
    write_run(out, asked, a_file(out), BY_DISTANCE, resume=out.exists())


def distilled(out: Path, asked: Any, strategy: Any = "auto") -> None:
    options = {"strategy": strategy, "student": "linear", "settings": QUICK}
    db3kd.distill(asked, images(), budget=600, out=out, resume=out.exists(), **options)


def distilled_from_distances(out: Path, asked: Any) -> None:
    distilled(out, asked, "sd")


def distilled_without_images(out: Path, asked: Any) -> None:
    db3kd.distill(asked, budget=200, out=out, resume=out.exists(), student="linear", settings=QUICK)


def compared(out: Path, asked: Any) -> None:
    options = {"strategies": ["decisions"], "student": "linear", "settings": QUICK, "seeds": 1}
    db3kd.compare(
        asked, images(), budget=100, out=out, resume=out.exists(), test=images(), **options
    )


def synthesized(out: Path, asked: Any) -> None:
    db3kd.synthesize(asked, db3kd.SynthesisSettings(samples=50), out=out, resume=out.exists())


def made_a_surrogate(out: Path, asked: Any) -> None:
    settings = SurrogateSettings("linear", 2, training=TRAINING)
    db3kd.make_surrogate(asked, images(), settings, out=out, resume=out.exists())


def wrote_a_surrogate(out: Path, asked: Any) -> None:
    settings = SurrogateSettings("linear", 2, training=TRAINING)
    weights, again = out.with_suffix(".safetensors"), out.with_suffix(".decisions").exists()
    prepare_surrogate(weights, asked, a_file(out), settings, resume=again).write()


RUNS = [
    labelled,
    labelled_from_a_file,
    distilled,
    distilled_from_distances,
    distilled_without_images,
    compared,
    synthesized,
    made_a_surrogate,
    wrote_a_surrogate,
]


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize("answered", [40, 10_000])
def test_a_run_of_another_number_of_classes_is_not_resumed(
    tmp_path: Path, run: Callable[[Path, Any], None], answered: int
):
    """Both while the run is stopped and after its end, and nothing that was paid for is lost."""
    asked = CountingTeacher(teacher(4))
    if answered < 1000:
        with pytest.raises(TeacherError):
            run(tmp_path / "run", RaisingTeacher(asked, answered))
    else:
        run(tmp_path / "run", asked)
    paid = asked.total

    with pytest.raises(ValueError, match=r"settings\.classes: was 4, is 5") as raised:
        run(tmp_path / "run", RaisingTeacher(teacher(5), 0))

    assert "remove" not in str(raised.value)
    assert "settings.plan" not in str(raised.value), "what follows from it is not listed"
    run(tmp_path / "run", asked)
    whole = CountingTeacher(teacher(4))
    run(tmp_path / "whole", whole)
    assert asked.total == whole.total and (answered < 1000 or asked.total == paid)


def test_recovered_answers_are_those_of_as_many_classes():
    with pytest.raises(TeacherError) as raised:
        db3kd.label(RaisingTeacher(teacher(4), 400), images(), BY_DISTANCE)
    with pytest.raises(ValueError, match="recovered: expected the number of classes of"):
        db3kd.label(teacher(5), images(), BY_DISTANCE, recovered=raised.value.recovered)
