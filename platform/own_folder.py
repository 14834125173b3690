"""Temporary folders that do not outlive their process for long, even if it is killed."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_PREFIX: Final = "os-"  # short: Ray's sockets, which lie in there, have a limit of 107 bytes
_LOCK: Final = ".onestep.lock"  # whose folder it is: others may have names that begin the same


@contextmanager
def own_folder() -> Iterator[str]:
    """A new temporary folder, which is deleted with all that killed processes left of theirs.

    Yields:
        str: Its path.
    """
    _delete_those_of_the_dead()
    folder = tempfile.mkdtemp(prefix=_PREFIX)
    # Under its name the lock is never seen without its holder.
    unnamed = Path(folder, f"{_LOCK}.new")
    try:
        with unnamed.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            unnamed.rename(Path(folder, _LOCK))
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _delete_those_of_the_dead() -> None:
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_LOCK}"):
        # The folder of another user, or one that is being deleted.
        with suppress(OSError):
            if path.stat().st_uid != os.getuid():
                continue
            with path.open() as lock:
                fcntl.flock(
                    lock, fcntl.LOCK_EX | fcntl.LOCK_NB
                )  # the system frees those of the dead
                shutil.rmtree(path.parent, ignore_errors=True)
