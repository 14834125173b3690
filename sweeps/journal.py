"""The journal: one line and one MLflow run for each trial that ends."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

from mlflow.entities import RunInfo
from optuna.study import Study
from optuna.trial import TrialState
from ray.tune import Callback

from ..platform.evaluation.report import Report
from ..platform.registry.connection import Connection
from ..platform.registry.errors import RegistryUnreachable
from ..platform.registry.run import Run, RunFacts
from .outage import past_tune
from .record import OUTAGE, Outcome, TrialRecord, report_file
from .searcher import NUMBER
from .settings import SweepSettings
from .study import ended
from .subtrial import SubTrial, subtrials_of
from .winner import keep_leaders

Say = Callable[[str], None]
_PARENT: Final = "mlflow.parentRunId"
_RUN: Final = "mlflow_run"


@final
class Journal(Callback):
    """Writes down each trial when it ends; Ray Tune calls it in the process of the sweep.

    A store that is away for a while does not end the sweep: what it misses is written later.

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

    @past_tune()
    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write down a trial that ended by itself or was stopped."""
        self._write(trial.config[NUMBER])

    @past_tune()
    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Write down a trial that failed, or say why it is tried again."""
        number = trial.config[NUMBER]
        frozen = self._study.get_trials(deepcopy=False)[number]
        if frozen.state != TrialState.RUNNING:
            self._write(number)
            return
        if outage := (trial.last_result or {}).get(OUTAGE):
            self._say(f"trial {number} is tried again: {outage}")
            return
        deaths = TrialRecord.of(frozen).deaths
        retry = f"retry {len(deaths)} of {self._settings.retries}"
        self._say(f"trial {number}: {retry}, its process died: {deaths[-1]}")

    def catch_up(self) -> None:
        """Write the runs of ended trials that the store lacks, as after an outage or a kill.

        Raises:
            RegistryUnreachable: If the store does not answer.
        """
        known = self._runs()
        for record in ended(self._study):
            run = known.get(self._name(record.number))
            if run is not None and run.status == "RUNNING":  # it was cut off while it was written
                with self._connection.asking():
                    self._connection.client.delete_run(run.run_id)
            if run is None or run.status == "RUNNING":
                self._record(record)

    def run_of(self, number: int) -> Run:
        """The MLflow run of a trial that has been written down."""
        return Run(self._connection, self._runs()[self._name(number)].run_id)

    def keep(self, *files: str) -> None:
        """Keep texts of the sweep's folder as artifacts of its own run.

        Args:
            *files: Their names.
        """
        for file in files:
            self.run.log_text((self._folder / file).read_text(), file)

    def _write(self, number: int) -> None:
        frozen = self._study.get_trials(deepcopy=False)[number]
        record = TrialRecord.of(frozen)
        if frozen.state == TrialState.RUNNING:
            found = numbers_of(record, self._settings)
            self._say(f"trial {number}: {found} after a run of {record.samples} samples")
            return
        self._say(line_of(record, self._settings))
        keep_leaders(
            self._folder,
            ended(self._study),
            self._settings.objectives,
            generations=self._settings.generations,
        )
        try:
            self._record(record)
        except RegistryUnreachable as error:  # the study has the trial, and others are running
            self._say(f"  not in MLflow yet: {error}")

    def _record(self, record: TrialRecord) -> None:
        file = report_file(self._folder, record.number, rung=record.rung)
        report = Report.from_json(file.read_text()) if file.exists() else None
        facts = replace(
            self._facts,
            name=self._name(record.number),
            config=record.values,
            overrides=record.overrides,
            revision=", ".join(record.revisions) or self._facts.revision,
        )
        with self._connection.asking():
            run = Run.start(self._connection, facts)
            tags = {} if record.lineage is None else record.lineage.tags
            run.set_tags({_PARENT: self.run.run_id, **tags})
            if record.remark:
                run.set_tags({"onestep.outcome": f"{record.outcome}: {record.remark}"})
            if report is not None:
                run.log_json(json.loads(report.to_json()), "report.json")
                run.log_metrics(report.metrics(), step=record.samples)
            if record.results:
                named = zip(self._settings.objectives.labels, record.results, strict=True)
                found = {f"sweep/{label}": one.value for label, one in named}
                run.log_metrics(found, step=record.samples)
            if self._settings.posthoc is not None:
                tried = subtrials_of(self._study).get((record.number, record.rung), ())
                self._record_subtrials(run, tried)
                run.set_tags({"onestep.posthoc": record.said})
            run.finish("FAILED" if record.outcome is Outcome.FAILED else "FINISHED")

    def _record_subtrials(self, run: Run, tried: Sequence[SubTrial]) -> None:
        """Keep what was tried on a trial's weights: a table, and a point of a curve for each."""
        run.log_json([one.to_dict() for one in tried], "posthoc.json")
        for one in tried:
            for kind, numbers in (("tuned", one.tuned), ("judged", one.judged)):
                named = zip(self._settings.objectives.labels, numbers, strict=False)
                values = {f"posthoc/{label}/{kind}": each.value for label, each in named}
                if values:
                    run.log_metrics(values, step=one.place)

    def _runs(self) -> dict[str, RunInfo]:
        """The runs of trials that are in the store, by name."""
        group = self._connection.experiment(self._facts.experiment)
        asked = f"attributes.run_name LIKE '{self._name('%')}'"
        found: dict[str, RunInfo] = {}
        token: str | None = None
        with self._connection.asking():
            while True:
                page = self._connection.client.search_runs([group], asked, page_token=token)
                found |= {str(one.info.run_name): one.info for one in page}
                token = page.token
                if not token:
                    return found

    def _name(self, number: int | str) -> str:
        return f"{self._facts.name}-{number}"


def line_of(record: TrialRecord, settings: SweepSettings) -> str:
    """What is said about a trial that has ended."""
    if record.outcome is Outcome.FAILED:
        said = f"failed: {record.reason}"
    else:
        said = numbers_of(record, settings)
    if record.outcome is Outcome.STOPPED:
        said += f", stopped by {record.reason}"
    if record.deaths:
        said += f", {record.died}"
    if record.chosen:
        said += f", used with {record.said}"
    if record.returns:
        said += f", went back {record.returns} times"
    return f"trial {record.number}: {said}\n  {record.command}"


def numbers_of(record: TrialRecord, settings: SweepSettings) -> str:
    """The objectives of a trial with their intervals."""
    named = zip(settings.objectives.all, record.results, strict=True)
    return ", ".join(f"{objective} {number}" for objective, number in named)
