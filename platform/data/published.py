"""Files that their authors published: where they are looked for, and how they are checked."""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from .download import fetch
from .errors import DataAltered, DataNotFound


@final
@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file with its checksum.

    Attributes:
        name: Name of the file.
        sha256: Its checksum, in hexadecimal digits.
        address: Where it can be downloaded.
    """

    name: str
    sha256: str
    address: str


def data_folder(folder: str | None) -> Path:
    """The folder that data files are read from and downloaded to.

    Args:
        folder: A folder that was asked for; None takes ONESTEP_DATA, else the folder ``data``
            in ONESTEP_HOME, else .onestep/data.
    """
    chosen = folder or os.environ.get("ONESTEP_DATA")
    if chosen:
        return Path(chosen).expanduser()
    return Path(os.environ.get("ONESTEP_HOME") or ".onestep").expanduser() / "data"


def find(name: str, folder: Path, layouts: Sequence[str]) -> Path | None:
    """The file of this name in the first layout that has it.

    Args:
        name: Name of the file.
        folder: Folder that holds data sets.
        layouts: Folders inside it where the file is looked for.
    """
    places = [folder / layout / name for layout in layouts]
    return next((place for place in places if place.is_file()), None)


def provide(file: PublishedFile, folder: Path, layouts: Sequence[str], *, download: bool) -> Path:
    """Where the file is, after a download if it has to be and may be.

    Args:
        file: The file.
        folder: Folder that holds data sets.
        layouts: Folders inside it where the file is looked for; a download goes to the first.
        download: Whether a missing file may be downloaded.

    Raises:
        DataNotFound: If the file is missing and not to be downloaded, or cannot be.
    """
    found = find(file.name, folder, layouts)
    if found is not None:
        return found
    path = folder / layouts[0] / file.name
    if not download:
        places = ", ".join(str(folder / layout) for layout in layouts)
        raise DataNotFound(
            f"{file.name} was looked for in {places} and is not there; set ONESTEP_DATA to a "
            f"folder that holds {layouts[0]}/{file.name}, or let onestep download it with "
            f"data.download=true"
        )
    fetch(file.address, path, sha256=file.sha256)
    return path


def check(content: bytes, place: Path | str, *, sha256: str) -> None:
    """Refuse bytes that are not the published ones.

    Args:
        content: The bytes.
        place: Where they were read, for the message.
        sha256: Checksum of the published bytes.

    Raises:
        DataAltered: If the checksum differs.
    """
    got = hashlib.sha256(content).hexdigest()
    if got != sha256:
        raise DataAltered(
            f"{place} has {len(content)} bytes with sha256 {got}, but the published file has "
            f"{sha256}; remove it and let onestep download it again with data.download=true"
        )


def read(path: Path, *, sha256: str) -> bytes:
    """The bytes of a file, once they are known to be the published ones.

    Args:
        path: The file.
        sha256: Checksum of the published file.

    Raises:
        DataAltered: If the checksum differs.
    """
    content = path.read_bytes()
    check(content, path, sha256=sha256)
    return content
