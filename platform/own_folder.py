"""Temporary folders that do not outlive their process for long, even if it is killed.

Nor do the agents of a Ray that worked in one: by themselves they notice after a minute that it is
gone, and hold a port meanwhile for which the next one waits.
"""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import psutil

_PREFIX: Final = "os-"  # short: Ray's sockets, which lie in there, have a limit of 107 bytes
_RAY: Final = "ray::"  # how Ray names its processes
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
                _kill_agents_in(path.parent)
                shutil.rmtree(path.parent, ignore_errors=True)


def _kill_agents_in(folder: Path) -> None:
    """Kill the processes of Ray that have a file below a folder open."""
    for process in psutil.process_iter():
        # It is another user's, or has ended.
        with suppress(psutil.Error):
            is_ray = "".join(process.cmdline()[:1]).startswith(_RAY)
            if is_ray and any(folder in Path(f.path).parents for f in process.open_files()):
                process.kill()
