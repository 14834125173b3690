"""Folders for one process at a time."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from onestep.platform.lock import alone

_HOLDER: Final = """
import sys
from pathlib import Path
from onestep.platform.lock import alone

with alone(Path(sys.argv[1]), what="run"):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_refused_while_another_process_has_it_and_free_once_that_is_killed(
    tmp_path: Path,
) -> None:
    folder = tmp_path / "runs" / "first"
    command = [sys.executable, "-c", _HOLDER, str(folder)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"held\n"
        refusal = f"run first is running already: another process works in {folder}"
        with pytest.raises(ValueError, match=refusal), alone(folder, what="run"):
            pass
        os.kill(holder.pid, signal.SIGKILL)
    with alone(folder, what="run"):
        pass


def test_a_folder_is_free_after_an_error(tmp_path: Path) -> None:
    with pytest.raises(KeyError), alone(tmp_path, what="sweep"):
        raise KeyError
    with alone(tmp_path, what="sweep"):
        pass


def test_other_folders_are_free(tmp_path: Path) -> None:
    with alone(tmp_path / "one", what="run"), alone(tmp_path / "other", what="run"):
        pass
