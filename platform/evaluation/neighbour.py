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


def one_nearest_neighbour_accuracies(
    x: Float[Tensor, "n d"], y: Float[Tensor, "n d"]
) -> tuple[float, float]:
    """How often the nearest other point is of the own set, for each of two equally large sets.

    Both are .5 for equal laws, 1 for separate ones, and below .5 where one set copies the other.
    A point whose nearest neighbours on both sides are equally near counts one half.

    Reference: Lopez-Paz and Oquab 2017, arXiv:1610.06545v4, section 5.

    Args:
        x: One set.
        y: The other set.

    Returns:
        The shares of the points of ``x`` and of those of ``y``.

    Raises:
        ValueError: If the sets are not equally large, or have fewer than 2 points.
    """
    check_equal(x, y)
    if len(x) < 2:
        raise ValueError(f"both sets must have at least 2 points, got {len(x)}")
    # In float64: cdist goes by matrix products, whose rounding would decide near ties in float32.
    x, y = x.double(), y.double()
    across = torch.cdist(x, y)

    def correct(within: Tensor, other: Tensor) -> float:
        own = within.fill_diagonal_(float("inf")).min(dim=1).values
        return ((own < other).double() + 0.5 * (own == other).double()).mean().item()

    return (
        correct(torch.cdist(x, x), across.min(dim=1).values),
        correct(torch.cdist(y, y), across.min(dim=0).values),
    )


@final
@dataclass(frozen=True, kw_only=True)
class OneNearestNeighbour(AbstractMetric):
    """Accuracy of the 1-nearest-neighbour two-sample test against held-out data, best at .5.

    The accuracy alone can be deceived: data with noise on top lie nearer to data than to each
    other, so that a share of samples far below .5 makes up for one of data near 1. The deviation,
    the mean distance of both shares from .5, cannot; what is chosen is chosen by it.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """What it finds."""
        return (
            "eval/1nn_accuracy",
            "eval/1nn_deviation",
            "eval/1nn_samples",
            "eval/1nn_data",
        )

    @property
    def space(self) -> Space:
        """Coordinates or pixels."""
        return Space.DATA

    def compute(self, samples: Population, reference: Reference) -> Mapping[str, float]:
        """``eval/1nn_accuracy``, its two shares, and ``eval/1nn_deviation``, best at 0."""
        of_samples, of_data = one_nearest_neighbour_accuracies(samples.x, reference.held_out.x)
        return {
            "eval/1nn_accuracy": (of_samples + of_data) / 2,
            "eval/1nn_deviation": (abs(of_samples - 0.5) + abs(of_data - 0.5)) / 2,
            "eval/1nn_samples": of_samples,
            "eval/1nn_data": of_data,
        }
