from fractions import Fraction
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st

from onestep.sweeps.constraint import Constraint

_RELATIONS: Final = ("<", "<=", ">", ">=")
_TERM: Final = st.one_of(st.sampled_from(["a", "b.c", "b.d_2"]), st.integers(0, 9))
_SIDE: Final = st.lists(st.tuples(st.sampled_from("+-"), _TERM), min_size=1, max_size=4)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "a <",
        "< a",
        "a = b",
        "a == b",
        "a <= b <= c",
        "a + <= b",
        "a + + b <= 1",
        "a - -1 <= b",
        "a b <= 1",
        "2 a <= 1",
        "2a <= 1",
        "1.2.3 <= a",
        "2 * a <= 1",
        "(a) <= 1",
        "a.() <= 1",
        "a. <= 1",
        "a <= __import__('os')",
        "a <= 'b'",
        "a =< b",
        "1 <= 2",
        3,
        None,
    ],
)
def test_what_is_no_inequality_is_refused(text: object) -> None:
    with pytest.raises(ValueError, match=r"a constraint is an inequality such as .*; got "):
        Constraint(text=text)  # type: ignore[arg-type]


@given(_SIDE, st.sampled_from(_RELATIONS), _SIDE, st.lists(st.integers(-20, 20), min_size=3))
def test_a_constraint_means_what_it_says(
    left: list[tuple[str, str | int]],
    relation: str,
    right: list[tuple[str, str | int]],
    drawn: list[int],
) -> None:
    values = dict(zip(("a", "b.c", "b.d_2"), drawn, strict=False))

    def total(side: list[tuple[str, str | int]]) -> int:
        signs = {"+": 1, "-": -1}
        return sum(signs[s] * (values[t] if isinstance(t, str) else t) for s, t in side)

    text = (
        f"{' '.join(f'{s} {t}' for s, t in left)}{relation}{''.join(f'{s}{t}' for s, t in right)}"
    )
    keys = {term for _, term in (*left, *right) if isinstance(term, str)}
    if not keys:
        with pytest.raises(ValueError, match="names no key"):
            Constraint(text=text)
        return
    constraint = Constraint(text=text)
    expected = {
        "<": total(left) < total(right),
        "<=": total(left) <= total(right),
        ">": total(left) > total(right),
        ">=": total(left) >= total(right),
    }[relation]
    assert set(constraint.keys) == keys
    assert constraint.holds(values) is expected
    factors, number = constraint.form
    excess = sum(Fraction(f) * values[k] for k, f in factors.items()) + Fraction(number)
    assert (excess < 0 if constraint.is_strict else excess <= 0) is expected


def test_numbers_are_read_as_python_reads_them() -> None:
    constraint = Constraint(text="a>1.5e-3 + .25-2.")
    assert constraint.right == ((1, 1.5e-3), (1, 0.25), (-1, 2.0))
    assert str(constraint) == "a>1.5e-3 + .25-2."


def test_a_constraint_says_nothing_about_a_point_without_its_key() -> None:
    constraint = Constraint(text="a < b")
    assert constraint.holds({"a": 5})
    assert not constraint.holds({"a": 5, "b": 5})


def test_bounds_that_forbid_a_constraint_are_named() -> None:
    constraint = Constraint(text="a + 0.5 <= b - a")
    constraint.check_bounds({"a": (0.0, 9.0), "b": (0.0, 0.5)})
    with pytest.raises(ValueError, match=r"no point can satisfy .* a from 0 to 9, b from 0 to 0.4"):
        constraint.check_bounds({"a": (0.0, 9.0), "b": (0.0, 0.4)})
    with pytest.raises(ValueError, match="no point can satisfy 'a < a'"):
        Constraint(text="a < a").check_bounds({"a": (0.0, 1.0)})
