import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from onestep.sweeps.objective import Objective, Objectives
from onestep.sweeps.study import begin, open_storage

_ONE = Objectives(by_label={"quality": Objective(name="eval/quality", nfe=1)})


def fields(trial: FrozenTrial) -> tuple[Any, ...]:
    """All of a trial but the times at which it began and ended."""
    return (
        (trial.number, trial._trial_id, trial.state, trial.values),
        (trial.params, trial.distributions, trial.intermediate_values),
        (trial.user_attrs, trial.system_attrs),
        (trial.datetime_start is None, trial.datetime_complete is None),
    )


def steps(study: optuna.Study) -> Iterator[None]:
    """A sweep's writings, one by one."""
    study.enqueue_trial({"x": 0.5}, user_attrs={"from": ("elsewhere", 3)})
    yield
    first, second = study.ask(), study.ask()
    yield
    first.suggest_float("x", 0.0, 1.0)
    second.suggest_categorical("k", ["a", "b"])
    yield
    first.set_user_attr("curve", {"500": (1.0, float("inf"))})
    yield
    first.report(3.0, step=500)
    study._storage.set_trial_system_attr(second._trial_id, "generation", 1)
    yield
    study.tell(first, 2.0)
    yield
    study.tell(second, state=TrialState.FAIL)
    yield
    third = study.ask()
    third.report(4.0, step=500)
    study.tell(third, state=TrialState.PRUNED)
    yield


def test_a_writer_remembers_what_the_database_has_after_every_step(
    tmp_path: Path, empty_study: Path
) -> None:
    shutil.copy(empty_study, tmp_path / "optuna.db")
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    study = begin(open_storage(url), "s", _ONE)
    count = 0
    for _ in steps(study):
        count += 1
        stored = optuna.load_study(study_name="s", storage=url).get_trials()
        again = begin(open_storage(url), "s", _ONE)  # what the next process remembers
        for one in (study, again):
            assert [fields(trial) for trial in one.get_trials()] == [*map(fields, stored)]
    assert count == 8
    assert [trial.values for trial in study.get_trials()] == [[2.0], None, [4.0]]
    states = (TrialState.FAIL,)
    assert [trial.number for trial in study.get_trials(states=states)] == [1]


def test_what_was_read_does_not_change_with_what_is_written(
    tmp_path: Path, empty_study: Path
) -> None:
    shutil.copy(empty_study, tmp_path / "optuna.db")
    study = begin(open_storage(f"sqlite:///{tmp_path / 'optuna.db'}"), "s", _ONE)
    trial = study.ask()
    (before,) = study.get_trials(deepcopy=False)
    trial.suggest_float("x", 0.0, 1.0)
    trial.set_user_attr("note", "a")
    assert (before.params, before.user_attrs) == ({}, {})
    (now,) = study.get_trials(deepcopy=False)
    assert set(now.params) == {"x"}


def test_a_trial_does_not_begin_twice(tmp_path: Path, empty_study: Path) -> None:
    shutil.copy(empty_study, tmp_path / "optuna.db")
    study = begin(open_storage(f"sqlite:///{tmp_path / 'optuna.db'}"), "s", _ONE)
    study.enqueue_trial({"x": 0.5})
    assert study.ask().number == 0
    assert study._storage.set_trial_state_values(1, TrialState.RUNNING) is False
    (trial,) = study.get_trials()
    assert (trial.number, trial.state) == (0, TrialState.RUNNING)
