"""The transform of low-frequency directions: its sums have one order, for any basis."""

import numpy as np
import pytest
import torch
from native_reference import coefficients

from db3kd import ops
from db3kd.boundary.probes import dct_basis


def rounded(basis: torch.Tensor) -> torch.Tensor:
    """A basis of which one entry in the upper half is rounded otherwise than its mirror image."""
    basis = basis.clone()
    basis[1, 3] = torch.nextafter(basis[1, 3], torch.tensor(2.0))
    return basis


BASES = {
    "mirrored": dct_basis(16, 32),
    "mirrored, odd height": dct_basis(5, 27),
    "an odd number of frequencies": dct_basis(7, 32),
    "one frequency": dct_basis(1, 16),
    "one row rounded otherwise": rounded(dct_basis(8, 32)),
    "fewer pairs than a tile": dct_basis(2, 6),
    "zeros": torch.eye(16)[:4].contiguous(),
    "no symmetry": torch.linalg.qr(torch.randn(20, 20, generator=torch.Generator().manual_seed(0)))[
        0
    ][:9].contiguous(),
}


def added_in_order(weights: np.ndarray, source: np.ndarray) -> np.ndarray:
    """weights [m, n] @ source [n, k] in float32, each product and each sum rounded."""
    total = np.zeros((len(weights), source.shape[1]), np.float32)
    for k in range(len(source)):
        total = total + weights[:, k : k + 1] * source[k]
    return total


def direction_of_one_probe(noise, **basis):
    """The normalised direction of probe [3, 1, 2], `[D] float32`."""
    return ops.probe_gradient(
        torch.tensor([[1]]),
        torch.tensor([1]),
        torch.tensor([[3, 1, 2]]),
        targeted=True,
        seed=5,
        noise=noise,
        **basis,
    )[0].numpy()


@pytest.mark.parametrize("noise", ["rademacher", "gaussian"])
@pytest.mark.parametrize("name", BASES)
def test_products_are_rounded_and_added_in_the_order_of_frequencies(name, noise):
    row_basis, column_basis, channels = BASES[name], dct_basis(6, 20), 2
    shape = channels, len(row_basis), len(column_basis)
    components = channels * row_basis.size(1) * column_basis.size(1)
    gradient = direction_of_one_probe(
        noise,
        row_basis=row_basis,
        column_basis=column_basis,
        channels=channels,
        components=components,
    )
    # The direction of one probe, in any length: signs, or numbers that the op itself drew.
    if noise == "rademacher":
        drawn = coefficients(noise, 5, 0, [3, 1, 2], int(np.prod(shape)))
        drawn = np.sign(drawn).astype(np.float32) * np.float32(1 / np.sqrt(np.prod(shape)))
    else:
        drawn = direction_of_one_probe(noise, components=int(np.prod(shape)))
    pixels = np.stack(
        [
            added_in_order(row_basis.T.numpy(), added_in_order(block, column_basis.numpy()))
            for block in drawn.reshape(shape)
        ]
    ).reshape(-1)
    expected = pixels * np.float32(1 / np.sqrt((pixels.astype(np.float64) ** 2).sum()))
    if noise == "rademacher":
        assert np.array_equal(gradient, expected)
    else:  # its length was rounded once more
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", BASES)
def test_probes_lie_in_the_direction_that_the_gradient_adds_up(name):
    row_basis, column_basis = BASES[name], dct_basis(6, 20)
    size = 3 * row_basis.size(1) * column_basis.size(1)
    origins = torch.zeros(1, size)
    points = torch.rand(1, size, generator=torch.Generator().manual_seed(1))
    drawn = {
        "seed": 5,
        "noise": "rademacher",
        "row_basis": row_basis,
        "column_basis": column_basis,
        "channels": 3,
    }
    counters = torch.tensor([[3, 1, 2]])
    query = ops.probe_queries(
        origins, points, torch.tensor([0.5]), counters, count=1, lower=-9.0, upper=9.0, **drawn
    )
    direction = ops.probe_gradient(
        torch.tensor([[1]]), torch.tensor([1]), counters, targeted=True, components=size, **drawn
    )
    moved = points.double() + 0.5 * direction.double()
    expected = moved * points.double().norm() / moved.norm()
    torch.testing.assert_close(query.double(), expected, rtol=0, atol=1e-6)
