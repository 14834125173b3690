import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from onestep.platform.own_folder import own_folder

SCRIPT = """
import subprocess
import time
from pathlib import Path

from onestep.platform.own_folder import own_folder

with own_folder() as folder:
    Path(folder, "session").mkdir()
    with Path(folder, "session", "log").open("w") as log:
        agent = subprocess.Popen(["sleep", "60"], stdout=log, start_new_session=True)
    print(folder, agent.pid, flush=True)
    time.sleep(60)
"""
ONLOOKER = """
import sys, time

with open(sys.argv[1]):
    print("looking", flush=True)
    time.sleep(60)
"""


def test_what_a_killed_process_leaves_is_deleted_and_killed_and_a_living_one_is_let_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-c", SCRIPT]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        folder, pid = other.stdout.readline().split()
        theirs, agent = Path(folder), psutil.Process(int(pid))
        (tmp_path / "os-of-something-else").mkdir()
        with own_folder() as ours:
            assert theirs.is_dir()
        assert not Path(ours).exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert theirs.is_dir()
        assert agent.is_running()
        look = [sys.executable, "-c", ONLOOKER, str(theirs / ".onestep.lock")]
        with subprocess.Popen(look, stdout=subprocess.PIPE, text=True) as onlooker:
            assert onlooker.stdout is not None
            onlooker.stdout.readline()
            with own_folder():
                assert not theirs.exists()
            assert onlooker.poll() is None
            onlooker.kill()
        agent.wait(10)
    assert [path.name for path in tmp_path.iterdir()] == ["os-of-something-else"]
