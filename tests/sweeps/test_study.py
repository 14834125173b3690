"""Optuna's database, which several processes of a machine open."""

import subprocess
import sys
from pathlib import Path
from typing import Final

_OPENER: Final = """
import sys
from onestep.sweeps.study import open_storage

print("ready", flush=True)
sys.stdin.readline()
open_storage(sys.argv[1])
"""


def test_processes_that_open_a_new_database_at_the_same_moment_share_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", _OPENER, f"sqlite:///{tmp_path / 'optuna.db'}"]
    openers = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)
    ]
    for one in openers:
        assert one.stdout is not None
        assert one.stdout.readline() == b"ready\n"
    for one in openers:
        assert one.stdin is not None
        one.stdin.write(b"\n")
        one.stdin.flush()
    for one in openers:
        one.communicate(timeout=120)
    assert [one.returncode for one in openers] == [0] * 3
