import io
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.progress import Progress
from db3kd.scale.choice import ScaleChoice, ScaleTrial
from db3kd.scale.search import (
    held_out_loss,
    median_nearest_distance,
    scale_training,
    search_scale,
)
from db3kd.training.loss import KDLoss
from db3kd.training.settings import TrainSettings

CENTRES = torch.tensor([[0.2, 0.2], [0.8, 0.2], [0.5, 0.8]])
SETTINGS = TrainSettings(steps=6, learning_rate=1e-2, device="cpu", seed=3)


def points(count: int = 60) -> tuple[Tensor, Tensor, Tensor]:
    """Images [count, 1, 1, 2], their distances to nearest-centre boundaries, classes."""
    images = torch.rand(count, 1, 1, 2, generator=torch.Generator().manual_seed(0))
    to_centres = torch.cdist(images.flatten(1), CENTRES)
    own = to_centres.argmin(1)
    gaps = to_centres**2 - to_centres.gather(1, own[:, None]) ** 2
    between = torch.cdist(CENTRES, CENTRES)[own]
    return images, gaps / (2 * between), own  # NaN in the own column, which nobody reads


def network() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(2, 3))


def margin(distances: Tensor, own: Tensor, scale: float, temperature: float) -> Tensor:
    return F.softmax((-scale * distances).scatter(1, own[:, None], 0.0) / temperature, 1)


def choose(distances: Tensor, own: Tensor, images: Tensor, make=margin, **options):
    options = {"relative_scales": (1.0, 4.0), "students": 2, **options}
    return search_scale(network, images, distances, own, make, KDLoss(), SETTINGS, **options)


def test_the_scale_whose_students_predict_the_decisions_best_is_chosen():
    images, distances, own = points()
    median = median_nearest_distance(distances, own)

    def only_four_is_right(distances, own, scale, temperature):
        right = abs(scale * median - 4) < 1e-4
        return F.one_hot(own if right else (own + 1) % 3, 3).float()

    choice = search_scale(
        network,
        images,
        distances,
        own,
        only_four_is_right,
        KDLoss(temperature=1, alpha=0),
        TrainSettings(steps=30, learning_rate=1e-1, device="cpu"),
        relative_scales=(1.0, 4.0, 16.0),
        students=2,
    )
    by_scale = {trial.relative: trial for trial in choice.trials}
    assert choice.best == by_scale[4.0]
    assert by_scale[4.0].agreement > 0.7 > by_scale[1.0].agreement


def test_the_choice_is_deterministic():
    images, distances, own = points()
    assert choose(distances, own, images) == choose(distances, own, images)


def test_the_trials_list_every_scale_from_the_smallest():
    images, distances, own = points()
    median = median_nearest_distance(distances, own)
    trials = choose(distances, own, images, relative_scales=(4.0, 1.0)).trials
    relative = [trial.relative for trial in trials]
    assert relative == sorted(relative) and {1.0, 4.0} <= set(relative)
    assert [trial.scale for trial in trials] == pytest.approx([one / median for one in relative])
    assert all(0 <= trial.agreement <= 1 and trial.deviation >= 0 for trial in trials)


def test_the_scale_follows_the_unit_of_the_distances():
    images, distances, own = points()
    near = choose(distances, own, images)
    far = choose(4 * distances, own, images)
    assert far.scale == near.scale / 4
    assert [t.agreement for t in far.trials] == [t.agreement for t in near.trials]


def test_unanswered_samples_are_neither_labelled_nor_trained_on_nor_held_out():
    images, distances, own = points()
    gaps = own.clone()
    gaps[::4] = -1
    distances[::4] = math.nan
    answered = gaps >= 0

    def checked(distances, own, scale, temperature):
        assert (own >= 0).all()
        return margin(distances, own, scale, temperature)

    kept = choose(distances[answered], own[answered], images[answered])
    assert choose(distances, gaps, images, checked) == kept


def rewarding(best: float, median: float):
    """Soft labels that teach the right class at one relative scale, less so the farther from it."""

    def make(distances, own, scale, temperature):
        steps = abs(math.log2(scale * median / best))
        right, wrong = F.one_hot(own, 3).float(), F.one_hot((own + 1) % 3, 3).float()
        share = 0.045 * steps
        return (1 - share) * right + share * wrong

    return make


def choose_rewarded(best: float, **options) -> ScaleChoice:
    images, distances, own = points()
    return search_scale(
        network,
        images,
        distances,
        own,
        rewarding(best, median_nearest_distance(distances, own)),
        KDLoss(temperature=1, alpha=0),
        TrainSettings(steps=25, learning_rate=1e-1, device="cpu"),
        students=2,
        **options,
    )


