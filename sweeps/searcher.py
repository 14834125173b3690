"""The searcher: Ray's OptunaSearch, whose suggestions are lists of overrides."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import optuna
from optuna.samplers import TPESampler
from optuna.storages import RDBStorage
from optuna.study import Study
from ray.tune.search.optuna import OptunaSearch

from ..platform.atomic import write_json
from ..platform.password import without_passwords
from .record import ERROR, INTERVAL, OVERRIDES, REPORT, SAMPLES, STOPPED, report_file
from .settings import SweepSettings
from .space import override

OBJECTIVE: Final = "objective"
"""Key of the metric in what a trial reports to Ray Tune."""
LOW: Final = "low"
HIGH: Final = "high"
NUMBER: Final = "number"
UNEXPECTED: Final = "the trial's process failed; Ray Tune's folder of the sweep has its error"


@final
class OverrideSearch(OptunaSearch):
    """Suggests overrides for each trial, and keeps all that repeat it with the trial in the study.

    The study alone says what has ended: it is written at once, where the pickles that Ray Tune
    makes of a searcher lag behind it. So a sweep goes on from the study, not from a pickle.

    Args:
        settings: The sweep.
        base: Overrides of every trial.
        total: Samples of a whole trial.
        folder: Folder of the sweep, for the reports.
        study_name: Name of the study.
        storage: Its database.
        start: Trials that the study has already. It moves the seed, for a sampler that started
            again from the same one would repeat its first suggestions.
    """

    def __init__(
        self,
        settings: SweepSettings,
        *,
        base: tuple[str, ...],
        total: int,
        folder: Path,
        study_name: str,
        storage: RDBStorage,
        start: int,
    ) -> None:
        super().__init__(
            space=settings.space.distributions,
            metric=OBJECTIVE,
            mode=str(settings.metric.mode),
            sampler=TPESampler(n_startup_trials=settings.startup, seed=settings.seed + start),
            study_name=study_name,
            storage=storage,
        )
        self.study: Study = optuna.load_study(study_name=study_name, storage=storage)
        self._base = base
        self._total = total
        self._folder = folder

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """The overrides of a new trial.

        Args:
            trial_id: Ray Tune's name of the trial.

        Returns:
            The trial's configuration: its number and the overrides that are its own. Ray Tune
            writes it into files, so that those of all trials, with passwords, are not in it.
        """
        super().suggest(trial_id)
        trial = self._ot_trials[trial_id]
        own = [override(key, value) for key, value in trial.params.items()]
        trial.set_user_attr(OVERRIDES, without_passwords([*self._base, *own]))
        return {NUMBER: trial.number, OVERRIDES: own}

    def __getstate__(self) -> dict[str, Any]:
        # For Ray Tune's pickle of the sweep, which would hold the URL of the database.
        return {}

    def save(self, checkpoint_path: str) -> None:
        """Writes nothing: the study is what a sweep goes on from.

        Args:
            checkpoint_path: Where Ray Tune would have a pickle.
        """

    def on_trial_result(self, trial_id: str, result: Mapping[str, Any]) -> None:
        """Keep a value on the way; progress alone is not kept.

        Args:
            trial_id: Ray Tune's name of the trial.
            result: What the trial reported.
        """
        trial = self._ot_trials[trial_id]
        if ERROR in result:
            trial.set_user_attr(ERROR, str(result[ERROR]))
        elif math.isfinite(result.get(OBJECTIVE, math.nan)):
            trial.report(result[OBJECTIVE], step=int(result[SAMPLES]))

    def on_trial_complete(
        self, trial_id: str, result: Mapping[str, Any] | None = None, error: bool = False
    ) -> None:
        """Close a trial in the study.

        Args:
            trial_id: Ray Tune's name of the trial.
            result: What the trial reported last.
            error: Whether its process failed.
        """
        trial = self._ot_trials[trial_id]
        value = math.nan if result is None else result.get(OBJECTIVE, math.nan)
        if error or result is None or not math.isfinite(value):
            if ERROR not in trial.user_attrs:
                trial.set_user_attr(ERROR, UNEXPECTED if error else f"the metric is {value}")
            super().on_trial_complete(trial_id, None, error=True)
            return
        if REPORT in result:  # before the study says that it has ended, or a kill would lose it
            write_json(report_file(self._folder, trial.number), json.loads(result[REPORT]))
        samples = int(result[SAMPLES])
        trial.set_user_attr(SAMPLES, samples)
        trial.set_user_attr(STOPPED, samples < self._total)
        trial.set_user_attr(INTERVAL, [result[LOW], result[HIGH]])
        super().on_trial_complete(trial_id, dict(result))
