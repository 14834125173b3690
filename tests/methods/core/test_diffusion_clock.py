"""Clocks of diffusions: levels and readings are inverse, ranges are those of the papers."""

import math
from dataclasses import replace

import pytest
import torch
from scipy import stats

from onestep.methods.core.calculus import derivative_along
from onestep.methods.core.diffusion_clock import (
    AbstractDiffusionClock,
    CosineClock,
    DiscreteClock,
    DiscreteCosineClock,
    LinearRateClock,
)
from onestep.methods.core.path import VariancePreservingPath
from onestep.methods.core.rng import Rng
from onestep.tests.methods.core.contract import LEAST_P

STABLE_DIFFUSION = DiscreteClock(beta_first=0.00085, beta_last=0.012, is_rooted=True)
CLOCKS = (
    LinearRateClock(),
    LinearRateClock(tau_min=0.0),
    CosineClock(),
    DiscreteClock(),
    STABLE_DIFFUSION,
    DiscreteCosineClock(),
)
each_clock = pytest.mark.parametrize("clock", CLOCKS, ids=repr)


def between(clock: AbstractDiffusionClock, count: int) -> torch.Tensor:
    return torch.linspace(*clock.ends, count, dtype=torch.float64)


@each_clock
def test_the_level_rises_and_its_reading_is_the_inverse(clock: AbstractDiffusionClock) -> None:
    tau = between(clock, 777)
    level = clock.level(tau)
    assert (level.diff() > 0.0).all()
    torch.testing.assert_close(clock.reading(level), tau, atol=1e-11, rtol=0.0)
    torch.testing.assert_close(clock.tau(clock.time(tau)), tau, atol=1e-11, rtol=0.0)


@each_clock
def test_times_outside_the_range_are_read_as_its_ends(clock: AbstractDiffusionClock) -> None:
    near, far = clock.ends
    ends = torch.tensor([0.0, 0.5 * clock.t_lo, 1.0], dtype=torch.float64)
    assert clock.tau(ends).tolist() == pytest.approx([far, far, near], abs=1e-15)
    assert clock.tau(ends.float()).isfinite().all()


@pytest.mark.parametrize(
    ("clock", "t_lo", "t_hi", "digits"),
    [
        (DiscreteClock(), 0.006313, 0.990099, 6e-7),
        (STABLE_DIFFUSION, 0.064042, 0.971659, 6e-7),
        (LinearRateClock(tau_min=1e-3), 0.006529, 1.0 / 1.01049, 6e-6),
        (LinearRateClock(tau_min=1e-5), 0.006529, 1.0 / 1.0010, 6e-6),
    ],
    ids=repr,
)
def test_the_range_is_that_of_the_card(
    clock: AbstractDiffusionClock, t_lo: float, t_hi: float, digits: float
) -> None:
    assert (clock.t_lo, clock.t_hi) == pytest.approx((t_lo, t_hi), abs=digits)


def test_the_linear_rate_is_the_variance_preserving_path() -> None:
    tau = torch.linspace(0.01, 1.0, 50, dtype=torch.float64)
    at = VariancePreservingPath().coefficients(1.0 - tau)
    torch.testing.assert_close(LinearRateClock().level(tau), at.alpha / at.beta)


def test_the_levels_of_ddpm_are_those_of_its_continuous_limit() -> None:
    """A rate of 0.0001 to 0.02 at a thousand levels is one of 0.1 to 20, to 4 % of sigma."""
    tau = torch.linspace(0.1, 1.0, 10, dtype=torch.float64)
    found, limit = DiscreteClock().level(tau).log(), LinearRateClock().level(tau).log()
    assert ((found - limit).abs() < 0.04).all()


def test_the_cosine_keeps_the_share_of_data_of_its_paper() -> None:
    tau = torch.linspace(0.0, 0.99, 34, dtype=torch.float64)
    share = torch.cos(0.5 * math.pi * (tau + 0.008) / 1.008) ** 2
    want = share / share[0]
    torch.testing.assert_close(1.0 / (1.0 + CosineClock().level(tau) ** 2), want)


def test_the_discrete_levels_are_products_of_its_rates() -> None:
    rates = torch.linspace(1e-4, 0.02, 1000, dtype=torch.float64)
    kept = 1.0
    for k in range(500):
        kept *= 1.0 - rates[k].item()
    found = DiscreteClock().level(torch.tensor([0.5], dtype=torch.float64)).item()
    assert found == pytest.approx(math.sqrt(1.0 / kept - 1.0), rel=1e-11)


