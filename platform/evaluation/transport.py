"""Distances of optimal transport between two equally large sets of points."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import torch
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from .metric import AbstractMetric, Space
from .population import Population, Reference

_ASSIGNMENT_LIMIT: Final = 1000  # beyond this the network simplex of POT is the faster of the two
_SIMPLEX_STEPS: Final = 10_000_000


def check_equal(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> None:
    """Refuse sets of different size, on which a statistic would not mean what it says.

    Args:
        x: One set.
        y: The other set.

    Raises:
        ValueError: If the sets are not equally large, or empty.
    """
    if len(x) != len(y) or not len(x):
        raise ValueError(f"both sets must have the same positive size, got {len(x)} and {len(y)}")


def wasserstein2(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> float:
    """Exact 2-Wasserstein distance between the empirical laws of two sets.

    Args:
        x: One set.
        y: The other set.

    Raises:
        ValueError: If the sets are not equally large.
    """
    check_equal(x, y)
    cost = torch.cdist(x.double(), y.double()).square()
    if len(x) <= _ASSIGNMENT_LIMIT:
        row, column = linear_sum_assignment(cost.numpy())
        matched: float = cost[torch.from_numpy(row), torch.from_numpy(column)].mean().sqrt().item()
        return matched
    weight = torch.full((len(x),), 1.0 / len(x), dtype=torch.float64)
    import ot  # it imports scikit-learn, which takes longer than a trial takes to go on

    total = ot.emd2(weight.numpy(), weight.numpy(), cost.numpy(), numItermax=_SIMPLEX_STEPS)
    return float(total) ** 0.5


def directions(dimension: int, *, count: int, seed: int) -> Float[Tensor, "d p"]:
    """Directions uniform on the sphere, fixed by a seed.

    Args:
        dimension: Dimension of the space.
        count: Number of directions.
        seed: Seed.
    """
    rng = torch.Generator().manual_seed(seed)
    drawn = torch.randn(dimension, count, generator=rng, dtype=torch.float64)
    unit: Tensor = drawn / torch.linalg.vector_norm(drawn, dim=0, keepdim=True)
    return unit


def sliced_wasserstein2(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"], projections: Float[Tensor, "d p"]
) -> float:
    """Root of the mean squared 2-Wasserstein distance of the one-dimensional projections.

    Reference: Bonneel et al. 2015, Sliced and Radon Wasserstein barycenters of measures, Eq. (8).

    Args:
        x: One set.
        y: The other set.
        projections: Unit vectors.

    Raises:
        ValueError: If the sets are not equally large.
    """
    check_equal(x, y)
    gap = (x.double() @ projections).sort(dim=0).values - (y.double() @ projections).sort(
        dim=0
    ).values
    return gap.square().mean().sqrt().item()


@final
@dataclass(frozen=True, kw_only=True)
class Wasserstein2(AbstractMetric):
    """Exact 2-Wasserstein distance, in units of the data; its time grows with the cube."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return ("eval/w2",)

    @property
    def space(self) -> Space:
        """Coordinates or pixels."""
        return Space.DATA

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/w2``."""
        return {"eval/w2": wasserstein2(samples.x, reference.held_out.x)}


@final
@dataclass(frozen=True, kw_only=True)
class SlicedWasserstein2(AbstractMetric):
    """Sliced 2-Wasserstein distance over fixed projections, in units of the data.

    Attributes:
        projections: Number of projections.
        seed: Seed of the projections; the same for every model.

    Raises:
        ValueError: If there are no projections.
    """

    projections: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        if self.projections < 1:
            raise ValueError(f"projections must be at least 1, got {self.projections}")

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return ("eval/sliced_w2",)

    @property
    def space(self) -> Space:
        """Coordinates or pixels."""
        return Space.DATA

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/sliced_w2``."""
        x, y = samples.x, reference.held_out.x
        fixed = directions(x.shape[1], count=self.projections, seed=self.seed)
        return {"eval/sliced_w2": sliced_wasserstein2(x, y, fixed)}
