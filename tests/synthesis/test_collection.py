"""Finding pseudo samples of every class."""

from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from teachers_analytic import AnalyticTeacher, ConstantTeacher, CountingTeacher, image_key
from torch import Tensor

from db3kd.data.files.uint8_pixels import to_float
from db3kd.querying.driver import run
from db3kd.querying.ledger import Ledger
from db3kd.synthesis.collection import Collected, CollectionTask, _even, collect

SHAPE = (1, 2, 2)


class StepTeacher(AnalyticTeacher):
    """The number of thresholds that the first pixel has reached."""

    def __init__(self, *thresholds: float, classes: int | None = None) -> None:
        self.thresholds = torch.tensor(thresholds, dtype=torch.float64)
        super().__init__(SHAPE, classes or len(thresholds) + 1, parameters=(self.thresholds,))

    def _decide_rows(self, rows: Tensor) -> Tensor:
        return (rows[:, :1] >= self.thresholds).sum(1)


@dataclass
class Ramp:
    """Starts whose first pixel goes through `pixels` again and again; the others name the start."""

    pixels: tuple[int, ...]
    name: str = "ramp"
    image_shape: tuple[int, ...] = SHAPE
    drawn: list[int] = field(default_factory=list)

    def draw(self, index: Tensor) -> Tensor:
        self.drawn += index.tolist()
        first = torch.tensor(self.pixels)[index % len(self.pixels)]
        number = [index >> shift & 255 for shift in (0, 8, 16)]
        return torch.stack([first, *number], 1).view(-1, *SHAPE).to(torch.uint8)


def gather(
    teacher: AnalyticTeacher,
    starts: Ramp,
    samples: int,
    *,
    effort: int = 1,
    mixtures: int = 0,
    budget: int = 10**6,
    query_batch_size: int = 2048,
    seed: int = 0,
) -> Collected:
    ledger = Ledger(torch.tensor([budget]))
    task = CollectionTask(
        starts=starts,
        image_shape=teacher.image_shape,
        classes=teacher.classes,
        samples=samples,
        held_out=0,
        bounds=teacher.bounds,
        seed=seed,
        query_batch_size=query_batch_size,
        budget=ledger,
    )
    search = collect(task, max_starts=samples * effort, max_mixtures=mixtures)
    collected = run(search, teacher, ledger)
    assert collected.queries == int(ledger.spent) <= budget
    return collected


def images_of(collected: Collected, starts: Ramp) -> Tensor:
    return collected.pixels(starts, torch.arange(len(collected)))


def kept(collected: Collected, classes: int) -> list[int]:
    return torch.bincount(collected.decision, minlength=classes).tolist()


THIRDS = StepTeacher(1 / 3, 2 / 3)
EVENLY = (10, 120, 240)


def test_starts_are_kept_in_their_order_with_their_decisions():
    starts = Ramp(EVENLY)

    collected = gather(THIRDS, starts, 9)

    assert collected.start.tolist() == list(range(9))
    assert collected.decision.tolist() == [0, 1, 2] * 3
    assert torch.equal(images_of(collected, starts), starts.draw(torch.arange(9)))


def test_without_effort_all_starts_are_kept_however_they_fall():
    collected = gather(THIRDS, Ramp((10, 10, 10, 120)), 40)

    assert kept(collected, 3) == [30, 10, 0]
    assert collected.queries == 40


def test_with_effort_common_classes_give_way_to_rare_ones():
    collected = gather(THIRDS, Ramp((*[10] * 8, 120, 240)), 30, effort=10)

    assert kept(collected, 3) == [10, 10, 10]
    assert collected.found.tolist() == [240, 30, 30]
    assert (collected.start.diff() > 0).all(), "the first of each class, in their order"


def test_asking_stops_once_all_classes_have_their_share():
    collected = gather(THIRDS, Ramp(EVENLY), 300, effort=1000)

    assert collected.queries < 300 * 1000 / 100
    assert kept(collected, 3) == [100, 100, 100]


