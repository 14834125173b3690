"""What a study keeps of a trial that was measured: points of its curve, and its last numbers."""

from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import Trial

from .charges import charge
from .cost import Cost
from .objective import Number, Objectives
from .record import CHOSEN, CURVE, DIVERGED, ERROR, RESULTS, SAMPLES


def note_point(
    study: Study, trial: Trial, objectives: Objectives, numbers: Sequence[Number], *, samples: int
) -> None:
    """Write down a point of a trial's learning curve.

    Args:
        study: The study.
        trial: Its trial.
        objectives: What the numbers are of.
        numbers: What was measured.
        samples: After so many samples.
    """
    told = study.get_trials(deepcopy=False)[trial.number].intermediate_values
    if len(numbers) == 1 and samples not in told:
        trial.report(numbers[0].value, step=samples)  # for Optuna and its dashboard
    values = list(objectives.smaller_is_better(numbers))
    trial.set_user_attr(CURVE, {**trial.user_attrs.get(CURVE, {}), str(samples): values})


def forget_points(trial: Trial, *, beyond: int) -> None:
    """Take points out of a trial's learning curve: what they show has been undone.

    Args:
        trial: The trial.
        beyond: Points of so many samples stay, and those of fewer.
    """
    curve = trial.user_attrs.get(CURVE, {})
    kept = {samples: point for samples, point in curve.items() if int(samples) <= beyond}
    if len(kept) < len(curve):
        trial.set_user_attr(CURVE, kept)


def forget_numbers(trial: Trial) -> None:
    """Take away the last numbers of a trial: they are those of its run at the rung below.

    Args:
        trial: The trial.
    """
    for name, nothing in ((RESULTS, []), (SAMPLES, 0), (CHOSEN, {})):
        trial.set_user_attr(name, nothing)


def note_failure(trial: Trial, reason: str, *, cost: Cost, has_diverged: bool) -> None:
    """Write down that a trial failed.

    Args:
        trial: The trial.
        reason: Why.
        cost: What it took.
        has_diverged: Whether its point is to blame, and not what it ran on.
    """
    charge(trial, cost)
    if has_diverged:
        trial.set_user_attr(DIVERGED, True)
    trial.set_user_attr(ERROR, reason)


def keep_numbers(trial: Trial, numbers: Sequence[Number], *, samples: int, cost: Cost) -> None:
    """Write down the last numbers of a trial, and what it took.

    Args:
        trial: The trial.
        numbers: What was measured.
        samples: After so many samples.
        cost: What it took.
    """
    trial.set_user_attr(SAMPLES, samples)
    charge(trial, cost)
    trial.set_user_attr(RESULTS, [[one.value, one.low, one.high] for one in numbers])