def test_the_discrete_cosine_limits_the_rates_of_the_continuous_one() -> None:
    """A limit of 0.999 touches the last of a thousand levels alone, as in the paper."""
    tau = torch.arange(1, 1000, dtype=torch.float64) / 1000
    found = DiscreteCosineClock().level(tau)
    torch.testing.assert_close(found, CosineClock(tau_max=0.9995).level(tau), rtol=1e-9, atol=0.0)
    assert DiscreteCosineClock().rates[-2:].tolist() == pytest.approx([0.74999, 0.999], abs=1e-4)


@each_clock
def test_single_precision_keeps_the_levels(clock: AbstractDiffusionClock) -> None:
    tau = between(clock, 100)[1:]
    torch.testing.assert_close(
        clock.level(tau.float()), clock.level(tau).float(), rtol=2e-4, atol=0.0
    )


@pytest.mark.parametrize("clock", [LinearRateClock(tau_min=0.0), CosineClock()], ids=repr)
def test_the_reading_has_a_finite_derivative_up_to_the_data(clock: AbstractDiffusionClock) -> None:
    t = torch.tensor([0.1, 0.5, 0.9, 1.0], dtype=torch.float64)
    _, slope = derivative_along(clock.tau, (t,), (torch.ones_like(t),))
    assert slope.isfinite().all()
    gap = 1e-6
    difference = (clock.tau(t + gap) - clock.tau(t - gap)) / (2.0 * gap)
    torch.testing.assert_close(slope[:3], difference[:3], rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("clock", [LinearRateClock(tau_min=0.1), CosineClock()], ids=repr)
def test_continuous_readings_are_uniform(clock: AbstractDiffusionClock) -> None:
    """8192 readings; the power to refuse others is shown beside it."""
    tau = clock.draw(8192, Rng.seeded(1), dtype=torch.float64)
    near, far = clock.ends
    assert near <= tau.min()
    assert tau.max() <= far
    share = ((tau - near) / (far - near)).numpy()
    assert stats.kstest(share, "uniform").pvalue > LEAST_P
    assert stats.kstest(share**1.2, "uniform").pvalue < LEAST_P


@pytest.mark.parametrize("clock", [DiscreteClock(levels=8), DiscreteCosineClock(levels=8)])
def test_discrete_readings_are_its_levels_alike(clock: AbstractDiffusionClock) -> None:
    """8000 readings of eight levels."""
    k = clock.draw(8000, Rng.seeded(1), dtype=torch.float64) * 8
    assert torch.equal(k, k.round())
    counts = torch.bincount(k.long(), minlength=9)
    assert counts[0] == 0
    assert stats.chisquare(counts[1:].numpy()).pvalue > LEAST_P


def test_readings_are_drawn_shard_by_shard() -> None:
    whole = DiscreteClock().draw(8, Rng.seeded(1, shards=(0, 1)), dtype=torch.float32)
    second = DiscreteClock().draw(4, Rng.seeded(1, shards=(1,)), dtype=torch.float32)
    assert torch.equal(whole[4:], second)


@pytest.mark.parametrize(
    ("clock", "change", "words"),
    [
        (LinearRateClock(), {"beta_min": 0.0}, "0 < beta_min < beta_max, got 0.0 and 20.0"),
        (LinearRateClock(), {"tau_min": 1.0}, r"tau_min in \[0, 1\), got 1.0"),
        (CosineClock(), {"offset": 0.0}, "a finite offset above 0"),
        (CosineClock(), {"tau_max": 1.0}, r"tau_max in \(0, 1\), got 0.008 and 1.0"),
        (DiscreteClock(), {"levels": 1}, "at least 2 levels, got 1"),
        (DiscreteClock(), {"beta_last": 1.0}, "beta_last < 1, got 0.0001 and 1.0"),
        (DiscreteCosineClock(), {"levels": 1}, "at least 2 levels, got 1"),
        (DiscreteCosineClock(), {"beta_most": 1.0}, r"beta_most in \(0, 1\), got 0.008 and 1.0"),
    ],
)
def test_a_clock_that_makes_no_sense_is_refused(
    clock: AbstractDiffusionClock, change: dict[str, float], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        replace(clock, **change)  # type: ignore[type-var]
