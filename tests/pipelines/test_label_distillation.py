"""How students of a label run are trained, as far as the caller leaves it open."""

import pytest
import torch

import db3kd
from db3kd.data.source import Source
from db3kd.labelling.runs.label_run import LabelRun
from db3kd.labels.labels import Labels
from db3kd.pipelines.label_distillation import LabelTraining

SETTINGS = db3kd.TrainSettings(steps=5)
MARGIN = {"normalisation": "margin", "scale": 3.0, "temperature": 8.0}
INVERSE = {"normalisation": "inverse", "scale": 1.0, "temperature": 10.0}


def a_run(soft_labels: dict | None) -> LabelRun:
    one = torch.zeros(1, dtype=torch.int64)
    labels = Labels(one, one, torch.tensor([[0.0, 1.0]]), torch.zeros(1, 2).long(), ["ok"])
    images = db3kd.ImageSet.from_arrays(torch.zeros(1, 1, 2, 2))
    manifest = {"settings": {"soft_labels": soft_labels}}
    return LabelRun(labels, images, manifest, Source("images"), "bd", "teacher")


@pytest.mark.parametrize(
    ("stored", "given", "expected"),
    [
        (None, {}, ("margin", None, 4.0, 0.5)),
        (None, {"normalisation": "inverse"}, ("inverse", None, 20.0, 0.5)),
        (None, {"scale": 2, "temperature": 6, "alpha": 0.1}, ("margin", 2, 6, 0.1)),
        (MARGIN, {}, ("margin", 3.0, 8.0, 0.5)),
        (MARGIN, {"scale": "auto"}, ("margin", None, 8.0, 0.5)),
        (MARGIN, {"normalisation": "inverse"}, ("inverse", None, 20.0, 0.5)),
        (INVERSE, {}, ("inverse", 1.0, 10.0, 0.5)),
        (INVERSE, {"normalisation": "margin"}, ("margin", None, 4.0, 0.5)),
    ],
)
def test_the_soft_labels_of_a_run_supply_the_defaults(stored, given, expected):
    made = LabelTraining.of(a_run(stored), SETTINGS, **given)

    assert (made.normalisation, made.scale, made.loss.temperature, made.loss.alpha) == expected
    assert made.settings is SETTINGS


def test_inverse_soft_labels_have_no_scale():
    with pytest.raises(db3kd.ArgumentError, match="scale: needs the normalisation margin"):
        LabelTraining.of(a_run(INVERSE), SETTINGS, scale=2.0)


def test_the_paper_scales_nothing_and_sums_its_loss():
    made = LabelTraining.paper(SETTINGS)

    assert (made.normalisation, made.scale, made.loss.temperature) == ("inverse", None, 20.0)
    assert made.loss.reduction == "sum" and made.loss.beta == 1 / 400
