"""The nodes of a cluster: whether all that may hold workers see the folder of the run."""

import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from ..atomic import write_text
from ..experiment import Experiment
from ..ray_instance import ray_instance

_MARKER: Final = ".seen-by-every-node"
CURE: Final = "set ONESTEP_HOME to storage that all nodes mount at the same path"
_WAIT_S: Final = 120.0
"""A node whose first process has to import the package takes a while to answer."""


def check_nodes(experiment: Experiment, folder: Path) -> None:
    """Refuse a cluster whose nodes have a folder of their own in the place of the run's.

    Workers read what the run began from and write checkpoints into its folder. Nodes that an
    autoscaler adds later are not there to be asked.

    Args:
        experiment: What to train.
        folder: Folder of the run; it exists.

    Raises:
        ValueError: If a node that may hold workers does not see the folder.
    """
    workers = experiment.workers
    is_cluster = workers.address or os.environ.get("RAY_ADDRESS") or ray.is_initialized()
    if not (workers.uses_ray and is_cluster):
        return
    with ray_instance(address=workers.address):
        needed = {"CPU": workers.cpus_per_worker, "GPU": workers.gpus_per_worker}
        here = ray.get_runtime_context().get_node_id()
        others = [node for node in ray.nodes() if node["NodeID"] != here and _holds(node, needed)]
        if others:
            _check_marker(others, folder)


def _holds(node: Mapping[str, Any], needed: Mapping[str, float]) -> bool:
    has: Mapping[str, float] = node["Resources"]
    return node["Alive"] and all(has.get(kind, 0.0) >= some for kind, some in needed.items())


def _check_marker(nodes: list[dict[str, Any]], folder: Path) -> None:
    marker, nonce = folder / _MARKER, secrets.token_hex(16)
    write_text(marker, nonce)
    try:
        answers = [
            ray.remote(num_cpus=0, max_retries=0)(content_of)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(marker)
            for node in nodes
        ]
        for node, answer in zip(nodes, answers, strict=True):
            if ray.get(answer, timeout=_WAIT_S) != nonce:
                raise ValueError(
                    f"node {node['NodeManagerHostname']} ({node['NodeManagerAddress']}) does not "
                    f"see the run folder {folder}: {CURE}"
                )
    finally:
        marker.unlink(missing_ok=True)


def content_of(path: Path) -> str | None:
    """What a file holds, as this machine sees it; None where there is none."""
    try:
        return path.read_text()
    except OSError:
        return None
