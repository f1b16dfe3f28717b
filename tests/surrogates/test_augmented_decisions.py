import pytest
import torch

from db3kd.data.augmented_images import AugmentedImages
from db3kd.surrogates.augmented_decisions import rows_with_clean_share


@pytest.mark.parametrize(("clean_share", "expected"), [(0, 1), (0.5, 9), (0.25, 3)])
def test_clean_images_take_their_share_of_the_rows(clean_share, expected):
    images = AugmentedImages(torch.rand(20, 1, 4, 4), 10, seed=0)
    counts = torch.bincount(rows_with_clean_share(images, clean_share))
    assert (counts[::10] == expected).all()
    assert (counts.view(20, 10)[:, 1:] == 1).all()
