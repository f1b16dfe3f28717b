"""What a student's report accepts."""

from dataclasses import replace

import pytest

pytest.importorskip("matplotlib")
pytest.importorskip("sklearn")

import torch
from student_report_cases import digits_report, photos_report, wine_report

from db3kd.report import Disagreements, PlanChoice, ReportStage, SoftExamples
from db3kd.tables import Feature, Features

NONE = torch.zeros(0, dtype=torch.int64)


def test_totals_are_those_of_the_stages():
    report = digits_report()
    assert report.queries == 200_000
    assert report.price(report.queries) == 50.0
    assert replace(report, stages=()).queries is None
    assert replace(report, price_per_1000=None).price(10) is None


def test_it_is_represented_by_its_title_and_agreement():
    assert repr(wine_report()) == "StudentReport('Wine', agreement 46 of 50)"


@pytest.mark.parametrize(
    "without",
    [
        {"class_names": None},
        {"class_names": None, "confusion": None},
        {"class_names": None, "confusion": None, "class_counts": None},
    ],
)
def test_the_number_of_classes_is_found_in_whatever_is_there(without):
    assert replace(photos_report(50), **without).classes == 50


def test_images_and_rows_of_features_are_told_apart():
    assert wine_report().is_tabular
    assert replace(wine_report(), features=None).is_tabular
    assert not digits_report().is_tabular
    assert not replace(digits_report(), disagreements=None, soft_examples=None).is_tabular


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"agreement": (701, 700)}, "agreement: expected integers 0 <= matches"),
        ({"agreement": 0.93}, "agreement: .* got 0.93"),
        ({"accuracy": (1, 0)}, "accuracy: "),
        ({"test_agreement": (2, 1)}, "test_agreement: "),
        ({"price_per_1000": -1.0}, "price_per_1000: expected a number of at least 0, got -1.0"),
        ({"price_per_1000": float("nan")}, "price_per_1000: .* got nan"),
        ({"stages": [ReportStage("a", "", "", -1, 0.0)]}, "stages: .* got -1 and 0.0 in stage 'a'"),
        ({"curve": [(10, 0.5), (10, 0.6)]}, r"curve: expected ascending .* got \[10, 10\]"),
        ({"curve": [(10, 1.5)]}, r"curve: expected agreement in \[0, 1\], got 1.5"),
        ({"choices": [PlanChoice("rate", "1", {"2": 0.5})]}, r"the chosen rate among .* got '1'"),
        ({"choices": [PlanChoice("rate", "1", {"1": 93.0})]}, r"choices: .* got 93.0"),
        (
            {"class_names": ["one", "two"]},
            r"class_counts: expected \[2\] counts .*",
        ),
        ({"class_counts": torch.ones(10)}, r"class_counts: .* got \[10\] float32"),
        ({"confusion": torch.ones(10, 9).long()}, r"confusion: expected \[10, 10\] counts"),
        ({"confusion": torch.ones(10, 10).long()}, "expected 651 matches of 700 .* got 10 of 100"),
        (
            {"disagreements": Disagreements(torch.ones(1, 8, 8), NONE, NONE)},
            "disagreements: ",
        ),
        (
            {"disagreements": Disagreements(torch.ones(1, 1, 8, 8), NONE, NONE)},
            r"teacher_classes: expected 1 class in \[0, 10\), got \[0\]",
        ),
        (
            {"soft_examples": SoftExamples(torch.ones(2, 1, 8, 8), torch.ones(2, 10), "", ["a"])},
            "soft_examples: expected 2 names or none, got 1",
        ),
        (
            {"soft_examples": SoftExamples(torch.ones(2, 1, 8, 8), torch.ones(2, 3))},
            r"soft_examples: expected probabilities \[2, 10\], got \[2, 3\]",
        ),
        (
            {"soft_examples": SoftExamples(255 * torch.ones(2, 1, 8, 8), torch.ones(2, 10))},
            r"soft_examples: expected images in \[0, 1\]",
        ),
        (
            {"features": Features([Feature.integer("a", 0, 1)])},
            r"features: expected those of encoded rows \[1, 8, 8\], got ones of rows \[1\]",
        ),
    ],
)
def test_values_that_do_not_fit_together_are_refused(change, message):
    with pytest.raises((TypeError, ValueError), match=message):
        replace(digits_report(), **change)
