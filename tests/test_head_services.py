"""What cluster/head_services.sh keeps running on the head of a cluster."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import pytest

_SCRIPT: Final = Path(__file__).parents[1] / "cluster" / "head_services.sh"
_CLUSTER: Final = "127.0.0.2"
"""Stands for the head's address in the network of its cluster."""
_START_S: Final = 120.0


def processes_of(part: bytes) -> Iterator[int]:
    """Processes whose command line has a part."""
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if part in place.read_bytes():
                yield int(place.parent.name)


@dataclass(frozen=True, kw_only=True)
class Services:
    """The services of one test."""

    lock: bytes
    port: int

    @property
    def servers(self) -> list[int]:
        """The MLflow server itself, not what keeps it."""
        words = ("/mlflow", "server", "--host", _CLUSTER, "--port", str(self.port))
        return list(processes_of("\0".join(words).encode()))

    def ask(self, address: str, *, host: str | None = None) -> int:
        """The status of an answer to who asks for a host by its name."""
        url = f"http://{address}:{self.port}/api/2.0/mlflow/experiments/get?experiment_id=0"
        name = address if host is None else host
        return httpx.get(url, headers={"Host": f"{name}:{self.port}"}, timeout=20).status_code

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
    """The head's services, started twice, on other ports than theirs."""
    with socket.create_server((_CLUSTER, 0)) as one, socket.create_server(("", 0)) as other:
        ports = one.getsockname()[1], other.getsockname()[1]
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "ONESTEP_HOME": str(tmp_path / "home"),
        "MLFLOW_PORT": str(ports[0]),
        "OPTUNA_PORT": str(ports[1]),
    }
    try:
        for _ in range(2):
            subprocess.run(["bash", _SCRIPT, _CLUSTER], env=environment, check=True, timeout=60)
        yield Services(lock=f"{tmp_path}/onestep-mlflow.lock".encode(), port=ports[0])
    finally:
        for pid in processes_of(f"{tmp_path}/onestep-".encode()):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # each lock has a session of its own
        for pid in processes_of(f"sqlite:///{tmp_path}".encode()):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


@pytest.mark.slow
def test_mlflow_runs_once_in_the_network_of_the_cluster_and_comes_back(services: Services) -> None:
    services.wait()
    time.sleep(2)  # for a second server to find the port taken
    assert len(services.servers) == 1
    assert len(list(processes_of(services.lock))) == 1
    with pytest.raises(httpx.ConnectError):
        services.ask("127.0.0.1")
    # By way of SSH a browser asks for localhost; for another name, a page that plays a trick.
    assert services.ask(_CLUSTER, host="localhost") == 200
    assert services.ask(_CLUSTER, host="elsewhere.example") == 403
    (server,) = services.servers
    os.kill(server, signal.SIGTERM)
    while server in services.servers:
        time.sleep(0.2)
    services.wait()
    assert services.servers != [server]


@pytest.mark.parametrize("missing", ["address", "home"])
def test_the_services_are_refused_without_an_address_or_a_home(missing: str) -> None:
    environment = {"PATH": os.environ["PATH"]} | (
        {} if missing == "home" else {"ONESTEP_HOME": "/"}
    )
    words = ["bash", str(_SCRIPT), *([] if missing == "address" else [_CLUSTER])]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert ("the head" if missing == "address" else "all nodes share") in done.stderr
