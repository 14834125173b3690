"""What cluster/head_services.sh keeps running on the head of a cluster."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

_SCRIPT: Final = Path(__file__).parents[1] / "cluster" / "head_services.sh"
_CLUSTER: Final = "127.0.0.2"
"""Stands for the head's address in the network of its cluster."""
_START_S: Final = 120.0
_USER: Final = "onestep"
_PASSWORD: Final = "a" * 64


def processes_of(part: bytes) -> Iterator[int]:
    """Processes whose command line has a part."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if part in place.read_bytes():
                yield int(place.parent.name)


def session_of(pid: int) -> int | None:
    with suppress(ProcessLookupError):
        return os.getsid(pid)
    return None


@dataclass(frozen=True, kw_only=True)
class Services:
    """The services of one test."""

    environment: Mapping[str, str]
    folder: Path
    port: int

    def call(self, *words: str, **changed: str) -> subprocess.CompletedProcess[str]:
        """The script with other words and variables."""
        environment = {**self.environment, **changed}
        command = ["bash", str(_SCRIPT), *words]
        return subprocess.run(
            command, env=environment, capture_output=True, text=True, check=False, timeout=120
        )

    @property
    def processes(self) -> list[int]:
        """All that runs, and what keeps it: each service is a session of its own."""
        sessions = {os.getsid(pid) for pid in processes_of(f"{self.folder}/".encode())}
        return [pid for pid in psutil.pids() if session_of(pid) in sessions]

    @property
    def servers(self) -> list[int]:
        """The MLflow server itself, not what keeps it."""
        words = ("/mlflow", "server", "--app-name", "basic-auth", "--host", _CLUSTER)
        port = f"\0--port\0{self.port}\0".encode()
        found = processes_of("\0".join(words).encode())
        return [pid for pid in found if port in Path(f"/proc/{pid}/cmdline").read_bytes()]

    def ask(
        self, address: str, *, host: str | None = None, password: str | None = _PASSWORD
    ) -> int:
        """The status of an answer to who asks for a host by its name."""
        url = f"http://{address}:{self.port}/api/2.0/mlflow/experiments/get?experiment_id=0"
        name = address if host is None else host
        return httpx.get(
            url,
            headers={"Host": f"{name}:{self.port}"},
            auth=None if password is None else (_USER, password),
            timeout=60,
        ).status_code

    def wait(self) -> None:
        """Wait for an answer."""
        until = time.monotonic() + _START_S
        while time.monotonic() < until:
            with suppress(httpx.HTTPError):
                self.ask(_CLUSTER)
                return
            time.sleep(0.5)
        raise TimeoutError("nobody answers")


@pytest.fixture
def services(tmp_path: Path) -> Iterator[Services]:
    """The head's services, not yet started, on other ports than theirs."""
    with socket.create_server((_CLUSTER, 0)) as one, socket.create_server(("", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "HOME": str(tmp_path),
        "ONESTEP_HOME": str(tmp_path / "home"),
        "MLFLOW_TRACKING_URI": f"http://{_CLUSTER}:{ports[0]}",
        "MLFLOW_TRACKING_USERNAME": _USER,
        "MLFLOW_TRACKING_PASSWORD": _PASSWORD,
        "OPTUNA_PORT": str(ports[1]),
    }
    found = Services(environment=environment, folder=tmp_path, port=ports[0])
    try:
        yield found
    finally:
        for pid in found.processes:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_mlflow_runs_once_in_the_network_of_the_cluster_and_comes_back(services: Services) -> None:
    for _ in range(2):
        assert services.call("start").returncode == 0
    services.wait()
    time.sleep(2)  # for a second server to find the port taken
    assert len(services.servers) == 1
    with pytest.raises(httpx.ConnectError):
        services.ask("127.0.0.1")
    assert services.ask(_CLUSTER) == 200
    assert services.ask(_CLUSTER, password=None) == 401
    assert services.ask(_CLUSTER, password="b" * 64) == 401
    # By way of SSH a browser asks for localhost; for another name, a page that plays a trick.
    assert services.ask(_CLUSTER, host="localhost") == 200
    assert services.ask(_CLUSTER, host="elsewhere.example") == 403
    (server,) = services.servers
    os.kill(server, signal.SIGTERM)
    while server in services.servers:
        time.sleep(0.2)
    services.wait()
    assert services.servers != [server]


@pytest.mark.slow
def test_a_stop_leaves_nothing_and_a_new_password_holds_after_it(services: Services) -> None:
    services.call("start")
    services.wait()
    started = services.processes
    assert len(started) > 4
    assert services.call("stop").returncode == 0
    assert [pid for pid in started if psutil.pid_exists(pid)] == []
    assert services.call("stop").returncode == 0
    services.call("start", MLFLOW_TRACKING_PASSWORD="b" * 64)
    services.wait()
    assert services.ask(_CLUSTER, password="b" * 64) == 200
    assert services.ask(_CLUSTER) == 401


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("ONESTEP_HOME", "all nodes share"),
        ("MLFLOW_TRACKING_URI", "the head"),
        ("MLFLOW_TRACKING_USERNAME", "lets in"),
        ("MLFLOW_TRACKING_PASSWORD", "the password"),
    ],
)
def test_the_services_are_refused_without_a_variable(
    services: Services, missing: str, said: str
) -> None:
    refused = services.call("start", **{missing: ""})
    assert refused.returncode != 0
    assert said in refused.stderr
    assert services.processes == []


@pytest.mark.parametrize("words", [(), ("restart",)])
def test_the_script_takes_two_words(services: Services, words: tuple[str, ...]) -> None:
    refused = services.call(*words)
    assert refused.returncode == 2
    assert "takes start or stop, got" in refused.stderr
