"""The journal: one line, one report file and one MLflow run for each trial that ends."""

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

from optuna.study import Study
from ray.tune import Callback

from ..platform.atomic import write_json
from ..platform.evaluation.report import Report
from ..platform.registry.connection import Connection
from ..platform.registry.run import Run, RunFacts
from .record import Outcome, TrialRecord
from .searcher import NUMBER
from .settings import SweepSettings
from .trial import REPORT

Say = Callable[[str], None]
_PARENT: Final = "mlflow.parentRunId"
_RUN: Final = "mlflow_run"


@final
class Journal(Callback):
    """Writes down each trial when it ends; Ray Tune calls it in the process of the sweep.

    Args:
        study: The study.
        settings: The sweep.
        folder: Folder of the sweep.
        connection: MLflow store.
        facts: Facts of the sweep's own MLflow run; those of trials follow from them.
        say: Told one line per trial.
    """

    def __init__(
        self,
        study: Study,
        settings: SweepSettings,
        *,
        folder: Path,
        connection: Connection,
        facts: RunFacts,
        say: Say,
    ) -> None:
        self._study, self._settings, self._folder, self._say = study, settings, folder, say
        self._connection, self._facts = connection, facts
        known = study.user_attrs.get(_RUN)
        self.run = Run(connection, known) if known else Run.start(connection, facts)
        study.set_user_attr(_RUN, self.run.run_id)

    def __getstate__(self) -> dict[str, Any]:
        # Ray Tune pickles its callbacks for a restore that sweeps do without.
        return {}

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write down a trial that ended by itself or was stopped."""
        self._write(trial.config[NUMBER], trial.last_result)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write down a trial whose process failed."""
        self._write(trial.config[NUMBER], {})

    def _write(self, number: int, result: Mapping[str, Any]) -> None:
        frozen = next(one for one in self._study.get_trials(deepcopy=False) if one.number == number)
        record = TrialRecord.of(frozen)
        self._say(line_of(record, self._settings))
        report = Report.from_json(result[REPORT]) if REPORT in result else None
        if report is not None:
            file = self._folder / "trials" / f"{number}.json"
            write_json(file, json.loads(report.to_json()))
        facts = replace(
            self._facts,
            name=f"{self._facts.name}-{number}",
            config=record.values,
            overrides=record.overrides,
        )
        with self._connection.asking():
            run = Run.start(self._connection, facts)
            run.set_tags({_PARENT: self.run.run_id})
            if report is not None:
                run.log_json(json.loads(report.to_json()), "report.json")
                run.log_metrics(report.metrics(), step=record.samples)
            if record.value is not None:
                run.log_metrics({"sweep/objective": record.value}, step=record.samples)
            run.finish("FAILED" if record.outcome is Outcome.FAILED else "FINISHED")


def line_of(record: TrialRecord, settings: SweepSettings) -> str:
    """What is said about a trial that has ended."""
    match record.outcome:
        case Outcome.FAILED:
            said = f"failed: {record.error}"
        case Outcome.STOPPED:
            said = f"{settings.metric} {number_of(record)}, stopped after {record.samples} samples"
        case Outcome.FINISHED:
            said = f"{settings.metric} {number_of(record)}"
    return f"trial {record.number}: {said}\n  {record.command}"


def number_of(record: TrialRecord) -> str:
    """The metric of a trial with its interval."""
    if record.value is None:
        return "-"
    if record.interval is None:
        return f"{record.value:.4g}"
    low, high = record.interval
    return f"{record.value:.4g} ({low:.4g} to {high:.4g})"
