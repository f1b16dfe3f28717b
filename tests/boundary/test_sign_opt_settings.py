"""Settings of Sign-OPT, and the directions of its probes."""

import pytest
import torch

from db3kd.boundary import SignOptSettings
from db3kd.boundary.probes import dct_basis


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"probes": 0}, "probes: expected an integer of at least 1, got 0"),
        ({"noise": "uniform"}, "noise: expected one of rademacher, gaussian, got 'uniform'"),
        ({"rounds": 65_537}, "rounds: expected at most 65,536, got 65,537"),
        ({"steps": ()}, "steps: expected at least one positive length"),
        ({"momentum": 1.0}, r"momentum.*in \[0, 1\)"),
        ({"trust": 1.5}, "trust: expected 0 < least_gain <= tolerance < trust / 2 < 0.5"),
        (
            {"frequencies": 0},
            "frequencies: expected 'auto', None or an integer of at least 1",
        ),
    ],
)
def test_invalid_settings_are_refused(change, message):
    with pytest.raises(ValueError, match=message):
        SignOptSettings(**change)


def test_a_list_of_steps_gives_the_same_settings():
    assert SignOptSettings(steps=[0.1, 0.4]) == SignOptSettings(steps=(0.1, 0.4))


def test_low_frequencies_need_images_with_height_and_width():
    with pytest.raises(ValueError, match="frequencies: expected None, as images of shape"):
        SignOptSettings(frequencies=4).directions((10,), 0)


def test_probes_start_with_low_frequencies_and_end_with_all_pixels():
    drawn = [
        SignOptSettings().directions((3, 224, 112), number).frequencies for number in range(60)
    ]
    assert drawn[0] == 67 and drawn[39] == 223
    assert drawn[:40] == sorted(drawn[:40]) and drawn[40:] == [None] * 20
    constant = SignOptSettings(frequencies=9).directions((3, 32, 32), 30)
    assert constant.frequencies == 9
    assert SignOptSettings().directions((1, 8, 8), 0).frequencies is None


def test_the_dct_basis_is_orthonormal_and_its_first_row_is_constant():
    basis = dct_basis(5, 12)
    torch.testing.assert_close(basis @ basis.T, torch.eye(5), atol=1e-6, rtol=0)
    assert float(basis[0].std()) == pytest.approx(0, abs=1e-7)
