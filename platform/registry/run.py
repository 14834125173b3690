"""Runs: what was asked for, with which code and data, and what came out, in the MLflow store."""

import json
import logging
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Final, Self, final

from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from ..password import without_passwords
from .connection import Connection
from .errors import RegistryError, RegistryUnreachable
from .reference import check_name
from .revision import code_revision, installed_versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LOGGER: Final = logging.getLogger(__name__)
_PARAMS_PER_CALL: Final = 100
_METRICS_PER_CALL: Final = 1000
_LONGEST_PARAM: Final = 500  # for the table of the UI; the whole configuration is an artifact


@final
@dataclass(frozen=True, kw_only=True)
class RunFacts:
    """What is known about a run before its first step.

    Attributes:
        experiment: Group of runs in which it is listed; by default the name of the data set.
        name: Name of the run.
        config: The resolved configuration.
        overrides: The overrides that composed it.
        seed: Its seed.
        data_digest: SHA-256 of the data set and its split.
        revision: Code revision.
        versions: Versions of Python and packages.

    Raises:
        ValueError: If the experiment's name is not well formed.
    """

    experiment: str
    name: str
    config: Mapping[str, Any]
    overrides: Sequence[str]
    seed: int
    data_digest: str
    revision: str = field(default_factory=code_revision)
    versions: Mapping[str, str] = field(default_factory=installed_versions)

    def __post_init__(self) -> None:
        check_name(self.experiment)

    @property
    def tags(self) -> dict[str, str]:
        """The facts as tags of an MLflow run."""
        return {
            "onestep.overrides": json.dumps(without_passwords(self.overrides)),
            "onestep.seed": str(self.seed),
            "onestep.data_digest": self.data_digest,
            "onestep.revision": self.revision,
            "mlflow.source.git.commit": self.revision.partition("+")[0],
            "mlflow.source.name": "onestep",
        } | {f"onestep.version.{name}": value for name, value in self.versions.items()}


