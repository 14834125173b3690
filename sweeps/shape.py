"""Shapes: the schedules that a sweep draws, made from numbers and written down."""

import inspect
from collections.abc import Mapping
from functools import cache
from itertools import pairwise
from typing import Any, Final

from ..methods.core.schedule import (
    Clock,
    Constant,
    Cosine,
    Doubling,
    Exponential,
    Linear,
    Piecewise,
    Schedule,
    Sigmoid,
    SquareRootGrowth,
)

SHAPES: Final[Mapping[str, type[Schedule]]] = {
    "constant": Constant,
    "linear": Linear,
    "cosine": Cosine,
    "sigmoid": Sigmoid,
    "exponential": Exponential,
    "doubling": Doubling,
    "square_root_growth": SquareRootGrowth,
    "piecewise": Piecewise,
}
PIECEWISE: Final = "piecewise"
_DIGITS: Final = 12
"""To which sums of readings are rounded, so that 0.1 and 0.2 are 0.3."""


@cache
def fields_of(shape: str) -> Mapping[str, inspect.Parameter]:
    """The fields of a shape's class."""
    return inspect.signature(SHAPES[shape]).parameters


def make(shape: str, knots: int, numbers: Mapping[str, Any], clock: Clock) -> Schedule:
    """The schedule of a shape.

    Args:
        shape: Name of the shape.
        knots: How many knots, if it is piecewise.
        numbers: The fields that are given, with ``length`` for ``until``; of a piecewise schedule
            ``start``, ``end``, ``length_1`` and so on, and ``value_2`` and so on. Others are left
            out.
        clock: What readings and lengths count.

    Returns:
        The schedule.

    Raises:
        ValueError: If its class refuses a number.
    """
    if shape == PIECEWISE:
        return _piecewise(knots, numbers, clock)
    fields = fields_of(shape)
    given = {name: number for name, number in numbers.items() if name in fields}
    if "length" in numbers and "until" in fields:
        given["until"] = round(given.get("begin", 0.0) + numbers["length"], _DIGITS)
    if "clock" in fields:
        given["clock"] = clock
    made: Schedule = SHAPES[shape](**given)
    return made


def _piecewise(knots: int, numbers: Mapping[str, Any], clock: Clock) -> Piecewise:
    boundaries: list[float] = []
    for n in range(1, knots + 1):
        before = boundaries[-1] if boundaries else 0.0
        boundaries.append(round(before + numbers[f"length_{n}"], _DIGITS))
    middle = [numbers[f"value_{n}"] for n in range(2, knots + 1)]
    values = (numbers["start"], *middle, numbers["end"])
    return Piecewise(values=values, boundaries=tuple(boundaries), clock=clock)


def name_of(schedule: Schedule) -> str | None:
    """The name of a schedule's shape, or None if it has none."""
    return next((name for name, kind in SHAPES.items() if type(schedule) is kind), None)


def numbers_of(schedule: Schedule) -> dict[str, Any]:
    """The numbers from which ``make`` makes a schedule of one of the shapes.

    Args:
        schedule: The schedule.

    Returns:
        Numbers by the names that ``make`` knows: of a ramp both ``until`` and ``length``, of a
        piecewise schedule ``knots``, too.
    """
    if isinstance(schedule, Piecewise):
        first, *middle, last = schedule.values
        readings = pairwise((0.0, *schedule.boundaries))
        return {
            "knots": len(schedule.boundaries),
            "start": first,
            "end": last,
            **{f"value_{n}": value for n, value in enumerate(middle, start=2)},
            **{f"length_{n}": _length(*pair) for n, pair in enumerate(readings, start=1)},
        }
    numbers = values_of(schedule)
    if "until" in numbers:
        numbers["length"] = _length(numbers["begin"], numbers["until"])
    return numbers


def _length(begin: float, until: float) -> float:
    """What is added to one reading for another, with no more digits than that takes."""
    short = round(until - begin, _DIGITS)
    return short if round(begin + short, _DIGITS) == until else until - begin


def node_of(schedule: Schedule) -> str:
    """A schedule as a node in Hydra's grammar of overrides, with all of its fields."""
    kind = type(schedule)
    inner = ",".join(f"{name}:{_text(value)}" for name, value in values_of(schedule).items())
    return f"{{_target_:{kind.__module__}.{kind.__qualname__},{inner}}}"


def sentence(schedule: Schedule) -> str:
    """A schedule in words.

    Args:
        schedule: A schedule of one of the shapes.
    """
    if isinstance(schedule, Constant):
        return f"constant {schedule.value:.4g}"
    values = values_of(schedule)
    clock = f"on the clock {values['clock']}"
    if isinstance(schedule, Piecewise):
        pieces = zip(schedule.values, schedule.boundaries, strict=False)
        parts = [f"{value:.4g} up to {boundary:.4g}" for value, boundary in pieces]
        return f"{', '.join(parts)}, then {schedule.values[-1]:.4g}, {clock}"
    shape = name_of(schedule)
    assert shape is not None
    start, end, begin, until = (f"{values[k]:.4g}" for k in ("start", "end", "begin", "until"))
    return f"{shape.replace('_', ' ')} from {start} to {end} between {begin} and {until}, {clock}"


def values_of(schedule: Schedule) -> dict[str, Any]:
    """The fields of a schedule by their names."""
    return {name: getattr(schedule, name) for name in inspect.signature(type(schedule)).parameters}


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return f"[{','.join(map(_text, value))}]"
    return str(value) if isinstance(value, Clock) else repr(value)
