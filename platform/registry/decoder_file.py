"""The weights of a model's decoder: an artifact of its run, found by the digest in the record."""

import tempfile
from pathlib import Path
from typing import Final

from mlflow.exceptions import MlflowException

from .. import atomic
from .connection import Connection
from .errors import ModelAltered
from .record import ModelRecord

_FILE: Final = "decoder.safetensors"


def check_decoder(record: ModelRecord, decoder: bytes | None) -> None:
    """Refuse a decoder that is not the one of a record.

    Args:
        record: The record.
        decoder: Bytes of the weights, or None.

    Raises:
        ValueError: If one has a decoder and the other has none, or another one.
    """
    stored = None if record.latents is None else record.latents.decoder
    expected = None if stored is None else stored.sha256
    got = None if decoder is None else atomic.sha256(decoder)
    if got != expected:
        raise ValueError(
            f"a version of {record.name!r} must come with the decoder of its record, "
            f"{_shown(expected)}, got {_shown(got)}"
        )


def upload_decoder(connection: Connection, run_id: str, decoder: bytes) -> None:
    """Write the weights as an artifact of a run; versions of one run share them.

    Args:
        connection: The store.
        run_id: Run that they belong to.
        decoder: Bytes of the weights.

    Raises:
        OSError: If they cannot be written, as on a full disk.
    """
    with tempfile.TemporaryDirectory(prefix="onestep-") as name:
        file = Path(name) / _FILE
        atomic.write_bytes(file, decoder)
        with connection.asking():
            connection.client.log_artifact(run_id, str(file), _folder(atomic.sha256(decoder)))


def download_decoder(connection: Connection, run_id: str, *, sha256: str, model: str) -> bytes:
    """Fetch the weights, if they are what was registered.

    Args:
        connection: The store.
        run_id: Run that they belong to.
        sha256: What they must hash to.
        model: Reference of the model, for messages.

    Returns:
        Bytes of a safetensors file.

    Raises:
        ModelAltered: If the file is missing or hashes to something else.
    """
    with tempfile.TemporaryDirectory(prefix="onestep-") as name:
        try:
            with connection.asking():
                local = connection.client.download_artifacts(
                    run_id, f"{_folder(sha256)}/{_FILE}", dst_path=name
                )
            payload = Path(local).read_bytes()
        except (MlflowException, FileNotFoundError, NotADirectoryError) as error:
            raise ModelAltered(f"the decoder of {model} is missing from its run") from error
    got = atomic.sha256(payload)
    if got != sha256:
        raise ModelAltered(
            f"the decoder of {model} was altered or truncated: its SHA-256 is {got[:12]}..., "
            f"registered {sha256[:12]}..."
        )
    return payload


def _folder(sha256: str) -> str:
    return f"decoders/{sha256[:12]}"


def _shown(digest: str | None) -> str:
    return "none" if digest is None else f"{digest[:12]}..."
