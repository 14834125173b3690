"""The model registry: versions with their record and lineage, and aliases with their history."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, Self, final

from mlflow.exceptions import MlflowException
from torch import Tensor

from ..home import Home
from .alias_ledger import AliasLedger
from .canary import check_promotable
from .catalogue import Catalogue
from .connection import Connection
from .decoder_file import check_decoder, download_decoder, upload_decoder
from .entry import RECORD_TAG, Evaluation, ModelEntry, UnreadableEntry
from .gate import Gate
from .lineage import Lineage
from .model_files import ModelFiles
from .promotion import Promotion
from .record import ModelRecord, check_metrics
from .reference import ModelVersion

_LONGEST_TAG: Final = 100_000  # characters that MLflow keeps in one tag


@final
@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A registered model with its weights.

    Attributes:
        reference: The version; an alias has been followed.
        record: Its record.
        weights: Weights by name, on the CPU.
    """

    reference: ModelVersion
    record: ModelRecord
    weights: Mapping[str, Tensor]


@final
class Registry:
    """Registered models in an MLflow store.

    Args:
        tracking_uri: Store of runs and models.
        artifacts: Where artifacts go, as `Connection` takes it.
    """

    def __init__(self, tracking_uri: str, *, artifacts: str | None = None) -> None:
        self.connection = Connection(tracking_uri, artifacts=artifacts)
        self._client = self.connection.client
        self._catalogue = Catalogue(self.connection)
        self._ledger = AliasLedger(self.connection, self._catalogue)

    @classmethod
    def at(cls, home: Home) -> Self:
        """The registry of a home."""
        return cls(home.tracking_uri, artifacts=home.artifacts)

    def register(
        self,
        record: ModelRecord,
        weights: Mapping[str, Tensor],
        *,
        run_id: str,
        decoder: bytes | None = None,
    ) -> ModelVersion:
        """Add a version: its files first, so that a version without files never exists.

        A parent or a run that does not exist is refused before anything is written.

        Args:
            record: Its record; parents that are models must be registered.
            weights: Weights by name.
            run_id: MLflow run that made it; the files become artifacts of that run.
            decoder: Bytes of the decoder's weights where the record has a decoder.

        Returns:
            The new version.

        Raises:
            ValueError: If there are no weights, the decoder is not the record's, or the record is
                too long.
        """
        if not weights:
            raise ValueError(f"a version of {record.name!r} needs weights, got none")
        check_decoder(record, decoder)
        text = record.to_json()
        if len(text) > _LONGEST_TAG:
            raise ValueError(
                f"a model record must have at most {_LONGEST_TAG} characters, got {len(text)}"
            )
        for parent in record.model_parents.values():
            self._catalogue.entry(parent)
        artifacts = self._artifacts_of(run_id)
        if decoder is not None:
            upload_decoder(self.connection, run_id, decoder)
        files = ModelFiles.upload(self.connection, run_id, weights=weights, record=text)
        with self.connection.asking():
            self._create_model(record.name)
            version = self._client.create_model_version(
                record.name,
                f"{artifacts}/{files.folder}",
                run_id=run_id,
                tags=files.tags | {RECORD_TAG: text},
                await_creation_for=0,
            )
        return ModelVersion(name=record.name, version=int(version.version))

    def load(self, reference: str | ModelVersion) -> LoadedModel:
        """A model with its weights, if its files are what was registered.

        Args:
            reference: Version or alias.

        Returns:
            The model, weights on the CPU.
        """
        entry = self.entry(reference)
        weights = entry.files.download(self.connection, entry.run_id, model=str(entry.reference))
        return LoadedModel(reference=entry.reference, record=entry.record, weights=weights)

    def decoder(self, reference: str | ModelVersion) -> bytes | None:
        """The weights of a model's decoder, if they are what was registered.

        Args:
            reference: Version or alias.

        Returns:
            Bytes of a safetensors file, or None if the model has no decoder.
        """
        entry = self.entry(reference)
        if entry.record.latents is None or entry.record.latents.decoder is None:
            return None
        return download_decoder(
            self.connection,
            entry.run_id,
            sha256=entry.record.latents.decoder.sha256,
            model=str(entry.reference),
        )

    def entry(self, reference: str | ModelVersion) -> ModelEntry:
        """What is known about a model, without its weights.

        Args:
            reference: Version or alias.

        Returns:
            The entry.
        """
        return self._catalogue.entry(reference)

    def resolve(self, reference: str | ModelVersion) -> ModelVersion:
        """The version that a reference means now; a version itself may still be missing.

        Args:
            reference: Version or alias.

        Returns:
            The version.
        """
        return self._catalogue.resolve(reference)

    def list(self) -> tuple[ModelEntry | UnreadableEntry, ...]:
        """All versions that were registered by us, by name and number."""
        return self._catalogue.entries()

    def made_by(self, run_id: str) -> ModelVersion | None:
        """The version that a run registered, or None.

        Args:
            run_id: MLflow run.

        Returns:
            The version; no record is read for it.
        """
        return self._catalogue.made_by(run_id)

    def lineage(self, reference: str | ModelVersion) -> Lineage:
        """What a model was made from, back to the beginning.

        Args:
            reference: Version or alias.

        Returns:
            The tree, with the model at its root.
        """
        return self._catalogue.lineage(reference)

    def add_evaluation(
        self,
        reference: str | ModelVersion,
        metrics: Mapping[str, float],
        *,
        provenance: Mapping[str, Any],
    ) -> Evaluation:
        """Add metrics measured after registration; earlier ones are kept.

        Args:
            reference: Version or alias.
            metrics: Values by name, all finite.
            provenance: How they were measured.

        Returns:
            The evaluation as it is kept.

        Raises:
            ValueError: If a metric is not finite, or all together are too long.
        """
        check_metrics(metrics)
        version = self.entry(reference).reference
        evaluation = Evaluation(
            at=datetime.now(UTC).isoformat(timespec="microseconds"),
            metrics=dict(metrics),
            provenance=dict(provenance),
        )
        text = evaluation.to_json()
        if len(text) > _LONGEST_TAG:
            raise ValueError(
                f"an evaluation must have at most {_LONGEST_TAG} characters, got {len(text)}"
            )
        with self.connection.asking():
            self._client.set_model_version_tag(
                version.name, str(version.version), evaluation.key, text
            )
        return evaluation

    def promote(
        self,
        reference: str | ModelVersion,
        alias: str,
        *,
        why: str,
        who: str | None = None,
        gate: Gate | None = None,
    ) -> Promotion:
        """Let an alias of the model point to this version, and write that down.

        Args:
            reference: Version or alias to promote.
            alias: Alias that is to point to it.
            why: Reason in words.
            who: Who does it; None for the user of this process.
            gate: Condition on its metrics, or None.

        Returns:
            The entry in the alias's history; the standing one if nothing had to move.

        Raises:
            PromotionRefused: If the alias holds trials, or another promoter moved it meanwhile.
        """
        check_promotable(alias)
        entry = self.entry(reference)
        if gate is not None:
            gate.check(entry.metrics, model=str(entry.reference))
        return self._ledger.move(entry.reference, alias, why=why, who=who, gate=gate)

    @property
    def ledger(self) -> AliasLedger:
        """The aliases and their history."""
        return self._ledger

    def current(self, name: str, alias: str) -> ModelVersion | None:
        """The version that an alias points to, or None.

        Args:
            name: Registered model.
            alias: The alias.

        Returns:
            The version.
        """
        return self._ledger.read(name, alias)[0]

    def history(self, name: str, alias: str) -> tuple[Promotion, ...]:
        """All promotions of an alias, oldest first.

        Args:
            name: Registered model.
            alias: The alias.

        Returns:
            The promotions.
        """
        return self._ledger.read(name, alias)[1]

    def _artifacts_of(self, run_id: str) -> str:
        with self.connection.asking(missing=f"there is no run {run_id!r}"):
            return str(self._client.get_run(run_id).info.artifact_uri)

    def _create_model(self, name: str) -> None:
        try:
            self._client.create_registered_model(name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
