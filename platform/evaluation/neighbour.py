"""The two-sample test of the nearest neighbour: can samples be told from data by who is near?"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from .metric import AbstractMetric, Space
from .population import Population, Reference
from .transport import check_equal


def one_nearest_neighbour_accuracy(x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]) -> float:
    """Leave-one-out accuracy of the nearest neighbour in telling two equally large sets apart.

    It is .5 for equal laws, 1 for separate ones, and below .5 where one set copies the other.
    A point whose nearest neighbours on both sides are equally near counts one half.

    Reference: Lopez-Paz and Oquab 2017, arXiv:1610.06545v4, section 5.

    Args:
        x: One set.
        y: The other set.

    Raises:
        ValueError: If the sets are not equally large, or have fewer than 2 points.
    """
    check_equal(x, y)
    if len(x) < 2:
        raise ValueError(f"both sets must have at least 2 points, got {len(x)}")
    # In float64: cdist goes by matrix products, whose rounding would decide near ties in float32.
    x, y = x.double(), y.double()
    across = torch.cdist(x, y)

    def correct(within: Tensor, other: Tensor) -> Tensor:
        own = within.fill_diagonal_(float("inf")).min(dim=1).values
        return (own < other).double() + 0.5 * (own == other).double()

    right = torch.cat(
        [
            correct(torch.cdist(x, x), across.min(dim=1).values),
            correct(torch.cdist(y, y), across.min(dim=0).values),
        ]
    )
    return right.mean().item()


@final
@dataclass(frozen=True, kw_only=True)
class OneNearestNeighbour(AbstractMetric):
    """Accuracy of the 1-nearest-neighbour two-sample test against held-out data, best at .5."""

    @property
    def space(self) -> Space:
        """Coordinates or pixels."""
        return Space.DATA

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/1nn_accuracy``."""
        value = one_nearest_neighbour_accuracy(samples.x, reference.held_out.x)
        return {"eval/1nn_accuracy": value}
