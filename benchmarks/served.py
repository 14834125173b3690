"""A service to measure: a registry of its own, ``onestep serve`` before it, and load by wrk.

wrk and its answers share the cores with what they measure, so every number is of both together.
"""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import httpx
import psutil
import torch

from onestep.methods.core.flow_map import Domain
from onestep.methods.nets.unet import UNet
from onestep.platform.registry.record import ModelRecord
from onestep.platform.registry.store import Registry

SHAPE: Final = (1, 28, 28)
CLASSES: Final = 10
NET: Final = {
    "_target_": "onestep.methods.nets.unet.UNet",
    "width": 32,
    "multipliers": [1, 2, 2],
}
"""1.07 million parameters; their values change no time, so they are as they begin."""
STARTS_WITHIN_S: Final = 180.0
ENDS_WITHIN_S: Final = 120.0
HAPROXY: Final = "HAProxy"
PYTHON: Final = "Python proxy"
PROXIES: Final = (HAPROXY, PYTHON)
THROUGHPUT: Final = "serve=throughput"
"""The shipped settings for many users, as they are."""
PEERS: Final = ("litserve==0.2.19", "bentoml==1.4.39")
HERE: Final = Path(__file__).parent
FORMATS: Final = ("npy", "png")


def fill_registry(folder: Path, *, versions: int = 1) -> Registry:
    """A store in the folder with so many versions of ``digits``, of which the first is served."""
    registry = Registry(f"sqlite:///{folder / 'mlflow.db'}", artifacts=str(folder / "artifacts"))
    experiment = registry.connection.experiment("serving")
    run_id = registry.connection.client.create_run(experiment).info.run_id
    for seed in range(versions):
        torch.manual_seed(seed)
        net = UNet(shape=SHAPE, classes=CLASSES, domain=Domain(), width=32, multipliers=(1, 2, 2))
        record = ModelRecord(
            name="digits",
            method={"_target_": "onestep.methods.mean_flow.MeanFlow"},
            net=NET,
            shape=SHAPE,
            classes=CLASSES,
            label_names=tuple(map(str, range(CLASSES))),
            domain=Domain().to_dict(),
            data_digest="0" * 64,
            seed=0,
        )
        registry.register(record, net.state_dict(), run_id=run_id)
    registry.promote("digits/1", "champion", why="the first one")
    return registry


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def environment(folder: Path, proxy: str) -> dict[str, str]:
    """What a service is told by its environment, with all that it writes in one folder."""
    plain = {
        "PATH": os.environ["PATH"],
        "HOME": str(folder),
        "ONESTEP_HOME": str(folder),
        "OMP_NUM_THREADS": "1",
        "OMP_WAIT_POLICY": "PASSIVE",
        "MLFLOW_TRACKING_URI": f"sqlite:///{folder / 'mlflow.db'}",
        "ONESTEP_ARTIFACTS": str(folder / "artifacts"),
    }
    if proxy == PYTHON:
        return plain
    own = folder / "h"  # the paths of its sockets may not be long
    own.mkdir(exist_ok=True)
    return plain | {
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": str(own / "haproxy.cfg"),
        "RAY_SERVE_HAPROXY_SOCKET_PATH": str(own / "admin.sock"),
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": str(own),
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": str(own / "server-state"),
        "RAY_SERVE_HAPROXY_METRICS_SOCKET_PATH": str(own / "metrics.sock"),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
    }


@final
@dataclass(frozen=True, kw_only=True)
class Served:
    """A service under way.

    Attributes:
        url: Where it listens.
        process: The process that was started; its children do the work.
    """

    url: str
    process: psutil.Process

    def processes(self, name: str) -> list[psutil.Process]:
        """Those of its processes whose command line has the name, such as ``Generator``."""
        found = []
        for child in self.process.children(recursive=True):
            try:
                if name in " ".join(child.cmdline()):
                    found.append(child)
            except psutil.NoSuchProcess:
                continue
        return found


@contextmanager
def served(folder: Path, proxy: str, *overrides: str) -> Iterator[Served]:
    """``onestep serve`` over the registry of a folder, ready, and ended with the block."""
    port = free_port()
    command = [
        *(sys.executable, "-m", "onestep.platform.cli", "serve"),
        *(f"serve.port={port}", "serve.access_log=false", *overrides),
    ]
    url = f"http://127.0.0.1:{port}"
    with running(command, environment(folder, proxy), folder, f"{url}/readyz") as process:
        try:
            yield Served(url=url, process=process)
        finally:
            stop(process, signal.SIGTERM)
            end_haproxy(folder)


def end_haproxy(folder: Path) -> None:
    """HAProxy outlives the Ray that started it; the one of this folder ends here."""
    for process in processes_naming(folder / "h"):
        process.kill()


def processes_naming(path: Path) -> list[psutil.Process]:
    """Processes of this machine whose command line names a path."""
    return [
        process
        for process in psutil.process_iter(["cmdline"])
        if str(path) in " ".join(process.info["cmdline"] or ())
    ]


@contextmanager
def running(
    command: list[str], env: Mapping[str, str], folder: Path, ready: str
) -> Iterator[psutil.Process]:
    """A server in a process of its own, once it answers at an address."""
    with (folder / "server.log").open("ab") as log:
        popen = subprocess.Popen(command, env=dict(env), cwd=folder, stdout=log, stderr=log)
        process = psutil.Process(popen.pid)
        try:
            if not answers(ready, lambda: popen.poll() is None):
                told = (folder / "server.log").read_text()[-2000:]
                raise RuntimeError(
                    f"{ready} must answer within {STARTS_WITHIN_S:g} s, got none: {told}"
                )
            yield process
        finally:
            children = process.children(recursive=True) if process.is_running() else []
            stop(process, signal.SIGTERM)
            for child in children:  # what its parent has left behind
                if child.is_running():
                    child.kill()
            popen.wait()


