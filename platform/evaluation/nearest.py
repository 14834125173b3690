"""Distances to the nearest of many points, without holding all distances at once."""

from typing import Final

import torch
from jaxtyping import Float, Int
from scipy.spatial import cKDTree
from torch import Tensor

_BLOCK: Final = 4096  # rows of data at a time; a whole set of images would not fit in memory
_TREE_DIMENSION: Final = 8  # up to here a tree is faster than all pairs, and far beyond it is not


def nearest_distance(
    x: Float[Tensor, "n d"],
    data: Float[Tensor, "m d"],
    *,
    own: Int[Tensor, " n"] | None = None,
) -> Float[Tensor, " n"]:
    """Distance of each point to the nearest of the data.

    Args:
        x: Points.
        data: Data.
        own: Row of the data that each point is itself, which does not count; or None.
    """
    x = x.double()
    if x.shape[1] <= _TREE_DIMENSION and len(data) > 1:
        return _by_tree(x, data.double(), own)
    nearest = torch.full((len(x),), float("inf"), dtype=torch.float64)
    for start in range(0, len(data), _BLOCK):
        distance = torch.cdist(x, data[start : start + _BLOCK].double())
        if own is not None:
            here = ((own >= start) & (own < start + _BLOCK)).nonzero().squeeze(1)
            distance[here, own[here] - start] = float("inf")
        nearest = torch.minimum(nearest, distance.min(dim=1).values)
    return nearest


def _by_tree(x: Tensor, data: Tensor, own: Tensor | None) -> Tensor:
    distance, row = (torch.from_numpy(part) for part in cKDTree(data.numpy()).query(x, k=2))
    if own is None:
        return distance[:, 0]
    return torch.where(row[:, 0] == own, distance[:, 1], distance[:, 0])
