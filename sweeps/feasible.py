"""Feasible points: values for all dimensions of a space that its constraints allow."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from scipy.optimize import linprog

from .condition import Scalar
from .constraint import Constraint
from .dimension import Dimension, Kind

_MARGINS: Final = (1e-5, 0.0)
"""How far inside constraints a point is sought: first beyond the tolerances of the solver."""
_DIGITS: Final = (4, 6, 17)


def find_point(
    dimensions: Mapping[str, Dimension],
    constraints: Sequence[Constraint],
    *,
    fixed: Mapping[str, Scalar] | None = None,
) -> dict[str, Scalar] | None:
    """A point that satisfies all constraints, at lower bounds and first choices where it can be.

    Every choice that matters is tried, and for each the rest is a linear programme.

    Args:
        dimensions: The dimensions, each after those that it depends on.
        constraints: The constraints.
        fixed: Values that the point must have.

    Returns:
        The point, or None if there is none.
    """
    for point in _lowest_points(dimensions, constraints, fixed or {}, fixed or {}):
        if all(one.holds(point) for one in constraints):
            return point
        free = _free(point, dimensions, constraints, (fixed or {}).keys())
        if (found := _solve(point, free, constraints, dict.fromkeys(free, 1))) is not None:
            return found
    return None


def find_outermost(
    dimensions: Mapping[str, Dimension],
    constraints: Sequence[Constraint],
    key: str,
    *,
    is_greatest: bool,
) -> dict[str, Scalar] | None:
    """A point that satisfies all constraints and in which a number is as small as it can be.

    Args:
        dimensions: The dimensions, each after those that it depends on.
        constraints: The constraints.
        key: Which number.
        is_greatest: Whether it should be as large as it can be instead.

    Returns:
        The point, or None if no point has the key.
    """
    sign = -1 if is_greatest else 1
    found = []
    for point in _lowest_points(dimensions, constraints, (key,), {}):
        free = {**_free(point, dimensions, constraints, ()), key: dimensions[key]}
        found.append(_solve(point, free, constraints, {key: sign}))
    points = [point for point in found if point is not None]
    return min(points, key=lambda point: sign * _number(point[key]), default=None)


def _lowest_points(
    dimensions: Mapping[str, Dimension],
    constraints: Sequence[Constraint],
    asked: Iterable[str],
    fixed: Mapping[str, Scalar],
) -> Iterator[dict[str, Scalar]]:
    """For all choices with which the asked keys are present, the point of all lower bounds."""
    keys = set(asked)
    deciding = _with_parents({*keys, *(key for one in constraints for key in one.keys)}, dimensions)
    for chosen in _branches(list(dimensions.items()), fixed, deciding, {}):
        present = {key: one for key, one in dimensions.items() if one.is_present(chosen)}
        if keys <= present.keys():
            known = {**chosen, **fixed}
            yield {key: known.get(key, one.extremes[0]) for key, one in present.items()}


def _free(
    point: Mapping[str, Scalar],
    dimensions: Mapping[str, Dimension],
    constraints: Sequence[Constraint],
    fixed: Collection[str],
) -> dict[str, Dimension]:
    """The numbers of a point that constraints bind and nothing else."""
    bound = {key for one in constraints if one.applies(point) for key in one.keys}
    return {
        key: dimensions[key]
        for key in point
        if key in bound and key not in fixed and dimensions[key].kind is not Kind.CHOICE
    }


def _with_parents(keys: Iterable[str], dimensions: Mapping[str, Dimension]) -> set[str]:
    found: set[str] = set()
    for key in keys:
        found |= {key} | _with_parents(dimensions[key].when, dimensions)
    return found


def _branches(
    dimensions: list[tuple[str, Dimension]],
    fixed: Mapping[str, Scalar],
    deciding: set[str],
    chosen: dict[str, Scalar],
) -> Iterator[dict[str, Scalar]]:
    """All ways to choose; a choice that decides nothing takes its first value."""
    for place, (key, one) in enumerate(dimensions):
        if one.kind is Kind.CHOICE and one.is_present(chosen):
            values = one.values if key in deciding else one.values[:1]
            for value in (fixed[key],) if key in fixed else values:
                rest = dimensions[place + 1 :]
                yield from _branches(rest, fixed, deciding, {**chosen, key: value})
            return
    yield chosen


def _solve(
    point: Mapping[str, Scalar],
    free: Mapping[str, Dimension],
    constraints: Sequence[Constraint],
    costs: Mapping[str, int],
) -> dict[str, Scalar] | None:
    """The point with the cheapest values of its free numbers."""
    if not free:
        return None
    active = [one for one in constraints if one.applies(point)]
    for margin in _MARGINS:
        numbers = _optimum(point, free, active, costs, margin=margin)
        for digits in _DIGITS if numbers else ():
            values = {key: _tidy(numbers[key], digits, one) for key, one in free.items()}
            if all(one.holds({**point, **values}) for one in active):
                return {**point, **values}
    return None


def _optimum(
    point: Mapping[str, Scalar],
    free: Mapping[str, Dimension],
    constraints: Sequence[Constraint],
    costs: Mapping[str, int],
    *,
    margin: float,
) -> dict[str, float]:
    """The cheapest values of the free numbers of a point, or none."""
    # A variable is a share of the range, or for whole numbers the distance from the least.
    lows, highs = np.array([one.range for one in free.values()], dtype=float).T
    is_whole = np.array([one.kind.is_whole for one in free.values()])
    units = np.where(is_whole, 1.0, highs - lows)
    rows, limits = [], []
    for one in constraints:
        factors, number = one.form
        row = np.array([factors.get(key, 0.0) for key in free])
        given = sum(f * _number(point[key]) for key, f in factors.items() if key not in free)
        limit = -(number + given + float(row @ lows))
        if is_whole[row != 0.0].all():  # a whole sum: half-way to the next one it is safe
            limit = math.ceil(limit) - 0.5 if one.is_strict else math.floor(limit) + 0.5
        scale = float(np.abs(row * units).max()) or 1.0
        rows.append(row * units / scale)
        limits.append(limit / scale - margin)
    tops = (highs - lows) / units
    found = linprog(
        np.array([float(costs.get(key, 0)) for key in free]) / tops,
        A_ub=np.array(rows).reshape(-1, len(free)),
        b_ub=np.array(limits),
        bounds=[(0.0, top) for top in tops],
        integrality=is_whole.astype(int),
    )
    return dict(zip(free, (lows + units * found.x).tolist(), strict=True)) if found.success else {}


def _tidy(value: float, digits: int, dimension: Dimension) -> float:
    """A number that a person would write, between the bounds."""
    low, high = dimension.range
    near = round(value) if dimension.kind.is_whole else float(f"{value:.{digits}g}")
    return min(max(near, low), high)


def _number(value: Scalar) -> float:
    assert isinstance(value, int | float)
    return value