def stop(process: psutil.Process, number: int) -> None:
    """Send a signal and wait for the end, or end it."""
    if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        process.send_signal(number)
        try:
            process.wait(timeout=ENDS_WITHIN_S)
        except psutil.TimeoutExpired:
            process.kill()


def answers(url: str, lives: Callable[[], bool]) -> bool:
    """Whether an address answers 200 in time."""
    deadline = time.monotonic() + STARTS_WITHIN_S
    while time.monotonic() < deadline and lives():
        try:
            if httpx.get(url, timeout=5.0).is_success:
                return True
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    return False


@contextmanager
def litserve(folder: Path, peers: Path) -> Iterator[Served]:
    """LitServe with the engine, over the same registry."""
    port = free_port()
    command = [str(peers / "bin" / "python"), str(HERE / "peer_litserve.py"), str(port)]
    url = f"http://127.0.0.1:{port}"
    with running(command, environment(folder, PYTHON), folder, f"{url}/health") as process:
        yield Served(url=url, process=process)


@contextmanager
def bentoml(folder: Path, peers: Path) -> Iterator[Served]:
    """BentoML with the engine, over the same registry."""
    port = free_port()
    name = "onestep.benchmarks.peer_bentoml:Images"
    command = [
        *(str(peers / "bin" / "bentoml"), "serve", name),
        *("--host", "127.0.0.1", "--port", str(port)),
    ]
    env = environment(folder, PYTHON) | {"BENTOML_DO_NOT_TRACK": "1"}
    url = f"http://127.0.0.1:{port}"
    with running(command, env, folder, f"{url}/readyz") as process:
        yield Served(url=url, process=process)


def install_peers(folder: Path) -> None:
    """An environment of their own, in which torch and the project are those of this one."""
    if not (folder / "bin" / "bentoml").exists():
        subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
        subprocess.run([str(folder / "bin" / "pip"), "install", "-q", *PEERS], check=True)
    # Each time, because another checkout may have made it.
    (packages,) = folder.glob("lib/python*/site-packages")
    line = f"import site; site.addsitedir({sysconfig.get_path('purelib')!r})\n"
    (packages / "onestep_peer.pth").write_text(line)


def body_of(form: str, *, steps: int = 1) -> str:
    """A request for one image, whose seed the load generator counts up."""
    more = f', "steps": {steps}' if steps > 1 else ""
    return f'{{"labels": 3, "seed": %d, "format": "{form}"{more}}}'


def wrk(
    url: str, *, clients: int, seconds: float, body: str, folder: Path, pause_ms: int = 0
) -> dict[str, float]:
    """Load by so many clients, each of which asks again as soon as it is answered, or after that.

    Args:
        url: Where to POST to.
        clients: Connections.
        seconds: For how long.
        body: JSON with ``%d`` in it, which becomes a number that grows.
        folder: Where the script of wrk goes.
        pause_ms: Mean milliseconds between an answer and the next request, which come as those of
            people do: at random, by an exponential distribution.

    Returns:
        Answers with status 200 in a second, and all of them, milliseconds in the middle and at
        99 %, how many were no 200, and of how many the connection broke or no answer came.

    Raises:
        RuntimeError: If wrk is not there, or says nothing.
    """
    if shutil.which("wrk") is None:
        raise RuntimeError("wrk must be installed, as by apt-get install wrk, got none on PATH")
    script = folder / "post.lua"
    script.write_text(
        f"local k, body = 0, '{body}'\n"
        "local headers = {['Content-Type'] = 'application/json'}\n"
        "function request()\n"
        "  k = k + 1\n"
        "  return wrk.format('POST', nil, headers, string.format(body, k))\n"
        "end\n"
        + (
            f"function delay() return -{pause_ms} * math.log(1 - math.random()) end\n"
            if pause_ms
            else ""
        )
        + "function done(s, l, r)\n"
        "  local e = s.errors\n"
        "  io.write(string.format('FOUND %d %d %f %f %d %d\\n', s.requests, s.duration,\n"
        "    l:percentile(50), l:percentile(99),\n"
        "    e.status, e.connect + e.read + e.write + e.timeout))\n"
        "end\n"
    )
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds:g}s", "--timeout=30s"]
    ended = subprocess.run(
        [*command, "-s", str(script), url], capture_output=True, text=True, check=True
    )
    if (said := re.search(r"FOUND (\S+) (\S+) (\S+) (\S+) (\S+) (\S+)", ended.stdout)) is None:
        raise RuntimeError(f"wrk must say what it found, got {ended.stdout[-200:]!r}")
    requests, duration, half, most, refused, broken = map(float, said.groups())
    failed = refused + broken
    return {
        "per_second": round((requests - failed) / duration * 1e6, 1),
        "sent_per_second": round(requests / duration * 1e6, 1),
        "p50_ms": round(half / 1e3, 2),
        "p99_ms": round(most / 1e3, 2),
        "failed": failed,
        "broken": broken,
    }


def megabytes(process: psutil.Process) -> dict[str, float]:
    """Resident memory by process, of a service and its children."""
    found: dict[str, float] = {}
    for one in (process, *process.children(recursive=True)):
        try:
            found[f"{one.pid} {one.name()}"] = round(one.memory_info().rss / 2**20, 1)
        except psutil.NoSuchProcess:
            continue
    return found
