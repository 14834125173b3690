import math
from collections import Counter
from typing import Any

import numpy as np
import pytest

from onestep.sweeps.bandit import Step, chosen
from onestep.sweeps.dimension import Dimension
from onestep.sweeps.evolution import drawn, explored, moved, sources
from onestep.sweeps.space import Space
from onestep.sweeps.stopping import Stopping, StoppingKind


def rngs(seed: int, members: int) -> dict[int, np.random.Generator]:
    return {member: np.random.default_rng((seed, member)) for member in range(members)}


def space_of(**parts: Any) -> Space:
    return Space.from_dict(parts)


def test_the_lowest_quantile_goes_on_from_the_highest_and_all_others_from_themselves() -> None:
    results = {member: (float(member),) for member in (3, 0, 7, 5, 2, 6, 1, 4)}
    taken: Counter[int] = Counter()
    for seed in range(50):
        source = sources(results, 0.25, rngs(seed, 8))
        assert {member: source[member] for member in range(6)} == {k: k for k in range(6)}
        taken.update((source[6], source[7]))
    assert taken.keys() == {0, 1}
    assert min(taken.values()) > 25


@pytest.mark.parametrize(("members", "quantile"), [(2, 0.1), (5, 0.25), (10, 0.1), (10, 0.3)])
def test_the_quantile_is_at_least_one_member(members: int, quantile: float) -> None:
    results = {member: (float(member),) for member in range(members)}
    source = sources(results, quantile, rngs(0, members))
    copies = [member for member, it in source.items() if member != it]
    assert len(copies) == max(1, round(quantile * members - 0.26))
    assert copies == list(range(members - len(copies), members))


def test_who_failed_goes_on_from_a_member_that_did_not() -> None:
    results = {0: (math.inf,), 1: (math.inf,), 2: (1.0,), 3: (math.inf,)}
    assert sources(results, 0.5, rngs(0, 4)) == {0: 2, 1: 2, 2: 2, 3: 2}
    assert sources({0: (math.inf,), 1: (math.inf,)}, 0.5, rngs(0, 2)) == {}


def test_several_objectives_rank_by_fronts() -> None:
    results = {0: (1.0, 2.0), 1: (2.0, 1.0), 2: (3.0, 3.0), 3: (0.0, 9.0)}
    source = sources(results, 0.25, rngs(0, 4))
    assert source[2] in (0, 1, 3)
    assert source[2] != 2
    assert {k: source[k] for k in (0, 1, 3)} == {0: 0, 1: 1, 3: 3}


@pytest.mark.parametrize(
    ("node", "value", "up", "down"),
    [
        ({"kind": "log_uniform", "low": 0.01, "high": 1.0}, 0.1, 0.15, 0.1 / 1.5),
        ({"kind": "log_uniform", "low": 0.01, "high": 1.0}, 0.9, 1.0, 0.6),
        ({"kind": "uniform", "low": -1.0, "high": 1.0}, 0.0, 1.0, -1.0),
        ({"kind": "uniform", "low": 0.0, "high": 0.5}, 0.25, 0.5, 0.0),
        ({"kind": "int", "low": 1, "high": 9}, 5, 9, 1),
        ({"kind": "log_int", "low": 1, "high": 9}, 1, 2, 1),
        ({"kind": "choice", "values": [4, 1, 2]}, 1, 2, 4),
        ({"kind": "choice", "values": [4, 1, 2]}, 4, 1, 4),
    ],
)
def test_numbers_move_on_the_scale_that_they_are_drawn_on(
    node: dict[str, Any], value: float, up: float, down: float
) -> None:
    one = Dimension.from_dict(node)
    for is_up, wanted in ((True, up), (False, down)):
        found = moved(one, value, factor=1.5, is_up=is_up)
        assert found == pytest.approx(wanted)
        assert isinstance(found, type(value))