@pytest.mark.parametrize("query_batch_size", [1, 7, 2048])
def test_the_batch_size_does_not_matter(query_batch_size):
    starts = Ramp((*[10] * 99, 120))
    teacher = StepTeacher(1 / 3, 0.46)
    options = {"effort": 2, "mixtures": 300}
    expected = gather(teacher, starts, 600, **options)

    collected = gather(teacher, starts, 600, query_batch_size=query_batch_size, **options)

    assert torch.equal(collected.start, expected.start)
    assert torch.equal(collected.decision, expected.decision)
    assert torch.equal(images_of(collected, starts), images_of(expected, starts))
    assert torch.equal(collected.found, expected.found)
    assert collected.queries == expected.queries


@given(
    found=st.lists(st.integers(0, 40), min_size=1, max_size=8),
    samples=st.integers(0, 200),
)
def test_samples_are_spread_as_evenly_as_what_is_found_allows(found, samples):
    taken = _even(torch.tensor(found), samples).tolist()

    assert sum(taken) == min(samples, sum(found))
    assert all(0 <= kept <= there for kept, there in zip(taken, found, strict=True))
    most = max(taken)
    # Who has less than another, by more than the one of a remainder, has all that was found.
    assert all(kept == there or kept >= most - 1 for kept, there in zip(taken, found, strict=True))


def test_a_class_that_starts_hardly_reach_is_sought_between_others():
    teacher = CountingTeacher(StepTeacher(0.4, 0.6))  # class 1 lies between the levels 102 and 153
    starts = Ramp((10, 240))

    collected = gather(teacher, starts, 400, mixtures=200)

    crossed = collected.start == -1
    assert int(crossed.sum()) >= 400 / 3 / 10, "seeking ends at a tenth of the class's share"
    assert (collected.decision[crossed] == 1).all()
    assert collected.queries <= 400 + 200
    images = to_float(images_of(collected, starts), (0.0, 1.0))
    assert torch.equal(teacher.inner.decide(images), collected.decision)
    assert all(image_key(image) in teacher.per_image for image in images)
    assert collected.found[1] == crossed.sum()


def test_crossings_take_the_places_of_other_classes():
    collected = gather(StepTeacher(0.4, 0.6), Ramp((10, 240)), 400, mixtures=200)

    assert len(collected) == 400
    counts = kept(collected, 3)
    assert abs(counts[0] - counts[2]) <= 1


def test_crossings_take_no_place_of_the_classes_that_starts_reach():
    teacher = StepTeacher(*[place / 100 for place in range(1, 100)])

    collected = gather(teacher, Ramp((0, 255)), 100, mixtures=10**5)

    counts = kept(collected, 100)
    assert collected.found[1:-1].sum() > 100, "more crossings were found than there are places"
    assert len(collected) == 100 and min(counts[0], counts[-1]) >= 1


def test_a_class_that_no_image_is_found_for_is_reported_and_holds_up_no_other():
    teacher = CountingTeacher(StepTeacher(0.5, classes=4))

    collected = gather(teacher, Ramp((10, 240)), 100, mixtures=80)

    assert collected.found.tolist() == [50, 50, 0, 0]
    assert kept(collected, 4) == [50, 50, 0, 0]
    assert teacher.total <= 100 + 80


def test_a_budget_may_end_with_any_query():
    for budget in (1, 2, 63, 64, 99):
        teacher = CountingTeacher(THIRDS)
        collected = gather(
            teacher, Ramp(EVENLY), 100, mixtures=50, budget=budget, query_batch_size=16
        )

        assert teacher.total == collected.queries == budget
        assert len(collected) == budget and (collected.decision >= 0).all()


def test_a_teacher_of_one_class_gives_images_of_one_class():
    teacher = CountingTeacher(ConstantTeacher(2, SHAPE, 3))

    collected = gather(teacher, Ramp(EVENLY), 50, mixtures=20)

    assert collected.found.tolist() == [0, 0, 50]
    assert teacher.total <= 70


def test_the_seed_names_the_crossings():
    options = {"mixtures": 200}
    teacher = StepTeacher(0.4, 0.6)
    one, again, other = (
        gather(teacher, Ramp((10, 240)), 400, seed=seed, **options) for seed in (0, 0, 1)
    )

    images = [images_of(collected, Ramp((10, 240))) for collected in (one, again, other)]
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])
