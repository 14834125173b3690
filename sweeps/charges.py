"""What a trial is charged with: what its runs took, one run at each rung."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from optuna.trial import Trial

from .cost import NOTHING, Cost
from .record import COST, COSTS, RUNG


def charge(trial: Trial, cost: Cost) -> None:
    """Write down what a run took, beside what the trial took at lower rungs.

    Args:
        trial: The trial.
        cost: What its present run took.
    """
    if (rung := trial.user_attrs.get(RUNG)) is not None:
        costs = {**trial.user_attrs.get(COSTS, {}), str(rung): asdict(cost)}
        trial.set_user_attr(COSTS, costs)
        cost = sum((Cost(**one) for one in costs.values()), NOTHING)
    trial.set_user_attr(COST, asdict(cost))


def paid(notes: Mapping[str, Any], *, is_running: bool) -> Cost:
    """What a trial took.

    Args:
        notes: What is written down of it.
        is_running: Whether it is in a run, which does not count yet.

    Returns:
        The cost of its ended runs.
    """
    if not is_running:
        return Cost(**notes.get(COST, {}))
    below = [one for rung, one in notes.get(COSTS, {}).items() if int(rung) < notes[RUNG]]
    return sum((Cost(**one) for one in below), NOTHING)
