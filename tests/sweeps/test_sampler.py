"""Who suggests: points over spaces with conditions, and nothing that a process takes with it."""

from collections.abc import Sequence
from typing import Any, Final

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState
from scipy import stats

from onestep.sweeps.sampler import SamplerKind, sampler_of
from onestep.sweeps.space import Space

CONDITIONAL: Final = Space.from_dict(
    {
        "shape": {"kind": "choice", "values": ["a", "b"]},
        "x": {"kind": "uniform", "low": 0.0, "high": 1.0},
        "of_a": {"kind": "uniform", "low": 0.0, "high": 1.0, "when": {"shape": "a"}},
        "of_b": {"kind": "uniform", "low": 0.0, "high": 1.0, "when": {"shape": "b"}},
    }
)


def ask(study: optuna.Study, number: int, kind: SamplerKind) -> optuna.Trial:
    laws = {key: one.distribution for key, one in CONDITIONAL.dimensions.items()}
    study.sampler = sampler_of(kind, laws, seed=3, number=number, startup=4, population=6)
    return study.ask()


def points(kind: SamplerKind, count: int, *, at_once: int = 1) -> Sequence[dict[str, Any]]:
    study, open_trials = optuna.create_study(), list[optuna.Trial]()
    for number in range(count):
        trial = ask(study, number, kind)
        CONDITIONAL.suggest(trial)
        open_trials.append(trial)
        if len(open_trials) == at_once:
            study.tell(open_trials.pop(0), trial.params["x"])
    return [trial.params for trial in study.get_trials()]


@pytest.mark.parametrize("key", ["of_a", "of_b"])
def test_sobol_points_are_even_also_in_keys_under_a_condition(key: str) -> None:
    values = [point[key] for point in points(SamplerKind.QMC, 64) if key in point]
    assert len(values) == 32  # a choice is a coordinate of the sequence, too
    found = stats.kstest(values, "uniform")
    assert found.statistic < 0.12
    random = [point[key] for point in points(SamplerKind.RANDOM, 64) if key in point]
    assert found.statistic < stats.kstest(random, "uniform").statistic


@pytest.mark.parametrize("kind", [SamplerKind.QMC, SamplerKind.RANDOM])
def test_points_that_nobody_learns_from_do_not_depend_on_how_many_run_at_once(
    kind: SamplerKind,
) -> None:
    assert points(kind, 12) == points(kind, 12, at_once=5)


def test_a_trial_that_is_cut_off_takes_no_place_of_the_sequence() -> None:
    whole = points(SamplerKind.QMC, 8)
    study = optuna.create_study()
    for number in range(8):
        half = ask(study, number, SamplerKind.QMC)
        half.suggest_float("x", 0.0, 1.0)
        # As another process finds it: a sampler of its own, and what was suggested before.
        laws = {key: one.distribution for key, one in CONDITIONAL.dimensions.items()}
        study.sampler = sampler_of(
            SamplerKind.QMC, laws, seed=3, number=number, startup=4, population=6
        )
        again = optuna.Trial(study, half._trial_id)
        CONDITIONAL.suggest(again)
        study.tell(again, 0.0, state=TrialState.COMPLETE)
    assert [trial.params for trial in study.get_trials()] == whole


def test_the_population_of_cma_es_is_that_of_the_settings() -> None:
    """A generation of 6 is drawn from one law: later ones are narrower than the first."""
    space = {"x": optuna.distributions.FloatDistribution(-5.0, 5.0)} | {
        "y": optuna.distributions.FloatDistribution(-5.0, 5.0)
    }

    def found(population: int) -> list[float]:
        study = optuna.create_study()
        for number in range(60):
            study.sampler = sampler_of(
                SamplerKind.CMAES, space, seed=0, number=number, startup=1, population=population
            )
            trial = study.ask(space)
            study.tell(trial, trial.params["x"] ** 2 + trial.params["y"] ** 2)
        return [trial.params["x"] for trial in study.get_trials()]

    few, many = found(4), found(50)
    assert np.std(few[40:]) < 0.5 * np.std(many[40:])
