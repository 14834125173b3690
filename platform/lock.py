"""Locks: a folder of the platform for one process at a time."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_LOCK: Final = ".lock"


@contextmanager
def alone(folder: Path, *, what: str) -> Iterator[None]:
    """A folder for this process alone, as long as the block lasts.

    The system frees the lock of a process that is killed; the file that it leaves means nothing.

    Args:
        folder: The folder; it is made if it is missing.
        what: What lies in it, such as ``run``, for the refusal.

    Yields:
        None: While nobody else has the folder.

    Raises:
        ValueError: If another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(
                f"{what} {folder.name} is running already: another process works in {folder}"
            ) from None
        yield


@contextmanager
def in_turn(file: Path) -> Iterator[None]:
    """A short piece of work that processes of this machine do one after another.

    Args:
        file: The file that they lock, which is made if it is missing and means nothing.

    Yields:
        None: In this process's turn.
    """
    with file.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
