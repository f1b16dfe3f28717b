"""The planning of a run's own surrogate: both parts share one budget, which is counted once."""

import gc
from types import SimpleNamespace

import pytest
import torch
from teachers_analytic import LinearTeacher, WrappedTeacher

import db3kd
from db3kd.boundary import Surrogate
from db3kd.labelling.budgets import divide_budget
from db3kd.labelling.runs.run_surrogate import plan_surrogate

IMAGES, CLASSES = 20, 3
ALL = torch.arange(IMAGES)


class Planner:
    """Takes a fixed number of queries, and keeps the budget that it was told."""

    def __init__(self, queries: int) -> None:
        self.queries = queries
        self.budget: int | None = None

    def plan(self, teacher, images, labelled, settings, budget):
        self.budget = budget
        return SimpleNamespace(queries=self.queries, why="because", entries={})


@pytest.mark.parametrize(
    ("settings", "budget"),
    [
        ({"queries": 1_010, "queries_per_pair": 5_000}, 1_010),
        ({"queries_per_sample": 30}, IMAGES * 30),
        ({"queries_per_pair": 7}, IMAGES * (1 + 2 * 7)),
        ({"queries": 10**6, "queries_per_pair": 7}, IMAGES * (1 + 2 * 7)),
    ],
)
def test_the_labels_keep_what_the_surrogate_leaves_of_the_budget(settings, budget):
    teacher = LinearTeacher(torch.eye(CLASSES), torch.zeros(CLASSES), (1, 1, CLASSES))
    planner = Planner(queries=90)

    planned = plan_surrogate(planner, teacher, IMAGES, db3kd.LabelSettings(**settings), ALL)

    assert planner.budget == budget
    assert planned.queries == 90
    assert divide_budget(planned.settings, IMAGES, CLASSES).sum() == budget - 90


@pytest.mark.parametrize("chosen", [[3], [0, 5, 11, 12, 19]])
def test_images_that_are_not_labelled_leave_their_budget(chosen):
    teacher = LinearTeacher(torch.eye(CLASSES), torch.zeros(CLASSES), (1, 1, CLASSES))
    planner, index = Planner(queries=90), torch.tensor(chosen)
    settings = db3kd.LabelSettings(queries=IMAGES * 101 + 7)

    planned = plan_surrogate(planner, teacher, IMAGES, settings, index)

    limits = divide_budget(settings, IMAGES, CLASSES)
    whole = IMAGES + int((limits[index] - 1).sum())
    spent = IMAGES + int((divide_budget(planned.settings, IMAGES, CLASSES)[index] - 1).sum())
    assert planner.budget == whole
    assert whole - len(chosen) < spent + 90 <= whole


def test_a_run_without_a_surrogate_keeps_its_settings():
    teacher = LinearTeacher(torch.eye(CLASSES), torch.zeros(CLASSES), (1, 1, CLASSES))
    settings = db3kd.LabelSettings(queries=1_000)

    planned = plan_surrogate(Planner(queries=0), teacher, IMAGES, settings, ALL)

    assert planned.settings == settings
    assert (planned.queries, planned.why) == (0, "because")


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
    teacher = LinearTeacher(torch.eye(CLASSES), torch.zeros(CLASSES), (1, 1, CLASSES))
    watching = WatchingTeacher(teacher)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(CLASSES, CLASSES))
    images = torch.rand(IMAGES, 1, 1, CLASSES, generator=torch.Generator().manual_seed(0))
    settings = db3kd.LabelSettings(queries_per_pair=20)

    db3kd.label(watching, images, settings, surrogate=network, out=tmp_path / "run")

    assert watching.surrogates == {before + 1}
