"""Rankings: trials in order by one value, or by several at once."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import moocore
import numpy as np

Values = tuple[float, ...]
"""What a trial is judged by, one number for each objective; smaller is better in each."""
_MARGIN: Final = 1.1
"""Where the reference point lies, from the best value, 0, to beyond the worst, 1."""


def ranked(results: Mapping[int, Values]) -> tuple[int, ...]:
    """Trials from the best to the worst, by nothing but their values and their numbers.

    Trials that no other dominates come first, then those that only these dominate, and so on. Of
    such a front the one whose loss takes least from the hypervolume comes last, then the one whose
    loss takes least from what is left: one of two near twins keeps its place. Each objective is
    scaled to its range among all results, and the reference point lies a tenth of it beyond the
    worst. A tie is won by the lower number. Trials with a value that is not finite come after all
    others.

    Reference: Beume et al. 2007 (SMS-EMOA), doi:10.1016/j.ejor.2006.08.008, the order in which
        it removes a population; the reference point is ours.

    Args:
        results: Values by trial.

    Returns:
        The numbers of the trials.

    Raises:
        ValueError: If trials differ in how many values they have, or have none.
    """
    counts = {len(values) for values in results.values()}
    if len(counts) > 1 or 0 in counts:
        raise ValueError(f"trials are ranked by equally many values, got {sorted(counts)}")
    finite = sorted(k for k, values in results.items() if all(map(math.isfinite, values)))
    failed = sorted(results.keys() - finite)
    if counts == {1} or len(finite) < 2:
        return (*sorted(finite, key=lambda k: (results[k], k)), *failed)
    scaled = _scaled(np.array([results[k] for k in finite]))
    fronts = moocore.pareto_rank(scaled)
    order: list[int] = []
    for front in range(fronts.max() + 1):
        members = [int(row) for row in np.flatnonzero(fronts == front)]
        order += _by_contribution(scaled, members)
    return (*(finite[row] for row in order), *failed)


def fronts_of(results: Mapping[int, Values]) -> dict[int, int]:
    """The front of each trial: 0 where no other one dominates it, 1 where only these do, and so on.

    Args:
        results: Finite values by trial.

    Returns:
        The front by trial.
    """
    if not results:
        return {}
    ranks = moocore.pareto_rank(np.array(list(results.values())))
    return dict(zip(results, map(int, ranks), strict=True))


def _scaled(points: np.ndarray) -> np.ndarray:
    low, high = points.min(0), points.max(0)
    # An objective without a range tells no trial from another.
    scaled: np.ndarray = (points - low) / np.where(high > low, high - low, 1.0)
    return scaled


def _by_contribution(points: np.ndarray, members: Sequence[int]) -> list[int]:
    left, removed = list(members), []
    while len(left) > 1:
        lost = moocore.hv_contributions(points[left], ref=np.full(points.shape[1], _MARGIN))
        # Equal up to rounding is equal: the last of them goes, which has the highest number.
        least = np.flatnonzero(np.isclose(lost, lost.min(), rtol=1e-9, atol=1e-12))[-1]
        removed.append(left.pop(int(least)))
    return [*left, *reversed(removed)]