@pytest.mark.parametrize(
    ("best", "tried"),
    [
        (1.0, [0.5, 1.0, 2.0]),
        (8.0, [0.5, 1.0, 2.0, 4.0, 8.0, 16.0]),
        (1 / 8, [1 / 16, 1 / 8, 1 / 4, 0.5, 1.0, 2.0]),
    ],
)
def test_the_grid_grows_until_the_best_lies_inside(best, tried):
    choice = choose_rewarded(best)
    assert [trial.relative for trial in choice.trials] == tried
    assert choice.best.relative == best
    assert not choice.at_edge
    assert not any("warning" in line for line in choice.describe())


def test_a_grid_that_never_holds_the_best_stops_growing_and_says_so():
    choice = choose_rewarded(2.0**9)
    assert [trial.relative for trial in choice.trials] == [2.0**n for n in range(-1, 8)]
    assert choice.at_edge
    assert "warning: the best scale is at the edge of those tried; a larger" in choice.describe()[2]


def test_one_scale_alone_is_taken():
    choice = choose_rewarded(8.0, relative_scales=(1.0,))
    assert [trial.relative for trial in choice.trials] == [1.0]
    assert len(choice.describe()) == 2


def test_progress_counts_the_students_and_those_of_a_grown_grid():
    class Display(Progress):
        def update(self, **totals):
            reported.append((totals["samples"], self.samples))

    reported = []
    choose_rewarded(4.0, progress=Display(6, stream=io.StringIO()))
    assert reported == [(n, max(6, 2 * ((n + 1) // 2))) for n in range(1, 11)]


def test_the_progress_of_a_choice_is_shown_or_not(capsys):
    for progress in (True, False):
        choose_rewarded(1.0, progress=progress)
    shown = "choosing the scale of the soft labels done: 6/6 students"
    assert capsys.readouterr().err.count(shown) == 1


def trial(scale: float, *losses: float) -> ScaleTrial:
    return ScaleTrial(scale, scale, 0.9, 0.0, losses)


def test_scales_are_equally_good_if_students_differ_more_than_scales():
    best = trial(1.0, 0.20, 0.30, 0.25)
    choice = ScaleChoice(1.0, (trial(0.5, 0.21, 0.29, 0.26), best, trial(2.0, 0.22, 0.32, 0.27)))
    assert [one.scale for one in choice.as_good_as_best] == [0.5, 1.0]
    assert choice.describe()[2] == (
        "0.5 and 1 are about equally good: run by run, with equal data and initial weights, the "
        "losses differ from those of 1 on average by no more than the standard error"
    )


def test_a_scale_that_is_worse_in_every_run_is_left_out_and_the_message_says_why():
    """Its mean loss is smaller than that of a scale which is worse in one of two runs only."""
    trials = (
        trial(0.9, 1.8, 1.6198),
        trial(1.8, 1.65, 1.661),
        trial(3.6, 1.67, 1.695),
        trial(7.2, 1.675, 1.69),
        trial(14.4, 1.9, 1.9),
    )
    choice = ScaleChoice.among(trials, 2.0)
    origin, tried, compared = choice.describe("row")
    assert choice.scale == pytest.approx(2 * math.sqrt(0.9 * 1.8))
    assert origin == (
        "scale 2.55: 2 times 1.27, the best one in short training runs (the geometric mean of 0.9 "
        "and 1.8), because longer training needs a larger scale"
    )
    assert "on labelled rows that each run left out): 0.9 (1.7099, 90.0%), 1.8 (1.6555, " in tried
    assert compared.startswith("0.9 and 1.8 are about equally good: run by run, with equal data ")
    assert compared.endswith(
        "those of 1.8 on average by no more than the standard error; 3.6 and 7.2 are more "
        "consistently worse, although their mean loss is smaller than that of 0.9"
    )
    assert (
        "3.6 is more consistently worse, although its mean"
        in ScaleChoice.among([*trials[:3], trials[4]]).describe()[2]
    )


def test_the_middle_of_the_scales_that_cannot_be_told_from_the_best_is_chosen():
    best, alike, worse = trial(1.0, 0.2, 0.3), trial(4.0, 0.25, 0.27), trial(8.0, 0.3, 0.4)
    assert ScaleChoice.among([alike, worse, best]) == ScaleChoice(2.0, (best, alike, worse))
    assert ScaleChoice.among([alike, worse, best], 3.0).scale == 6.0
    assert ScaleChoice.among([worse, best]).scale == 1.0
    assert ScaleChoice.among([trial(2.0, 0.25), trial(1.0, 0.2)]).scale == 1.0


def test_a_flat_choice_is_warned_of():
    best = trial(1.0, 0.20, 0.30)
    choice = ScaleChoice(1.0, (trial(0.5, 0.26, 0.25), best, trial(2.0, 0.25, 0.27)))
    assert len(choice.as_good_as_best) == 3
    assert "no scale is clearly better" in choice.describe()[2]


def test_agreement_is_shown_by_scale():
    choice = ScaleChoice(1.0, (trial(0.5, 0.4), trial(1.0, 0.2), trial(2.0, 0.3)))
    assert choice.describe() == [
        "scale 1: the best one in short training runs",
        "scales tried in short training runs (mean loss, and agreement with the teacher, on "
        "labelled images that each run left out): 0.5 (0.4000, 90.0%), 1 (0.2000, 90.0%), 2 "
        "(0.3000, 90.0%)",
    ]


def test_a_scale_that_was_not_tried_is_explained():
    trials = trial(1.0, 0.2, 0.3), trial(4.0, 0.25, 0.27), trial(8.0, 0.3, 0.4)
    best, mean = "the best one in short training runs", "the geometric mean of 1 and 4"
    assert ScaleChoice.among(trials).describe()[0] == f"scale 2: {best}, as {mean}"
    doubled = ScaleChoice.among(trials, 2.0).describe()[0]
    assert doubled.startswith(f"scale 4: 2 times 2, {best} ({mean}), because longer training")


def test_a_multiple_of_the_best_scale_is_chosen_if_asked_for():
    choice = choose_rewarded(1.0, factor=2.0)
    assert choice.best.relative == 1.0
    assert choice == ScaleChoice.among(choice.trials, factor=2.0)
    start = f"scale {choice.scale:.3g}: 2 times {choice.best.scale:.3g}, the best one in short "
    assert choice.describe()[0].startswith(f"{start}training runs, because longer training needs")


def test_the_held_out_loss_does_not_depend_on_how_sure_a_student_is():
    logits = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    decisions = (3 * logits).softmax(1).multinomial(1, generator=torch.Generator().manual_seed(1))
    losses = [held_out_loss(factor * logits, decisions[:, 0]) for factor in (0.01, 1.0, 100.0)]
    assert losses == pytest.approx([losses[1]] * 3, rel=1e-6)
    assert losses[1] <= F.cross_entropy(3 * logits, decisions[:, 0]).item()
    assert losses[1] == pytest.approx(F.cross_entropy(3 * logits, decisions[:, 0]).item(), rel=0.02)


def test_logits_that_are_always_right_have_no_loss():
    own = torch.tensor([0, 1, 2, 1])
    assert held_out_loss(F.one_hot(own, 3).float(), own) < 1e-6
    assert held_out_loss(torch.zeros(4, 3), own) == pytest.approx(math.log(3))


def test_the_training_that_chooses_is_a_small_part_of_the_final_one():
    final = TrainSettings(steps=1500, batch_size=128, learning_rate=1e-3, seed=4)
    short = scale_training(final, 600)
    assert (short.steps, short.batch_size, short.schedule) == (250, 32, "cosine")
    assert short.learning_rate == pytest.approx(3e-3)
    images_seen = 6 * short.steps * short.batch_size
    assert images_seen < 0.3 * final.steps * final.batch_size
    assert scale_training(TrainSettings(steps=120), 600).steps == 40
    falling = TrainSettings(epochs=3, batch_size=2, learning_rate=3e-3, schedule="cosine")
    shortest = scale_training(falling, 2)
    assert (shortest.steps, shortest.batch_size, shortest.learning_rate) == (3, 2, 3e-3)


def test_the_median_is_over_the_nearest_class_that_was_reached():
    inf = math.inf
    distances = torch.tensor([[0.1, 3.0, 2.0], [inf, 0.0, 5.0], [inf, inf, 0.0], [7.0, 9.0, 0.0]])
    assert median_nearest_distance(distances, torch.tensor([0, 1, 2, 2])) == 5.0


def test_distances_without_any_class_reached_are_refused():
    images, distances, own = points()
    with pytest.raises(ValueError, match="distances: expected a finite distance"):
        choose(torch.full_like(distances, math.inf), own, images)


def test_too_few_answered_samples_are_refused():
    images, distances, own = points()
    own[4:] = -1
    with pytest.raises(ValueError, match="labels: expected at least 5 answered samples, got 4"):
        choose(distances, own, images)
