"""Tries cluster/on-prem.yaml on this machine alone: `ray up`, a sweep as a job, `ray down`.

    sudo .venv/bin/python cluster/try_on_prem.py

Three hosts and the user's desk are made of Linux namespaces: each host has its own network on a
bridge, its own processes, and an SSH server of its own on port 22; its file system is this
machine's, of which it changes a private copy in memory. All of it lies within namespaces of this
script, so that neither the machine nor another Ray on it notices, and nothing stays, whatever ends
the script. The hosts run what the file says as it is shipped, but for four things: packages that
the script's own environment has are lent to them instead of being downloaded, the folder that they
share is one of this machine, mounted in each in the place of NFS, each host has one CPU for Ray,
and a small object store.
"""

import argparse
import ctypes
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import yaml

_ROOT: Final = Path(__file__).resolve().parent.parent
_FILE: Final = _ROOT / "cluster" / "on-prem.yaml"
_ENVIRONMENT: Final = Path(sys.prefix)
_TOOLS: Final = {
    "ip": "iproute2",
    "rsync": "rsync",
    "setpriv": "util-linux",
    "ssh": "openssh-client",
    "ssh-keygen": "openssh-client",
    "sshd": "openssh-server",
    "unshare": "util-linux",
    "useradd": "passwd",
}
"""Commands that are needed, and Debian's packages that have them."""
_SEARCHED: Final = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"
_APART: Final = ("--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--kill-child")
_USER: Final = "onestep"
_BRIDGE: Final = "onestep0"
_OBJECT_STORE_BYTES: Final = 150_000_000
_UP_S: Final = 900.0
_JOB_S: Final = 900.0
_DASHBOARD: Final = ("127.0.0.1", 8265)
_FORWARD_S: Final = 120.0
_ENDED_S: Final = 30.0
_POLL_S: Final = 2.0
_SWEEP: Final = (
    *("sweep", "sweep=flow_matching", "data=eight_gaussians", "net=mlp", "net.width=32"),
    *("training.samples=512000", "evaluation.samples=200", "evaluation.nfes=[16]"),
    *("sweep.trials=3", "sweep.concurrency=3"),
)
_SSHD: Final = """\
HostKey /etc/ssh/onestep_key
PasswordAuthentication no
UsePAM no
PidFile none
"""
_LEND: Final = """\
#!/bin/sh -e
# Packages of this machine, in the place of a download.
cd ~/onestep-env/lib/python3.11/site-packages
rm -rf setuptools*  # older than the one that is lent, and before it
echo {packages} > lent.pth
sed "1s|.*|#!$HOME/onestep-env/bin/python|" {scripts}/ray > ~/onestep-env/bin/ray
chmod +x ~/onestep-env/bin/ray
"""
_BOOT: Final = """\
set -e
mount --rbind /dev {root}/dev
mount -t tmpfs -o mode=1777,size=1g tmpfs {root}/dev/shm
mount -t proc proc {root}/proc
mount -t tmpfs tmpfs {root}/run
mkdir -p {root}/run/sshd {root}/mnt/onestep
mount --bind {shared} {root}/mnt/onestep
hostname {name}
exec chroot {root} {sshd} -D -f /etc/ssh/onestep_sshd
"""


def main() -> int:
    """Refuse what is missing, or try and clean up."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--inside", type=Path, help=argparse.SUPPRESS)
    inside: Path | None = parser.parse_args().inside
    if inside is not None:
        return _try(inside)
    if missing := _missing():
        print(f"try_on_prem: {missing}", file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    with tempfile.TemporaryDirectory(prefix="onestep-hosts-") as folder:
        # Killed with this process, however that ends; and with it everything in its namespaces.
        with _started(["unshare", *_APART, "--mount-proc", *_again(folder)]) as lab:
            spaces = _spaces(lab.pid)
            try:
                code = lab.wait()
            except KeyboardInterrupt:
                code = 130
        return _look(spaces, folder) or code


def _again(folder: str) -> list[str]:
    return [sys.executable, __file__, "--inside", folder]


def _interrupt(number: int, frame: object) -> None:
    del number, frame
    raise KeyboardInterrupt


def _missing() -> str | None:
    """What this machine lacks, as one sentence."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces take root on Linux: run it by sudo"
    if sys.version_info[:2] != (3, 11):
        return f"cluster/on-prem.yaml names Python 3.11, got {sys.version.split()[0]}"
    lacking = {name: package for name, package in _TOOLS.items() if not _which(name)}
    if lacking:
        packages = " ".join(sorted(set(lacking.values())))
        return f"it needs {', '.join(lacking)}: apt-get install {packages}"
    tried = subprocess.run(
        ["unshare", *_APART, "ip", "link", "add", _BRIDGE, "type", "bridge"],
        capture_output=True,
        text=True,
        check=False,
    )
    if tried.returncode:
        return f"this machine makes no namespaces with a bridge: {tried.stderr.strip()}"
    if "overlay" not in Path("/proc/filesystems").read_text():
        return "this machine's kernel has no overlay file system: modprobe overlay"
    return None


