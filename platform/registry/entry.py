"""One line of the registry: a version with its record, aliases and evaluations, but no weights."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self, final

from mlflow.entities.model_registry import ModelVersion as MlflowVersion

from ..atomic import sha256
from .errors import ModelAltered, ReferenceNotFound
from .model_files import ModelFiles
from .record import ModelRecord
from .reference import ModelVersion

RECORD_TAG: Final = "onestep.record"
EVALUATION_FOLDER: Final = "evaluation"


@final
@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Metrics measured on a registered model, and how.

    Attributes:
        at: When, in UTC, ISO 8601.
        metrics: Values by name.
        provenance: How they were measured.
    """

    at: str
    metrics: Mapping[str, float]
    provenance: Mapping[str, Any]

    def to_json(self) -> str:
        """The evaluation as JSON."""
        values = {"at": self.at, "metrics": self.metrics, "provenance": self.provenance}
        return json.dumps(values, allow_nan=False)

    @property
    def key(self) -> str:
        """Key of the tag that holds it; it ends with the start of the text's SHA-256."""
        at = self.at.partition("+")[0]  # MLflow allows no plus sign in a key
        return f"{EVALUATION_FOLDER}/{at}-{sha256(self.to_json().encode())[:16]}"

    @classmethod
    def from_json(cls, text: str) -> Self:
        """The inverse of `to_json`.

        Args:
            text: The JSON.

        Returns:
            The evaluation.

        Raises:
            ValueError: If another version of onestep has written it.
        """
        try:
            return cls(**json.loads(text))
        except TypeError as error:
            raise ValueError(
                f"an evaluation was written by another version of onestep: {error}"
            ) from error


@final
@dataclass(frozen=True, kw_only=True)
class ModelEntry:
    """What the registry holds about one version, without its weights.

    Attributes:
        reference: The version.
        record: Its record.
        aliases: Aliases that point to it, sorted.
        run_id: MLflow run that made it.
        created: When it was registered.
        files: Its files.
        evaluations: Measurements made after it was registered, oldest first.
    """

    reference: ModelVersion
    record: ModelRecord
    aliases: tuple[str, ...]
    run_id: str
    created: datetime
    files: ModelFiles
    evaluations: tuple[Evaluation, ...] = ()

    @property
    def metrics(self) -> dict[str, float]:
        """The record's metrics, and what only a later evaluation has measured.

        A number keeps the yardstick on which it was registered; a gate may rest on it.
        """
        merged: dict[str, float] = {}
        for evaluation in self.evaluations:
            merged |= evaluation.metrics
        return merged | dict(self.record.metrics)

    @classmethod
    def read(cls, version: MlflowVersion, *, aliases: Iterable[str]) -> Self:
        """Read a version as MLflow gives it.

        Args:
            version: MLflow's version, with its tags.
            aliases: Aliases that point to it.

        Returns:
            The entry.

        Raises:
            ReferenceNotFound: If it was not registered by us.
            ModelAltered: If its record or an evaluation is not what was registered.
        """
        reference = ModelVersion(name=version.name, version=int(version.version))
        files = ModelFiles.from_tags(version.tags)
        text = version.tags.get(RECORD_TAG)
        if files is None or text is None:
            raise ReferenceNotFound(f"{reference} was not registered by onestep: it has no record")
        if sha256(text.encode()) != files.record_sha256:
            raise ModelAltered(f"the record of {reference} is not the one that was registered")
        return cls(
            reference=reference,
            record=ModelRecord.from_json(text),
            aliases=tuple(sorted(aliases)),
            run_id=version.run_id or "",
            created=datetime.fromtimestamp(version.creation_timestamp / 1000, UTC),
            files=files,
            evaluations=_evaluations(version.tags, reference),
        )


@final
@dataclass(frozen=True, kw_only=True)
class UnreadableEntry:
    """A version whose record cannot be read: it was altered, or a newer onestep has written it.

    Attributes:
        reference: The version.
        aliases: Aliases that point to it, sorted.
        reason: Why, in one sentence.
    """

    reference: ModelVersion
    aliases: tuple[str, ...]
    reason: str


def _evaluations(tags: Mapping[str, str], reference: ModelVersion) -> tuple[Evaluation, ...]:
    evaluations = []
    for key in sorted(key for key in tags if key.startswith(f"{EVALUATION_FOLDER}/")):
        evaluation = Evaluation.from_json(tags[key])
        if evaluation.key != key:
            raise ModelAltered(f"an evaluation of {reference} was altered at {key!r}")
        evaluations.append(evaluation)
    return tuple(evaluations)
