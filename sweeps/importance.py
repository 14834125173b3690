"""Importances: which swept keys the objectives of the finished trials depend on, by Optuna."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, final

import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState

from .objective import Objectives

LEAST: Final = 8
"""Finished trials below which nothing is said."""
EVALUATOR: Final = "fANOVA"


@final
@dataclass(frozen=True, kw_only=True)
class Importances:
    """Which keys the objectives depend on.

    Attributes:
        trials: Finished trials that this rests on.
        shares: For each objective by label, the share of its variance that goes with each key
            alone. What is missing to 1 goes with several keys together.
        left_out: Keys that not every finished trial has, of which nothing can be said.
    """

    trials: int
    shares: Mapping[str, Mapping[str, float]]
    left_out: tuple[str, ...]


def importances_of(study: optuna.Study, objectives: Objectives) -> Importances:
    """The importances of the swept keys.

    Reference: Hutter et al. 2014, An efficient approach for assessing hyperparameter importance
        (fANOVA).

    Args:
        study: The study.
        objectives: What it improves.

    Returns:
        The importances.

    Raises:
        ValueError: If there are too few finished trials, or nothing differs between them.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(finished) < LEAST:
        raise ValueError(f"they need at least {LEAST} finished trials, there are {len(finished)}")
    shares = {label: _shares(study, label, place) for place, label in enumerate(objectives.labels)}
    known = set().union(*shares.values())
    every = dict.fromkeys(key for trial in finished for key in trial.params)
    return Importances(
        trials=len(finished),
        shares=shares,
        left_out=tuple(key for key in every if key not in known),
    )


def _shares(study: optuna.Study, label: str, place: int) -> dict[str, float]:
    def target(trial: FrozenTrial) -> float:
        return trial.values[place]

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of experimental parts
            return get_param_importances(
                study,
                evaluator=FanovaImportanceEvaluator(seed=0),
                target=target,
                normalize=False,
            )
    except RuntimeError as error:  # the variance is zero
        raise ValueError(f"Optuna finds no importances for {label}: {error}") from error
