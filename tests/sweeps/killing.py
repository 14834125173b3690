"""A sweep on a cluster of several nodes, of which something is killed while it runs.

    python killing.py WHAT HOME

The real command line sweeps in a process of its own; what is killed by SIGKILL when the second
trial has kept four checkpoints is said in KILLS. What was seen is printed as JSON.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final, final

import ray
from ray.cluster_utils import Cluster
from ray.util import placement_group_table

from onestep.platform.ray_instance import set_ray_environment

COMMAND: Final = (
    "sweep",
    "resume=auto",
    "data=eight_gaussians",
    "data.samples=2000",
    "data.held_out=400",
    "net=mlp",
    "net.width=16",
    "training.samples=76800",
    "training.batch_size=64",
    "training.checkpoint_every=3200",
    "training.log_every=3200",
    "evaluation.nfes=[1]",
    "evaluation.samples=64",
    "sweep.trials=3",
    "sweep.concurrency=1",
    "sweep.startup=1",
)
VICTIM: Final = 1
_COORDINATOR: Final = "_AutoscalingCoordinatorActor"
_WITHIN_S: Final = 600.0
_TRIAL: Final = (b"SteppedTrial", b"ResourceTrainable", b"RayTrainWorker")
"""What Ray calls a process that runs a trial, or works for one."""


@final
class Killing:
    """A cluster with a head that has no CPUs and nodes that have one, and a sweep on it.

    Args:
        home: Home of the sweep.
        command: The sweep.
        nodes: How many there are from the beginning on.
    """

    def __init__(self, home: Path, *, command: Sequence[str] = COMMAND, nodes: int = 1) -> None:
        self._home, self._command, self._count = home, command, nodes
        self.seen = dict[str, Any]()
        self.cluster, self._nodes = self._up()
        self._driver = self._start()

    def _up(self) -> tuple[Cluster, list[Any]]:
        place = tempfile.mkdtemp(prefix="os-", dir=os.environ["RAY_TMPDIR"])
        arguments = {"num_cpus": 0, "temp_dir": place, "include_dashboard": False}
        cluster = Cluster(initialize_head=True, head_node_args=arguments)
        nodes = [cluster.add_node(num_cpus=1) for _ in range(self._count)]
        ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
        return cluster, nodes

    def _start(self) -> subprocess.Popen[str]:
        with (self._home / "said").open("a") as said:
            return subprocess.Popen(
                [sys.executable, "-m", "onestep.platform.cli", *self._command],
                cwd=self._home,
                env={**os.environ, "RAY_ADDRESS": self.cluster.address},
                stdout=said,
                stderr=subprocess.PIPE,
                text=True,
            )

    def until(self, is_so: Callable[[], object], *, says: str) -> None:
        """Wait for something."""
        end = time.monotonic() + _WITHIN_S
        while not is_so():
            assert time.monotonic() < end, f"{says} was waited for in vain: {self.seen}"
            time.sleep(0.02)

    def wait_for_victim(self) -> None:
        """Wait until the trial that is to be hit has kept its fourth checkpoint."""
        pattern = f"sweeps/*/trials/{VICTIM}/checkpoints/step-{200:010d}"
        self.until(
            lambda: self._driver.poll() is not None or any(self._home.glob(pattern)),
            says="a checkpoint",
        )
        assert self._driver.poll() is None, self._driver.communicate()[1]
        assert trials_alive(self._home), "it is seen while it runs"

    def actors(self) -> list[dict[str, Any]]:
        """The actors of the cluster that are not dead, but the one that Ray Train leaves to all."""
        known = ray._private.state.actors().values()  # Ray's own list needs a dashboard
        return [
            actor
            for actor in known
            if actor["State"] != "DEAD" and actor["ActorClassName"] != _COORDINATOR
        ]

    def groups(self) -> list[dict[str, Any]]:
        """The placement groups of the cluster that have not been removed."""
        known = placement_group_table().values()
        return [group for group in known if group["state"] != "REMOVED"]

    def kill_trial(self) -> None:
        """Kill the process in which the trial runs."""
        (actor,) = self.actors()
        os.kill(actor["Pid"], signal.SIGKILL)

    def kill_node(self) -> None:
        """Kill the node on which the trial runs; another comes later."""
        self.cluster.remove_node(*self._nodes, allow_graceful=False)
        self.until(
            lambda: [group["state"] for group in self.groups()] == ["PENDING"],
            says="a group that waits for a node",
        )
        time.sleep(5.0)
        self.seen["waits"] = self._driver.poll() is None
        self.cluster.add_node(num_cpus=1)

    def kill_driver(self) -> None:
        """Kill the process of the sweep; the same command is given when it has left nothing."""
        self._driver.send_signal(signal.SIGKILL)
        self.seen["first"] = self._driver.wait()
        self.until(lambda: not self.actors() and not self.groups(), says="the end of all actors")
        self._driver = self._start()

    def kill_head(self) -> None:
        """Kill all of the head; the same command is given when there is another cluster."""
        ray.shutdown()
        head = self.cluster.head_node.all_processes
        for name in ("gcs_server", "raylet"):
            os.kill(head[name][0].process.pid, signal.SIGKILL)
        since = time.monotonic()
        self.seen["sentence"] = self._driver.communicate(timeout=_WITHIN_S)[1]
        self.seen["first"] = self._driver.returncode
        self.seen["seconds"] = time.monotonic() - since
        self.cluster.shutdown()
        self.cluster, self._nodes = self._up()
        self._driver = self._start()

    def said(self) -> str:
        """What the sweep has said until now."""
        return (self._home / "said").read_text()

    def finish(self) -> None:
        """Wait for the end of the sweep, and look for what it has left behind."""
        self.seen["errors"] = self._driver.communicate(timeout=_WITHIN_S)[1]
        self.seen["last"] = self._driver.returncode
        self.until(lambda: not self.actors() and not self.groups(), says="the end of all actors")
        self.until(lambda: not trials_alive(self._home), says="the end of all trials")

    def close(self) -> None:
        """End what is still there."""
        if self._driver.poll() is None:
            self._driver.kill()
        ray.shutdown()
        self.cluster.shutdown()


def trials_alive(home: Path) -> list[int]:
    """Processes that run a trial of this home, whatever has become of their parents."""
    found, wanted = [], f"ONESTEP_HOME={home}".encode()
    for process in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):  # it has ended meanwhile, or is somebody else's
            name = (process / "cmdline").read_bytes()
            if any(one in name for one in _TRIAL) and wanted in (
                process / "environ"
            ).read_bytes().split(b"\0"):
                found.append(int(process.name))
    return found


KILLS: Final[dict[str, Callable[[Killing], None]]] = {
    "trial": Killing.kill_trial,
    "node": Killing.kill_node,
    "driver": Killing.kill_driver,
    "head": Killing.kill_head,
}


@contextmanager
def short_folder() -> Iterator[None]:
    """A place for Ray's files, whose sockets need a short path."""
    place = tempfile.mkdtemp(prefix="os-")
    os.environ["RAY_TMPDIR"] = place
    (Path(place) / "ray").mkdir()
    try:
        yield
    finally:
        shutil.rmtree(place, ignore_errors=True)


def main(arguments: Sequence[str]) -> None:
    """Sweep, kill, and wait for the end."""
    what, home = arguments[0], Path(arguments[1])
    set_ray_environment()
    with short_folder():
        killing = Killing(home)
        try:
            killing.wait_for_victim()
            KILLS[what](killing)
            killing.finish()
        finally:
            killing.close()
    print(json.dumps(killing.seen))


if __name__ == "__main__":
    main(sys.argv[1:])
