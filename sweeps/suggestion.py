"""Suggestions: what a process is told of a trial that it is to start."""

from dataclasses import dataclass
from typing import final

from .lineage import Beginning
from .subtrial import SubTrial


@final
@dataclass(frozen=True, kw_only=True)
class Suggestion:
    """A trial that is to be started.

    Attributes:
        number: Its number in the study.
        own: The overrides that are its own.
        rung: Its rung, where rungs are runs of their own.
        known: What was tried on its weights before it was cut off.
        beginning: The checkpoint that it goes on from, in a population.
        span: The samples from which to which it trains, in a population.
    """

    number: int
    own: tuple[str, ...]
    rung: int | None = None
    known: tuple[SubTrial, ...] = ()
    beginning: Beginning | None = None
    span: tuple[int, int] | None = None
