"""A mixture of time laws: its distribution function, its two halves and its ends."""

from collections.abc import Callable

import pytest
import torch

from onestep.methods.core.noisy_mixture import NoisyMixture
from onestep.methods.core.rng import Rng

N = 20_000


def test_times_follow_their_distribution_function() -> None:
    """Kolmogorov-Smirnov at 20 000 times; its 0.1 % point is 1.95 / sqrt(n)."""
    law = NoisyMixture()
    t = law.draw(N, Rng.seeded(3), dtype=torch.float64).sort().values
    steps = torch.arange(N, dtype=torch.float64) / N
    worst = torch.maximum((law.cdf(t) - steps).abs(), (law.cdf(t) - steps - 1 / N).abs()).max()
    assert worst <= 1.95 / N**0.5
    ends = law.cdf(torch.tensor([0.0, 1.0], dtype=torch.float64))
    torch.testing.assert_close(ends, torch.tensor([0.0, 1.0], dtype=torch.float64))


def test_half_of_them_lie_in_the_noisy_part_alone() -> None:
    """A log-normal level that is never noisy leaves the other half, between two levels."""
    law = NoisyMixture(mean=50.0)
    t = law.draw(N, Rng.seeded(3), dtype=torch.float64)
    noisy = t[t < 0.999]
    assert abs(len(noisy) / N - 0.5) <= 4.0 * 0.5 / N**0.5
    assert noisy.min() >= 1.0 / 81.0
    root = ((1.0 - noisy) / noisy) ** (1.0 / 7.0)
    high, low = 80.0 ** (1.0 / 7.0), 0.002 ** (1.0 / 7.0)
    assert root.min() >= high - 0.7 * (high - low) - 1e-12
    done = (high - root) / (0.7 * (high - low))
    assert abs(done.mean() - 0.5) <= 4.0 * (1.0 / 12.0 / len(noisy)) ** 0.5


@pytest.mark.parametrize(
    "build",
    [
        lambda: NoisyMixture(std=0.0),
        lambda: NoisyMixture(noisy=0.0),
        lambda: NoisyMixture(noisy=1.1),
        lambda: NoisyMixture(sigma_min=80.0),
        lambda: NoisyMixture(rho=0.0),
    ],
)
def test_values_out_of_range_are_refused(build: Callable[[], object]) -> None:
    with pytest.raises(
        ValueError, match=r"noisy mixture needs a finite mean, std > 0, noisy in \(0, 1\]"
    ):
        build()
