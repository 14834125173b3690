"""Frechet distance between Gaussians fitted to samples and to data, in a named feature space."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .metric import AbstractMetric, Space
from .population import Population, Reference


def gaussian_frechet(
    mean: Float[Tensor, " d"],
    cov: Float[Tensor, "d d"],
    other_mean: Float[Tensor, " d"],
    other_cov: Float[Tensor, "d d"],
) -> float:
    """Squared 2-Wasserstein distance between two Gaussians.

        |m - m'|^2 + tr C + tr C' - 2 tr (C^1/2 C' C^1/2)^1/2

    Reference: Dowson and Landau 1982, J. Multivariate Analysis 12, Eq. (4).

    Args:
        mean: Mean of one.
        cov: Covariance of one.
        other_mean: Mean of the other.
        other_cov: Covariance of the other.
    """
    # Both roots by eigenvalues of symmetric matrices, which stay real where a general matrix
    # root of a singular product does not.
    value, vector = torch.linalg.eigh(cov)
    root = (vector * value.clamp_min(0.0).sqrt()) @ vector.T
    cross = torch.linalg.eigvalsh(root @ other_cov @ root).clamp_min(0.0).sqrt().sum()
    spread = cov.trace() + other_cov.trace() - 2.0 * cross
    return float(((mean - other_mean).square().sum() + spread).clamp_min(0.0))


def frechet_distance(x: Float[Tensor, "n d"], y: Float[Tensor, "m d"]) -> float:
    """Frechet distance of two sets; biased upwards by about the dimension over the size.

    Args:
        x: One set.
        y: The other set.

    Raises:
        ValueError: If a set has fewer than 2 points.
    """
    if len(x) < 2 or len(y) < 2:
        raise ValueError(f"both sets must have at least 2 points, got {len(x)} and {len(y)}")
    x, y = x.double(), y.double()
    d = x.shape[1]
    return gaussian_frechet(
        x.mean(dim=0), x.T.cov().reshape(d, d), y.mean(dim=0), y.T.cov().reshape(d, d)
    )


@final
@dataclass(frozen=True, kw_only=True)
class FrechetFeatures(AbstractMetric):
    """Frechet distance on the features of the platform's own classifier; no FID."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return ("eval/frechet_features",)

    @property
    def space(self) -> Space:
        """Features of the classifier."""
        return Space.FEATURES

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/frechet_features``."""
        value = frechet_distance(samples.features, reference.held_out.features)
        return {"eval/frechet_features": value}
