"""Memorisation: are samples nearer to training data than fresh data would be?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .metric import AbstractMetric, Space
from .nearest import nearest_distance
from .population import Population, Reference


def rank_statistic(x: Float[Tensor, " n"], y: Float[Tensor, " m"]) -> float:
    """P(x < y) + P(x = y) / 2 over all pairs: the Mann-Whitney statistic over n m, in [0, 1].

    Args:
        x: One set of numbers.
        y: The other set of numbers.
    """
    ordered = y.sort().values
    after = len(y) - torch.searchsorted(ordered, x.contiguous(), right=True)
    ties = len(y) - torch.searchsorted(ordered, x.contiguous()) - after
    return (after + 0.5 * ties).double().mean().item() / len(y)


@final
@dataclass(frozen=True, kw_only=True)
class Memorisation(AbstractMetric):
    """Distance to the nearest training example, of samples beside held-out data.

    Copies of training data have ratio 0 and rank 1; fresh data has ratio 1 and rank .5.

    Reference: Meehan et al. 2020, arXiv:2004.05675v1, section 3: the rank is their Delta(P, Q).
    """

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return (
            "eval/memorisation_ratio",
            "eval/memorisation_rank",
        )

    @property
    def space(self) -> Space:
        """Coordinates or pixels."""
        return Space.DATA

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/memorisation_ratio`` of medians, and ``eval/memorisation_rank``.

        Args:
            samples: Points to judge.
            reference: What they are compared with.

        Returns:
            The ratio of the median distances, and the chance that a sample is nearer to training
            data than a held-out example is.
        """
        near = nearest_distance(samples.x, reference.train.x, own=samples.rows)
        fresh = reference.fresh_distance
        ratio = near.median() / fresh.median().clamp_min(torch.finfo(torch.float64).tiny)
        return {
            "eval/memorisation_ratio": ratio.item(),
            "eval/memorisation_rank": rank_statistic(near, fresh),
        }
