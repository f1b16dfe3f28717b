import copy

import pytest
import torch
from torch import nn

from db3kd.models.channels_last import to_channels_last


@pytest.mark.parametrize("channels", [1, 3], ids=["grey", "colour"])
def test_convolutions_answer_with_their_channels_last(channels):
    network = nn.Sequential(
        nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 6, 3)
    )
    images = torch.rand(2, channels, 12, 14)

    laid_out = to_channels_last(copy.deepcopy(network))

    torch.testing.assert_close(laid_out(images), network(images))
    first = laid_out[0](images)
    assert first.is_contiguous(memory_format=torch.channels_last)
    assert not first.is_contiguous()
