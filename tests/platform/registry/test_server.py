"""The store contract against a real MLflow server, which refuses what a file accepts."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from onestep.platform.registry.connection import check_tracking
from onestep.platform.registry.store import Registry
from onestep.tests.platform.registry.contract import StoreContract

_LONGEST_START_S = 180.0


@pytest.fixture(scope="module")
def server(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")
    database = folder / "mlflow.db"
    database.write_bytes(empty_database.read_bytes())
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    uri = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "server", "--workers", "1", "--port", str(port)]
    command += ["--backend-store-uri", f"sqlite:///{database}"]
    command += ["--artifacts-destination", str(folder / "artifacts")]
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=folder, stdout=log, stderr=log, start_new_session=True
        )
    try:
        _wait_for(uri, process, folder / "log")
        yield uri
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait()


def _wait_for(uri: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + _LONGEST_START_S
    while time.monotonic() < give_up_at and process.poll() is None:
        try:
            if httpx.get(f"{uri}/health", timeout=2.0).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.2)
    raise RuntimeError(f"the server did not start: {log.read_text()[-2000:]}")


@pytest.mark.slow
class TestServer(StoreContract):
    @pytest.fixture
    def registry(self, server: str) -> Registry:
        return Registry(server)

    def test_it_passes_the_check_before_training(self, server):
        check_tracking(server)
