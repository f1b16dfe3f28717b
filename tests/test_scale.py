import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from db3kd.distill import KDLoss
from db3kd.scale import choose_scale, median_nearest_distance, smooth
from db3kd.training import TrainSettings

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
    return choose_scale(network, images, distances, own, make, KDLoss(), SETTINGS, **options)


def test_the_scale_with_the_best_held_out_agreement_is_chosen():
    images, distances, own = points()
    median = median_nearest_distance(distances, own)

    def only_four_is_right(distances, own, scale, temperature):
        right = abs(scale * median - 4) < 1e-4
        return F.one_hot(own if right else (own + 1) % 3, 3).float()

    choice = choose_scale(
        network,
        images,
        distances,
        own,
        only_four_is_right,
        KDLoss(temperature=1, alpha=0),
        TrainSettings(steps=60, learning_rate=5e-2, device="cpu"),
        relative_scales=(0.25, 1.0, 4.0),
        students=2,
    )
    assert choice.scale == choice.trials[2].scale
    assert choice.trials[2].agreement > 0.7 > choice.trials[0].agreement


def test_the_choice_is_deterministic():
    images, distances, own = points()
    assert choose(distances, own, images) == choose(distances, own, images)


def test_the_trials_list_every_scale_from_the_smallest():
    images, distances, own = points()
    median = median_nearest_distance(distances, own)
    trials = choose(distances, own, images, relative_scales=(4.0, 1.0)).trials
    assert [trial.relative for trial in trials] == [1.0, 4.0]
    assert [trial.scale for trial in trials] == pytest.approx([1 / median, 4 / median])
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


def test_progress_counts_the_students():
    images, distances, own = points()
    told = []
    choose(distances, own, images, progress=lambda *report: told.append(report))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_the_median_is_over_the_nearest_class_that_was_reached():
    inf = math.inf
    distances = torch.tensor([[0.1, 3.0, 2.0], [inf, 0.0, 5.0], [inf, inf, 0.0], [7.0, 9.0, 0.0]])
    assert median_nearest_distance(distances, torch.tensor([0, 1, 2, 2])) == 5.0


def test_distances_without_any_class_reached_are_refused():
    images, distances, own = points()
    with pytest.raises(ValueError, match="distances: expected a finite distance"):
        choose(torch.full_like(distances, math.inf), own, images)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"relative_scales": ()}, "relative_scales"),
        ({"relative_scales": (1.0, 0.0)}, "relative_scales"),
        ({"folds": 1}, "folds"),
        ({"folds": 61}, "60 answered samples"),
        ({"students": 0}, "students"),
    ],
)
def test_bad_options_are_refused(options, message):
    images, distances, own = points()
    with pytest.raises(ValueError, match=message):
        choose(distances, own, images, **options)


def test_smoothing_weighs_a_value_twice_as_much_as_its_neighbours():
    assert smooth([0.0, 4.0, 0.0, 8.0]) == pytest.approx([4 / 3, 2.0, 3.0, 16 / 3])
    assert smooth([5.0]) == [5.0]
