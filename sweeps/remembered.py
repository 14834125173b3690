"""A study in memory: what its one writer knows need not be asked of the database again."""

import copy
import datetime
import json
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage, RDBStorage, get_storage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState


@final
@dataclass(frozen=True)
class _Place:
    """Where a trial is in memory."""

    study_id: int
    number: int


@final
class RememberedStorage(BaseStorage):
    """Optuna's database as a process sees it that alone writes into its studies.

    Everything is written into the database before the call returns. What has been read or written
    once is answered from memory, as the database would answer; times are a little later.

    Args:
        database: The database.
    """

    def __init__(self, database: RDBStorage) -> None:
        self._database: Final = get_storage(database)
        self._trials: Final[dict[int, list[FrozenTrial]]] = {}
        self._places: Final[dict[int, _Place]] = {}

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Make a study."""
        return self._database.create_new_study(directions, study_name)

    def delete_study(self, study_id: int) -> None:
        """Delete a study."""
        for trial in self._trials.pop(study_id, []):
            del self._places[trial._trial_id]
        self._database.delete_study(study_id)

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note something of a study."""
        self._database.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Note something of a study for Optuna."""
        self._database.set_study_system_attr(study_id, key, value)

    def get_study_id_from_name(self, study_name: str) -> int:
        """The study of a name."""
        return self._database.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """The name of a study."""
        return self._database.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Which way the numbers of a study improve."""
        return self._database.get_study_directions(study_id)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """What is noted of a study."""
        return self._database.get_study_user_attrs(study_id)

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """What Optuna has noted of a study."""
        return self._database.get_study_system_attrs(study_id)

    def get_all_studies(self) -> list[Any]:
        """All studies of the database."""
        return self._database.get_all_studies()

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Make a trial, or a copy of one."""
        trials = self._known(study_id)
        trial_id = self._database.create_new_trial(study_id, template_trial)
        trial = _fresh(trial_id, len(trials))
        if template_trial is not None:
            trial = self._database.get_trial(trial_id)
        self._add(study_id, trial)
        return trial_id

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Write down a parameter."""
        self._database.set_trial_param(trial_id, param_name, param_value_internal, distribution)
        trial = self._copy(trial_id)
        value = distribution.to_external_repr(param_value_internal)
        trial.params = {**trial.params, param_name: value}
        trial.distributions = {**trial.distributions, param_name: distribution}
        self._replace(trial)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Begin or end a trial."""
        if not self._database.set_trial_state_values(trial_id, state, values):
            return False  # it has been begun before
        trial = self._copy(trial_id)
        trial.state = state
        if values is not None:
            trial.values = list(values)
        if state == TrialState.RUNNING:
            trial.datetime_start = datetime.datetime.now()
        if state.is_finished():
            trial.datetime_complete = datetime.datetime.now()
        self._replace(trial)
        return True

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Write down a value on the way."""
        self._database.set_trial_intermediate_value(trial_id, step, intermediate_value)
        trial = self._copy(trial_id)
        trial.intermediate_values = {**trial.intermediate_values, step: intermediate_value}
        self._replace(trial)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something of a trial."""
        self._database.set_trial_user_attr(trial_id, key, value)
        trial = self._copy(trial_id)
        trial.user_attrs = _with(trial.user_attrs, key, value)
        self._replace(trial)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Note something of a trial for Optuna."""
        self._database.set_trial_system_attr(trial_id, key, value)
        trial = self._copy(trial_id)
        trial.system_attrs = _with(trial.system_attrs, key, value)
        self._replace(trial)

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """A trial, which may be changed by who asks."""
        if trial_id not in self._places:
            return self._database.get_trial(trial_id)
        trial = self._copy(trial_id)
        trial.params, trial.distributions = dict(trial.params), dict(trial.distributions)
        trial.user_attrs, trial.system_attrs = dict(trial.user_attrs), dict(trial.system_attrs)
        trial.intermediate_values = dict(trial.intermediate_values)
        return trial

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """The trials of a study by their numbers."""
        trials = list(self._known(study_id))
        if states is not None:
            trials = [one for one in trials if one.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _known(self, study_id: int) -> list[FrozenTrial]:
        if study_id not in self._trials:
            self._trials[study_id] = []
            for trial in self._database.get_all_trials(study_id, deepcopy=False):
                self._add(study_id, trial)
        return self._trials[study_id]

    def _add(self, study_id: int, trial: FrozenTrial) -> None:
        self._places[trial._trial_id] = _Place(study_id, trial.number)
        self._trials[study_id].append(trial)

    def _copy(self, trial_id: int) -> FrozenTrial:
        """A trial whose fields may be set: others hold the one in memory."""
        place = self._places[trial_id]
        return copy.copy(self._trials[place.study_id][place.number])

    def _replace(self, trial: FrozenTrial) -> None:
        place = self._places[trial._trial_id]
        self._trials[place.study_id][place.number] = trial


def _fresh(trial_id: int, number: int) -> FrozenTrial:
    """A trial that has just begun."""
    return FrozenTrial(
        number=number,
        trial_id=trial_id,
        state=TrialState.RUNNING,
        value=None,
        datetime_start=datetime.datetime.now(),
        datetime_complete=None,
        params={},
        distributions={},
        user_attrs={},
        system_attrs={},
        intermediate_values={},
    )


def _with(notes: Mapping[str, Any], key: str, value: Any) -> dict[str, Any]:
    """Notes with one more, as it comes back from a database: JSON has no tuples."""
    return {**notes, key: json.loads(json.dumps(value))}
