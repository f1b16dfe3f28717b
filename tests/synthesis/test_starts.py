"""The distributions that pseudo samples start from."""

import hashlib
import math
import os
import subprocess
import sys
from functools import cache
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from db3kd.boundary.probes import dct_basis
from db3kd.synthesis import fields, palettes
from db3kd.synthesis.random_draws import Draws
from db3kd.synthesis.settings import SynthesisSettings
from db3kd.synthesis.starts import STARTS, make_starts

GREY, COLOUR = (1, 28, 28), (3, 16, 20)
TEXTURED = ("shapes", "strokes", "blends")
PALETTES = ("palettes", "collages")
SMOOTH = ("low-frequency", *TEXTURED, *PALETTES, "mixed")
FAMILIES = ("paper", "low-frequency", *TEXTURED, *PALETTES)
MIXED = {
    1: ("shapes", "blends", "strokes", "low-frequency"),
    3: ("palettes", "collages", "blends", "low-frequency"),
}


@cache
def drawn(name: str, shape: tuple[int, ...] = GREY, count: int = 400, seed: int = 5) -> Tensor:
    """Returns the first images as [count, *shape] float32 in [0, 1]."""
    return make_starts(name, shape, seed).draw(torch.arange(count)).float() / 255


def correlation(left: Tensor, right: Tensor) -> float:
    """Returns the correlation between the mean pixels of images with the same number."""
    pixels = torch.stack([left.flatten(1).mean(1), right.flatten(1).mean(1)])
    return float(torch.corrcoef(pixels)[0, 1])


def spectrum(images: Tensor) -> Tensor:
    """Returns [H, W], the mean energy of each DCT frequency; the mean itself has none."""
    rows, columns = (dct_basis(size, size) for size in images.shape[2:])
    energy = (rows @ images @ columns.T).square().mean((0, 1))
    energy[0, 0] = 0
    return energy


