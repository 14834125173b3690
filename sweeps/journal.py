"""The journal: one line and one MLflow run for each trial that ends."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self, final

from mlflow.entities import RunInfo
from optuna.study import Study
from optuna.trial import TrialState
from ray.tune import Callback

from ..platform.evaluation.report import Report
from ..platform.registry.connection import Connection
from ..platform.registry.errors import RegistryUnreachable
from ..platform.registry.run import EndedRun, Measurement, Run, RunFacts, now_ms
from ..platform.registry.run_writer import RunWriter
from .outage import past_tune
from .record import OUTAGE, Outcome, TrialRecord, report_file
from .report import ranked
from .searcher import NUMBER
from .settings import SweepSettings
from .study import ended
from .subtrial import SubTrial, subtrials_of
from .winner import forget_rungs, keep_leaders, leaders_of

Say = Callable[[str], None]
_PARENT: Final = "mlflow.parentRunId"
_RUN: Final = "mlflow_run"


@final
class Journal(Callback):
    """Writes down each trial when it ends; Ray Tune calls it in the process of the sweep.

    A process of its own writes into the store, trial after trial, so that no trial waits for it. As
    a context it ends when all is written. A store that is away for a while does not end the sweep:
    what it misses is written later.

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
        self.run = Run(connection, known) if known else self._begun()
        self._leading = leaders_of(ranked(ended(study), settings.objectives))
        self._turns = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._writer = RunWriter(connection)
        self._pending = deque[tuple[int, Future[None]]]()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        # Who interrupts does not wait: a sweep that goes on writes what is missing.
        is_interrupted = kind is not None and not issubclass(kind, Exception)
        try:
            if not is_interrupted:
                self.flush()
        finally:
            self._turns.shutdown(cancel_futures=True)
            self._writer.close()

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
        self.flush()
        known = self._runs()
        for record in ended(self._study):
            run = known.get(self._name(record.number))
            if run is not None and run.status == "RUNNING":  # it was cut off while it was written
                with self._connection.asking():
                    self._connection.client.delete_run(run.run_id)
            if run is None or run.status == "RUNNING":
                self._record(record, self._tried(record))

    def flush(self) -> None:
        """Wait until the runs of all trials that have ended are written, as far as that can be."""
        is_away = False
        while self._pending:
            number, one = self._pending.popleft()
            if not (is_away and one.cancel()):
                is_away = not self._is_written(number, one) or is_away

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
            forget_rungs(self._folder, number)
            return
        self._say(line_of(record, self._settings))
        self._keep_leaders(record)
        self._pending.append(
            (number, self._turns.submit(self._record, record, self._tried(record)))
        )
        while self._pending and self._pending[0][1].done():
            self._is_written(*self._pending.popleft())

    def _keep_leaders(self, record: TrialRecord) -> None:
        """Delete the weights that are not needed any more, now that a trial has ended."""
        settings = self._settings
        is_population = settings.scheduler.is_population
        self._leading = keep_leaders(
            self._folder,
            ended(self._study) if is_population else (*self._leading, record),
            settings.objectives,
            generations=settings.generations,
        )

    def _begun(self) -> Run:
        """The sweep's own run, which the study knows; others of its name were cut off before."""
        for one in self._runs_named(f"= '{self._facts.name}'"):
            with self._connection.asking():
                self._connection.client.delete_run(one.run_id)
        run = Run.start(self._connection, self._facts)
        self._study.set_user_attr(_RUN, run.run_id)
        return run

    def _is_written(self, number: int, one: Future[None]) -> bool:
        """Whether a run was written, when it has been tried; if the store is away this is said."""
        try:
            one.result()
        except RegistryUnreachable as error:  # the study has the trial, and others are running
            self._say(f"trial {number} is not in MLflow yet: {error}")
            return False
        return True

    def _tried(self, record: TrialRecord) -> Sequence[SubTrial]:
        """What was tried on a trial's weights."""
        if self._settings.posthoc is None:
            return ()
        tried = subtrials_of(self._study, of=record.number)
        return tried.get((record.number, record.rung), ())

    def _record(self, record: TrialRecord, tried: Sequence[SubTrial]) -> None:
        report = Report.read(report_file(self._folder, record.number, rung=record.rung))
        facts = replace(
            self._facts,
            name=self._name(record.number),
            config=record.values,
            overrides=record.overrides,
            revision=", ".join(record.revisions) or self._facts.revision,
        )
        tags = {_PARENT: self.run.run_id}
        measurements, texts = list[Measurement](), dict[str, str]()
        if record.lineage is not None:
            tags |= record.lineage.tags
        if record.remark:
            tags["onestep.outcome"] = f"{record.outcome}: {record.remark}"
        if record.returns:
            tags["onestep.returns"] = str(len(record.returns))
            texts["returns.json"] = json.dumps(record.returns, indent=2) + "\n"
        if report is not None:
            texts["report.json"] = report.to_json() + "\n"
        found = self._metrics(record, report)
        if found:
            measurements.append(Measurement(step=record.samples, metrics=found, at_ms=now_ms()))
        if self._settings.posthoc is not None:
            tags["onestep.posthoc"] = record.said
            texts["posthoc.json"] = json.dumps([one.to_dict() for one in tried], indent=2) + "\n"
            measurements += self._subtrials(tried)
        self._writer.write(
            EndedRun(
                facts=facts,
                tags=tags,
                measurements=measurements,
                texts=texts,
                status="FAILED" if record.outcome is Outcome.FAILED else "FINISHED",
            )
        )

    @cached_property
    def _group(self) -> str:
        return self._connection.experiment(self._facts.experiment)

    def _metrics(self, record: TrialRecord, report: Report | None) -> dict[str, float]:
        found = {} if report is None else report.metrics()
        if record.results:
            named = zip(self._settings.objectives.labels, record.results, strict=True)
            found |= {f"sweep/{label}": one.value for label, one in named}
        return found

    def _subtrials(self, tried: Sequence[SubTrial]) -> Iterator[Measurement]:
        """What was tried on a trial's weights: a point of a curve for each."""
        for one in tried:
            for kind, numbers in (("tuned", one.tuned), ("judged", one.judged)):
                named = zip(self._settings.objectives.labels, numbers, strict=False)
                values = {f"posthoc/{label}/{kind}": each.value for label, each in named}
                if values:
                    yield Measurement(step=one.place, metrics=values, at_ms=now_ms())

    def _runs(self) -> dict[str, RunInfo]:
        """The runs of trials that are in the store, by name."""
        named = self._runs_named(f"LIKE '{self._name('%')}'")
        return {str(one.run_name): one for one in named}

    def _runs_named(self, asked: str) -> list[RunInfo]:
        """The runs in the store whose names are as asked."""
        found: list[RunInfo] = []
        token: str | None = None
        with self._connection.asking():
            while True:
                page = self._connection.client.search_runs(
                    [self._group], f"attributes.run_name {asked}", page_token=token
                )
                found += [one.info for one in page]
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
        said += f", {record.went_back}"
    return f"trial {record.number}: {said}\n  {record.command}"


def numbers_of(record: TrialRecord, settings: SweepSettings) -> str:
    """The objectives of a trial with their intervals."""
    named = zip(settings.objectives.all, record.results, strict=True)
    return ", ".join(f"{objective} {number}" for objective, number in named)
