"""The fast gradients for the input of a convolution equal those of autograd."""

import copy

import pytest
import torch
from torch import nn

from db3kd.boundary.input_gradients import with_fast_input_gradients


def gradient(network, images):
    images = images.clone().requires_grad_()
    torch.manual_seed(1)
    scores = network(images)
    (found,) = torch.autograd.grad((scores * torch.randn_like(scores)).sum(), images)
    return scores.detach(), found


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(
    "layer",
    [
        lambda: nn.Conv2d(1, 5, 5),
        lambda: nn.Conv2d(3, 4, 3, padding=1),
        lambda: nn.Conv2d(3, 6, (3, 2), stride=(2, 3), padding=(1, 0), bias=False),
        lambda: nn.Conv2d(2, 4, 4, stride=3),
        lambda: nn.Conv2d(3, 6, 3, dilation=2),
        lambda: nn.Conv2d(3, 6, 3, groups=3),
        lambda: nn.Conv2d(3, 6, 3, padding="same"),
        lambda: nn.Conv2d(3, 6, 3, padding=1, padding_mode="reflect"),
        lambda: nn.Conv2d(8, 4, 3),
    ],
)
def test_scores_and_gradients_equal_those_of_autograd(layer, dtype):
    torch.manual_seed(0)
    network = nn.Sequential(layer(), nn.ReLU(), nn.MaxPool2d(2)).to(dtype).requires_grad_(False)
    images = torch.randn(3, network[0].in_channels, 13, 12, dtype=dtype)
    scores, expected = gradient(network, images)
    other, found = gradient(with_fast_input_gradients(copy.deepcopy(network)), images)
    assert torch.equal(scores, other)
    torch.testing.assert_close(found, expected)


def test_an_images_gradient_does_not_depend_on_its_place_in_the_batch():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(1, 10, 5), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4))
    network(torch.zeros(1, 1, 16, 16))
    network = with_fast_input_gradients(network.requires_grad_(False))
    image, images = torch.randn(1, 16, 16), torch.randn(64, 1, 16, 16)
    found = []
    for place in (0, 1, 30, 63):
        torch.manual_seed(2)
        images = torch.randn(64, 1, 16, 16)
        images[place] = image
        images.requires_grad_()
        (every,) = torch.autograd.grad(network(images).sum(), images)
        found.append(every[place])
    assert all(torch.equal(found[0], other) for other in found)
