"""Hosts that one Linux machine makes of namespaces, for cluster/try_on_prem.py.

Each host has its own network on a bridge, its own processes, and an SSH server of its own on port
22; its file system is this machine's, of which it changes a private copy in memory. The user's desk
is one more such file system. All of it lies within namespaces of this script, so that neither the
machine nor another Ray on it notices, and nothing stays, whatever ends the script.
"""

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

ROOT: Final = Path(__file__).resolve().parent.parent
ENVIRONMENT: Final = Path(sys.prefix)
USER: Final = "onestep"
COMMANDS: Final = ("ray", "mlflow", "optuna-dashboard")
"""Commands of this script's environment that are lent to the hosts."""
_TOOLS: Final = {
    "ip": "iproute2",
    "lsns": "util-linux",
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
_BRIDGE: Final = "onestep0"
_ENDED_S: Final = 30.0
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
cd ~/onestep-env/bin
for name in {commands}; do
    sed "1s|.*|#!$HOME/onestep-env/bin/python|" {scripts}/$name > $name
    chmod +x $name
done
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


def missing() -> str | None:
    """What this machine lacks, as one sentence."""
    if sys.platform != "linux" or os.geteuid() != 0:
        return "namespaces take root on Linux: run it by sudo"
    if sys.version_info[:2] != (3, 11):
        return f"cluster/on-prem.yaml names Python 3.11, got {sys.version.split()[0]}"
    lacking = {name: package for name, package in _TOOLS.items() if not _which(name)}
    if lacking:
        packages = " ".join(sorted(set(lacking.values())))
        return f"it needs {', '.join(lacking)}: apt-get install {packages}"
    if absent := [name for name in COMMANDS if not (_scripts() / name).is_file()]:
        return (
            f"{ENVIRONMENT} lacks {', '.join(absent)}: pip install -c constraints.txt -e '.[dev]'"
        )
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


def run_apart(command: Sequence[str], folder: str) -> int:
    """Run a command in namespaces of its own, and look that nothing of it is left.

    Args:
        command: What makes the hosts in a folder.
        folder: The folder.

    Returns:
        The status of the command, 130 if it was interrupted, and 1 if it left something.
    """
    # Killed with this process, however that ends; and with it everything in its namespaces.
    killed = ("setpriv", "--pdeathsig", "KILL", "unshare", *_APART, "--mount-proc")
    with _started([*killed, *command]) as process:
        spaces = _spaces(process.pid)
        try:
            code = process.wait()
        except KeyboardInterrupt:
            code = 130
    return _look(spaces, folder) or code


@contextmanager
def _started(command: Sequence[str]) -> Iterator["subprocess.Popen[bytes]"]:
    """A process that gets no signal of this terminal, and ends with the block."""
    process = subprocess.Popen(command, start_new_session=True)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def _spaces(pid: int) -> set[str]:
    """The namespaces of network and processes that a process has unshared, once it has."""
    own, until = os.readlink("/proc/self/ns/net"), time.monotonic() + 10
    while time.monotonic() < until:
        here = os.readlink(f"/proc/{pid}/ns/net")
        with suppress(FileNotFoundError):  # until its first process is there
            if here != own:
                return {here, os.readlink(f"/proc/{pid}/ns/pid_for_children")}
        time.sleep(0.01)
    raise TimeoutError("unshare did not start")


def _processes(space: str) -> list[str]:
    """Names of what runs in a namespace, which is given as in `pid:[4026531836]`."""
    number = "".join(filter(str.isdigit, space))
    command = ["lsns", "--noheadings", "--raw", "--output", "PID", number]
    found = subprocess.run(command, capture_output=True, text=True, check=False).stdout.split()
    names = []
    for pid in found:
        with suppress(OSError):  # ended meanwhile
            names.append(Path("/proc", pid, "comm").read_text().strip())
    return sorted(names)


def _look(spaces: set[str], folder: str) -> int:
    """Say what is left on this machine of what was started; 0 if nothing is."""
    until = time.monotonic() + _ENDED_S
    while (left := _left(spaces, folder)) and time.monotonic() < until:
        time.sleep(0.1)  # the kernel ends one namespace after the other
    print(f"left on this machine: {', '.join(left) or 'nothing'}", flush=True)
    return 1 if left else 0


def _left(spaces: set[str], folder: str) -> list[str]:
    left = [f"process {name}" for space in spaces for name in _processes(space)]
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
        return [name for name in _processes(space) if not name.startswith("sshd")]


@final
@dataclass(frozen=True, kw_only=True)
class Laboratory:
    """The hosts and what belongs to them.

    Attributes:
        hosts: The machines.
        desk: The user's file system, with the account's home and its key.
        shared: What all hosts have at /mnt/onestep.
    """

    hosts: tuple[Host, ...]
    desk: Path
    shared: Path


def make_hosts(folder: Path, addresses: Sequence[str]) -> Laboratory:
    """Make hosts with addresses of one network; in namespaces of this process's own.

    Args:
        folder: Where all of it lies, in memory.
        addresses: One for each host.

    Returns:
        The hosts, which end with the namespaces of this process.
    """
    _run("mount", "-t", "tmpfs", "-o", "size=4g", "tmpfs", str(folder))
    image = _image(folder, addresses)
    desk = _overlay(folder, "desk", image)
    _run("mount", "--bind", "/proc", f"{desk}/proc")
    _run("mount", "--rbind", "/dev", f"{desk}/dev")
    shared = folder / "shared"
    shared.mkdir()
    shared.chmod(0o777)
    _run("ip", "link", "set", "lo", "up")
    _run("ip", "link", "add", _BRIDGE, "type", "bridge")
    _run("ip", "address", "add", f"{addresses[0].rpartition('.')[0]}.1/24", "dev", _BRIDGE)
    _run("ip", "link", "set", _BRIDGE, "up")
    hosts = [
        _host(folder, image, shared, name=f"onestep-{k}", address=address)
        for k, address in enumerate(addresses)
    ]
    return Laboratory(hosts=tuple(hosts), desk=desk, shared=shared)


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


def _image(folder: Path, addresses: Sequence[str]) -> Path:
    """The layer that all hosts have over this machine's files: an account, a key, names."""
    root = _overlay(folder, "image", None)
    etc, local = root / "etc", root / "usr" / "local" / "bin"
    _name(etc, addresses)
    _add_account(root)
    (etc / "ssh" / "onestep_sshd").write_text(_SSHD)
    (etc / "pip.conf").write_text("[global]\nno-index = true\ndisable-pip-version-check = true\n")
    lend = _LEND.format(
        packages=sysconfig.get_path("purelib"), scripts=_scripts(), commands=shlex.join(COMMANDS)
    )
    _script(local / "lend-packages", lend)
    # No link: an environment made by one would look for its library beside it.
    _script(local / "python3.11", f'#!/bin/sh\nexec {sys.base_prefix}/bin/python3.11 "$@"\n')
    for place in (Path(sys.base_prefix), ENVIRONMENT, ROOT):
        _open_to_all(root, place)
    _run("umount", "--recursive", str(root))
    return folder / "image" / "upper"


def _name(etc: Path, addresses: Sequence[str]) -> None:
    names = [f"{address} onestep-{k}\n" for k, address in enumerate(addresses)]
    (etc / "hosts").write_text("".join(["127.0.0.1 localhost\n", *names]))
    # Nobody to ask for others: known at once, not in ten seconds.
    (etc / "resolv.conf").unlink(missing_ok=True)
    (etc / "resolv.conf").touch()


def _add_account(root: Path) -> None:
    """The account, and the keys of it and of the hosts."""
    inside = ("chroot", str(root))
    _run(*inside, "useradd", "--create-home", "--shell", "/bin/bash", USER)
    _run(*inside, "usermod", "--password", "*", USER)  # by key alone, and not locked
    ssh = f"/home/{USER}/.ssh"
    _run(*inside, "install", "--directory", "--mode=700", f"--owner={USER}", ssh)
    for key in ("/etc/ssh/onestep_key", f"{ssh}/id_ed25519"):
        _run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", f"{root}{key}")
    _run(*inside, "cp", f"{ssh}/id_ed25519.pub", f"{ssh}/authorized_keys")
    _run(*inside, "chown", "--recursive", f"{USER}:", ssh)


def _open_to_all(root: Path, place: Path) -> None:
    """Let the account read a folder that only its owner may look into, perhaps."""
    for above in (place, *place.parents):
        inside = root / above.relative_to("/")
        inside.chmod(inside.stat().st_mode | (0o055 if above == place else 0o711))


def _overlay(folder: Path, name: str, image: Path | None) -> Path:
    """This machine's files as a host sees them; what it changes lies in its own layer."""
    place = folder / name
    for part in ("upper", "work", "root"):
        (place / part).mkdir(parents=True)
    lower = "/" if image is None else f"{image}:/"
    layers = f"lowerdir={lower},upperdir={place / 'upper'},workdir={place / 'work'}"
    _run("mount", "-t", "overlay", "-o", layers, "overlay", str(place / "root"))
    # Other disks are not part of the layer below.
    for path in {_mount_of(p) for p in (Path(sys.base_prefix), ENVIRONMENT, ROOT)} - {Path("/")}:
        _run("mount", "--bind", "-o", "ro", str(path), str(place / "root" / path.relative_to("/")))
    (place / "root" / "tmp").chmod(0o1777)
    return place / "root"


def _mount_of(path: Path) -> Path:
    path = path.resolve()
    return next(place for place in (path, *path.parents) if place.is_mount())


def _script(path: Path, text: str) -> None:
    path.unlink(missing_ok=True)
    path.write_text(text)
    path.chmod(0o755)


def _scripts() -> Path:
    return Path(sysconfig.get_path("scripts"))


def _which(name: str) -> str | None:
    return shutil.which(name, path=_SEARCHED)


def _run(*command: str) -> None:
    subprocess.run(command, check=True)
