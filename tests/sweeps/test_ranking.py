"""Rankings against a brute force that shares nothing with them."""

import itertools
import math
from fractions import Fraction
from typing import Final

import numpy as np
import pytest

from onestep.sweeps.ranking import Values, ranked


def dominates(a: Values, b: Values) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))


def volume(points: list[Values], ref: Fraction) -> Fraction:
    """What is dominated up to the reference point: exact, cell by cell of the points' own grid."""
    if not points:
        return Fraction(0)
    axes = [
        sorted({*(Fraction(p[k]) for p in points), Fraction(ref)}) for k in range(len(points[0]))
    ]
    total = Fraction(0)
    for cell in itertools.product(*(itertools.pairwise(axis) for axis in axes)):
        if any(all(p[k] <= low for k, (low, _) in enumerate(cell)) for p in points):
            total += math.prod(high - low for low, high in cell)
    return total


def by_brute_force(results: dict[int, Values]) -> list[int]:
    """In units of the range of each objective, which the points below fill exactly."""
    left, order = dict(results), list[int]()
    while left:
        front = {
            k: v for k, v in left.items() if not any(dominates(other, v) for other in left.values())
        }
        left = {k: v for k, v in left.items() if k not in front}
        removed = []
        while front:
            whole = volume(list(front.values()), Fraction(11, 10))
            lost = {
                k: whole - volume([v for j, v in front.items() if j != k], Fraction(11, 10))
                for k in front
            }
            last = max(k for k in front if lost[k] == min(lost.values()))
            removed.append(last)
            del front[last]
        order += removed[::-1]
    return order


SIXTEENTHS: Final = 16


@pytest.mark.parametrize("objectives", [2, 3])
@pytest.mark.parametrize("seed", range(12))
def test_a_ranking_is_that_of_brute_force(objectives: int, seed: int) -> None:
    """On sixteenths, which are exact and often tie; the corners fill the range."""
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, SIXTEENTHS + 1, size=(9, objectives)) / SIXTEENTHS
    drawn[0, 0], drawn[1, -1] = 0.0, 0.0
    drawn[2] = 1.0
    drawn[3, 1] = drawn[4, 0] = 0.0
    if objectives == 3:
        drawn[5, 2] = 0.0
    numbers = rng.permutation(40)[: len(drawn)]
    results = {int(k): tuple(float(v) for v in row) for k, row in zip(numbers, drawn, strict=True)}
    assert list(ranked(results)) == by_brute_force(results)


def test_the_unit_of_an_objective_means_nothing() -> None:
    rng = np.random.default_rng(1)
    points = {k: tuple(rng.random(2)) for k in range(20)}
    other = {k: (1e-3 * a - 7.0, 4096.0 * b) for k, (a, b) in points.items()}
    assert ranked(points) == ranked(other)


def test_the_order_in_which_results_came_means_nothing() -> None:
    rng = np.random.default_rng(2)
    points = {k: tuple(rng.integers(0, 4, size=2) / 4.0) for k in range(12)}
    for _ in range(20):
        keys = rng.permutation(12).tolist()
        assert ranked({k: points[k] for k in keys}) == ranked(points)


def test_one_of_two_twins_keeps_its_place() -> None:
    """Each alone would take nothing from the hypervolume, and both would be last."""
    results = {0: (0.0, 1.0), 1: (1.0, 0.0), 2: (0.1, 0.1), 3: (0.1, 0.1), 4: (0.9, 0.05)}
    assert ranked(results)[0] == 2
    assert ranked(results)[-1] == 3


def test_one_objective_is_an_order_by_value_and_number() -> None:
    assert ranked({3: (0.5,), 1: (0.5,), 2: (0.1,), 0: (2.0,)}) == (2, 1, 3, 0)


def test_what_is_not_finite_comes_last() -> None:
    results = {0: (math.nan, 0.0), 1: (9.0, 9.0), 2: (0.0, math.inf), 3: (1.0, 1.0)}
    assert ranked(results) == (3, 1, 0, 2)
    assert ranked({0: (math.nan,), 1: (9.0,)}) == (1, 0)
    assert ranked({}) == ()


def test_an_objective_without_a_range_tells_nothing() -> None:
    assert ranked({0: (2.0, 5.0), 1: (1.0, 5.0)}) == (1, 0)


def test_values_of_different_objectives_are_not_ranked() -> None:
    with pytest.raises(ValueError, match=r"equally many values, got \[1, 2\]"):
        ranked({0: (1.0,), 1: (1.0, 2.0)})
