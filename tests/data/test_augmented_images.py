import math
from collections import Counter

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from table_cases import any_features, is_valid
from torch import Tensor

from db3kd.data.augmented_images import AugmentedImages, uniforms
from db3kd.data.image_set import ImageSet
from db3kd.tables import Feature, Features

MIXED = Features(
    [
        Feature.continuous("size", 0, 1),
        Feature.integer("rooms", 0, 1000),
        Feature.categorical("colour", ["red", "white", "green"]),
    ]
)


def pictures(count: int = 6) -> Tensor:
    return torch.rand(count, 2, 5, 7, generator=torch.Generator().manual_seed(0))


@given(order=st.permutations(range(24)), size=st.integers(1, 24))
@examples(max_examples=20, deadline=None)
def test_an_image_does_not_depend_on_what_is_read_beside_it(order, size):
    augmented = AugmentedImages(pictures(), 4, seed=5)
    whole = augmented.read(torch.arange(24))
    parts = torch.cat([augmented.read(part) for part in torch.tensor(order).split(size)])
    assert torch.equal(parts, whole[torch.tensor(order)])


def test_augmented_images_are_a_sequence():
    augmented = AugmentedImages(pictures(), 4, seed=5)
    whole = augmented.read(torch.arange(24))
    assert torch.equal(torch.stack(list(augmented)), whole)
    assert torch.equal(augmented[-1], whole[23])


def test_the_first_image_of_a_sample_is_the_sample_itself():
    augmented = AugmentedImages(pictures(), 4, seed=5)
    assert len(augmented) == 24
    assert torch.equal(augmented.read(torch.arange(0, 24, 4)), pictures())


def test_images_stay_inside_the_bounds_and_differ():
    images = AugmentedImages(pictures(), 10, seed=5, noise=0.5).read(torch.arange(60))
    assert images.dtype == torch.float32
    assert images.shape == (60, 2, 5, 7)
    assert images.min() >= 0
    assert images.max() <= 1
    assert len(images.flatten(1).unique(dim=0)) == 60


def test_the_seed_decides_what_is_drawn():
    first, second = (AugmentedImages(pictures(), 2, seed=seed) for seed in (0, 1))
    assert not torch.equal(first.read(torch.tensor([1])), second.read(torch.tensor([1])))


def test_only_partners_are_mixed_into_others():
    images = torch.cat([torch.zeros(4, 1, 5, 5), torch.ones(2, 1, 5, 5)])
    augmented = AugmentedImages(images, 50, seed=0, noise=0, partners=4)
    of_partners, of_others = augmented.read(torch.arange(300)).split([200, 100])
    assert (of_partners == 0).all()
    assert of_others.amin() < 0.1


@pytest.mark.parametrize("partners", [0, 7])
def test_more_partners_than_samples_or_none_are_refused(partners):
    with pytest.raises(ValueError, match=f"partners: expected 1 to 6 samples, got {partners}"):
        AugmentedImages(pictures(), 4, seed=0, partners=partners)


def test_without_mixing_shifting_and_noise_nothing_changes():
    augmented = AugmentedImages(pictures(), 3, seed=0, mixup=0, shift=0, noise=0)
    assert torch.allclose(augmented.read(torch.arange(18)), pictures().repeat_interleave(3, 0))


def test_a_shift_moves_an_image_by_whole_pixels_within_reach_and_repeats_its_edges():
    image = torch.zeros(1, 1, 5, 10)
    image[0, 0, 2, 5] = 1
    image[0, 0, :, 0] = 0.5
    augmented = AugmentedImages(image, 200, seed=0, mixup=0, shift=0.2, noise=0)
    shifted = augmented.read(torch.arange(1, 200))[:, 0]
    _, rows, columns = (shifted == 1).nonzero(as_tuple=True)
    assert len(rows) == 199
    assert set(rows.tolist()) == {1, 2, 3}
    assert set(columns.tolist()) == {3, 4, 5, 6, 7}
    assert (shifted[columns == 7][:, :, :3] == 0.5).all()


def test_a_mixture_holds_at_most_the_share_allowed_of_another_sample():
    images = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    augmented = AugmentedImages(images, 500, seed=0, mixup=0.4, shift=0, noise=0)
    of_dark = augmented.read(torch.arange(1, 500))[:, 0, 0, 0]
    with_bright = of_dark[of_dark > 0]
    assert len(with_bright) > 495
    assert 0.35 < with_bright.max() <= 0.4


@pytest.mark.parametrize("partners", [1, 2, 5, 6])
def test_without_noise_no_image_is_mixed_with_itself(partners):
    images = torch.eye(6).view(6, 1, 1, 6)  # each sample has a pixel of its own
    augmented = AugmentedImages(images, 400, seed=0, shift=0, noise=0, partners=partners)
    for sample in range(6):
        numbers = torch.arange(1, 400) + 400 * sample
        share = augmented.read(numbers)[:, 0, 0].mean(0)
        others = [other for other in range(partners) if other != sample]
        assert share[sample] == pytest.approx(0.5 if others else 1, abs=0.05)
        for other in others:
            assert share[other] == pytest.approx(0.5 / len(others), abs=0.06)


