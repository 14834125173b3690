import random
from collections.abc import Callable

import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from onestep.sweeps.importance import LEAST, importances_of
from onestep.sweeps.objective import Objective, Objectives

_BOTH = Objectives(
    by_label={
        "quality": Objective(name="eval/w2", nfe=1),
        "cost": Objective(name="cost/training_s"),
    }
)
_UNIT = FloatDistribution(0.0, 1.0)


def study(
    count: int, values: Callable[[float, float], list[float]], *, rare: int = -1
) -> optuna.Study:
    """A study of two keys, and a third one that a single trial lacks."""
    made, rng = optuna.create_study(directions=["minimize", "minimize"]), random.Random(0)
    for number in range(count):
        point = {"a": rng.random(), "b": rng.random(), "c": rng.random()}
        laws = dict.fromkeys(point, _UNIT)
        if number == rare:
            del point["c"], laws["c"]
        made.add_trial(
            optuna.trial.create_trial(
                params=point, distributions=laws, values=values(point["a"], point["b"])
            )
        )
    return made


def test_each_objective_has_the_key_that_it_depends_on() -> None:
    found = importances_of(study(40, lambda a, b: [a, 1.0 - b]), _BOTH)
    assert found.trials == 40
    assert found.shares["quality"]["a"] > 0.9
    assert found.shares["cost"]["b"] > 0.9
    assert found.left_out == ()


def test_a_key_that_a_trial_lacks_is_left_out_by_name() -> None:
    found = importances_of(study(10, lambda a, b: [a, b], rare=3), _BOTH)
    assert found.left_out == ("c",)
    assert set(found.shares["quality"]) == {"a", "b"}


def test_too_few_finished_trials_say_nothing_and_others_do_not_count() -> None:
    few = study(LEAST - 1, lambda a, b: [a, b])
    few.add_trial(optuna.trial.create_trial(state=TrialState.FAIL))
    with pytest.raises(ValueError, match=f"at least {LEAST} finished trials, there are 7"):
        importances_of(few, _BOTH)
    few.add_trial(
        optuna.trial.create_trial(params={"a": 0.5}, distributions={"a": _UNIT}, values=[1.0, 2.0])
    )
    assert importances_of(few, _BOTH).trials == LEAST


def test_what_goes_with_two_keys_together_is_no_share_of_either() -> None:
    found = importances_of(study(60, lambda a, b: [(a - 0.5) * (b - 0.5), a]), _BOTH)
    assert sum(found.shares["quality"].values()) < 0.6
    assert sum(found.shares["cost"].values()) > 0.8
