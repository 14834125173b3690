"""Downloads that either give the whole published file or leave nothing behind."""

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Generator
from contextlib import closing
from pathlib import Path
from typing import Final

from .errors import DataAltered, DataNotFound

_CHUNK_BYTES: Final = 1 << 20
_TIMEOUT_S: Final = 60.0


def _chunks(address: str) -> Generator[bytes, None, None]:
    """The body found at an address; whatever the network does wrong becomes one sentence."""
    request = urllib.request.Request(address, headers={"User-Agent": "onestep"})
    try:
        with urllib.request.urlopen(request, timeout=_TIMEOUT_S) as response:
            while chunk := response.read(_CHUNK_BYTES):
                yield chunk
    except (urllib.error.URLError, http.client.HTTPException, ConnectionError, TimeoutError) as e:
        raise DataNotFound(
            f"cannot download {address} ({e}); try again, or download it by other means "
            f"into the folder that ONESTEP_DATA names"
        ) from e


def fetch(address: str, path: Path, *, sha256: str) -> None:
    """Download a file and move it into place once its checksum is right.

    Whatever happens on the way (a broken connection, a full disk, an interrupt), no file remains.

    Args:
        address: Where the file is published.
        path: Where it goes; its folder is made when missing.
        sha256: Checksum of the published file, in hexadecimal digits.

    Raises:
        DataNotFound: If the address gives nothing.
        DataAltered: If the body is truncated or another file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    part = Path(name)
    try:
        digest = hashlib.sha256()
        size = 0
        with os.fdopen(descriptor, "wb") as file, closing(_chunks(address)) as chunks:
            for chunk in chunks:
                file.write(chunk)
                digest.update(chunk)
                size += len(chunk)
            file.flush()
            os.fsync(file.fileno())
        if digest.hexdigest() != sha256:
            raise DataAltered(
                f"{address} gave {size} bytes with sha256 {digest.hexdigest()}, but the published "
                f"file has {sha256}; nothing was kept, try again"
            )
        part.chmod(0o644)  # temporary files are private, data is shared
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
