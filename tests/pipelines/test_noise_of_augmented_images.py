"""Augmented images of a distillation have no noise, unless the run was begun with it."""

from pathlib import Path

import pytest
import torch
from distill_cases import CLASSES, QUICK, SHAPE, teacher, weights
from teachers_analytic import RaisingTeacher, WrappedTeacher
from torch import Tensor

import db3kd
from db3kd.errors import InputError
from db3kd.pipelines.comparison import prepared as prepared_comparison
from db3kd.pipelines.distillation import prepared
from db3kd.storage.manifest import MANIFEST, read_manifest
from db3kd.teachers import Teacher, TeacherError

BUDGET = 400

SHADES = torch.arange(40, dtype=torch.uint8).mul(6).view(-1, 1, 1, 1)
FLAT_IMAGES = db3kd.ImageSet.from_arrays(SHADES.expand(-1, *SHAPE).numpy())


class FlatnessTeacher(WrappedTeacher):
    """Notes for each image whether all of its pixels are equal."""

    def __init__(self) -> None:
        super().__init__(teacher())
        self.flat: list[bool] = []

    def decide(self, images: Tensor) -> Tensor:
        pixels = images.flatten(1)
        self.flat += (pixels == pixels[:, :1]).all(1).tolist()
        return (pixels[:, 0] * CLASSES).long().clamp(max=CLASSES - 1)


def run(asked: Teacher, out: Path, *, resume: bool = False) -> db3kd.DistillResult:
    settings = {"student": "linear", "settings": QUICK, "strategy": "augmented"}
    return db3kd.distill(asked, FLAT_IMAGES, budget=BUDGET, out=out, resume=resume, **settings)


def test_mixtures_of_images_without_noise_have_none(tmp_path):
    asked = FlatnessTeacher()

    run(asked, tmp_path / "run")

    assert asked.flat == [True] * BUDGET
    assert read_manifest(tmp_path / "run")["settings"]["noise"] == 0


def test_a_run_that_was_begun_with_noise_keeps_it(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:  # as earlier versions did
        patch.setattr(prepared, "noise_of_run", lambda folder, format: 0.05)
        whole = run(FlatnessTeacher(), tmp_path / "whole")
        with pytest.raises(TeacherError):
            run(RaisingTeacher(FlatnessTeacher(), 100), tmp_path / "run")
    assert "noise" not in read_manifest(tmp_path / "run")["settings"]

    asked = FlatnessTeacher()
    result = run(asked, tmp_path / "run", resume=True)

    assert len(asked.flat) < BUDGET and asked.flat.count(True) <= 40  # the images themselves
    assert torch.equal(weights(result.student), weights(whole.student))
    assert run(asked, tmp_path / "run", resume=True).queries == BUDGET
    manifest = tmp_path / "run" / MANIFEST
    manifest.write_text(manifest.read_text().replace('"plan"', '"noise": "much", "plan"', 1))
    with pytest.raises(InputError, match="entry noise: expected a number, at least 0, got 'much'"):
        run(asked, tmp_path / "run", resume=True)


def test_all_students_of_a_comparison_have_the_noise_that_it_was_begun_with(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()

    def compare(asked: Teacher) -> db3kd.Comparison:
        return db3kd.compare(
            asked,
            FLAT_IMAGES,
            budget=100,
            strategies=("decisions", "augmented", "sd"),
            student="linear",
            settings=QUICK,
            out=tmp_path / "run",
            resume=True,
        )

    with monkeypatch.context() as patch:
        patch.setattr(prepared_comparison, "noise_of_run", lambda folder, format: 0.05)
        with pytest.raises(TeacherError):
            compare(RaisingTeacher(FlatnessTeacher(), 50))  # the second student has not begun
    asked = FlatnessTeacher()
    compare(asked)

    assert asked.flat.count(False) > 40  # augmented images
    for folder in (tmp_path / "run", *(tmp_path / "run").glob("*-0")):
        assert "noise" not in read_manifest(folder)["settings"], folder
