"""Bars that are missed, with the reasons that are known."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, final

Misses = dict[str, dict[str, str]]
"""By recipe and number, why; nothing where nobody has said."""


@final
@dataclass(frozen=True)
class Excuse:
    """Why a number does not reach its bar.

    Attributes:
        why: The reason.
        at_most: The largest number that it holds for.
    """

    why: str
    at_most: float


Excuses = Mapping[str, Mapping[str, Excuse]]
"""By recipe and number."""


def reasons(measured: Mapping[str, Any], excuses: Excuses) -> dict[str, dict[str, str]]:
    """The excuses that hold for what was measured.

    Args:
        measured: What was measured, by recipe.
        excuses: All that there are.
    """
    return {
        recipe: {
            number: excuse.why
            for number, excuse in excuses.get(recipe, {}).items()
            if each[number] <= excuse.at_most
        }
        for recipe, each in measured.items()
    }


def misses_of(
    measured: Mapping[str, Any],
    missed: Callable[[Mapping[str, Any]], Sequence[str]],
    explained: Mapping[str, Mapping[str, str]],
) -> Misses:
    """What recipes miss.

    Args:
        measured: What was measured, by recipe.
        missed: Gives the numbers that do not reach their bars.
        explained: By recipe and number, why.
    """
    every = {
        recipe: {number: explained.get(recipe, {}).get(number, "") for number in missed(each)}
        for recipe, each in measured.items()
    }
    return {recipe: misses for recipe, misses in every.items() if misses}


def is_explained(misses: Misses) -> bool:
    """Whether every miss has its reason."""
    return all(why for each in misses.values() for why in each.values())