def test_noise_has_the_standard_deviation_asked_for():
    images = torch.full((1, 1, 20, 20), 0.5)
    augmented = AugmentedImages(images, 50, seed=0, mixup=0, shift=0, noise=0.1)
    noise = augmented.read(torch.arange(1, 50)) - 0.5
    assert noise.std().item() == pytest.approx(0.1, rel=0.03)
    assert abs(noise.mean().item()) < 0.005


def test_draws_are_uniform_and_uncorrelated():
    samples, numbers = (grid.ravel() for grid in np.mgrid[0:60, 0:60])
    draws = uniforms(7, samples, numbers, 5)
    assert draws.dtype == np.float32
    assert draws.min() >= 0
    assert draws.max() < 1
    counts = np.histogram(draws, 20, (0, 1))[0]
    assert ((counts - 900) ** 2 / 900).sum() < 50  # chi-squared, 19 degrees: 43.8 at 0.1 %
    correlations = np.corrcoef(draws.T) - np.eye(5)
    assert abs(correlations).max() < 5 / math.sqrt(3600)
    between_samples = np.corrcoef(draws[:-60].ravel(), draws[60:].ravel())[0, 1]
    between_numbers = np.corrcoef(draws[:-1].ravel(), draws[1:].ravel())[0, 1]
    assert max(abs(between_samples), abs(between_numbers)) < 5 / math.sqrt(17000)


def test_rows_are_mixed_and_not_shifted():
    rows = torch.tensor([[0.0, 0.25, 1.0], [1.0, 0.25, 0.0]])
    augmented = AugmentedImages(rows, 300, seed=0, noise=0)
    mixed = augmented.read(torch.arange(1, 300))
    assert mixed.shape == (299, 3)
    assert torch.allclose(mixed[:, 1], torch.tensor(0.25))
    assert torch.allclose(mixed[:, 0] + mixed[:, 2], torch.tensor(1.0))
    mixtures = mixed[(mixed[:, 0] > 0), 0]
    assert len(mixtures) > 295
    assert mixtures.mean().item() == pytest.approx(0.5, abs=0.06)


def test_rows_of_a_table_keep_their_values_whole_when_they_are_mixed():
    table = np.array([[0, 100, "red"], [1, 800, "white"]], object)
    augmented = AugmentedImages(MIXED.encode(table), 2000, seed=0, noise=0, project=MIXED.project)
    of_first = torch.arange(1, 2000)
    rows = MIXED.decode(augmented.read(of_first))
    with_second = rows[rows[:, 0] > 0]
    assert set(with_second[:, 1]) == {100, 800}
    assert set(with_second[:, 2]) == {"red", "white"}
    # The features are drawn independently, each with the probability that is the weight.
    both = Counter(zip(with_second[:, 1], with_second[:, 2], strict=True))
    share = (both[800, "red"] + both[800, "white"]) / len(with_second)
    assert share == pytest.approx(0.5, abs=0.05)
    assert both[800, "red"] / len(with_second) == pytest.approx(1 / 6, abs=0.04)
    light = with_second[with_second[:, 0] < 0.1]
    assert (light[:, 1] == 100).mean() > 0.85


def test_noise_leaves_the_rows_of_a_table_valid():
    table = np.array([[0.5, 500, "red"]], object)
    augmented = AugmentedImages(MIXED.encode(table), 200, seed=0, project=MIXED.project)
    unit = augmented.read(torch.arange(200))
    assert torch.equal(MIXED.project(unit), unit)
    rows = MIXED.decode(unit)
    assert set(rows[:, 2]) == {"red"}
    assert rows[:, 1].astype(float).std() == pytest.approx(50, rel=0.2)


@given(features=any_features(), seed=st.integers(0, 1000), noise=st.floats(0, 0.5))
@examples(max_examples=40, deadline=None)
def test_mixtures_of_any_table_are_valid_rows(features, seed, noise):
    unit = torch.rand(4, *features.unit_shape, generator=torch.Generator().manual_seed(seed))
    rows = ImageSet.from_table(features.decode(unit), features=features)
    mixed = AugmentedImages(rows, 6, seed=seed, noise=noise).read(torch.arange(24))
    assert torch.equal(features.project(mixed), mixed)
    assert is_valid(features, features.decode(mixed))
    other = AugmentedImages(rows, 6, seed=seed, noise=noise).with_seed(seed + 1)
    assert torch.equal(features.project(fresh := other.read(torch.arange(24))), fresh)


def test_any_function_may_project():
    rows = torch.rand(4, 3, generator=torch.Generator().manual_seed(0))
    augmented = AugmentedImages(rows, 5, seed=0, project=torch.round)
    images = augmented.read(torch.arange(20))
    assert torch.equal(images[::5], rows)
    assert set(images[1:5].unique().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"queries_per_sample": 0}, "queries_per_sample: expected at least 1, got 0"),
        ({"mixup": 1.5}, "mixup: expected 0 to 1, got 1.5"),
        ({"shift": 1}, "shift: .*got 1"),
        ({"noise": -0.1}, "noise: .*got -0.1"),
        ({"noise": math.nan}, "noise: .*got nan"),
        ({"seed": -1}, "seed: .*got -1"),
        ({"images": torch.rand(3, 4, 4)}, r"images: expected \[N, channels, height, width\]"),
        ({"project": MIXED.project}, r"project: .*shape \(2, 5, 7\), got one of shape \(5,\)"),
    ],
)
def test_bad_arguments_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        AugmentedImages(**{"images": pictures(), "queries_per_sample": 4, "seed": 0, **arguments})
