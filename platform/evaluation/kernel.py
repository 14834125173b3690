"""Energy distance and maximum mean discrepancy, both unbiased: zero in the mean for equal laws."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .metric import AbstractMetric, Space
from .population import Population, Reference


def _mean_of_pairs(square: Float[Tensor, "n n"]) -> float:
    """Mean over ordered pairs of different points; the diagonal is known and would bias it."""
    n = len(square)
    return (square.sum() - square.diagonal().sum()).item() / (n * (n - 1))


def _check_pairs(x: Tensor, y: Tensor) -> None:
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"both sets must have at least 2 points, got {len(x)} and {len(y)}")


def energy_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Energy distance 2 E|X - Y| - E|X - X'| - E|Y - Y'| as a U-statistic; it may be negative.

    Reference: Szekely and Rizzo 2013, Energy statistics, J. Stat. Plan. Inference 143, Eq. (5).

    Args:
        x: One set.
        y: The other set.

    Raises:
        ValueError: If a set has fewer than 2 points.
    """
    _check_pairs(x, y)
    x, y = x.double(), y.double()
    between = torch.cdist(x, y).mean().item()
    within = _mean_of_pairs(torch.cdist(x, x)) + _mean_of_pairs(torch.cdist(y, y))
    return 2.0 * between - within


def median_bandwidth(x: Float[Tensor, "n d"]) -> float:
    """Median distance of the pairs of a set: the width at which a kernel sees its structure.

    Args:
        x: The reference; never the samples, so that every model meets the same kernel.

    Raises:
        ValueError: If at least half of the pairs are equal points.
    """
    distance = torch.pdist(x.double()).median().item()
    if distance <= 0.0:
        raise ValueError("the reference of a kernel must vary, got a median distance of 0")
    return distance


def squared_mmd(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"], *, bandwidth: float) -> float:
    """Squared maximum mean discrepancy as a U-statistic; it may be negative.

    The kernel is k(x, y) = exp(-|x - y|^2 / (2 bandwidth^2)).

    Reference: Gretton et al. 2012, A kernel two-sample test, JMLR 13, Eq. (3).

    Args:
        x: One set.
        y: The other set.
        bandwidth: Width of the kernel, in units of the points.

    Raises:
        ValueError: If a set has fewer than 2 points, or the bandwidth is not positive.
    """
    _check_pairs(x, y)
    if not bandwidth > 0.0:
        raise ValueError(f"bandwidth must be positive, got {bandwidth}")

    def kernel(a: Tensor, b: Tensor) -> Tensor:
        return torch.exp(-torch.cdist(a, b).square() / (2.0 * bandwidth**2))

    x, y = x.double(), y.double()
    within = _mean_of_pairs(kernel(x, x)) + _mean_of_pairs(kernel(y, y))
    return within - 2.0 * kernel(x, y).mean().item()


@final
@dataclass(frozen=True, kw_only=True)
class EnergyDistance(AbstractMetric):
    """Energy distance, in units of the data."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return ("eval/energy_distance",)

    @property
    def space(self) -> Space:
        """Coordinates or pixels."""
        return Space.DATA

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/energy_distance``."""
        return {"eval/energy_distance": energy_distance(samples.x, reference.held_out.x)}


@final
@dataclass(frozen=True, kw_only=True)
class SquaredMmd(AbstractMetric):
    """Squared MMD under a Gaussian kernel whose width is the median distance of held-out data."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return ("eval/squared_mmd",)

    @property
    def space(self) -> Space:
        """Coordinates or pixels."""
        return Space.DATA

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/squared_mmd``."""
        y = reference.held_out.x
        return {"eval/squared_mmd": squared_mmd(samples.x, y, bandwidth=median_bandwidth(y))}
