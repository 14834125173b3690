"""What a first and a second Ctrl-C do to a service that answers a long request."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import psutil
import pytest
from ray.cluster_utils import Cluster

from onestep.tests.serving.registry import fill_registry
from onestep.tests.serving.waiting import until

MOST_TO_END_S = 20.0
"""Far below the drain, which the second Ctrl-C does not wait for."""


@contextmanager
def served(folder: Path, **more: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """``onestep serve`` as a terminal starts it, once it has said where."""
    command = [sys.executable, "-m", "onestep.platform.cli", "serve", "serve.port=0"]
    env = os.environ | {
        "ONESTEP_HOME": str(folder / "home"),
        "MLFLOW_TRACKING_URI": fill_registry(folder),
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
        **more,
    }
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
    with subprocess.Popen(
        [*command, "serve.bucket=4", "serve.max_waiting=64"], env=env, cwd=folder, **pipes
    ) as process:
        said = ""
        try:
            while (found := re.search(r"page  (http://\S+)/\n", said)) is None:
                line = process.stdout.readline()
                assert line, f"the service ended before it listened: {said}"
                said += line
            yield process, found[1]
        finally:
            if process.poll() is None:
                for child in psutil.Process(process.pid).children(recursive=True):
                    child.kill()
                process.kill()


def interrupt(process: subprocess.Popen[str]) -> None:
    """Press Ctrl-C, and wait until it has been heard."""
    process.send_signal(signal.SIGINT)
    for line in process.stdout:
        if "Ctrl-C again ends them" in line:
            return
    raise AssertionError("the service must say that it stops")


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a Ray cluster that is there before the service and after it."""
    with tempfile.TemporaryDirectory(prefix="os-") as place:  # Ray's sockets need a short path
        monkeypatch.setenv("RAY_TMPDIR", place)
        (Path(place) / "ray").mkdir()
        made = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 2, "temp_dir": place, "include_dashboard": False},
        )
        try:
            yield made.address
        finally:
            made.shutdown()


@pytest.mark.slow
@pytest.mark.ray
def test_on_a_cluster_that_was_there_who_comes_late_is_told_to_come_again(
    tmp_path: Path, cluster: str
) -> None:
    with served(tmp_path, RAY_ADDRESS=cluster) as (process, url):
        asked = {"labels": 3, "n": 512, "seed": 0, "steps": 64, "format": "npy", "stream": True}
        with httpx.stream("POST", f"{url}/v1/generate", json=asked, timeout=60.0) as answer:
            assert answer.status_code == 200, answer.read()
            parts = answer.iter_raw()
            size = len(next(parts))
            interrupt(process)
            refused: list[httpx.Response] = []

            def is_closed() -> bool:
                refused.append(httpx.post(f"{url}/v1/generate", json={"labels": 3, "n": 1}))
                return not refused[-1].is_success

            assert until(is_closed)
            assert refused[-1].status_code == 503
            assert refused[-1].headers["Retry-After"] == "1"
            size += sum(map(len, parts))
            assert size == int(answer.headers["Content-Length"])
        assert process.wait(60.0) == 0


@pytest.mark.slow
@pytest.mark.ray
def test_the_first_lets_a_long_answer_go_on_and_the_second_ends_it(tmp_path: Path) -> None:
    with served(tmp_path) as (process, url):
        family = psutil.Process(process.pid).children(recursive=True)
        asked = {"labels": 3, "n": 4096, "seed": 0, "steps": 64, "format": "npy", "stream": True}
        with httpx.stream("POST", f"{url}/v1/generate", json=asked, timeout=60.0) as answer:
            assert answer.status_code == 200, answer.read()
            parts = answer.iter_raw(4096)
            next(parts)

            interrupt(process)
            end, refused = time.monotonic() + 3.0, []
            while time.monotonic() < end:
                assert next(parts), "the answer goes on"
                if not refused or refused[-1].is_success:
                    refused.append(httpx.post(f"{url}/v1/generate", json={"labels": 3, "n": 1}))
            assert process.poll() is None
            # No other is let in, and none is told that there is no such path.
            assert {one.status_code for one in refused} <= {200, 503}
            assert refused[-1].headers["Retry-After"] == "1"
            assert refused[-1].json()["error"]["message"].startswith("the server is stopping")

            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            with pytest.raises(httpx.HTTPError):
                for _ in parts:
                    pass
        assert process.wait(MOST_TO_END_S) == 0
        assert time.monotonic() - began < MOST_TO_END_S
        psutil.wait_procs(family, timeout=10.0)
        assert not [one for one in family if one.is_running()]
