"""Points that were suggested and are no trials, in words: they have numbers, which tables lack."""

from collections.abc import Sequence
from typing import Final

from optuna.study import Study

from .ending import NO_POINTS_LEFT
from .record import UNTRIED

_SHOWN: Final = 8
"""Numbers of points that are listed."""


def untried(study: Study) -> str:
    """What became of the points that have numbers and are no trials, in words; nothing without any.

    Args:
        study: The study.
    """
    broken, again = list[int](), list[int]()
    for one in study.get_trials(deepcopy=False):
        if (why := one.user_attrs.get(UNTRIED)) is not None:
            (again if why == NO_POINTS_LEFT else broken).append(one.number)
    said = [
        f"Not tried: {_points(numbers)} {why} ({_numbers(numbers)})."
        for numbers, why in (
            (broken, "that broke sweep.space.constraints"),
            (again, "that the grid gave again when it had no others left"),
        )
        if numbers
    ]
    return " ".join(said)


def _points(numbers: Sequence[int]) -> str:
    return f"{len(numbers)} point{'s' if len(numbers) > 1 else ''}"


def _numbers(numbers: Sequence[int]) -> str:
    """The first numbers, and how many more there are."""
    first = ", ".join(map(str, numbers[:_SHOWN]))
    more = f" and {len(numbers) - _SHOWN} more" if len(numbers) > _SHOWN else ""
    return f"number{'s' if len(numbers) > 1 else ''} {first}{more}"
