"""Feasible points: values for all dimensions of a space that its constraints allow."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Final

import numpy as np
from scipy.optimize import linprog

from .condition import Scalar
from .constraint import Constraint
from .dimension import Dimension, Kind

_MARGINS: Final = (1e-6, 0.0)
"""How far inside constraints a point is sought, as a share: first beyond the solver's tolerance."""
_DIGITS: Final = (4, 6, 17)


def find_point(
    dimensions: Mapping[str, Dimension],
    constraints: Sequence[Constraint],
    *,
    fixed: Mapping[str, Scalar] | None = None,
    towards: tuple[str, int] | None = None,
) -> dict[str, Scalar] | None:
    """A point that satisfies all constraints, at lower bounds and first choices where it can be.

    Every choice that matters is tried, and for each the rest is a linear programme.

    Args:
        dimensions: The dimensions, each after those that it depends on.
        constraints: The constraints.
        fixed: Values that the point must have.
        towards: A key that must be present and a sign: -1 for its least value that the constraints
            allow, 1 for its greatest.

    Returns:
        The point, or None if there is none.
    """
    fixed = fixed or {}
    asked = {*fixed, *([towards[0]] if towards else [])}
    deciding = _with_parents({*asked, *(k for c in constraints for k in c.keys)}, dimensions)
    for chosen in _branches(list(dimensions.items()), fixed, deciding, {}):
        present = {key: one for key, one in dimensions.items() if one.is_present(chosen)}
        if not asked <= present.keys():
            continue
        point = {key: {**chosen, **fixed}.get(key, one.extremes[0]) for key, one in present.items()}
        active = [one for one in constraints if one.applies(point)]
        if towards is None and all(one.holds(point) for one in active):
            return point
        bound = {key for one in active for key in one.keys} - fixed.keys()
        free = {k: d for k, d in present.items() if k in bound and d.kind is not Kind.CHOICE}
        for margin in _MARGINS:
            if (found := _solve(point, free, active, towards, margin=margin)) is not None:
                return found
    return None


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
    towards: tuple[str, int] | None,
    *,
    margin: float,
) -> dict[str, Scalar] | None:
    """The point with other values of its free numbers."""
    if not free:
        return None
    # A variable is a share of the range, or for whole numbers the distance from the least.
    lows, highs = np.array([one.range for one in free.values()], dtype=float).T
    is_whole = np.array([one.kind.is_whole for one in free.values()])
    units = np.where(is_whole, 1.0, highs - lows)
    rows, limits = [], []
    for one in constraints:
        factors, number = one.form
        row = np.array([factors.get(key, 0.0) for key in free])
        given = sum(f * _number(point[key]) for key, f in factors.items() if key not in free)
        scale = float(np.abs(row * units).max()) or 1.0
        is_exact = bool(is_whole[row != 0.0].all()) and not one.is_strict
        rows.append(row * units / scale)
        limits.append(-(number + given + row @ lows) / scale - (0.0 if is_exact else margin))
    tops = (highs - lows) / units
    aim = 1.0 / tops if towards is None else -towards[1] * (np.array(list(free)) == towards[0])
    found = linprog(
        aim.astype(float),
        A_ub=np.array(rows),
        b_ub=np.array(limits),
        bounds=[(0.0, top) for top in tops],
        integrality=is_whole.astype(int),
    )
    if not found.success:
        return None
    for digits in _DIGITS:
        numbers = zip(free.items(), lows + units * found.x, strict=True)
        values = {key: _tidy(float(number), digits, one) for (key, one), number in numbers}
        if all(one.holds({**point, **values}) for one in constraints):
            return {**point, **values}
    return None


def _tidy(value: float, digits: int, dimension: Dimension) -> float:
    """A number that a person would write, between the bounds."""
    low, high = dimension.range
    near = round(value) if dimension.kind.is_whole else float(f"{value:.{digits}g}")
    return min(max(near, low), high)


def _number(value: Scalar) -> float:
    assert isinstance(value, int | float)
    return value
