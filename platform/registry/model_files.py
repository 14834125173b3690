"""The files of a model: weights as safetensors and the record as JSON, artifacts of its run."""

import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self, final

import safetensors.torch
from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository
from safetensors import SafetensorError
from torch import Tensor

from .. import atomic
from .connection import Connection
from .errors import ModelAltered

_WEIGHTS: Final = "weights.safetensors"
_RECORD: Final = "model.json"
_WEIGHTS_TAG: Final = "onestep.weights_sha256"
_RECORD_TAG: Final = "onestep.record_sha256"
_FOLDER_TAG: Final = "onestep.folder"


@final
@dataclass(frozen=True, kw_only=True)
class ModelFiles:
    """Where the files of a model lie within its run, and what they must hash to.

    Attributes:
        folder: Artifact folder within the run.
        weights_sha256: SHA-256 of the weights file.
        record_sha256: SHA-256 of the record file.
    """

    folder: str
    weights_sha256: str
    record_sha256: str

    @property
    def tags(self) -> dict[str, str]:
        """The tags of a model version that describe its files."""
        return {
            _FOLDER_TAG: self.folder,
            _WEIGHTS_TAG: self.weights_sha256,
            _RECORD_TAG: self.record_sha256,
        }

    @classmethod
    def from_tags(cls, tags: Mapping[str, str]) -> Self | None:
        """The inverse of `tags`; None if the version was not registered by us."""
        if not all(tag in tags for tag in (_FOLDER_TAG, _WEIGHTS_TAG, _RECORD_TAG)):
            return None
        return cls(
            folder=tags[_FOLDER_TAG],
            weights_sha256=tags[_WEIGHTS_TAG],
            record_sha256=tags[_RECORD_TAG],
        )

    @classmethod
    def upload(
        cls, connection: Connection, run_id: str, *, weights: Mapping[str, Tensor], record: str
    ) -> Self:
        """Write the files as artifacts of a run; a failure leaves none of them behind.

        Args:
            connection: The store.
            run_id: Run that they belong to.
            weights: Weights by name.
            record: JSON of the record.

        Returns:
            Where they lie and what they hash to.

        Raises:
            OSError: If they cannot be written, as on a full disk.
        """
        with tempfile.TemporaryDirectory(prefix="onestep-") as name:
            local = Path(name)
            weights_sha256 = atomic.write_safetensors(local / _WEIGHTS, weights)
            record_sha256 = atomic.write_text(local / _RECORD, record)
            folder = f"models/{weights_sha256[:12]}-{record_sha256[:12]}"
            try:
                with connection.asking():
                    connection.client.log_artifacts(run_id, name, folder)
            except BaseException:
                with suppress(MlflowException, OSError):
                    _delete(connection, run_id, folder)
                raise
        return cls(folder=folder, weights_sha256=weights_sha256, record_sha256=record_sha256)

    def download(self, connection: Connection, run_id: str, *, model: str) -> dict[str, Tensor]:
        """Fetch the files and read the weights, if they are what was registered.

        Args:
            connection: The store.
            run_id: Run that they belong to.
            model: Reference of the model, for messages.

        Returns:
            Weights by name, on the CPU.

        Raises:
            ModelAltered: If a file is missing or does not hash to what was registered.
        """
        with tempfile.TemporaryDirectory(prefix="onestep-") as name:
            try:
                with connection.asking():
                    local = Path(
                        connection.client.download_artifacts(run_id, self.folder, dst_path=name)
                    )
                weights = (local / _WEIGHTS).read_bytes()
                record = (local / _RECORD).read_bytes()
            except (MlflowException, FileNotFoundError, NotADirectoryError) as error:
                raise ModelAltered(f"the files of {model} are missing from its run") from error
        for file, payload, expected in (
            (_WEIGHTS, weights, self.weights_sha256),
            (_RECORD, record, self.record_sha256),
        ):
            got = atomic.sha256(payload)
            if got != expected:
                raise ModelAltered(
                    f"{file} of {model} was altered or truncated: its SHA-256 is {got[:12]}..., "
                    f"registered {expected[:12]}..."
                )
        try:
            tensors: dict[str, Tensor] = safetensors.torch.load(weights)
        except SafetensorError as error:
            raise ModelAltered(f"{_WEIGHTS} of {model} is no safetensors file: {error}") from error
        return tensors


def _delete(connection: Connection, run_id: str, folder: str) -> None:
    run = connection.client.get_run(run_id)
    repository: Any = get_artifact_repository(
        f"{run.info.artifact_uri}/{folder}", connection.tracking_uri
    )
    repository.delete_artifacts()
