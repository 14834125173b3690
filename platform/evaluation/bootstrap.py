"""Intervals over draws of samples, cheap because each draw is measured only once."""

from typing import Final

import torch
from jaxtyping import Float
from torch import Tensor

_RESAMPLES: Final = 2000
_Z95: Final = 1.959964


def mean_interval(
    values: Float[Tensor, "n"], *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of the mean of independent values.

    Deviations from the mean are widened by sqrt(n / (n - 1)), since the plain bootstrap of few
    values is too narrow by just that factor. The interval covers what another draw of samples
    would change; the held-out data is the same in every draw and its own chance is not covered.

    Args:
        values: One number for each draw, at least one.
        seed: Seed of the resampling.
        level: Chance that the interval covers the mean, in (0, 1).

    Returns:
        Lower and upper end; both equal to the value where there is only one.

    Raises:
        ValueError: If the level is outside (0, 1).
    """
    if not 0.0 < level < 1.0:
        raise ValueError(f"level must be in (0, 1), got {level}")
    values = values.double()
    n, mean = len(values), values.mean()
    if n == 1:
        return mean.item(), mean.item()
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(n, (_RESAMPLES, n), generator=rng)
    means = mean + (values[rows].mean(dim=1) - mean) * (n / (n - 1)) ** 0.5
    tail = (1.0 - level) / 2.0
    ends = torch.quantile(means, torch.tensor([tail, 1.0 - tail], dtype=torch.float64))
    return ends[0].item(), ends[1].item()


def jackknife_interval(value: float, without: Float[Tensor, "n"]) -> tuple[float, float]:
    """Interval at 95 % of a statistic of all draws together, from leaving each draw out.

    Reference: Efron and Stein 1981, The jackknife estimate of variance, Eq. (1.5).

    Args:
        value: The statistic of all draws.
        without: The statistic without each of the draws; empty where there is only one.
    """
    n = len(without)
    if n < 2:
        return value, value
    without = without.double()
    error = ((without - without.mean()).square().sum() * (n - 1) / n).sqrt().item()
    return value - _Z95 * error, value + _Z95 * error
