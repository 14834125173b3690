"""Weights by the noise level, against the formulas in noise levels themselves."""

from collections.abc import Callable

import pytest
import torch

from onestep.methods.core.noise_weighting import DataWeighting, InverseGap
from onestep.methods.core.pair_times import KarrasSpacing
from onestep.methods.core.weighting import DenoiserWeighting
from onestep.tests.methods.consistency import karras_times

S = torch.tensor([0.05, 0.4, 0.9], dtype=torch.float64)
T = torch.tensor([0.06, 0.6, 1.0], dtype=torch.float64)
ONE = torch.ones(3, dtype=torch.float64)


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_the_inverse_gap_is_that_of_the_noise_levels(power: float) -> None:
    gap = (1.0 - S) / S - (1.0 - T) / T
    torch.testing.assert_close(InverseGap(power=power)(2.0 * ONE, S, T), 2.0 * gap**-power)


def test_the_inverse_gaps_of_eleven_points_are_those_of_the_card() -> None:
    """From small to large noise; the first interval ends at the data here, at 0.002 there."""
    card = [67.93, 14.63, 4.288, 1.545, 0.6452, 0.3009, 0.1528, 0.0831, 0.0478, 0.0288]
    theirs = torch.tensor(karras_times(11), dtype=torch.float64)
    found = InverseGap()(torch.ones(10, dtype=torch.float64), theirs[:-1], theirs[1:]).flip(0)
    assert found.tolist() == pytest.approx(card, rel=2e-3)
    knots = torch.tensor(KarrasSpacing().knots(10), dtype=torch.float64)
    found = InverseGap()(torch.ones(10, dtype=torch.float64), knots[:-1], knots[1:]).flip(0)
    assert found.tolist()[1:] == pytest.approx(card[1:], rel=2e-3)
    assert found[0].item() == pytest.approx(1.0 / (1.0 / card[0] + 0.002), rel=2e-3)


def test_equal_times_have_no_error_and_give_none() -> None:
    zero = torch.zeros(3, dtype=torch.float64)
    assert torch.equal(InverseGap()(zero, S, S), zero)


@pytest.mark.parametrize("power", [0.5, 1.0])
def test_the_weight_of_data_is_that_of_the_noise_level(power: float) -> None:
    sigma, sd = (1.0 - S) / S, 0.5
    expected = ((sigma**2 + sd**2) / (sigma * sd) ** 2) ** power
    torch.testing.assert_close(DataWeighting(power=power)(ONE, S, T), expected)


def test_the_weight_of_data_is_the_denoisers_in_the_space_of_data() -> None:
    """An error of the data is (1 - s) times that of the velocity."""
    of_data = DataWeighting()(ONE, S, T) * (1.0 - S) ** 2
    torch.testing.assert_close(of_data, DenoiserWeighting()(ONE, S, T))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: InverseGap(power=1.5), r"power in \[0, 1\], got 1.5"),
        (lambda: DataWeighting(sigma_data=0.0), "sigma_data > 0"),
        (lambda: DataWeighting(power=-1.0), r"power in \[0, 1\], got 0.5 and -1.0"),
    ],
)
def test_a_weighting_that_makes_no_sense_is_refused(
    build: Callable[[], object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        build()