def low_share(images: Tensor) -> float:
    """Returns the share of energy in the lowest quarter of the frequencies of each direction."""
    energy = spectrum(images)
    height, width = energy.shape
    return float(energy[: height // 4, : width // 4].sum() / energy.sum())


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("shape", [(1, 4, 4), (2, 5, 40), (4, 33, 7), GREY, COLOUR])
def test_starts_are_uint8_images_of_the_given_shape(name, shape):
    starts = make_starts(name, shape, 0)
    images = starts.draw(torch.arange(9))
    assert images.shape == (9, *shape)
    assert images.dtype == torch.uint8
    assert starts.draw(torch.arange(0)).shape == (0, *shape)
    assert (starts.name, starts.image_shape) == (name, shape)


def test_mixed_starts_are_the_default():
    assert SynthesisSettings().starts == "mixed"
    assert "mixed" in STARTS


def test_the_command_line_lists_the_same_names():
    options = pytest.importorskip("db3kd.cli.commands.synthesize")
    assert options.STARTS == STARTS


@settings(max_examples=20)
@given(
    name=st.sampled_from(STARTS),
    shape=st.sampled_from([(1, 8, 9), (3, 9, 8), (1, 60, 50)]),
    seed=st.integers(0, 2**63 - 1),
    index=st.lists(st.integers(0, 400) | st.integers(0, 2**62), min_size=1, max_size=5),
)
def test_a_start_depends_on_its_own_number_alone(name, shape, seed, index):
    together = make_starts(name, shape, seed).draw(torch.tensor(index))
    starts = make_starts(name, shape, seed)
    for number, image in reversed(list(zip(index, together, strict=True))):
        assert torch.equal(starts.draw(torch.tensor([number]))[0], image)


@pytest.mark.parametrize("name", STARTS)
def test_images_depend_on_neither_order_nor_batches(name):
    starts = make_starts(name, (3, 8, 9), 3)
    in_order = starts.draw(torch.arange(300))
    shuffled = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    assert torch.equal(starts.draw(shuffled), in_order[shuffled])
    assert torch.equal(torch.cat([starts.draw(p) for p in torch.arange(300).split(70)]), in_order)


def test_callers_may_change_the_images_they_receive():
    starts = make_starts("mixed", COLOUR, 3)
    first = starts.draw(torch.arange(8))
    kept = first.clone()
    first.zero_()
    assert torch.equal(starts.draw(torch.arange(8)), kept)


def digest_of_starts() -> str:
    digest = hashlib.sha256()
    for name in STARTS:
        for shape in (GREY, (3, 224, 224)):
            images = make_starts(name, shape, 1).draw(torch.arange(4))
            digest.update(images.numpy().tobytes())
    return digest.hexdigest()


def test_another_process_with_other_threads_draws_the_same():
    threads = "1" if torch.get_num_threads() > 1 else "2"
    limits = {f"{library}_NUM_THREADS": threads for library in ("OMP", "MKL", "OPENBLAS")}
    other = subprocess.run(
        [sys.executable, "-c", "import test_starts; print(test_starts.digest_of_starts())"],
        cwd=Path(__file__).parent,
        env={**os.environ, **limits, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == digest_of_starts()


def test_fields_do_not_depend_on_the_order_of_summation():
    """Fields are therefore the same for any number of threads."""
    steps = np.random.default_rng(0).standard_normal((8, 1, 41, 41))
    steps = np.rint(steps / np.sqrt(np.square(steps).sum((2, 3), keepdims=True)) * 2**16)
    forwards = fields._inverse_dct(steps, 224, 50)
    cosines = [fields._cosines(41, size)[::-1] for size in (224, 50)]
    backwards = np.einsum("ncij,iy,jx->ncyx", steps[:, :, ::-1, ::-1], *cosines) / 2**16
    assert np.array_equal(forwards, backwards.astype(np.float32))


@pytest.mark.parametrize("name", FAMILIES)
def test_seeds_are_independent(name):
    images, others = (drawn(name, (1, 8, 8), 2000, seed) for seed in (0, 1))
    assert abs(correlation(images, others)) < 4 / math.sqrt(2000)
    assert not (images == others).flatten(1).all(1).any()


@pytest.mark.parametrize(("name", "other"), list(combinations(FAMILIES, 2)))
def test_families_are_independent(name, other):
    images, others = (drawn(family, (1, 8, 8), 2000, 0) for family in (name, other))
    assert abs(correlation(images, others)) < 4 / math.sqrt(2000)


@pytest.mark.parametrize("name", FAMILIES)
def test_starts_far_apart_are_independent(name):
    starts = make_starts(name, (1, 8, 8), 0)
    images, later = (starts.draw(first + torch.arange(2000)) for first in (0, 2**40))
    assert abs(correlation(images.float(), later.float())) < 4 / math.sqrt(2000)


def test_image_shapes_are_independent():
    images, wider = drawn("shapes", (1, 8, 8), 2000), drawn("shapes", (1, 8, 9), 2000)
    assert abs(correlation(images, wider)) < 4 / math.sqrt(2000)


@pytest.mark.parametrize("name", STARTS)
@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_images_differ_in_brightness_and_contrast(name, shape):
    pixels = drawn(name, shape).flatten(1)
    assert len(pixels.unique(dim=0)) > 0.98 * len(pixels)
    pixels, contrasts = pixels.mean(1), pixels.std(1)
    assert pixels.std() > 0.08
    assert contrasts.std() > 0.05
    assert (contrasts > 0.02).float().mean() > 0.9


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("shape", [GREY, COLOUR])
def test_smooth_starts_have_more_energy_in_low_frequencies_than_paper_noise(name, shape):
    assert low_share(drawn("paper", shape)) < 0.1
    assert low_share(drawn(name, shape)) > 0.5


@pytest.mark.parametrize("name", SMOOTH)
def test_a_larger_image_shows_the_same_scenes(name):
    """Frequencies and widths are relative to the size of the image."""
    small, large = drawn(name, (1, 16, 16), 800), drawn(name, (1, 48, 48), 800)
    shrunk = torch.nn.functional.avg_pool2d(large, 3)
    for low, high in ((0.05, 0.35), (0.35, 0.65), (0.65, 0.95)):
        pixels = torch.tensor([low, (low + high) / 2, high])
        sizes = [torch.quantile(images.flatten(1).mean(1), pixels) for images in (small, shrunk)]
        assert torch.allclose(*sizes, atol=0.07)
    shares = [spectrum(images)[:4, :4].sum() / spectrum(images).sum() for images in (small, shrunk)]
    assert torch.allclose(*shares, atol=0.07)


def test_paper_noise_has_the_moments_of_the_paper():
    """Checks the moments of images with rarely clamped pixels, which have a small b."""
    images = drawn("paper", (1, 40, 40), 2000).flatten(1)
    quiet = images[(images.std(1) < 0.2) & (images.amin(1) > 0)]
    assert len(quiet) > 20
    # If b is 0, the mean is 0.7 a and the deviation a / sqrt(12). A larger b adds to the deviation.
    assert (quiet.std(1) > 0.95 * quiet.mean(1) / 0.7 / math.sqrt(12)).all()
    assert 0.35 < images.mean() < 0.45


def test_pixels_of_paper_noise_are_uncorrelated():
    images = drawn("paper", (500,), 2000)
    centred = images - images.mean(1, keepdim=True)
    neighbours = (centred[:, 1:] * centred[:, :-1]).mean() / centred.square().mean()
    assert abs(neighbours) < 0.01


@pytest.mark.parametrize("name", TEXTURED)
def test_most_backgrounds_are_dark_and_some_are_bright(name):
    images = drawn(name, GREY, 1000)
    border = torch.cat([images[:, 0, 0], images[:, 0, -1]], 1).median(1).values
    dark, bright = (border < 0.1).float().mean(), (border > 0.9).float().mean()
    assert 0.5 < dark < 0.85
    assert 0.07 < bright < 0.35


def test_low_frequency_starts_are_as_often_dark_as_bright():
    pixels = drawn("low-frequency", GREY, 1000).flatten(1).mean(1)
    assert 0.45 < pixels.mean() < 0.55
    assert abs(float((pixels < 0.3).float().mean() - (pixels > 0.7).float().mean())) < 0.08


def test_half_of_the_shapes_have_mirrored_outlines():
    """Only outlines are mirrored, not textures."""
    masks = drawn("shapes", GREY, 1000)[:, 0] > 0.04
    share = masks.float().mean((1, 2))
    masks = masks[(share > 0.1) & (share < 0.5)]
    uneven = (masks != masks.flip(2)).float().mean((1, 2)) / masks.float().mean((1, 2))
    assert 0.25 < (uneven < 0.05).float().mean() < 0.75


def test_strokes_are_thinner_than_shapes():
    """Erosion by one pixel removes more of a stroke than of a shape on a dark background."""
    left = {}
    for name in ("shapes", "strokes"):
        images = drawn(name, GREY, 1000)
        inside = (images > 0.15).float()
        inside = inside[(inside.mean((1, 2, 3)) > 0.02) & (inside.mean((1, 2, 3)) < 0.4)]
        eroded = -torch.nn.functional.max_pool2d(-inside, 3, 1, 1)
        left[name] = float(eroded.sum() / inside.sum())
    assert left["strokes"] < left["shapes"] - 0.1


@given(
    channels=st.sampled_from([1, 3]),
    index=st.lists(st.integers(0, 10**6), min_size=1, max_size=6),
)
def test_mixed_starts_take_families_in_turn(channels, index):
    images = make_starts("mixed", (channels, 6, 7), 2).draw(torch.tensor(index))
    for number, image in zip(index, images, strict=True):
        family = make_starts(MIXED[channels][number % 4], (channels, 6, 7), 2)
        assert torch.equal(family.draw(torch.tensor([number // 4]))[0], image)


def test_colours_go_from_grey_to_saturated():
    images = drawn("low-frequency", COLOUR, 1000)
    spread = (images.amax(1) - images.amin(1)).mean((1, 2))
    assert (spread < 0.08).float().mean() > 0.02
    assert (spread > 0.4).float().mean() > 0.05


def test_colours_of_a_palette_texture_lie_on_few_lines():
    """Between two neighbouring colours of a palette, pixels are mixtures of the two."""
    draws = Draws(np.random.default_rng(0), 50)
    colours = palettes._palette(draws, 3)
    position = draws.uniform(0, 1, (1, 9, 11))
    images = palettes._through_palette(position, colours)

    for image, places, palette in zip(images, position[:, 0], colours[..., 0, 0], strict=True):
        for channel, pixels in enumerate(image):
            expected = np.interp(places, np.linspace(0, 1, len(palette)), palette[:, channel])
            assert np.allclose(pixels, expected, atol=1e-5)
    assert colours.min() >= 0 and colours.max() <= 1


def test_palettes_are_alike_to_far_apart_and_grey_to_saturated():
    colours = palettes._palette(Draws(np.random.default_rng(1), 2000), 3)[..., 0, 0]
    apart = np.ptp(colours, axis=1).max(1)
    saturation = np.ptp(colours, axis=2).mean(1)
    assert (apart < 0.2).mean() > 0.05 and (apart > 0.7).mean() > 0.1
    assert (saturation < 0.1).mean() > 0.05 and (saturation > 0.7).mean() > 0.05


def test_greys_and_colours_of_palettes_reach_black_and_white():
    for channels in (1, 2, 3, 4):
        colours = palettes._palette(Draws(np.random.default_rng(1), 2000), channels)
        assert colours.shape == (2000, 4, channels, 1, 1)
        assert colours.min() >= 0 and colours.max() <= 1
        brightness = colours.mean((1, 2, 3, 4))
        assert (brightness < 0.2).mean() > 0.05 and (brightness > 0.8).mean() > 0.03


def test_gradients_are_ramps_from_gentle_to_edges():
    ramps = palettes._gradient(Draws(np.random.default_rng(2), 500), 32, 32)[:, 0]
    steps = [np.diff(ramps, axis=axis) for axis in (1, 2)]
    # A ramp rises or falls along each axis, and never turns.
    for step in steps:
        assert ((step >= -1e-6).all((1, 2)) | (step <= 1e-6).all((1, 2))).all()
    largest = np.maximum(*(np.abs(step).max((1, 2)) for step in steps))
    assert (largest < 0.05).mean() > 0.2 and (largest > 0.2).mean() > 0.1


def test_mixed_colour_starts_reach_every_colour_of_the_spectrum():
    """The teacher is a rule: the nearest of eleven colours to the mean of an image."""
    colours = {"red": (0.8, 0.2, 0.2), "orange": (0.8, 0.5, 0.2), "yellow": (0.8, 0.8, 0.2),
               "green": (0.2, 0.8, 0.2), "cyan": (0.2, 0.8, 0.8), "blue": (0.2, 0.2, 0.8),
               "violet": (0.5, 0.2, 0.8), "magenta": (0.8, 0.2, 0.8), "black": (0, 0, 0),
               "grey": (0.5, 0.5, 0.5), "white": (1, 1, 1)}  # fmt: skip
    means = drawn("mixed", (3, 32, 32), 4000).mean((2, 3))
    nearest = torch.cdist(means, torch.tensor(list(colours.values()), dtype=torch.float32))
    shares = torch.bincount(nearest.argmin(1), minlength=len(colours)) / len(means)
    assert shares.min() > 0.01, dict(zip(colours, shares.tolist(), strict=True))


@pytest.mark.parametrize("name", PALETTES)
def test_palettes_and_collages_fill_the_image(name):
    images = drawn(name, COLOUR, 1000)
    assert (images.flatten(1).amax(1) < 0.02).float().mean() < 0.02
    dark, bright = ((images.mean((1, 2, 3)) < 0.3), (images.mean((1, 2, 3)) > 0.7))
    assert dark.float().mean() > 0.05 and bright.float().mean() > 0.03


@pytest.mark.parametrize("name", TEXTURED)
def test_channels_share_the_shape(name):
    """A black background is black in every channel."""
    black = drawn(name, COLOUR, 300) < 0.02
    everywhere, anywhere = black.all(1).float().mean(), black.any(1).float().mean()
    assert everywhere > 0.7 * anywhere


@given(
    correlation=st.floats(0, 1),
    seed=st.integers(0, 100),
    shape=st.sampled_from([(1, 4, 4), (3, 28, 28), (4, 9, 60)]),
)
def test_fields_have_mean_zero_and_deviation_one(correlation, seed, shape):
    draws = Draws(np.random.default_rng(seed), 5)
    images = fields.field(draws, shape, 1, 20, channel_correlation=np.float32(correlation))
    assert images.shape == (5, *shape)
    assert images.dtype == np.float32
    assert np.allclose(images.mean((2, 3)), 0, atol=1e-3)
    assert np.allclose(images.std((2, 3)), 1, atol=1e-3)


def test_a_field_has_no_frequency_above_its_cut_off():
    images = fields.field(Draws(np.random.default_rng(0), 50), (1, 32, 32), 3, 3)
    energy = spectrum(torch.from_numpy(images))
    assert energy[7:].sum() < 1e-5 * energy.sum()
    assert energy[:, 7:].sum() < 1e-5 * energy.sum()


def test_only_paper_starts_accept_flat_images():
    assert make_starts("paper", (784,), 0).draw(torch.arange(3)).shape == (3, 784)
    with pytest.raises(ValueError, match=r"\(784,\); the starts 'paper' accept any shape"):
        make_starts("mixed", (784,), 0)


@pytest.mark.parametrize("shape", [(5, 28, 28), (1, 3, 28), (1, 28, 3), (28, 28), (1, 1, 28, 28)])
@pytest.mark.parametrize("name", SMOOTH)
def test_smooth_starts_refuse_shapes_that_are_not_images(name, shape):
    with pytest.raises(ValueError, match="image_shape: expected"):
        make_starts(name, shape, 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("noise", GREY, 0), "name: expected one of paper, .*, got 'noise'"),
        (("mixed", (0, 28, 28), 0), "image_shape: expected positive integers"),
        (("mixed", GREY, -1), "seed: expected an integer of at least 0"),
        (("mixed", GREY, 2**63), "seed: expected an integer"),
        (("mixed", GREY, 0.5), "seed: expected an integer"),
    ],
)
def test_bad_arguments_are_named(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        make_starts(*arguments)


@pytest.mark.parametrize("name", ["paper", "mixed"])
@pytest.mark.parametrize(
    "index", [torch.tensor([3, -1]), torch.tensor([0.5]), torch.zeros(2, 2, dtype=torch.int64)]
)
def test_invalid_image_numbers_are_refused(name, index):
    with pytest.raises(ValueError, match=r"index: expected \[n\] int64 numbers of at least 0"):
        make_starts(name, GREY, 0).draw(index)