def _which(name: str) -> str | None:
    return shutil.which(name, path=_SEARCHED)


@contextmanager
def _started(command: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that gets no signal of this terminal, and ends with this process at the latest."""
    libc = ctypes.CDLL(None)
    process = subprocess.Popen(
        command,
        start_new_session=True,
        preexec_fn=lambda: libc.prctl(1, signal.SIGKILL),  # PR_SET_PDEATHSIG
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _spaces(pid: int) -> set[str]:
    """Names of the network and the processes of the laboratory, once it is apart."""
    own, until = os.readlink("/proc/self/ns/net"), time.monotonic() + 10
    while time.monotonic() < until:
        here = os.readlink(f"/proc/{pid}/ns/net")
        with suppress(FileNotFoundError):  # until its first process is there
            if here != own:
                return {here, os.readlink(f"/proc/{pid}/ns/pid_for_children")}
        time.sleep(0.01)
    raise TimeoutError("unshare did not start")


def _look(spaces: set[str], folder: str) -> int:
    """Say what is left on this machine of what was started; 0 if nothing is."""
    until = time.monotonic() + _ENDED_S
    while (left := _left(spaces, folder)) and time.monotonic() < until:
        time.sleep(0.1)  # the kernel ends one namespace after the other
    print(f"left on this machine: {', '.join(left) or 'nothing'}", flush=True)
    return 1 if left else 0


def _left(spaces: set[str], folder: str) -> list[str]:
    left = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            named = folder.encode() in (place / "cmdline").read_bytes()
            if named or {os.readlink(place / "ns" / kind) for kind in ("net", "pid")} & spaces:
                left.append(f"process {place.name}")
        except OSError:
            continue
    links = subprocess.run(["ip", "-o", "link"], capture_output=True, text=True, check=True).stdout
    left += [f"bridge {_BRIDGE}"] if _BRIDGE in links else []
    left += [f"mount in {folder}"] if folder in Path("/proc/self/mountinfo").read_text() else []
    return left


@final
@dataclass(frozen=True, kw_only=True)
class Host:
    """A machine of the laboratory.

    Attributes:
        name: Its host name.
        address: Its address on the bridge.
        process: The process whose namespaces it is.
    """

    name: str
    address: str
    process: "subprocess.Popen[bytes]"

    def programs(self) -> list[str]:
        """Names of what runs on it, but for its SSH server."""
        space = os.readlink(f"/proc/{self.process.pid}/ns/pid_for_children")
        found = []
        for place in Path("/proc").glob("[0-9]*"):
            try:
                if os.readlink(place / "ns" / "pid") == space:
                    found.append((place / "comm").read_text().strip())
            except OSError:
                continue
        return sorted(name for name in found if not name.startswith("sshd"))


def _try(folder: Path) -> int:
    """Make the hosts, and go from `ray up` to `ray down`. Runs in namespaces of its own."""
    config = yaml.safe_load(_FILE.read_text())
    provider = config["provider"]
    addresses = [provider["head_ip"], *provider["worker_ips"]]
    _run("mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", str(folder))
    image = _image(folder, addresses)
    desk = _overlay(folder, "desk", image)
    _run("mount", "--bind", "/proc", f"{desk}/proc")
    _run("mount", "--rbind", "/dev", f"{desk}/dev")
    _lay_out(desk / "home" / _USER, config)
    shared = folder / "shared"
    shared.mkdir()
    shutil.chown(shared, *_ids(image))
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", _BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{addresses[0].rpartition('.')[0]}.1/24", "dev", _BRIDGE)
    _run("ip", "link", "set", _BRIDGE, "up")
    hosts = [
        _host(folder, image, shared, name=f"onestep-{k}", address=address)
        for k, address in enumerate(addresses)
    ]
    print(f"hosts of this machine: {', '.join(addresses)}", flush=True)
    return _go(desk, hosts, shared)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _image(folder: Path, addresses: Sequence[str]) -> Path:
    """The layer that all hosts have over this machine's files: an account, a key, names."""
    root = _overlay(folder, "image", None)
    etc, local = root / "etc", root / "usr" / "local" / "bin"
    _run("chroot", str(root), "useradd", "--create-home", "--shell", "/bin/bash", _USER)
    _run("chroot", str(root), "usermod", "--password", "*", _USER)  # by key alone, and not locked
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(etc / "ssh" / "onestep_key"))
    (etc / "ssh" / "onestep_sshd").write_text(_SSHD)
    (etc / "resolv.conf").unlink(
        missing_ok=True
    )  # nobody to ask: known at once, not in ten seconds
    (etc / "resolv.conf").touch()
    names = [f"{address} onestep-{k}\n" for k, address in enumerate(addresses)]
    (etc / "hosts").write_text("".join(["127.0.0.1 localhost\n", *names]))
    (etc / "pip.conf").write_text("[global]\nno-index = true\ndisable-pip-version-check = true\n")
    base = Path(sys.base_prefix)
    paths = sysconfig.get_paths()
    lend = _LEND.format(packages=paths["purelib"], scripts=paths["scripts"])
    _script(local / "lend-packages", lend)
    # No link: an environment made by one would look for its library beside it.
    _script(local / "python3.11", f'#!/bin/sh\nexec {base}/bin/python3.11 "$@"\n')
    for place in (base, _ENVIRONMENT, _ROOT):  # a home that only its owner may look into, perhaps
        for above in (place, *place.parents):
            inside = root / above.relative_to("/")
            inside.chmod(
                inside.stat().st_mode | 0o055 if above == place else 0o711 | inside.stat().st_mode
            )
    ssh = root / "home" / _USER / ".ssh"
    ssh.mkdir(mode=0o700)
    _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(ssh / "id_ed25519"))
    shutil.copy(ssh / "id_ed25519.pub", ssh / "authorized_keys")
    _run("chown", "-R", ":".join(map(str, _ids(folder / "image" / "upper"))), str(ssh))
    _run("umount", "--recursive", str(root))
    return folder / "image" / "upper"


