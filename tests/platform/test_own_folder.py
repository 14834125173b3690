import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from onestep.platform.own_folder import own_folder

SCRIPT = """
import time
from onestep.platform.own_folder import own_folder

with own_folder() as folder:
    print(folder, flush=True)
    time.sleep(60)
"""


def test_the_folder_of_a_killed_process_is_deleted_and_that_of_a_living_one_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        theirs = Path(other.stdout.readline().strip())
        (tmp_path / "os-of-something-else").mkdir()
        with own_folder() as ours:
            assert theirs.is_dir()
        assert not Path(ours).exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert theirs.is_dir()
        with own_folder():
            assert not theirs.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["os-of-something-else"]
