"""Intervals over draws of samples, cheap because each draw is measured only once."""

import math
from typing import Final

import torch
from jaxtyping import Float
from scipy.special import ndtr, stdtrit
from torch import Tensor

_RESAMPLES: Final = 2000


def mean_interval(
    values: Float[Tensor, " n"], *, seed: int, level: float = 0.95
) -> tuple[float, float]:
    """Expanded percentile interval of the mean of independent values.

        from the quantile a to the quantile 1 - a of resampled means, a = Phi(-sqrt(n / (n - 1)) q)

    with q the quantile (1 + level) / 2 of Student's t with n - 1 degrees of freedom. The plain
    percentiles of few values are too narrow: a resampled mean spreads by the factor
    sqrt((n - 1) / n) too little, and the spread itself is only estimated. The interval covers what
    another draw of samples would change; the held-out data is the same in every draw and its own
    chance is not covered.

    Reference: Hesterberg 2015, arXiv:1411.5279v1, the expanded percentile interval.
    Fails by: resampled means stay within the range of the values, which covers the mean of a
        symmetrical law by the chance 1 - 2^(1 - n): below 95 % for fewer than 6 values.

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
    n = len(values)
    if n == 1:
        return values.item(), values.item()
    rng = torch.Generator().manual_seed(seed)
    rows = torch.randint(n, (_RESAMPLES, n), generator=rng)
    quantile = _student((1.0 - level) / 2.0, freedom=n - 1)
    tail = float(ndtr(math.sqrt(n / (n - 1)) * quantile))
    means = values[rows].mean(dim=1)
    ends = torch.quantile(means, torch.tensor([tail, 1.0 - tail], dtype=torch.float64))
    return ends[0].item(), ends[1].item()


def _student(chance: float, *, freedom: int) -> float:
    """The quantile of Student's t at this chance."""
    return float(stdtrit(freedom, chance))


def jackknife_interval(
    value: float,
    without: Float[Tensor, " n"],
    *,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> tuple[float, float]:
    """Interval at 95 % of a statistic of all draws together, from leaving each draw out.

    Its half width is the standard error times the quantile of Student's t with n - 1 degrees of
    freedom.

    Reference: Efron and Stein 1981, The jackknife estimate of variance, Eq. (1.5).

    Args:
        value: The statistic of all draws.
        without: The statistic without each of the draws; empty where there is only one.
        within: Ends of the statistic's range, where the interval ends too; a cut covers no less.
    """
    n = len(without)
    if n < 2:
        return value, value
    without = without.double()
    error = ((without - without.mean()).square().sum() * (n - 1) / n).sqrt().item()
    reach = -_student(0.025, freedom=n - 1) * error
    return max(value - reach, within[0]), min(value + reach, within[1])