def _script(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _overlay(folder: Path, name: str, image: Path | None) -> Path:
    """This machine's files as a host sees them; what it changes lies in its own layer."""
    place = folder / name
    for part in ("upper", "work", "root"):
        (place / part).mkdir(parents=True)
    lower = "/" if image is None else f"{image}:/"
    layers = f"lowerdir={lower},upperdir={place / 'upper'},workdir={place / 'work'}"
    _run("mount", "-t", "overlay", "-o", layers, "overlay", str(place / "root"))
    # Other disks are not part of the layer below.
    for path in {_mount_of(p) for p in (Path(sys.base_prefix), _ENVIRONMENT, _ROOT)} - {Path("/")}:
        _run("mount", "--bind", "-o", "ro", str(path), str(place / "root" / path.relative_to("/")))
    (place / "root" / "tmp").chmod(0o1777)
    return place / "root"


def _mount_of(path: Path) -> Path:
    path = path.resolve()
    return next(place for place in (path, *path.parents) if place.is_mount())


def _ids(image: Path) -> tuple[int, int]:
    """The account's numbers, which are the same on all hosts."""
    lines = (image / "etc" / "passwd").read_text().splitlines()
    fields = next(line for line in lines if line.startswith(f"{_USER}:")).split(":")
    return int(fields[2]), int(fields[3])


def _lay_out(home: Path, config: dict[str, Any]) -> None:
    """What `ray up` reads, as it lies in the user's checkout: the file, the wheel, the pins."""
    setup = config["setup_commands"]
    made = next(k for k, line in enumerate(setup) if "-m venv" in line)
    config["setup_commands"] = [*setup[: made + 1], "lend-packages", *setup[made + 1 :]]
    small = f"ray start --num-cpus=1 --object-store-memory={_OBJECT_STORE_BYTES}"
    for kind in ("head_start_ray_commands", "worker_start_ray_commands"):
        config[kind] = [line.replace("ray start", small) for line in config[kind]]
    (home / "on-prem.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    shutil.copy(_ROOT / "constraints.txt", home)
    from onestep.platform.wheel import build_wheel  # Ray is not imported, nor torch

    build_wheel(_ROOT, home / "dist")


def _host(folder: Path, image: Path, shared: Path, *, name: str, address: str) -> Host:
    root = _overlay(folder, name, image)
    boot = _BOOT.format(root=root, shared=shared, name=name, sshd=_which("sshd"))
    process = subprocess.Popen(["unshare", *_APART, "sh", "-c", boot])
    _spaces(process.pid)
    pid, cable = str(process.pid), name.replace("onestep-", "onestep0-")
    _run("ip", "link", "add", cable, "type", "veth", "peer", "name", "eth0", "netns", pid)
    _run("ip", "link", "set", cable, "master", _BRIDGE, "up")
    there = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip")
    _run(*there, "address", "add", f"{address}/24", "dev", "eth0")
    for link in ("eth0", "lo"):
        _run(*there, "link", "set", link, "up")
    return Host(name=name, address=address, process=process)


@final
@dataclass(frozen=True, kw_only=True)
class Desk:
    """Where the user sits: runs commands as the account does, and says how long they took."""

    root: Path

    def start(self, *words: str) -> "subprocess.Popen[str]":
        """Start a command of the environment's."""
        environment = {
            "HOME": f"/home/{_USER}",
            "PATH": f"{_ENVIRONMENT}/bin:/usr/bin:/bin",
            "RAY_AUTH_MODE": "token",
            "RAY_USAGE_STATS_ENABLED": "0",
            "USER": _USER,
        }
        account = (f"--reuid={_USER}", f"--regid={_USER}", "--init-groups")
        line = f"cd && exec {shlex.join(words)}"
        return subprocess.Popen(
            [_which("chroot") or "chroot", str(self.root), "setpriv", *account, "sh", "-c", line],
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


def _go(root: Path, hosts: Sequence[Host], shared: Path) -> int:
    desk, since = Desk(root=root), time.monotonic()
    desk.run("ray", "get-auth-token", "--generate")
    desk.run("ray", "up", "-y", "--no-config-cache", "on-prem.yaml")
    joined = _wait_for_workers(desk, len(hosts))
    print(f"{joined:6.1f} s  until {len(hosts) - 1} workers had joined", flush=True)
    with _forwarded(desk):
        said = desk.run(
            *("onestep", "submit", "--address", "http://127.0.0.1:8265", "--", *_SWEEP),
            within_s=_JOB_S,
        )
    print(said[-1500:])
    _check_sweep(shared, hosts)
    desk.run("ray", "down", "-y", "on-prem.yaml")
    for host in hosts[1:]:
        options = ("-i", ".ssh/id_ed25519", "-o", "StrictHostKeyChecking=accept-new")
        desk.run("ssh", *options, f"{_USER}@{host.address}", 'bash -ic "ray stop"')
    down = time.monotonic()
    while left := {host.address: found for host in hosts if (found := host.programs())}:
        if time.monotonic() - down > _ENDED_S:
            raise RuntimeError(f"after ray down there are on the hosts: {left}")
        time.sleep(_POLL_S)
    print(f"{time.monotonic() - down:6.1f} s  until nothing of it ran on any host")
    print(f"{time.monotonic() - since:6.1f} s  in all", flush=True)
    return 0


def _wait_for_workers(desk: Desk, count: int) -> float:
    """Seconds until each host has given its CPU."""
    since, said = time.monotonic(), ""
    while time.monotonic() - since < _UP_S:
        said = desk.run("ray", "exec", "on-prem.yaml", "ray status", quiet=True)
        if re.search(rf"/{count}\.0 CPU", said):
            return time.monotonic() - since
        time.sleep(_POLL_S)
    raise RuntimeError(f"not all of {count} nodes have joined:\n{said[-4000:]}")


@contextmanager
def _forwarded(desk: Desk) -> Iterator[None]:
    """The head's dashboard, at the desk."""
    process, since = desk.start("ray", "dashboard", "on-prem.yaml"), time.monotonic()
    try:
        while True:
            with suppress(ConnectionRefusedError), socket.create_connection(_DASHBOARD):
                break
            if time.monotonic() - since > _FORWARD_S:
                raise RuntimeError(f"ray dashboard forwards no port within {_FORWARD_S:g} seconds")
            time.sleep(_POLL_S)
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.communicate()


def _check_sweep(shared: Path, hosts: Sequence[Host]) -> None:
    """Refuse a sweep of which a trial is missing, or that only one host has worked on."""
    (table,) = shared.glob("sweeps/*/table.md")
    finished = table.read_text().count("| finished |")
    states = shared.glob("sweeps/*/tune-*/experiment_state-*.json")
    text = "".join(path.read_text() for path in states)
    places = set(re.findall(r"node_ip\W+([\d.]+)", text))
    worked = sorted(host.address for host in hosts if host.address in places)
    print(f"trials that finished: {finished}, on {', '.join(worked)}", flush=True)
    if finished != 3 or len(worked) < 2:
        raise RuntimeError("three trials on at least two hosts were expected")


if __name__ == "__main__":
    sys.exit(main())
