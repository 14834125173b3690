"""A service on a Ray cluster of this machine, deployed by its Serve config file."""

import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import httpx
import psutil

from onestep.benchmarks.served import (
    STARTS_WITHIN_S,
    Served,
    answers,
    end_haproxy,
    environment,
    free_port,
    processes_naming,
    running,
)

_BIN: Final = Path(sys.executable).parent


@final
@dataclass(frozen=True, kw_only=True)
class Deployed:
    """A cluster whose Serve takes config files.

    Attributes:
        service: Its processes, and where it listens.
        dashboard: Where files are deployed.
        folder: What it writes lies here.
        env: What its commands are told by their environment.
    """

    service: Served
    dashboard: str
    folder: Path
    env: Mapping[str, str]

    def deploy(self, *overrides: str) -> None:
        """Deploys the file that ``onestep serve --config-file`` prints, and does not wait.

        Args:
            overrides: Settings beside the port.
        """
        port = httpx.URL(self.service.url).port
        command = ("onestep", "serve", "--config-file", f"serve.port={port}", *overrides)
        file = self.folder / "service.yaml"
        file.write_bytes(self._run(*command))
        self._run("serve", "deploy", "-a", self.dashboard, str(file))

    def shut_down(self) -> None:
        """Ends Serve, and HAProxy with it."""
        self._run("serve", "shutdown", "-y", "-a", self.dashboard)

    def _run(self, name: str, *words: str) -> bytes:
        ended = subprocess.run(
            [str(_BIN / name), *words], env=dict(self.env), capture_output=True, check=False
        )
        if ended.returncode:
            raise RuntimeError(f"{name} {words[0]} failed: {ended.stderr.decode()[-1000:]}")
        return ended.stdout


@contextmanager
def deployed(folder: Path, proxy: str, *overrides: str) -> Iterator[Deployed]:
    """A cluster of one node with a service over the registry of a folder, ready."""
    port, dashboard_port = free_port(), free_port()
    dashboard = f"http://127.0.0.1:{dashboard_port}"
    env = environment(folder, proxy) | {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        "RAY_USAGE_STATS_ENABLED": "0",
        "PATH": f"{_BIN}{os.pathsep}{os.environ['PATH']}",
    }
    command = [
        *(str(_BIN / "ray"), "start", "--head", "--block", "--disable-usage-stats"),
        *(f"--port={free_port()}", f"--dashboard-port={dashboard_port}", "--num-cpus=4"),
        *(f"--ray-client-server-port={free_port()}", f"--temp-dir={folder / 'r'}"),
        f"--dashboard-agent-listen-port={free_port()}",
    ]
    with running(command, env, folder, f"{dashboard}/") as process:
        service = Served(url=f"http://127.0.0.1:{port}", process=process)
        cluster = Deployed(service=service, dashboard=dashboard, folder=folder, env=env)
        try:
            cluster.deploy(*overrides)
            if not answers(f"{service.url}/readyz", process.is_running):
                raise RuntimeError(f"the service must be ready within {STARTS_WITHIN_S:g} s")
            yield cluster
            cluster.shut_down()
        finally:
            end_haproxy(folder)
            for child in processes_naming(folder / "r"):
                with suppress(psutil.NoSuchProcess):
                    child.send_signal(signal.SIGTERM)
