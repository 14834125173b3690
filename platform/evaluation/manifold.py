"""Precision, recall, density and coverage: do samples lie among data, and data among samples?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .metric import AbstractMetric, Space
from .population import Population, Reference


def _distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> Float[Tensor, "n m"]:
    # Not by matrix products, whose rounding would put a point outside a ball that it bounds.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")


def _radius(x: Float[Tensor, "n d"], neighbours: int) -> Float[Tensor, " n"]:
    """Distance of each point to its k-th nearest other point."""
    # The point itself is the first of the k + 1 nearest.
    return _distance(x, x).kthvalue(neighbours + 1, dim=1).values


def _check(x: Tensor, y: Tensor, neighbours: int) -> None:
    smallest = min(len(x), len(y))
    if not 1 <= neighbours < smallest:
        raise ValueError(
            f"neighbours must be in 1..{smallest - 1} for sets of {len(x)} and {len(y)} points, "
            f"got {neighbours}"
        )


def precision_recall(
    samples: Float[Tensor, "n d"], data: Float[Tensor, "m d"], *, neighbours: int = 3
) -> tuple[float, float]:
    """Share of samples inside the estimated support of the data, and the other way round.

    The support of a set is the union of balls that reach from each point to its k-th neighbour.

    Reference: Kynkaanniemi et al. 2019, arXiv:1904.06991v3, Eq. (1) and (2), k = 3.

    Args:
        samples: Points to judge.
        data: Points to judge by.
        neighbours: k.

    Returns:
        Precision and recall, in [0, 1].

    Raises:
        ValueError: If there are not more points than neighbours.
    """
    _check(samples, data, neighbours)
    samples, data = samples.double(), data.double()
    distance = _distance(samples, data)
    precise = (distance <= _radius(data, neighbours)[None]).any(dim=1)
    recalled = (distance <= _radius(samples, neighbours)[:, None]).any(dim=0)
    return precise.double().mean().item(), recalled.double().mean().item()


def density_coverage(
    samples: Float[Tensor, "n d"], data: Float[Tensor, "m d"], *, neighbours: int = 5
) -> tuple[float, float]:
    """How many balls around data a sample lies in, over k; and the share of balls with a sample.

    Reference: Naeem et al. 2020, arXiv:2002.09797v2, Eq. (4) and (5), k = 5.

    Args:
        samples: Points to judge.
        data: Points to judge by.
        neighbours: k.

    Returns:
        Density, about 1 for equal laws and not bounded by it, and coverage, in [0, 1].

    Raises:
        ValueError: If there are not more points than neighbours.
    """
    _check(samples, data, neighbours)
    samples, data = samples.double(), data.double()
    inside = _distance(samples, data) <= _radius(data, neighbours)[None]
    density = inside.double().sum(dim=1).mean().item() / neighbours
    return density, inside.any(dim=0).double().mean().item()


@final
@dataclass(frozen=True, kw_only=True)
class PrecisionRecall(AbstractMetric):
    """Improved precision and recall in feature space.

    Attributes:
        neighbours: k of the balls.
    """

    neighbours: int = 3

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return (
            "eval/precision",
            "eval/recall",
        )

    @property
    def space(self) -> Space:
        """Features of the classifier."""
        return Space.FEATURES

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/precision`` and ``eval/recall``."""
        precision, recall = precision_recall(
            samples.features, reference.held_out.features, neighbours=self.neighbours
        )
        return {"eval/precision": precision, "eval/recall": recall}


@final
@dataclass(frozen=True, kw_only=True)
class DensityCoverage(AbstractMetric):
    """Density and coverage in feature space.

    Attributes:
        neighbours: k of the balls.
    """

    neighbours: int = 5

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return (
            "eval/density",
            "eval/coverage",
        )

    @property
    def space(self) -> Space:
        """Features of the classifier."""
        return Space.FEATURES

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/density`` and ``eval/coverage``."""
        density, coverage = density_coverage(
            samples.features, reference.held_out.features, neighbours=self.neighbours
        )
        return {"eval/density": density, "eval/coverage": coverage}
