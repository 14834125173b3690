"""A sweep on a cluster of several nodes, one of which may have another folder than the rest.

python joining.py WHAT HOME

WHAT   groups: trials of two workers on two nodes; or late: there is no node at first, then one
       comes that has an empty folder in the place of the sweeps', and after it has refused a
       trial, another that has none
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import ray

from onestep.platform.ray_instance import set_ray_environment
from onestep.tests.platform.training.two_nodes import MOUNTS, other_machine
from onestep.tests.sweeps.killing import COMMAND, Killing, short_folder

_SMALL: Final = (*COMMAND, "training.samples=12800", "sweep.trials=2")
COMMANDS: Final = {"groups": (*_SMALL, "workers.num_workers=2"), "late": _SMALL}
NODES: Final = {"groups": 2, "late": 0}
"""Those of one CPU that are there at first."""


def add_late(joining: Killing, home: Path) -> None:
    """Add a node that has another folder, and when it has refused a trial, one that has not."""
    joining.until(lambda: joining.groups(), says="a trial that waits for a node")
    with other_machine(joining.cluster.address, MOUNTS["own"].format(home / "sweeps")):
        joining.until(lambda: "is tried again" in joining.said(), says="a refusal")
    joining.until(lambda: sum(one["Alive"] for one in ray.nodes()) == 1, says="the node's end")
    joining.cluster.add_node(num_cpus=1)


def main(arguments: Sequence[str]) -> None:
    """Sweep, and look at what is left."""
    what, home = arguments[0], Path(arguments[1])
    set_ray_environment()
    with short_folder():
        joining = Killing(home, command=COMMANDS[what], nodes=NODES[what])
        try:
            if what == "late":
                add_late(joining, home)
            joining.finish()
        finally:
            joining.close()
    print(json.dumps(joining.seen))


if __name__ == "__main__":
    main(sys.argv[1:])
