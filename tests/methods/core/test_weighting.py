"""Weights and distances of single samples."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from onestep.methods.core.distance import L1, AbstractDistance, PseudoHuber, SquaredL2
from onestep.methods.core.weighting import (
    AbstractWeighting,
    AdaptivePower,
    DenoiserWeighting,
    TruncatedSnr,
    Unweighted,
)


def apply(weighting: AbstractWeighting, error: Tensor) -> Tensor:
    s = torch.linspace(0.1, 0.9, len(error), dtype=error.dtype)
    return weighting(error, s, torch.ones_like(s))


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_an_adaptive_weight_divides_by_a_power_of_the_error(power: float) -> None:
    error = torch.tensor([0.1, 2.0, 30.0], dtype=torch.float64)
    got = apply(AdaptivePower(power=power, offset=0.01), error)
    torch.testing.assert_close(got, error / (error + 0.01) ** power)


def test_an_adaptive_weight_carries_no_gradient() -> None:
    """With power 1 the gradient of each sample by its error is 1 / (error + offset)."""
    error = torch.tensor([0.1, 2.0], dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(apply(AdaptivePower(offset=0.01), error).sum(), error)
    torch.testing.assert_close(gradient, 1.0 / (error.detach() + 0.01))


def test_no_weight_changes_nothing() -> None:
    error = torch.tensor([0.1, 2.0])
    assert torch.equal(apply(Unweighted(), error), error)


def test_the_denoiser_weight_turns_velocity_errors_into_errors_of_the_raw_network() -> None:
    """(sigma^2 + sd^2) / (sigma sd)^2 on the data, sigma = (1 - s) / s, is v's weight here."""
    sd, s = 0.5, torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    sigma = (1.0 - s) / s
    of_data = (sigma**2 + sd**2) / (sigma * sd) ** 2
    got = DenoiserWeighting(sigma_data=sd)(torch.ones_like(s), s, s)
    torch.testing.assert_close(got, of_data * (1.0 - s) ** 2)


def test_the_truncated_weight_is_that_of_the_data_and_at_least_one() -> None:
    """max(snr, 1) of errors in the data, which are (1 - s) times those of the velocity."""
    s = torch.tensor([0.1, 0.5, 0.9], dtype=torch.float64)
    snr = (s / (1.0 - s)).square()
    got = TruncatedSnr()(torch.ones_like(s), s, s)
    torch.testing.assert_close(got, snr.clamp(min=1.0) * (1.0 - s).square())
    assert TruncatedSnr()(torch.ones(2), torch.tensor([0.0, 1.0]), torch.ones(2)).tolist() == [1, 1]


X = torch.tensor([[1.0, -2.0], [0.0, 0.5]], dtype=torch.float64)
Y = torch.tensor([[0.0, 0.0], [0.0, 0.25]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("distance", "want"),
    [
        (SquaredL2(), [5.0, 0.0625]),
        (L1(), [3.0, 0.25]),
        (PseudoHuber(scale=0.1), [math.sqrt(5.02) - math.sqrt(0.02), None]),
    ],
    ids=repr,
)
def test_distances_have_their_values(distance: AbstractDistance, want: list[float | None]) -> None:
    got = distance(X, Y).tolist()
    for value, expected in zip(got, want, strict=True):
        assert expected is None or value == pytest.approx(expected)


@pytest.mark.parametrize("distance", [SquaredL2(), L1(), PseudoHuber()], ids=repr)
def test_a_distance_is_zero_at_its_target_with_a_finite_gradient(
    distance: AbstractDistance,
) -> None:
    x = torch.randn(3, 1, 4, 4, generator=torch.Generator().manual_seed(0)).requires_grad_()
    value = distance(x, x.detach())
    assert value.shape == (3,)
    assert torch.equal(value, torch.zeros(3))
    (gradient,) = torch.autograd.grad(value.sum(), x)
    assert gradient.isfinite().all()


def test_a_pseudo_huber_distance_is_squared_when_near_and_absolute_when_far() -> None:
    distance, zero = PseudoHuber(scale=1.0), torch.zeros(1, 1, dtype=torch.float64)
    near, far = zero + 1e-3, zero + 1e6
    assert distance(near, zero).item() == pytest.approx(0.5e-6, rel=1e-5)
    assert distance(far, zero).item() == pytest.approx(1e6 - 1.0, rel=1e-9)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: AdaptivePower(power=1.5), r"power in \[0, 1\]"),
        (lambda: AdaptivePower(offset=0.0), "offset > 0"),
        (lambda: DenoiserWeighting(sigma_data=0.0), "sigma_data > 0, got 0.0"),
        (lambda: PseudoHuber(scale=0.0), "scale above 0, got 0.0"),
    ],
)
def test_a_weighting_or_distance_that_makes_no_sense_is_refused(
    build: Callable[[], object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        build()
