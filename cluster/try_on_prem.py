"""Tries cluster/on-prem.yaml on this machine alone: `ray up`, a sweep as a job, `ray down`.

    sudo .venv/bin/python cluster/try_on_prem.py

Three hosts and the user's desk are made of Linux namespaces (cluster/host.py), and end with this
script. The hosts run what the file says as it is shipped, but for four things: packages that the
script's own environment has are lent to them instead of being downloaded, the folder that they
share is one of this machine, mounted in each in the place of NFS, each host has one CPU for Ray,
and a small object store.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import httpx
import yaml
from host import ENVIRONMENT, ROOT, USER, Host, Laboratory, make_hosts, missing, run_apart

_FILE: Final = "cluster/on-prem.yaml"
_OBJECT_STORE_BYTES: Final = 150_000_000
_UP_S: Final = 900.0
_JOB_S: Final = 900.0
_DASHBOARD: Final = 8265
_MLFLOW: Final = 5000
_OPTUNA: Final = 8080
_FORWARD_S: Final = 120.0
_ENDED_S: Final = 30.0
_POLL_S: Final = 2.0
_KEY: Final = ("-i", ".ssh/id_ed25519", "-o", "StrictHostKeyChecking=accept-new")
_TRIALS: Final = 3
_SWEEP: Final = (
    *("sweep", "sweep=flow_matching", "data=eight_gaussians", "net=mlp", "net.width=32"),
    *("training.samples=512000", "evaluation.samples=200", "evaluation.nfes=[16]"),
    *(f"sweep.trials={_TRIALS}", "sweep.concurrency=3"),
)


def main() -> int:
    """Refuse what is missing, or try and clean up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    inside: Path | None = parser.parse_args().inside
    if inside is not None:
        return _try(inside)
    if lacking := missing():
        print(f"try_on_prem: {lacking}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="onestep-hosts-") as folder:
        return run_apart([sys.executable, __file__, "--inside", folder], folder)


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


def _try(folder: Path) -> int:
    """Make the hosts, and go from `ray up` to `ray down`. Runs in namespaces of its own."""
    config = yaml.safe_load((ROOT / _FILE).read_text())
    addresses = [config["provider"]["head_ip"], *config["provider"]["worker_ips"]]
    laboratory = make_hosts(folder, addresses)
    _lay_out(laboratory.desk / "home" / USER, config)
    print(f"hosts of this machine: {', '.join(addresses)}", flush=True)
    return _go(laboratory)


def _lay_out(home: Path, config: dict[str, Any]) -> None:
    """What `ray up` reads, as it lies in the user's checkout: the files, the wheel, the pins."""
    setup = config["setup_commands"]
    made = next(k for k, line in enumerate(setup) if "-m venv" in line)
    config["setup_commands"] = [*setup[: made + 1], "lend-packages", *setup[made + 1 :]]
    small = f"ray start --num-cpus=1 --object-store-memory={_OBJECT_STORE_BYTES}"
    for kind in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[kind] = [line.replace("ray start", small) for line in config[kind]]
    (home / "cluster").mkdir()
    (home / _FILE).write_text(yaml.safe_dump(config, sort_keys=False))
    shutil.copy(ROOT / "cluster" / "head_services.sh", home / "cluster")
    shutil.copy(ROOT / "constraints.txt", home)
    from onestep.platform.wheel import build_wheel  # Ray is not imported, nor torch

    build_wheel(ROOT, home / "dist")


@final
@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where the user sits: runs commands as the account does, and says how long they took."""

    root: Path

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command of the environment's."""
        environment = {
            "HOME": f"/home/{USER}",
            "PATH": f"{ENVIRONMENT}/bin:/usr/bin:/bin",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "USER": USER,
        }
        there = (f"--root={self.root}", f"--wd=/home/{USER}")
        account = (f"--reuid={USER}", f"--regid={USER}", "--init-groups")
        return subprocess.Popen(
            ["unshare", *there, "setpriv", *account, *words],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *words: str, within_s: float = _UP_S, quiet: bool = False) -> str:
        """Run a command to its end, and return what it prints.

        Raises:
            RuntimeError: If it fails, with the end of what it printed.
        """
        since = time.monotonic()
        process = self.start(*words)
        said, _ = process.communicate(timeout=within_s)
        if process.returncode:
            raise RuntimeError(
                f"{shlex.join(words)} ends with {process.returncode}:\n{said[-4000:]}"
            )
        if not quiet:
            print(f"{time.monotonic() - since:6.1f} s  {shlex.join(words)[:79]}", flush=True)
        return said

    @contextmanager
    def forwarding(self, *ports: int, by: Sequence[str]) -> Iterator[None]:
        """Ports of the head at the desk, for the time of the block.

        Args:
            *ports: What the command brings here.
            by: The command.

        Yields:
            None: Once somebody listens at each.
        """
        process = self.start(*by)
        try:
            for port in ports:
                _wait_for_port(port, shlex.join(by))
            yield
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.communicate()


def _wait_for_port(port: int, line: str) -> None:
    since = time.monotonic()
    while True:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", port)):
            return
        if time.monotonic() - since > _FORWARD_S:
            raise RuntimeError(f"{line} forwards no port within {_FORWARD_S:g} seconds")
        time.sleep(_POLL_S)


def _go(laboratory: Laboratory) -> int:
    desk, hosts, since = Desk(root=laboratory.desk), laboratory.hosts, time.monotonic()
    desk.run("ray", "get-auth-token", "--generate")
    desk.run("ray", "up", "-y", "--no-config-cache", _FILE)
    joined = _wait_for_workers(desk, len(hosts))
    print(f"{joined:6.1f} s  until {len(hosts) - 1} workers had joined", flush=True)
    with desk.forwarding(_DASHBOARD, by=("ray", "dashboard", _FILE)):
        said = desk.run(
            *("onestep", "submit", "--address", f"http://127.0.0.1:{_DASHBOARD}", "--", *_SWEEP),
            within_s=_JOB_S,
        )
    print(said[-1500:])
    _check_sweep(laboratory)
    _check_services(desk, hosts[0].address)
    desk.run("ray", "exec", _FILE, "bash ~/onestep-head_services.sh stop")
    desk.run("ray", "down", "-y", _FILE)
    for host in hosts[1:]:
        desk.run("ssh", *_KEY, f"{USER}@{host.address}", 'bash -ic "ray stop"')
    print(f"{_wait_for_end(hosts):6.1f} s  until nothing of it ran on any host")
    print(f"{time.monotonic() - since:6.1f} s  in all", flush=True)
    return 0


def _wait_for_workers(desk: Desk, count: int) -> float:
    """Seconds until each host has given its CPU."""
    since, said = time.monotonic(), ""
    while time.monotonic() - since < _UP_S:
        said = desk.run("ray", "exec", _FILE, "ray status", quiet=True)
        if re.search(rf"/{count}\.0 CPU", said):
            return time.monotonic() - since
        time.sleep(_POLL_S)
    raise RuntimeError(f"not all of {count} nodes have joined:\n{said[-4000:]}")


def _wait_for_end(hosts: Sequence[Host]) -> float:
    """Seconds until nothing runs on the hosts."""
    since = time.monotonic()
    while left := {host.address: found for host in hosts if (found := host.programs())}:
        if time.monotonic() - since > _ENDED_S:
            raise RuntimeError(f"after ray down there are on the hosts: {left}")
        time.sleep(_POLL_S)
    return time.monotonic() - since


def _check_sweep(laboratory: Laboratory) -> None:
    """Refuse a sweep of which a trial is missing, or that only one host has worked on."""
    (table,) = laboratory.shared.glob("sweeps/*/table.md")
    finished = table.read_text().count("| finished |")
    states = laboratory.shared.glob("sweeps/*/tune-*/experiment_state-*.json")
    text = "".join(path.read_text() for path in states)
    places = set(re.findall(r"node_ip\W+([\d.]+)", text))
    worked = sorted(host.address for host in laboratory.hosts if host.address in places)
    print(f"trials that finished: {finished}, on {', '.join(worked)}", flush=True)
    if finished != _TRIALS or len(worked) < 2:
        raise RuntimeError(f"{_TRIALS} trials on at least two hosts were expected")


def _check_services(desk: Desk, head: str) -> None:
    """Refuse a head whose MLflow has no runs or is open, or whose dashboard has no study."""
    mlflow = f"http://{head}:{_MLFLOW}"
    if (status := _runs(mlflow, None).status_code) != 401:
        raise RuntimeError(f"{mlflow} answers who has no password with {status}")
    with suppress(httpx.ConnectError):
        httpx.get(f"http://{head}:{_OPTUNA}")
        raise RuntimeError(f"optuna-dashboard is open to the network at {head}:{_OPTUNA}")
    forwards = ("-L", f"{_MLFLOW}:{head}:{_MLFLOW}", "-L", f"{_OPTUNA}:localhost:{_OPTUNA}")
    line = ("ssh", *_KEY, "-N", *forwards, f"{USER}@{head}")
    token = desk.run("ray", "get-auth-token", quiet=True).split()[-1]
    with desk.forwarding(_MLFLOW, _OPTUNA, by=line):
        runs = _runs(f"http://localhost:{_MLFLOW}", (USER, token)).raise_for_status().json()
        studies = httpx.get(f"http://localhost:{_OPTUNA}/api/studies").raise_for_status().json()
    ended = [run["info"]["status"] for run in runs.get("runs", ())].count("FINISHED")
    names = [study["study_name"] for study in studies["study_summaries"]]
    print(f"runs in MLflow: {ended}; studies in optuna-dashboard: {', '.join(names)}", flush=True)
    if ended < _TRIALS or len(names) != 1:
        raise RuntimeError(f"a run of each of {_TRIALS} trials and one study were expected")


def _runs(mlflow: str, account: tuple[str, str] | None) -> httpx.Response:
    url = f"{mlflow}/api/2.0/mlflow/"
    with httpx.Client(base_url=url, auth=account, timeout=60) as client:
        found = client.get("experiments/search", params={"max_results": 100})
        if found.is_error:
            return found
        experiments = [one["experiment_id"] for one in found.json()["experiments"]]
        return client.post("runs/search", json={"experiment_ids": experiments})


if __name__ == "__main__":
    sys.exit(main())
