"""What a study keeps of a trial that was measured: points of its curve, and its last numbers."""

from collections.abc import Sequence

from optuna.study import Study
from optuna.trial import Trial

from .charges import charge
from .cost import Cost
from .objective import Number, Objectives
from .record import CURVE, RESULTS, SAMPLES


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
