"""Pareto sets: which of several points no other one is better than in every number."""

from collections.abc import Sequence

import numpy as np


def front_of(points: Sequence[Sequence[float]]) -> list[int]:
    """The front that each point stands on: 0 where no other point is better than it.

    One point is better than another if it is nowhere worse and somewhere better.

    Args:
        points: Numbers of each point, of which smaller ones are better.

    Returns:
        The front of each point, which is that of the points that are better than it plus one.
    """
    if not points:
        return []
    values = np.array([list(point) or [0.0] for point in points])
    if values.shape[1] == 1:  # thousands of trials have as many fronts
        return [int(one) for one in np.unique(values[:, 0], return_inverse=True)[1]]
    is_nowhere_worse = np.all(values[:, None, :] <= values[None, :, :], axis=2)
    is_better = is_nowhere_worse & ~is_nowhere_worse.T
    fronts = np.full(len(values), -1)
    front = 0
    while (left := fronts < 0).any():
        is_beaten = is_better[left].any(axis=0)
        fronts[left & ~is_beaten] = front
        front += 1
    return [int(one) for one in fronts]
