"""The bandit of a population: a Gaussian process says which numbers improve a member most."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite, log, sqrt
from typing import Final, final

import numpy as np
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Kernel, Matern, WhiteKernel

from .dimension import Kind
from .evolution import Point
from .ranking import Values
from .space import Space

_BLIND: Final = 1e6
"""A length over which nothing changes: the kernel does not see this column."""
_C1: Final = 0.2
_C2: Final = 0.4


@final
@dataclass(frozen=True, kw_only=True)
class Step:
    """What a member did in one generation.

    Attributes:
        generation: The generation, from 1.
        point: With which numbers.
        before: Values of the state that it began from; smaller is better.
        after: Those at its end; not finite if it failed.
    """

    generation: int
    point: Point
    before: Values
    after: Values


def chosen(
    space: Space,
    steps: Sequence[Step],
    candidates: Sequence[Point],
    *,
    generation: int,
    pending: Sequence[Point],
    seed: int,
) -> Point:
    """The candidate with the highest upper confidence bound on its improvement.

    Improvements are compared within their generation, each less the mean and over the deviation,
    and averaged over the objectives. The covariance falls with the generations between two steps,
    exponentially, and with the squared distance of their numbers. Points that others of this
    generation take shrink the deviation around them, so that copies part.

    Reference: Parker-Holder et al. 2020 (PB2), arXiv:2002.02518: GP-UCB with the covariance
        k = k_SE (1 - epsilon)^(|t - t'| / 2), in a batch. The bound's weight is that of the
        authors' code.
    Differs from the paper: improvements are relative to their generation; the best of random
        points is taken, so that choices, conditions and constraints are as in any sweep.

    Args:
        space: The space.
        steps: What members did in the generations before.
        candidates: Points to choose from.
        generation: The generation that is chosen for.
        pending: Points of members that are in this generation already.
        seed: Seed of the fit.

    Returns:
        One of the candidates, the first where nothing is known.
    """
    rewards = _rewards(steps)
    if not steps or np.ptp(rewards) == 0.0:
        return candidates[0]
    known = np.array([_row(space, one.point, one.generation) for one in steps])
    asked = np.array([_row(space, one, generation) for one in candidates])
    mean = GaussianProcessRegressor(kernel=_kernel(known.shape[1] - 1), random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # a length at its bound is an answer
        mean.fit(known, rewards)
    taken = np.array([_row(space, one, generation) for one in pending]).reshape(-1, known.shape[1])
    spread = GaussianProcessRegressor(kernel=mean.kernel_, optimizer=None)
    spread.fit(np.concatenate([known, taken]), np.zeros(len(known) + len(taken)))
    variance = spread.predict(asked, return_std=True)[1] ** 2 - mean.kernel_.k2.noise_level
    deviation = np.sqrt(np.maximum(variance, 0.0))
    weight = sqrt(_C1 + max(log(_C2 * len(steps)), 0.0))
    return candidates[int(np.argmax(mean.predict(asked) + weight * deviation))]


def _kernel(numbers: int) -> Kernel:
    """Exponential in the generation, the first column, and Gaussian in the others."""
    blind = (_BLIND, _BLIND)
    in_time = Matern(
        nu=0.5,
        length_scale=[5.0, *[_BLIND] * numbers],
        length_scale_bounds=[(0.5, 100.0), *[blind] * numbers],
    )
    in_numbers = RBF(
        length_scale=[_BLIND, *[0.5] * numbers],
        length_scale_bounds=[blind, *[(0.05, 10.0)] * numbers],
    )
    return ConstantKernel(1.0, (0.05, 20.0)) * in_time * in_numbers + WhiteKernel(0.1, (1e-3, 1.0))


def _row(space: Space, point: Point, generation: int) -> list[float]:
    """A generation and a point as numbers, those of the point from 0 to 1."""
    row = [float(generation)]
    for key, one in space.dimensions.items():
        value = point.get(key)
        if one.kind is Kind.CHOICE:
            row += [float(key in point and value == it) for it in one.values]
            continue
        low, high = map(float, one.range)
        number = sqrt(low * high) if one.kind.is_log else (low + high) / 2.0
        if isinstance(value, int | float):
            number = float(value)
        if one.kind.is_log:
            low, high, number = log(low), log(high), log(number)
        row.append((number - low) / (high - low) if high > low else 0.5)
    return row


def _rewards(steps: Sequence[Step]) -> np.ndarray:
    rewards = np.zeros(len(steps))
    for generation in {one.generation for one in steps}:
        rows = [row for row, one in enumerate(steps) if one.generation == generation]
        gains = np.array([_gain(steps[row]) for row in rows])
        finite = gains[np.isfinite(gains).all(axis=1)]
        if not len(finite):
            continue
        gains = np.where(np.isfinite(gains), gains, finite.min(axis=0))  # a failure is the worst
        spread = gains.std(axis=0)
        rewards[rows] = ((gains - gains.mean(axis=0)) / np.where(spread > 0.0, spread, 1.0)).mean(1)
    return rewards


def _gain(step: Step) -> list[float]:
    if not all(map(isfinite, step.after)):
        return [-np.inf] * len(step.before)
    return [before - after for before, after in zip(step.before, step.after, strict=True)]
