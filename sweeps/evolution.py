"""Evolution: who goes on from whom in a population, and how the numbers of a copy are changed."""

import logging
from collections.abc import Mapping
from math import isfinite
from typing import Final

import numpy as np
import optuna
from optuna.samplers import RandomSampler

from .condition import Scalar
from .dimension import Dimension, Kind
from .ranking import Values, ranked
from .space import Space
from .stopping import Stopping

Point = Mapping[str, Scalar]
_TRIES: Final = 1000
_EPSILON: Final = 1e-12


def sources(
    results: Mapping[int, Values], quantile: float, rngs: Mapping[int, np.random.Generator]
) -> dict[int, int]:
    """Whose state each member goes on with: its own, or that of a better one.

    Those of the lowest quantile go on from one of the highest, drawn at random, and so does one
    that failed.

    Reference: Jaderberg et al. 2017, arXiv:1711.09846v2, section 4.1.1, truncation selection.

    Args:
        results: Values of a whole generation by member; not finite for one that failed.
        quantile: The share of the members at either end, at least one member.
        rngs: The random numbers of each member.

    Returns:
        Another member, or the same, by member; none if all have failed.
    """
    order, count = ranked(results), max(1, int(quantile * len(results) + _EPSILON))
    alive = [one for one in order if all(map(isfinite, results[one]))]
    if not alive:
        return {}
    best = alive[:count]
    last = {*order[len(alive) :], *order[-count:]} - set(best)
    return {
        member: int(rngs[member].choice(best)) if member in last else member for member in results
    }


def drawn(space: Space, *, count: int, seed: int) -> list[dict[str, Scalar]]:
    """Points of a space at random, without those that break a constraint.

    Args:
        space: The space.
        count: How many are drawn.
        seed: Seed of the points.

    Returns:
        The points.
    """
    study = _study(seed)
    points = [space.suggest(study.ask()) for _ in range(count)]
    return [point for point in points if space.violated(point) is None]


def explored(
    space: Space, point: Point, settings: Stopping, rng: np.random.Generator
) -> dict[str, Scalar]:
    """A point near another one.

    A number is moved up or down: by a factor where it is drawn by its logarithm, and else by as
    large a share of its range as the factor is above 1. A choice takes the value beside its own.
    Some keys are drawn anew instead, and so is one that the point did not have.

    Reference: Jaderberg et al. 2017, arXiv:1711.09846v2, section 4.1.1, perturb and resample.
    Differs from the paper: numbers on a linear scale move by a share of their range, so that one
        that is 0 or negative moves, too; numbers stay within their bounds.

    Args:
        space: The space.
        point: The point that is left.
        settings: Factor and chance.
        rng: Its random numbers.

    Returns:
        Another point, which satisfies all constraints; after many tries, the one that is left.
    """
    for _ in range(_TRIES):
        fresh, made = _study(int(rng.integers(2**31))).ask(), dict[str, Scalar]()
        for key, one in space.dimensions.items():
            if not one.is_present(made):
                continue
            is_drawn = rng.random() < settings.resample
            is_up = bool(rng.random() < 0.5)
            if is_drawn or key not in point:
                made[key] = one.suggest(fresh, key)
            else:
                made[key] = moved(one, point[key], factor=settings.factor, is_up=is_up)
        if made != dict(point) and space.violated(made) is None:
            return made
    return dict(point)


def moved(one: Dimension, value: Scalar, *, factor: float, is_up: bool) -> Scalar:
    """A value of a dimension, a step further.

    Args:
        one: The dimension.
        value: The value.
        factor: How far, above 1.
        is_up: Which way.
    """
    if one.kind is Kind.CHOICE:
        place = one.values.index(value) + (1 if is_up else -1)
        return one.values[min(max(place, 0), len(one.values) - 1)]
    assert isinstance(value, int | float)
    low, high = one.range
    if one.kind.is_log:
        far = value * factor if is_up else value / factor
    else:
        step = (factor - 1.0) * (high - low)
        far = value + step if is_up else value - step
    if one.kind.is_whole:
        least = value + 1 if is_up else value - 1
        far = max(round(far), least) if is_up else min(round(far), least)
    return min(max(far, low), high)


def _study(seed: int) -> optuna.Study:
    optuna.logging.set_verbosity(logging.WARNING)
    return optuna.create_study(sampler=RandomSampler(seed=seed))