@final
@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Metrics of one step.

    Attributes:
        step: Step at which they were measured.
        metrics: Values by name.
        at_ms: When, in milliseconds since 1970.
    """

    step: int
    metrics: Mapping[str, float]
    at_ms: int


@final
@dataclass(frozen=True, kw_only=True)
class EndedRun:
    """A run that is over and has not been written down.

    Attributes:
        facts: What was known before the first step.
        tags: Tags beside those of the facts.
        measurements: Metrics by step.
        texts: Texts that are kept as artifacts, by file.
        status: FINISHED, FAILED or KILLED.
    """

    facts: RunFacts
    tags: Mapping[str, str]
    measurements: Sequence[Measurement]
    texts: Mapping[str, str]
    status: str


@final
class Run:
    """One MLflow run; any process may write to it, given its identifier.

    As a context it ends the run: finished, failed on an error, killed on an interrupt. An error is
    passed on as it is, even where the store is away and cannot note it.

    Args:
        connection: The store.
        run_id: Identifier of an existing run.
    """

    def __init__(self, connection: Connection, run_id: str) -> None:
        self._connection = connection
        self._client = connection.client
        self.run_id = run_id

    @classmethod
    def start(cls, connection: Connection, facts: RunFacts) -> Self:
        """Open a run and write down its facts.

        Args:
            connection: The store.
            facts: What is known before the first step.

        Returns:
            The run.
        """
        experiment = connection.experiment(facts.experiment)
        with connection.asking():
            tags = facts.tags
            run_id = connection.client.create_run(
                experiment, run_name=facts.name, tags=tags
            ).info.run_id
        run = cls(connection, run_id)
        try:
            run._log_config(without_passwords(facts.config))
        except BaseException:
            # Nobody else knows of it, and it would seem to run for ever.
            with suppress(RegistryUnreachable):
                run.finish("FAILED")
            raise
        return run

    @classmethod
    def write(
        cls,
        connection: Connection,
        ended: EndedRun,
        *,
        group: str,
    ) -> Self:
        """Write down a run that is over, in as few calls as it takes.

        Args:
            connection: The store.
            ended: The run.
            group: Identifier of its experiment in the store.

        Returns:
            The run there.
        """
        config = without_passwords(ended.facts.config)
        with connection.asking(), tempfile.TemporaryDirectory() as folder:
            own = {**ended.facts.tags, **ended.tags}
            made = connection.client.create_run(group, run_name=ended.facts.name, tags=own).info
            metrics, params = _metrics(ended.measurements), _params(config)
            connection.client.log_batch(made.run_id, metrics=metrics, params=params)
            for file, text in {"config.json": _json(config), **ended.texts}.items():
                (Path(folder) / file).write_text(text)
            # The client would ask the store where they go, which has just said it.
            place = get_artifact_repository(made.artifact_uri, connection.tracking_uri)
            place.log_artifacts(folder)  # type: ignore[no-untyped-call]
        run = cls(connection, made.run_id)
        run.finish(ended.status)
        return run

    def _log_config(self, config: Mapping[str, Any]) -> None:
        params = _params(config)
        with self._connection.asking():
            for first in range(0, len(params), _PARAMS_PER_CALL):
                self._client.log_batch(self.run_id, params=params[first : first + _PARAMS_PER_CALL])
        self.log_json(config, "config.json")

    def log_metrics(self, metrics: Mapping[str, float], *, step: int = 0) -> None:
        """Write metrics of one step at once."""
        self.log_measurements([Measurement(step=step, metrics=metrics, at_ms=now_ms())])

    def log_measurements(self, measurements: Sequence[Measurement]) -> None:
        """Write metrics of many steps in few calls.

        Args:
            measurements: Metrics by step.
        """
        rows = _metrics(measurements)
        with self._connection.asking():
            for first in range(0, len(rows), _METRICS_PER_CALL):
                self._client.log_batch(self.run_id, metrics=rows[first : first + _METRICS_PER_CALL])

    def log_json(self, value: Mapping[str, Any] | Sequence[Any], file: str) -> None:
        """Keep plain values as a JSON artifact."""
        self.log_text(_json(value), file)

    def log_text(self, text: str, file: str) -> None:
        """Keep a text as an artifact."""
        with self._connection.asking():
            self._client.log_text(self.run_id, text, file)

    def log_figure(self, figure: "Figure", file: str) -> None:
        """Keep a figure as an artifact, such as `figures/quality.png`."""
        with self._connection.asking():
            self._client.log_figure(self.run_id, figure, file)

    def set_tags(self, tags: Mapping[str, str]) -> None:
        """Write tags at once."""
        with self._connection.asking():
            self._client.log_batch(
                self.run_id, tags=[RunTag(name, value) for name, value in tags.items()]
            )

    def go_on(self) -> None:
        """Show the run as running again, however an earlier process has ended it."""
        with self._connection.asking(missing=f"there is no run {self.run_id!r}"):
            self._client.update_run(self.run_id, "RUNNING")

    def finish(self, status: str = "FINISHED") -> None:
        """End the run.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        with self._connection.asking(missing=f"there is no run {self.run_id!r}"):
            self._client.set_terminated(self.run_id, status)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()
            return
        status = "FAILED" if issubclass(kind, Exception) else "KILLED"
        try:
            self.finish(status)
        except (RegistryError, MlflowException) as lost:
            # The error under way says why; this one would hide it.
            _LOGGER.warning("run %s could not be marked as %s: %s", self.run_id, status, lost)


def now_ms() -> int:
    """Milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def _json(value: Mapping[str, Any] | Sequence[Any]) -> str:
    return json.dumps(value, indent=2) + "\n"


def _params(config: Mapping[str, Any]) -> list[Param]:
    return [Param(key, value[:_LONGEST_PARAM]) for key, value in _flat(config)]


def _metrics(measurements: Sequence[Measurement]) -> list[Metric]:
    return [
        Metric(name, float(value), one.at_ms, one.step)
        for one in measurements
        for name, value in one.metrics.items()
    ]


def _flat(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in config.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", str(value)
