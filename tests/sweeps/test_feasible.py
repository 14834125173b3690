from collections.abc import Mapping
from itertools import product
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from onestep.sweeps.condition import Scalar
from onestep.sweeps.constraint import Constraint
from onestep.sweeps.dimension import Dimension, Kind
from onestep.sweeps.feasible import find_outermost, find_point

_DIMENSIONS: Final = {
    "mode": Dimension(kind=Kind.CHOICE, values=("one", "two")),
    "a": Dimension(kind=Kind.INT, low=0, high=3),
    "b": Dimension(kind=Kind.INT, low=-2, high=2, when={"mode": "two"}),
    "c": Dimension(kind=Kind.CHOICE, values=(1, 4)),
}
_POINTS: Final[list[dict[str, Scalar]]] = [
    *({"mode": "one", "a": a, "c": c} for a, c in product(range(4), (1, 4))),
    *(
        {"mode": "two", "a": a, "b": b, "c": c}
        for a, b, c in product(range(4), range(-2, 3), (1, 4))
    ),
]
_TERMS: Final = st.lists(
    st.tuples(st.sampled_from("+-"), st.sampled_from(["a", "b", "c"])), min_size=1, max_size=4
)


@st.composite
def constraints(draw: st.DrawFn) -> list[Constraint]:
    made = []
    for _ in range(draw(st.integers(1, 3))):
        left = "".join(f"{sign}{key}" for sign, key in draw(_TERMS))
        relation = draw(st.sampled_from(["<", "<=", ">", ">="]))
        number = draw(st.integers(-8, 8))
        made.append(Constraint(text=f"{left}{relation}{number}"))
    return made


@settings(max_examples=150)
@given(constraints(), st.sampled_from([{}, {"mode": "two"}, {"b": 2}, {"a": 1, "c": 4}]))
@example([Constraint(text="a+b<=-2")], {})
@example([Constraint(text="a+a+b>7")], {})
def test_a_point_is_found_if_and_only_if_there_is_one(
    some: list[Constraint], fixed: Mapping[str, Scalar]
) -> None:
    allowed = [
        point
        for point in _POINTS
        if all(one.holds(point) for one in some) and fixed.items() <= point.items()
    ]
    found = find_point(_DIMENSIONS, some, fixed=fixed)
    assert (found in allowed) if allowed else (found is None)


@settings(max_examples=60)
@given(constraints(), st.sampled_from(["a", "b"]), st.booleans())
@example([Constraint(text="a-c<=-1")], "a", True)
def test_the_outermost_value_is_found(some: list[Constraint], key: str, is_greatest: bool) -> None:
    allowed = [p for p in _POINTS if key in p and all(one.holds(p) for one in some)]
    found = find_outermost(_DIMENSIONS, some, key, is_greatest=is_greatest)
    if not allowed:
        assert found is None
        return
    assert found in allowed
    assert found[key] == (max if is_greatest else min)(p[key] for p in allowed)  # type: ignore[type-var]


@pytest.mark.parametrize("low", [1e-9, 1e-3, 1.0, 1e6])
def test_numbers_of_any_size_are_found(low: float) -> None:
    dimensions = {key: Dimension(kind=Kind.UNIFORM, low=low, high=2 * low) for key in "xy"}
    text = f"x >= y + {0.5 * low!r}"
    found = find_point(dimensions, [Constraint(text=text)])
    assert found is not None
    assert Constraint(text=text).holds(found)
    assert low <= found["y"] <= found["x"] <= 2 * low  # type: ignore[operator]
    none = find_point(dimensions, [Constraint(text=f"x >= y + {1.001 * low!r}")])
    assert none is None


def test_a_point_is_where_a_person_would_put_it() -> None:
    space = {
        "begin": Dimension(kind=Kind.UNIFORM, low=0.0, high=1.0),
        "until": Dimension(kind=Kind.UNIFORM, low=0.0, high=1.0),
        "free": Dimension(kind=Kind.UNIFORM, low=0.25, high=1.0),
    }
    gap = [Constraint(text="begin + 0.1 <= until")]
    assert find_point(space, gap) == {"begin": 0.0, "until": 0.1, "free": 0.25}
    latest = find_outermost(space, gap, "begin", is_greatest=True)
    assert latest == {"begin": 0.9, "until": 1.0, "free": 0.25}
    assert find_point(space, gap, fixed={"begin": 0.9}) == latest
    assert find_point(space, gap, fixed={"begin": 0.95}) is None