def test_explored_points_keep_bounds_conditions_and_constraints() -> None:
    space = space_of(
        a={"kind": "uniform", "low": 0.0, "high": 1.0},
        b={"kind": "uniform", "low": 0.0, "high": 1.0},
        shape={"kind": "choice", "values": ["flat", "round"]},
        radius={"kind": "log_uniform", "low": 0.1, "high": 10.0, "when": {"shape": "round"}},
        constraints=["a + 0.1 <= b"],
    )
    start = {"a": 0.5, "b": 0.65, "shape": "flat"}
    settings = Stopping(kind=StoppingKind.PBT, factor=1.1, resample=0.0)
    points = [explored(space, start, settings, np.random.default_rng(k)) for k in range(40)]
    assert {("radius" in one, one["shape"]) for one in points} == {
        (False, "flat"),
        (True, "round"),
    }
    for one in points:
        assert space.violated(one) is None
        assert one["a"] in (pytest.approx(0.4), pytest.approx(0.6))
        space.overrides(one)
    always = Stopping(kind=StoppingKind.PBT, resample=1.0)
    fresh = {explored(space, start, always, np.random.default_rng(k))["a"] for k in range(20)}
    assert len(fresh) == 20


def test_points_that_break_a_constraint_are_not_drawn() -> None:
    unit = {"kind": "uniform", "low": 0.0, "high": 1.0}
    space = space_of(a=unit, b=unit, constraints=["a <= b"])
    points = drawn(space, count=100, seed=3)
    assert 30 < len(points) < 70
    assert points == drawn(space, count=100, seed=3) != drawn(space, count=100, seed=4)


_LINE = space_of(x={"kind": "uniform", "low": 0.0, "high": 1.0})


def steps(*peaks: float) -> list[Step]:
    """One generation for each peak, in which members nearer to it improve more."""
    return [
        Step(
            generation=generation,
            point={"x": x},
            before=(5.0,),
            after=(4.0 + (x - peak) ** 2,),
        )
        for generation, peak in enumerate(peaks, 1)
        for x in (0.05, 0.25, 0.45, 0.65, 0.85)
    ]


def asked(*found: Step, generation: int, pending: tuple[float, ...] = ()) -> float:
    candidates = [{"x": place / 100} for place in range(101)]
    taken = [{"x": x} for x in pending]
    point = chosen(_LINE, found, candidates, generation=generation, pending=taken, seed=0)
    return float(str(point["x"]))


def test_the_bandit_asks_where_members_improved_most() -> None:
    assert asked(*steps(0.3, 0.3), generation=3) == pytest.approx(0.3, abs=0.12)
    assert asked(*steps(0.7, 0.7), generation=3) == pytest.approx(0.7, abs=0.12)


def test_the_bandit_believes_the_newest_generations_more() -> None:
    assert asked(*steps(0.2, 0.2, 0.5, 0.8), generation=5) > 0.6
    assert asked(*steps(0.8, 0.8, 0.5, 0.2), generation=5) < 0.4


def test_copies_of_one_generation_part() -> None:
    known = [
        Step(generation=1, point={"x": x}, before=(5.0,), after=(4.0 + abs(x - peak),))
        for x, peak in ((0.1, 0.1), (0.3, 0.1), (0.5, 0.1), (0.7, 0.9), (0.9, 0.9))
    ]
    first = asked(*known, generation=2)
    second = asked(*known, generation=2, pending=(first, first))
    assert {first < 0.3, second < 0.3} == {True, False}
    assert {first > 0.7, second > 0.7} == {True, False}


def test_a_failure_is_as_bad_as_the_worst_of_its_generation() -> None:
    failed = [
        Step(generation=1, point={"x": x}, before=(5.0,), after=(math.inf,)) for x in (0.2, 0.3)
    ]
    alive = [
        Step(generation=1, point={"x": x}, before=(5.0,), after=(after,))
        for x, after in ((0.6, 4.5), (0.7, 4.0), (0.8, 4.0))
    ]
    assert asked(*failed, *alive, generation=2) > 0.5


def test_where_nothing_is_known_the_first_candidate_is_taken() -> None:
    assert asked(generation=1) == 0.0
    flat = [replace_after(one) for one in steps(0.3)]
    assert asked(*flat, generation=2) == 0.0


def replace_after(one: Step) -> Step:
    return Step(generation=one.generation, point=one.point, before=one.before, after=(4.0,))
