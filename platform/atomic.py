"""Files that appear whole or not at all, for every part of the platform that writes to disk."""

import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

import safetensors.torch
from torch import Tensor

_CHUNK_BYTES: Final = 1 << 20


@contextmanager
def replacing(path: Path, *, mode: int = 0o666) -> Iterator[IO[bytes]]:
    """A new file that takes the place of `path` once the block ends well.

    The bytes go to a file beside `path`, are forced to disk, and replace it in one move. Whatever
    fails, a full disk among it, leaves `path` as it was and nothing beside it.

    Args:
        path: File to write; its folder is made if it is missing.
        mode: Who may read and write it, less what the umask takes away.

    Yields:
        IO[bytes]: The open file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.parent / f".{path.name}.{secrets.token_hex(8)}.part"
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)
    except BaseException as error:
        with suppress(OSError):
            part.unlink()
        if isinstance(error, OSError) and error.filename is None and error.errno is not None:
            # A full disk does not say by itself which file it has no room for.
            raise OSError(error.errno, os.strerror(error.errno), str(path)) from error
        raise
    sync_folder(path.parent)


def write_bytes(path: Path, payload: bytes, *, mode: int = 0o666) -> str:
    """Write bytes whole or not at all, and give their SHA-256 in hexadecimal."""
    with replacing(path, mode=mode) as stream:
        stream.write(payload)
    return sha256(payload)


def write_text(path: Path, text: str) -> str:
    """Write text as UTF-8 whole or not at all, and give the SHA-256 of its bytes."""
    return write_bytes(path, text.encode())


def write_json(path: Path, value: Mapping[str, Any] | list[Any], *, mode: int = 0o666) -> str:
    """Write JSON whole or not at all, and give the SHA-256 of its bytes.

    Args:
        path: File to write.
        value: Plain values; numbers must be finite, which JSON asks for.
        mode: Who may read and write it, less what the umask takes away.

    Returns:
        SHA-256 of the file, in hexadecimal.

    Raises:
        ValueError: If a number is not finite.
    """
    text = json.dumps(value, indent=2, allow_nan=False) + "\n"
    return write_bytes(path, text.encode(), mode=mode)


def write_safetensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write tensors as safetensors whole or not at all, and give the SHA-256 of the file.

    Args:
        path: File to write.
        tensors: Tensors by name; those that share memory are written once for each name.

    Returns:
        SHA-256 of the file, in hexadecimal.
    """
    # Serialised here and written by us, because the library's own writer hides a full disk
    # in an error that is no OSError.
    return write_bytes(path, encode_safetensors(tensors))


def encode_safetensors(tensors: Mapping[str, Tensor]) -> bytes:
    """The bytes of a safetensors file that holds these tensors."""
    # A copy for each name: the format refuses tensors that share memory, as tied weights do.
    rows = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in tensors.items()}
    payload: bytes = safetensors.torch.save(rows)
    return payload


def sha256(payload: bytes) -> str:
    """SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(payload).hexdigest()


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal, read piece by piece."""
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while piece := stream.read(_CHUNK_BYTES):
            digest.update(piece)
    return digest.hexdigest()


def sync_folder(folder: Path) -> None:
    """Force to disk which files a folder has."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        # Some network file systems refuse this; the file itself is already safe there.
        with suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
