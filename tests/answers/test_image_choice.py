"""What is asked next: distinct images, none of them twice, and those that proxies find hardest."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from db3kd.answers import image_choice
from db3kd.answers.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.answers.batches import mean_probabilities, probabilities_by_batch
from db3kd.answers.image_choice import choose_rows, held_out_rows

HELD_OUT = 3


def nothing_asked(training: int) -> Answers:
    total = training + HELD_OUT
    pixels = torch.rand(total, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    return no_answers(augmentable_images(pixels, torch.arange(total), HELD_OUT, seed=0))


def asked(answers: Answers, rows: Tensor) -> Answers:
    return answers.add(rows, torch.zeros_like(rows))


def proxies() -> list[nn.Module]:
    torch.manual_seed(0)
    return [nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).eval() for _ in range(2)]


def gaps(answers: Answers, rows: Tensor, networks: list[nn.Module]) -> Tensor:
    """The gap between the two most likely classes, computed image by image."""
    found = []
    for row in rows:
        first, second = sorted(
            mean_probabilities(networks, answers.images.read(row[None]))[0].tolist(), reverse=True
        )[:2]
        found.append(first - second)
    return torch.tensor(found)


@given(
    training=st.integers(1, 30),
    counts=st.lists(st.integers(1, 60), min_size=1, max_size=4),
    with_proxies=st.booleans(),
    seed=st.integers(0, 100),
)
def test_rounds_choose_distinct_training_images_and_samples_first(
    training, counts, with_proxies, seed
):
    answers = nothing_asked(training)
    networks = proxies() if with_proxies else []
    for number, count in enumerate(counts):
        left = training - int(answers.is_clean.sum())
        rows = choose_rows(answers, networks, count, seed, number)

        assert len(rows) == count == len(rows.unique())
        assert rows.equal(rows.sort().values)
        assert int(rows.min()) >= 0 and int(rows.max()) < training * NUMBERS
        assert not torch.isin(rows, answers.rows).any(), "no image is asked about twice"
        assert int((rows % NUMBERS == 0).sum()) == min(count, left)
        answers = asked(answers, rows)


def test_a_choice_depends_on_seed_and_round_alone():
    answers, networks = nothing_asked(40), proxies()
    torch.manual_seed(5)
    first = choose_rows(answers, networks, 60, 1, 2)
    torch.manual_seed(6)
    assert choose_rows(answers, networks, 60, 1, 2).equal(first)
    assert not choose_rows(answers, networks, 60, 1, 3).equal(first)
    assert not choose_rows(answers, networks, 60, 2, 2).equal(first)


def test_the_samples_chosen_are_the_least_sure_of_all_unasked_ones():
    answers = asked(nothing_asked(40), torch.arange(0, 40, 4) * NUMBERS)
    networks = proxies()
    unasked = torch.tensor([row for row in range(40) if row % 4]) * NUMBERS
    order = gaps(answers, unasked, networks).argsort()

    rows = choose_rows(answers, networks, 7, 0, 1)

    assert rows.equal(unasked[order[:7]].sort().values)


@pytest.mark.parametrize("batch", [16, 512])
def test_the_augmented_images_chosen_are_the_least_sure_of_the_proposals(monkeypatch, batch):
    monkeypatch.setattr("db3kd.answers.batches.batch_of_forward", lambda *_: batch)
    answers = asked(nothing_asked(20), torch.arange(20) * NUMBERS)
    networks, read = proxies(), answers.images.read
    proposed: list[Tensor] = []
    with monkeypatch.context() as patch:
        patch.setattr(answers.images, "read", lambda rows: [proposed.append(rows), read(rows)][1])
        rows = choose_rows(answers, networks, 25, 0, 1)

    proposals = torch.cat(proposed[1:])  # the first image read decides the batch size
    assert len(proposals) == 25 * image_choice._PROPOSALS == len(proposals.unique())
    certainty = gaps(answers, proposals, networks)
    assert rows.equal(proposals[certainty.argsort()[:25]].sort().values)


@pytest.mark.parametrize(
    ("count", "asked_samples"), [(2, 0), (2, 30), (5, 0), (40, 0), (45, 10), (25, 40)]
)
def test_the_number_of_ranked_proposals_is_known_before(monkeypatch, count, asked_samples):
    answers = asked(nothing_asked(40), torch.arange(asked_samples) * NUMBERS)
    ranked = []

    def counted(networks, images, rows):
        ranked.append(len(rows))
        return probabilities_by_batch(networks, images, rows)

    monkeypatch.setattr(image_choice, "probabilities_by_batch", counted)
    choose_rows(answers, proxies(), count, 0, 1)
    assert sum(ranked) == image_choice.proposals_to_rank(count, 40 - asked_samples)


def test_the_ranking_shows_its_progress_and_a_random_choice_shows_none(capsys):
    answers = asked(nothing_asked(20), torch.arange(20) * NUMBERS)
    choose_rows(answers, proxies(), 25, 0, 1, title="ranking rows", progress=True)
    shown = capsys.readouterr().err
    assert "ranking rows" in shown and "100/100 proposals" in shown
    choose_rows(answers, [], 25, 0, 1, progress=True)
    assert not capsys.readouterr().err


def test_without_proxies_the_choice_covers_the_samples_evenly():
    answers = asked(nothing_asked(10), torch.arange(10) * NUMBERS)
    rows = choose_rows(answers, [], 5000, 0, 0)
    counts = torch.bincount(rows // NUMBERS, minlength=10)
    assert int(counts.min()) > 400 and int(counts.max()) < 600


def test_ten_images_and_a_single_one_are_enough():
    for training in (7, 1):
        answers = nothing_asked(training)
        rows = choose_rows(answers, proxies(), 200, 0, 0)
        assert len(rows.unique()) == 200
        more = choose_rows(asked(answers, rows), proxies(), 300, 0, 1)
        assert not torch.isin(more, rows).any()


def test_held_out_rows_are_all_held_out_samples_and_distinct_images_of_them():
    images = nothing_asked(9).images
    rows = held_out_rows(images, 500, seed=4)

    assert len(rows.unique()) == len(rows) == HELD_OUT + 500
    assert set((rows // NUMBERS).tolist()) == {9, 10, 11}
    assert rows[:HELD_OUT].equal(torch.arange(9, 12) * NUMBERS)
    assert bool((rows[HELD_OUT:] % NUMBERS > 0).all())
    assert rows.equal(held_out_rows(images, 500, seed=4))
    assert held_out_rows(images, 0, seed=4).equal(rows[:HELD_OUT])
