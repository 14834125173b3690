"""What a trial is charged with, one run at each rung, and what is left of a sweep's budget."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, final

from optuna.trial import FrozenTrial, Trial

from .cost import NOTHING, Cost
from .record import COST, COSTS, RUNG, UNTRIED
from .settings import SweepSettings


@final
class Purse:
    """Knows whether the budget of a sweep pays for another run.

    Args:
        settings: The sweep.
        budgets: Samples at which trials are measured, the whole trial last.
    """

    def __init__(self, settings: SweepSettings, budgets: Sequence[int]) -> None:
        self._budget, self._budgets = settings.budget, budgets
        self._replans = settings.scheduler.replan
        self.of_a_trial = settings.scheduler.samples_of_a_trial(budgets)
        """The most samples that a trial is trained on."""
        self.spent = ""
        """Which limit did not allow the last run that was asked about, or nothing."""

    def is_spent(
        self,
        samples: int,
        trials: Callable[[], Iterable[FrozenTrial]],
        *,
        running: Mapping[int, Trial],
        kept: int = 0,
    ) -> bool:
        """Whether nothing is left for a run.

        Args:
            samples: What it takes.
            trials: Reads all trials of the study, which only a budget needs.
            running: Those that are running, by number.
            kept: Samples of later runs for which enough is to be left.
        """
        if not self._budget.is_limited:
            return False
        rungs = [one.user_attrs.get(RUNG) for one in running.values()]
        planned = sum(self.of_a_trial if rung is None else self._budgets[rung] for rung in rungs)
        costs = [paid(one.user_attrs, is_running=one.number in running) for one in trials()]
        done, ended = sum(costs, NOTHING), sum(one.wall_s > 0.0 for one in costs)
        if self._replans:
            # Something has to be left for the other run, and all of what is kept beyond it.
            later = planned + (samples + kept if kept else 0)
            ahead = later / done.samples if done.samples else 0.0
        else:
            ahead = len(rungs) / ended if ended else 0.0
        self.spent = self._budget.spent(done, samples=planned + samples + kept, ahead=ahead)
        return bool(self.spent)


def check_counts(
    trials: Iterable[FrozenTrial], *, before: SweepSettings, now: SweepSettings
) -> None:
    """Refuse other counts of a sweep that it has exceeded already; it may end with what it has.

    Args:
        trials: All trials of the study.
        before: The sweep until now.
        now: The same as it is to go on.

    Raises:
        ValueError: If there are to be fewer trials than have begun, or another limit of the budget
            is below what has been spent.
    """
    notes = [one.user_attrs for one in trials]
    begun = sum(UNTRIED not in one for one in notes)
    if now.trials != before.trials and now.trials < begun:
        raise ValueError(
            f"sweep.trials must be at least the {begun} that have begun, got {now.trials}"
        )
    done = sum((paid(one, is_running=False) for one in notes), NOTHING)
    now.budget.check_spent(done, before=before.budget)


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
