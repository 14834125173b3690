from typing import Any

import pytest

from onestep.sweeps.objective import Number
from onestep.sweeps.pareto import Point, pareto_set, rounded


def point(
    trial: int, quality: float, *, nfe: int = 1, cost: float = 10.0, ms: float | None = 5.0
) -> Point:
    def exactly(value: float) -> Number:
        return Number(value=value, low=value, high=value)

    return Point(
        trial=trial,
        place=0,
        said="as trained",
        nfe=nfe,
        quality=exactly(quality),
        training_s=cost,
        latency=None if ms is None else exactly(ms),
    )


def best(*points: Point, sign: float = 1.0) -> list[int]:
    return [one.trial for one in pareto_set(points, sign=sign)]


@pytest.mark.parametrize("better", [{"nfe": 1}, {"cost": 5.0}, {"ms": 2.0}])
def test_a_worse_quality_stays_for_fewer_evaluations_a_cheaper_training_or_faster_samples(
    better: dict[str, Any],
) -> None:
    first, worse = point(0, 1.0, nfe=2), point(1, 2.0, **{"nfe": 2, **better})
    assert best(worse, first) == [0, 1]
    assert best(point(1, 2.0, nfe=2), first) == [0]


def test_larger_values_may_be_the_better_ones() -> None:
    assert best(point(0, 1.0), point(1, 2.0), sign=-1.0) == [1]


def test_a_hair_of_time_makes_no_better_point() -> None:
    assert best(point(0, 1.0, cost=10.4, ms=5.04), point(1, 2.0, cost=10.1, ms=4.96)) == [0]
    assert best(point(0, 1.0, ms=5.06), point(1, 2.0, ms=4.94)) == [0, 1]


def test_latency_counts_if_all_have_it_and_a_set_of_nothing_is_nothing() -> None:
    assert best(point(0, 1.0, ms=9.0), point(1, 2.0, ms=1.0), point(2, 3.0, ms=None)) == [0]
    assert best() == []


@pytest.mark.parametrize(
    ("given", "kept"), [(123.4, 120.0), (0.01234, 0.012), (9.96, 10.0), (0.0, 0.0), (1.0, 1.0)]
)
def test_times_have_two_digits(given: float, kept: float) -> None:
    assert rounded(given) == pytest.approx(kept)
