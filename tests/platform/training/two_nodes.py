"""A cluster of two nodes of one CPU each, in a process of its own.

    python two_nodes.py WHAT HOW FOLDER

Two workers of one CPU each fill both nodes. What a refusal says is printed.
    WHAT   check, train without asking first, or both; or count the mailboxes that are here; or
           time a second check of the folder
    HOW    own: the second node has a folder of its own in the place of the run's; read-only: it
           may not write into it; stopped: its raylet is; or same
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import ray
from ray.cluster_utils import Cluster

from onestep.platform.experiment import Experiment
from onestep.platform.ray_instance import ray_instance, set_ray_environment
from onestep.platform.shared_storage import check_shared
from onestep.platform.training.nodes import check_nodes
from onestep.platform.training.ray_train import mailbox_here, train_with_ray
from onestep.platform.training.reporter import MemoryReporter
from onestep.tests.platform.training.recipe import DIGITS, MEAN_FLOW, recipe

MOUNTS = {
    "own": "mount -t tmpfs none {0}",
    "read-only": "mount --bind {0} {0} && mount -o remount,bind,ro {0}",
}


@contextmanager
def other_machine(address: str, mount: str) -> Iterator[None]:
    """A node with mounts of its own."""
    start = (
        f"{sys.executable} -m ray.scripts.scripts start --address={address} --num-cpus=1 --block"
    )
    node = subprocess.Popen(
        ["unshare", "--mount", "sh", "-c", f"{mount} && exec {start}"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(node.pid, signal.SIGTERM)
        node.wait()


@contextmanager
def same_machine(cluster: Cluster, *, is_stopped: bool = False) -> Iterator[None]:
    """A node for which everything is where it is for the first."""
    node = cluster.add_node(num_cpus=1)
    (raylet,) = node.all_processes["raylet"]
    if is_stopped:
        raylet.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        raylet.process.send_signal(signal.SIGCONT)


def mailboxes_here(count: int) -> int:
    """How many of some mailboxes are on the node of this process."""
    boxes = [mailbox_here() for _ in range(count)]
    ray.get([box.take.remote() for box in boxes])
    here = ray.get_runtime_context().get_node_id()
    actors = ray._private.state.actors().values()  # Ray tells it only where it has a dashboard
    return sum(actor["Address"]["NodeID"] == here for actor in actors)


def main(what: str, how: str, folder: Path) -> None:
    """Start both nodes, connect to the first, and check or train."""
    experiment = Experiment.from_dict(
        recipe(MEAN_FLOW, steps=4, data=DIGITS) | {"workers": {"num_workers": 2, "max_failures": 0}}
    )
    set_ray_environment()
    place = tempfile.mkdtemp(prefix="os-")  # Ray's sockets need a short path
    os.environ["RAY_TMPDIR"] = place  # where it notes the address, in a folder that is there
    (Path(place) / "ray").mkdir()
    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 1, "temp_dir": place, "include_dashboard": False},
    )
    if how in MOUNTS:
        second = other_machine(cluster.address, MOUNTS[how].format(folder))
    else:
        second = same_machine(cluster, is_stopped=how == "stopped")
    try:
        with second, ray_instance(address=cluster.address):
            while sum(node["Alive"] for node in ray.nodes()) < 2:
                time.sleep(0.2)
            if what == "count":
                print(mailboxes_here(4))
            if what == "time":
                check_shared(folder, within_s=20.0)
                since = time.monotonic()
                check_shared(folder)
                print(time.monotonic() - since)
            if what in ("check", "both"):
                check_nodes(experiment, folder)
            if what in ("train", "both"):
                print(train_with_ray(experiment, folder=folder, reporter=MemoryReporter()).name)
    except ValueError as error:
        print(f"{type(error).__name__}: {error}")
    finally:
        cluster.shutdown()
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
