"""New masked mixes of pseudo samples: reproducible, convex, and of two different samples."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from db3kd.data.image_source import TensorImages
from db3kd.synthesis.masked_mixes import MaskedMixes, mixing_weights

SHAPE = (3, 8, 8)


def constant(values: Tensor) -> TensorImages:
    """One image of each brightness."""
    return TensorImages(values.view(-1, 1, 1, 1).expand(-1, *SHAPE).contiguous())


def mixes(count: int = 9, seed: int = 0) -> MaskedMixes:
    images = TensorImages(torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1)))
    return MaskedMixes(images, torch.arange(count), torch.arange(count) % 3, seed)


@given(st.permutations(range(20)))
def test_a_mix_depends_on_its_number_alone(order):
    numbers = torch.tensor(order)

    assert mixes().read(numbers).equal(mixes().read(torch.arange(20))[numbers])


def test_steps_have_different_mixes_and_so_have_seeds():
    made = mixes()
    rows = torch.cat([made.rows(step, 7) for step in range(3)])

    read = made.read(rows).flatten(1)

    assert rows.unique().numel() == 21 and read.unique(dim=0).shape[0] == 21
    assert not read.equal(mixes(seed=1).read(rows).flatten(1))
    assert made.read(made.rows(4, 0)).shape == (0, *SHAPE)


def test_a_mix_shows_two_different_samples_and_lies_between_them():
    values = torch.tensor([0.0, 1.0])
    made = MaskedMixes(constant(values), torch.arange(2), torch.tensor([0, 1]), seed=3)

    cover = made.read(torch.arange(500))

    assert cover.min() >= 0 and cover.max() <= 1
    assert cover.std((1, 2, 3)).min() > 0, "none is a sample itself"
    assert cover.equal(cover[:, :1].expand_as(cover)), "all channels have the same mask"


def test_only_the_given_rows_are_mixed_as_often_as_their_weights_say():
    decisions = torch.tensor([0] * 30 + [1] * 3 + [2] * 7)
    values = torch.cat([torch.zeros(5), decisions / 2])
    made = MaskedMixes(constant(values), torch.arange(5, 45), decisions, seed=0)

    # A class is part of a mix if some pixel has its brightness, as masks reach 0 and 1 somewhere.
    read = made.read(torch.arange(4000))
    shares = torch.stack(
        [(read == value).flatten(1).any(1).float().mean() for value in (0, 0.5, 1)]
    )

    weight = mixing_weights(decisions)
    each = torch.zeros(3, dtype=torch.float64).index_add(0, decisions, weight) / weight.sum()
    assert shares.tolist() == pytest.approx((1 - (1 - each) ** 2).tolist(), abs=0.12)
