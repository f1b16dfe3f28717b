"""The planning of a run's own surrogate: both parts share one budget, which is counted once."""

import gc

import pytest
import torch
from teachers_analytic import LinearTeacher, WrappedTeacher

import db3kd
from db3kd.boundary import Surrogate
from db3kd.labelling.budgets import divide_budget
from db3kd.planning import plan_surrogate_training

IMAGES, CLASSES = 20, 3
ALL = torch.arange(IMAGES)
AUTO = db3kd.AutoSurrogate("linear", networks=1)


def teacher() -> LinearTeacher:
    return LinearTeacher(torch.eye(CLASSES), torch.zeros(CLASSES), (1, 1, CLASSES))


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({"queries": 10_010, "queries_per_pair": 5_000}, 10_010),
        ({"queries_per_sample": 300}, IMAGES * 300),
        ({"queries_per_pair": 200}, IMAGES * (1 + 2 * 200)),
        ({"queries": 10**6, "queries_per_pair": 200}, IMAGES * (1 + 2 * 200)),
    ],
)
def test_the_labels_keep_what_the_surrogate_leaves_of_the_budget(settings, budget):
    surrogate, rest = AUTO.plan(teacher(), IMAGES, db3kd.LabelSettings(**settings), ALL)

    expected = plan_surrogate_training(budget, IMAGES, IMAGES * (CLASSES - 1))
    assert surrogate.plan == expected and expected.queries > 0
    assert divide_budget(rest, IMAGES, CLASSES).sum() == budget - expected.queries


@pytest.mark.parametrize("chosen", [[3], [0, 5, 11, 12, 19]])
def test_images_that_are_not_labelled_leave_their_budget(chosen):
    index = torch.tensor(chosen)
    settings = db3kd.LabelSettings(queries=IMAGES * 3_001 + 7, queries_per_pair=1_900)

    surrogate, rest = AUTO.plan(teacher(), IMAGES, settings, index)

    whole = IMAGES + int((divide_budget(settings, IMAGES, CLASSES)[index] - 1).sum())
    spent = IMAGES + int((divide_budget(rest, IMAGES, CLASSES)[index] - 1).sum())
    expected = plan_surrogate_training(whole, IMAGES, len(chosen) * (CLASSES - 1))
    assert surrogate.plan == expected and expected.queries > 0
    assert whole - len(chosen) < spent + expected.queries <= whole


def test_a_run_without_a_surrogate_keeps_its_settings():
    settings = db3kd.LabelSettings(queries=1_000)

    surrogate, rest = AUTO.plan(teacher(), IMAGES, settings, ALL)

    assert rest == settings
    assert surrogate.plan.queries == 0 and "needs 2,000 queries" in surrogate.plan.why


def live_surrogates() -> int:
    return sum(type(each) is Surrogate for each in gc.get_objects())


class WatchingTeacher(WrappedTeacher):
    """Notes how many surrogates there are during each call."""

    def __init__(self, inner):
        super().__init__(inner)
        self.surrogates = set()

    def decide(self, images):
        self.surrogates.add(live_surrogates())
        return super().decide(images)


def test_a_run_in_a_folder_keeps_one_copy_of_its_surrogate(tmp_path):
    gc.collect()
    before = live_surrogates()
    watching = WatchingTeacher(teacher())
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(CLASSES, CLASSES))
    images = torch.rand(IMAGES, 1, 1, CLASSES, generator=torch.Generator().manual_seed(0))
    settings = db3kd.LabelSettings(queries_per_pair=20)

    db3kd.label(watching, images, settings, surrogate=network, out=tmp_path / "run")

    assert watching.surrogates == {before + 1}
