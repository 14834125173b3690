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
        agent, reader = (
            subprocess.Popen([name, "60"], executable="sleep", stdout=log, start_new_session=True)
            for name in ("ray::Agent", "less")
        )
    print(folder, agent.pid, reader.pid, flush=True)
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
        folder, *pids = other.stdout.readline().split()
        theirs, (agent, reader) = Path(folder), [psutil.Process(int(pid)) for pid in pids]
        (tmp_path / "os-of-something-else").mkdir()
        with own_folder() as ours:
            assert theirs.is_dir()
        assert not Path(ours).exists()
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert theirs.is_dir()
        assert agent.is_running()
        with own_folder():
            assert not theirs.exists()
        agent.wait(10)
        assert reader.is_running()
        reader.kill()
    assert [path.name for path in tmp_path.iterdir()] == ["os-of-something-else"]
