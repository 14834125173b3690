"""Modes of a Gaussian mixture: their mass, their width, and what lies between them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..data.source import Mixture
from .metric import AbstractPooledMetric, Space
from .population import Population, Reference


def nearest_mode(
    x: Float[Tensor, "n d"], mixture: Mixture
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """The mode nearest to each point, and its distance in standard deviations.

    Args:
        x: Points.
        mixture: The law.
    """
    distance = torch.cdist(x.double(), mixture.means.double())
    nearest = distance.min(dim=1)
    return nearest.indices, nearest.values / mixture.std


def mass_total_variation(mode: Int[Tensor, " n"], weights: Float[Tensor, " k"]) -> float:
    """Total variation between the shares of the modes and their weights, in [0, 1].

    Args:
        mode: Mode of each point.
        weights: Weight of each mode.
    """
    share = torch.bincount(mode, minlength=len(weights)).double() / len(mode)
    return (share - weights.double()).abs().sum().item() / 2.0


def spread_ratios(
    x: Float[Tensor, "n d"], mode: Int[Tensor, " n"], mixture: Mixture
) -> Float[Tensor, " k"]:
    """Standard deviation within each mode over that of the law; 0 for a mode with one point.

    Deviations are from the mean of the points of the mode, root mean square over coordinates.

    Args:
        x: Points.
        mode: Mode of each point.
        mixture: The law.
    """
    ratios = torch.zeros(len(mixture.means), dtype=torch.float64)
    for k in range(len(ratios)):
        points = x[mode == k].double()
        if len(points) > 1:
            ratios[k] = points.var(dim=0).mean().sqrt() / mixture.std
    return ratios


@final
@dataclass(frozen=True, kw_only=True)
class Modes(AbstractPooledMetric):
    """Mass, spread and outliers of the modes of a Gaussian mixture.

    Attributes:
        radius: Distance, in standard deviations of a mode, beyond which a point is in none.

    Raises:
        ValueError: If the radius is not positive.
    """

    radius: float = 4.0

    def __post_init__(self) -> None:
        if not self.radius > 0.0:
            raise ValueError(f"radius must be positive, got {self.radius}")

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return (
            "eval/mode_mass_tv",
            "eval/mode_std_ratio_min",
            "eval/mode_std_ratio_max",
            "eval/outside_modes",
        )

    @property
    def ranges(self) -> Mapping[str, tuple[float, float]]:
        """Shares are in [0, 1], ratios at least 0."""
        share, ratio = (0.0, 1.0), (0.0, math.inf)
        return dict(zip(self.names, (share, ratio, ratio, share), strict=True))

    @property
    def space(self) -> Space:
        """Coordinates."""
        return Space.DATA

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """Total variation of the masses, smallest and largest ratio of spreads, share outside.

        Args:
            samples: Points to judge.
            reference: What they are compared with; only its mixture is used.

        Raises:
            ValueError: If the data is no mixture of Gaussians.
        """
        if reference.mixture is None:
            raise ValueError("modes need data that is a mixture of Gaussians, got another law")
        mode, distance = nearest_mode(samples.x, reference.mixture)
        ratios = spread_ratios(samples.x, mode, reference.mixture)
        return {
            "eval/mode_mass_tv": mass_total_variation(mode, reference.mixture.weights),
            "eval/mode_std_ratio_min": ratios.min().item(),
            "eval/mode_std_ratio_max": ratios.max().item(),
            "eval/outside_modes": (distance > self.radius).double().mean().item(),
        }
