"""The answers of a teacher: their rows, and what is held out."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from db3kd.answers.answers import NUMBERS, Answers, augmentable_images, no_answers
from db3kd.data.image_set import ImageSet

SAMPLES, HELD_OUT = 12, 4


def flat_images(samples: int = SAMPLES) -> torch.Tensor:
    """Images of one value each, so that a mixture shows what it was mixed from."""
    return torch.linspace(0, 1, samples).view(-1, 1, 1, 1).expand(-1, 1, 4, 4).contiguous()


def some_answers() -> Answers:
    """Answers for samples 3, 9 and 11 and for augmented images of samples 0 and 10."""
    images = augmentable_images(flat_images(), torch.arange(SAMPLES), HELD_OUT, seed=0)
    samples, numbers = torch.tensor([3, 9, 11, 0, 10]), torch.tensor([0, 0, 0, 5, NUMBERS - 1])
    return no_answers(images).add(samples * NUMBERS + numbers, torch.tensor([2, 0, 1, 1, 2]))


def test_a_row_names_a_sample_and_the_number_of_its_image():
    answers = some_answers()

    assert answers.samples.tolist() == [3, 9, 11, 0, 10]
    assert answers.is_clean.tolist() == [True, True, True, False, False]
    assert answers.is_held_out.tolist() == [False, True, True, False, True]
    assert answers.clean.decisions.tolist() == [2, 0, 1]
    assert answers.training.samples.tolist() == [3, 0]
    assert answers.held_out.samples.tolist() == [9, 11, 10]
    assert answers.held_out.clean.decisions.tolist() == [0, 1]
    assert len(answers.training) + len(answers.held_out) == len(answers) == 5


def test_answers_are_added_in_order_and_none_changes():
    answers = some_answers()
    more = answers.add(torch.tensor([7 * NUMBERS]), torch.tensor([3]))

    assert len(answers) == 5 and len(more) == 6
    assert more.rows[:5].equal(answers.rows) and more.decisions[-1] == 3
    assert "6 decisions, of which 3 are held out, for 12 samples" in repr(more)
    assert len(no_answers(answers.images)) == 0


def test_the_source_of_answers_reads_them_in_their_order():
    answers = some_answers()
    source = answers.as_source()

    assert len(source) == 5
    assert source.read(torch.tensor([4, 0, 1])).equal(answers.images.read(answers.rows[[4, 0, 1]]))
    assert source.read(torch.tensor([0])).equal(flat_images()[3:4])


def test_an_order_renames_the_samples_of_tensors_and_image_sets_alike():
    order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(0))
    pixels = flat_images()
    image_set = ImageSet.from_arrays(pixels.numpy())
    rows = torch.cat([torch.arange(SAMPLES) * NUMBERS, torch.arange(SAMPLES) * NUMBERS + 77])

    first = augmentable_images(pixels, order, HELD_OUT, seed=3)
    second = augmentable_images(image_set, order, HELD_OUT, seed=3)

    assert first.read(rows[:SAMPLES]).equal(pixels[order])
    assert first.read(rows).equal(second.read(rows))
    assert first.partners == SAMPLES - HELD_OUT


def test_augmented_images_of_flat_ones_are_flat_because_they_have_no_noise():
    images = augmentable_images(flat_images(), torch.arange(SAMPLES), HELD_OUT, seed=0)
    read = images.read(torch.arange(SAMPLES) * NUMBERS + 5).flatten(1)
    assert read.equal(read[:, :1].expand_as(read))


@given(
    held_out=st.integers(1, SAMPLES - 1),
    seed=st.integers(0, 2**40),
    numbers=st.lists(st.integers(1, NUMBERS - 1), min_size=1, max_size=20),
)
def test_no_held_out_sample_is_mixed_into_an_image_of_a_training_sample(held_out, seed, numbers):
    # Held-out images are white and training images dark, so that any mixture would be seen.
    training = SAMPLES - held_out
    pixels = torch.full((SAMPLES, 1, 4, 4), 0.1)
    pixels[training:] = 1.0
    images = augmentable_images(pixels, torch.arange(SAMPLES), held_out, seed)
    samples = torch.arange(training).repeat_interleave(len(numbers))

    read = images.read(samples * NUMBERS + torch.tensor(numbers).repeat(training))

    torch.testing.assert_close(read, torch.full_like(read, 0.1))
