"""Retries: whether a trial goes on whose process died, or which met the outage of a store."""

from collections.abc import Callable
from typing import Final

from optuna.trial import Trial

from .cost import Cost
from .outage import OutageLasts
from .record import DEATHS, OUTAGES
from .settings import SweepSettings

_IN_A_ROW: Final = 3
"""Outages that a trial meets without getting further, until its sweep ends."""
Note = Callable[[Trial, str, SweepSettings, Cost], bool]
"""Writes down why a trial could not go on, and tells whether it is tried again."""


def note_death(trial: Trial, reason: str, settings: SweepSettings, cost: Cost) -> bool:
    """Write down that the process of a trial died.

    Args:
        trial: The trial.
        reason: How.
        settings: The sweep.
        cost: What the trial took up to its last checkpoint.

    Returns:
        Whether it goes on.
    """
    del cost
    deaths = [*trial.user_attrs.get(DEATHS, ()), reason]
    trial.set_user_attr(DEATHS, deaths)
    return len(deaths) <= settings.retries


def note_outage(trial: Trial, reason: str, settings: SweepSettings, cost: Cost) -> bool:
    """Write down that a trial met the outage of a store.

    Those after which it got further are forgotten. The others end the sweep, and a sweep that was
    gone on with is a retry: a trial alone that meets them whenever it is tried is given up at last.

    Args:
        trial: The trial.
        reason: What it met.
        settings: The sweep.
        cost: What the trial took up to its last checkpoint.

    Returns:
        Whether it goes on.

    Raises:
        OutageLasts: If it has met so many in a row that its sweep is to end.
    """
    samples, met = trial.user_attrs.get(OUTAGES, (cost.samples, 0))
    met = met + 1 if samples == cost.samples else 1
    trial.set_user_attr(OUTAGES, [cost.samples, met])
    if met > _IN_A_ROW * max(1, settings.retries):
        return False
    if met % _IN_A_ROW == 0:
        raise OutageLasts(
            f"trial {trial.number} could not go on {_IN_A_ROW} times in a row: {reason}"
        )
    return True
